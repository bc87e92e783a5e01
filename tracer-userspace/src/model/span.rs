//! A span: an exchange with its place in a trace.

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use super::{Exchange, Service};

/// W3C trace id, big-endian bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct TraceId(pub [u8; 16]);

/// W3C parent id, big-endian bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct SpanId(pub [u8; 8]);

/// How sure a parent is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Confidence {
    /// A guess above the threshold.
    Inferred,
    /// Rests on a rule that can be wrong.
    Likely,
    /// Rests on identity.
    Certain,
}

impl Confidence {
    /// Value of `tracer.parent.confidence`, which spans leave out where the parent is certain.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inferred => "inferred",
            Self::Likely => "likely",
            Self::Certain => "certain",
        }
    }
}

/// The rule that chose a parent.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Evidence {
    /// E1: trace context in the request.
    Header,
    /// E2: both ends of the connection were seen.
    Message,
    /// E3: same runtime task, or one it spawned.
    Task,
    /// E4: same thread with one request open.
    Thread,
    /// E5: event loop, the write follows the read.
    Loop,
    /// E7: loop that works in batches, first in, first out.
    Queue,
    /// E3 of event loops: the ids of asynchronous resources.
    AsyncIds,
    /// E6: the unit that took the call's connection, handed that on, or was woken by who called for it.
    Acquirer,
    /// E8: times alone, all calls of a window at once.
    Timing,
}

impl Evidence {
    /// Value of `tracer.parent.evidence`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Message => "message",
            Self::Task => "task",
            Self::Thread => "thread",
            Self::Loop => "loop",
            Self::Queue => "queue",
            Self::AsyncIds => "async_ids",
            Self::Acquirer => "acquirer",
            Self::Timing => "timing",
        }
    }
}

/// A span link.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Link {
    /// Trace of the linked span.
    pub trace_id: TraceId,
    /// The linked span.
    pub span_id: SpanId,
    /// Why (`tracer.link.reason`).
    pub reason: &'static str,
}

/// One span, ready for export.
#[derive(Clone, Debug)]
pub struct Span {
    /// Trace.
    pub trace_id: TraceId,
    /// Identity.
    pub span_id: SpanId,
    /// Parent, if any.
    pub parent: Option<SpanId>,
    /// Whether the parent lies in another process than the exchange's own (a remote parent: the caller's span).
    pub parent_is_remote: bool,
    /// The evidence and confidence of the parent.
    pub evidence: Option<(Evidence, Confidence)>,
    /// W3C `tracestate`, may be empty.
    pub trace_state: Box<str>,
    /// Links.
    pub links: Vec<Link>,
    /// What happened.
    pub exchange: Box<Exchange>,
    /// Whose span it is.
    pub service: Arc<Service>,
}
