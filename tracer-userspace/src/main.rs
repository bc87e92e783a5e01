//! The `tracer` daemon.

fn main() {}
