//! End-to-end tests of the tracer with real programs on the real kernel.
//!
//! A test takes the [`Host`] (one test at a time: they share two cores), starts applications ([`apps`]), starts the
//! daemon on them ([`Host::trace`]), drives them with a client, stops the daemon and judges what arrived at the in-test
//! OTLP collector. [`Tracer::finish`] asserts that the loss ledger balances, so every test does.
//!
//! `cargo xtask test --e2e [filter]` installs what is needed, builds the daemon and runs them.

pub mod apps;
pub mod client;
pub mod collector;
pub mod daemon;
pub mod host;
pub mod judge;
pub mod ledger;
pub mod mesh;
pub mod metrics;
pub mod process;
pub mod span;

pub use client::{Client, Record};
pub use collector::{Collector, Fault, Transport};
pub use daemon::{Finished, Selection, Tracer};
pub use host::Host;
pub use ledger::Ledger;
pub use process::{Program, free_port};
pub use span::{Kind, Span, Spans, Value};
