//! Spans leave the daemon, to several backends at once: `registry.rs` lists the exporters.
//!
//! Every exporter has a thread and a bounded queue of its own, so a slow one holds up neither the daemon nor the others. Spans that
//! do not fit are dropped and counted.
//!
//! **The ledger.** A span counts as exported once the last exporter that *decides* has delivered it. All of them do, also
//! the console in JSON format, whose lines are a product. The waterfall is a view for people, which leaves out whole traces when
//! there are more than anyone can read: it decides only where it is the only exporter.

mod accounts;
mod body;
mod buffer;
mod clock;
#[cfg(feature = "cloudtrace")]
mod cloudtrace;
mod config;
mod console;
mod delivery;
mod disk;
mod elastic;
mod file;
mod http;
mod intake;
pub mod metrics;
mod otlp;
mod pipeline;
mod registry;
mod renew;
mod restore;
mod retry;
mod shape;
mod tls;
mod worker;
#[cfg(feature = "xray")]
mod xray;
mod zipkin;

#[cfg(test)]
pub(crate) mod fixtures;

pub use clock::Clock;
pub use config::{Colour, Compression, Config, Console, Format, Headers, NAMES, Otlp, Queue, Retry};
pub use opentelemetry_otlp::Protocol;
pub use otlp::Encoding;
pub use pipeline::{Left, Pipeline};
