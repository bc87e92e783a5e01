//! End-to-end tests of the tracer with real programs.
