//! The tracer daemon as a library: the stages of `ARCHITECTURE.md`, joined by [`agent`].

pub mod correlate;
pub mod export;
pub mod flow;
pub mod model;
pub mod protocol;
pub mod telemetry;
