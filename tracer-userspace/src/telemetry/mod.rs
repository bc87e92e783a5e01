//! The tracer's own counters: the loss ledger.

mod ledger;

pub use ledger::{Ledger, Reason, Snapshot};
