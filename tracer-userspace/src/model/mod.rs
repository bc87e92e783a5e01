//! Plain data that the stages hand to each other. No I/O, no unsafe, no knowledge of any stage.

mod attributes;
mod chunk;
mod conn;
mod context;
mod exchange;
mod metric;
mod process;
mod signal;
mod span;
mod unit;

pub use attributes::{Attributes, Key, Value};
pub use chunk::{Chunk, Close};
pub use conn::{Address, Conn, ConnId, Endpoint, MessageIdentity};
pub use context::TraceContext;
pub use exchange::{Exchange, ExchangeId, Outcome, Role};
pub use metric::{
    Bounds, Distribution, Exemplar, Exponential, Family, Gather, Instrument, InstrumentKind, Label, Labels,
    Point, Reading,
};
pub use process::{Language, Resource, Service};
pub use signal::{Act, Begin, Deed, Job, Signal, SignalKind, Taken, ThreadEnd, Wake};
pub use span::{Confidence, Evidence, Link, Span, SpanId, TraceId};
pub use unit::{
    BY_LOOP, CONNECTION_UNIT, Mark, Nanos, PLACE_UNIT, REUSED_TASK, Runs, STALE, Stamp, Submitters,
    THREAD_UNIT, Task, Turn, UNSURE, Unit,
};
