//! The tracer's own counters: the loss ledger, and how its parts are.

mod health;
mod ledger;

pub use health::{Budget, Health, Program};
pub use ledger::{Account, Delivered, Disk, Ledger, Reason, Snapshot};
