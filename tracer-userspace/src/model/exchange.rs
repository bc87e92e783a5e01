//! A request and its response, seen from one end of a connection.

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use super::{Attributes, Conn, Nanos, Stamp, TraceContext};

/// Unique within one run of the daemon.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct ExchangeId(pub u64);

/// Which part this end played.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Role {
    /// Sent the request.
    Client,
    /// Answered it.
    Server,
    /// Sent a message without waiting for an answer to it.
    Producer,
    /// Received such a message.
    Consumer,
}

impl Role {
    /// Whether this end received the request.
    #[must_use]
    pub const fn is_inbound(self) -> bool {
        matches!(self, Self::Server | Self::Consumer)
    }

    /// The span kind in lower case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Server => "server",
            Self::Producer => "producer",
            Self::Consumer => "consumer",
        }
    }
}

/// Whether the exchange failed, and why.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum Outcome {
    /// No failure (span status Unset).
    #[default]
    Unset,
    /// Failed: the low-cardinality `error.type` (status code, SQLSTATE, errno name) and a message for people, if any.
    Error {
        /// Value of `error.type`.
        kind: Box<str>,
        /// Span status description, may be empty.
        message: Box<str>,
    },
}

/// One finished exchange. Attributes hold what the protocol knows, by the semantic conventions; attributes that any
/// exchange has (addresses, ports, sizes, `error.type`, timing) are added by the exporter from the fields here.
#[derive(Clone, Debug)]
pub struct Exchange {
    /// Identity.
    pub id: ExchangeId,
    /// The connection's end that saw it.
    pub conn: Arc<Conn>,
    /// Registry name of the protocol (`http1`, `postgresql`, `redis`).
    pub protocol: &'static str,
    /// Which part this end played.
    pub role: Role,
    /// First byte of the request, moved by whom.
    pub start: Stamp,
    /// First byte of the response, moved by whom; `None` without a response.
    pub first_byte: Option<Stamp>,
    /// Last byte of the response (or what ended the exchange without one).
    pub end: Stamp,
    /// How long the request waited in the socket buffer before its first read, if known (server ends).
    pub queue_time: Option<Nanos>,
    /// Bytes of the request on the wire.
    pub request_bytes: u64,
    /// Bytes of the response on the wire.
    pub response_bytes: u64,
    /// Span name (SPANS: low cardinality); exchanges of one connection may share it.
    pub name: Arc<str>,
    /// Failure, if any.
    pub outcome: Outcome,
    /// What the protocol knows.
    pub attributes: Attributes,
    /// Trace context that the request carried.
    pub context: Option<Arc<TraceContext>>,
}
