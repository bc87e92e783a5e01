//! What the protocol stage tells the correlation stage, in time order.

use std::sync::Arc;

use super::{Conn, Exchange, ExchangeId, MessageIdentity, Nanos, Role, Stamp, TraceContext};

/// An exchange has begun: its request was recognised.
#[derive(Clone, Debug)]
pub struct Begin {
    /// The exchange.
    pub id: ExchangeId,
    /// The connection's end that saw it.
    pub conn: Arc<Conn>,
    /// Which part this end plays.
    pub role: Role,
    /// Registry name of the protocol.
    pub protocol: &'static str,
    /// First byte of the request.
    pub start: Stamp,
    /// Where the request's first byte stands in the stream, if the socket tells.
    pub identity: Option<MessageIdentity>,
    /// Trace context that the request carries.
    pub context: Option<TraceContext>,
}

/// One signal. Signals of one exchange come in order: one `Begin`, at most one `Respond`, one `End` or `Drop`.
#[derive(Clone, Debug)]
pub struct Signal {
    /// When it became known: the time of the chunk that told. Signals are ordered by this.
    pub ts: Nanos,
    /// What happened.
    pub kind: SignalKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum SignalKind {
    /// A request was recognised.
    Begin(Box<Begin>),
    /// The request's last byte has been moved (it may come after `Respond`).
    RequestEnd(ExchangeId, Stamp),
    /// The first byte of the response was moved.
    Respond(ExchangeId, Stamp),
    /// The exchange is over.
    End(Box<Exchange>),
    /// The exchange is over and nothing true can be said about it (its bytes were lost); it was counted.
    Drop(ExchangeId, crate::telemetry::Reason),
}
