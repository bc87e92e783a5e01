//! Trace context carried by a request (evidence E1).

use super::{SpanId, TraceId};

/// What a request's headers say about the trace it belongs to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TraceContext {
    /// Trace.
    pub trace_id: TraceId,
    /// The caller's span. `None` where the format names a trace only.
    pub span_id: Option<SpanId>,
    /// Whether the caller sampled; `None` if it left that open.
    pub sampled: Option<bool>,
    /// W3C `tracestate`, verbatim, empty if absent.
    pub trace_state: Box<str>,
    /// The header it came from (`traceparent`, `b3`, …).
    pub format: &'static str,
}
