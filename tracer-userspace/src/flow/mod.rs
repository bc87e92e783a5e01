//! Connections as ordered byte streams: which chunk comes next, what is missing, what is too old to keep.

mod order;
mod table;

pub use order::{Order, Stream};
pub use table::{Flow, Place, Table};
