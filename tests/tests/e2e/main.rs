//! The tracer on real programs. One executable, so that it is linked once; a module for each subject.

mod applications;
mod backends;
mod budget;
mod callers;
mod chain;
mod clients;
mod context;
mod databases;
mod dns;
mod explain;
mod export;
mod jobs;
mod lifecycle;
mod load;
mod metrics;
mod names;
mod queue;
mod replay;
mod sampling;
mod servers;
mod short_lived;
mod wire;
