//! The tracer daemon as a library: the stages of `ARCHITECTURE.md`, joined by [`agent`].

pub mod agent;
pub mod allocator;
pub mod attach;
pub mod cli;
pub mod config;
#[forbid(unsafe_code)]
pub mod correlate;
pub mod discover;
pub mod export;
#[forbid(unsafe_code)]
pub mod flow;
pub mod kernel;
mod mapping;
#[forbid(unsafe_code)]
pub mod metrics;
#[forbid(unsafe_code)]
pub mod model;
#[forbid(unsafe_code)]
pub mod protocol;
#[forbid(unsafe_code)]
pub mod record;
#[forbid(unsafe_code)]
pub mod sample;
pub mod source;
pub mod telemetry;
