//! The tracer daemon as a library: the stages of `ARCHITECTURE.md`, joined by [`agent`].

pub mod attach;
pub mod correlate;
pub mod discover;
pub mod export;
pub mod flow;
pub mod kernel;
pub mod model;
pub mod protocol;
pub mod source;
pub mod telemetry;
