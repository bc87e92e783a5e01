//! Protocols: from ordered bytes of a connection to exchanges.
//!
//! A protocol is one file or folder here and one line in [`REGISTRY`]. Registration enrols it in the generic tests
//! (`tests.rs`): every capture under `captures/<name>/` yields what its expectation says, whole and split at every byte;
//! truncation and gaps never panic; no other protocol claims its captures.

pub mod context;
mod conversation;
mod depth;
mod dns;
mod fastcgi;
pub mod http1;
mod output;
mod postgresql;
pub mod redact;
mod redis;
pub mod replay;
pub mod route;
pub mod semconv;
mod session;
mod sql;
#[cfg(test)]
mod tests;

pub use conversation::Conversation;
pub use output::{CapturePolicy, Output, Started};
pub use session::{Detect, MAX_BUFFER, Marks, Prefix, Protocol, Session, Side, Transport};

/// Every protocol. Detection does not depend on the order.
pub static REGISTRY: &[&dyn Protocol] = &[
    &dns::Dns,
    &dns::DnsOverTcp,
    &http1::Http1,
    &postgresql::Postgresql,
    &redis::Redis,
    &fastcgi::Fastcgi,
];

/// The registered protocol of that name.
#[must_use]
pub fn by_name(name: &str) -> Option<&'static dyn Protocol> {
    REGISTRY.iter().copied().find(|p| p.name() == name)
}
