//! Spans leave the daemon: OTLP over gRPC or HTTP, and standard output.
//!
//! Every exporter has a thread and a bounded queue of its own, so a slow one holds up neither the daemon nor the others. Spans that
//! do not fit are dropped and counted.
//!
//! **The ledger.** A span counts as exported once the last exporter that *decides* has delivered it. OTLP decides, and so does
//! the console in JSON format, whose lines are a product. The waterfall is a view for people, which leaves out whole traces when
//! there are more than anyone can read: it decides only where it is the only exporter.

mod accounts;
mod buffer;
mod clock;
mod config;
mod console;
mod env;
mod intake;
pub mod metrics;
mod otlp;
mod pipeline;
mod shape;
mod worker;

#[cfg(test)]
pub(crate) mod fixtures;

pub use clock::Clock;
pub use config::{Colour, Compression, Config, Console, Format, Headers, Otlp, Queue, Retry};
pub use opentelemetry_otlp::Protocol;
pub use otlp::Encoding;
pub use pipeline::{Left, Pipeline};
