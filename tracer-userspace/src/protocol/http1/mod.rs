//! HTTP/1.0 and HTTP/1.1 (RFC 9110, RFC 9112).
//!
//! A connection has two lanes, the client's and the server's, each at a place in its current message: in a head, in a body, or
//! somewhere unknown after bytes were lost. Requests wait in a queue for their responses, which come in the same order. Heads
//! are read in one pass; bodies are counted, and the kernel is asked to capture no more than heads need.

mod body;
mod exchange;
mod feeds;
mod framing;
mod head;
mod last;
mod lengths;
mod line;
mod looks;
mod positions;
mod queue;
pub(super) mod request;
mod requests;
mod responses;
mod session;
mod sizing;
mod target;
#[cfg(test)]
mod tests;
mod whole;

use std::sync::Arc;

use super::{Detect, Prefix, Protocol, Session, Side};
use crate::model::Conn;
use looks::{Looks, looks_like_request, looks_like_response};

/// Registry name.
pub const NAME: &str = "http1";

/// HTTP/1.
pub struct Http1;

impl Protocol for Http1 {
    fn name(&self) -> &'static str {
        NAME
    }

    /// Yes once the first line is whole: no other protocol has lines that end or begin with `HTTP/1.`.
    fn detect(&self, prefix: Prefix<'_>) -> Detect {
        // A server skips empty lines before a request line (RFC 9112 section 2.2).
        let bytes = prefix.bytes;
        let blank = bytes
            .iter()
            .take(8)
            .take_while(|b| matches!(b, b'\r' | b'\n'))
            .count();
        let bytes = bytes.get(blank..).unwrap_or_default();
        match (looks_like_request(bytes), looks_like_response(bytes)) {
            (Looks::Yes, _) => Detect::Yes { sender: Side::Client },
            (_, Looks::Yes) => Detect::Yes { sender: Side::Server },
            (Looks::No, Looks::No) => Detect::No,
            _ => Detect::NeedMore,
        }
    }

    fn open(&self, _conn: &Arc<Conn>, local: Side) -> Box<dyn Session> {
        Box::new(session::Http1Session::new(local))
    }
}
