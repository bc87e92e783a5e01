//! Redis: RESP2 and RESP3 (Redis serialization protocol specification), and what else speaks it (Valkey, KeyDB, Dragonfly).
//!
//! Each command is one exchange, from the first byte of the command to the last of its reply, also in a pipeline and
//! between MULTI and EXEC (whose replies are `+QUEUED`, and the array). SUBSCRIBE ends with its last confirmation;
//! messages and other pushes belong to no exchange. A command that asks for no reply (CLIENT REPLY OFF) ends with its
//! own last byte. After MONITOR, SYNC and PSYNC the connection carries no replies any more and is left alone.
//!
//! Of arguments, only their number is kept, and the words that are commands themselves (`CONFIG GET`).
//!
//! What is put into lists, sorted sets and streams and taken out again is told as jobs, by a hash ([`jobs`]).
//!
//! A reply is followed by its lengths. RESP has no mark at the end of a reply, so where the headers inside a large array
//! were not captured, the reply is taken to end with the last byte before the next command; the next large one is captured
//! deeper.

mod command;
mod detect;
mod exchange;
mod jobs;
mod reply;
mod request;
mod resp;
mod session;

use std::sync::Arc;

use super::{Detect, Prefix, Protocol, Session, Side};
use crate::model::Conn;

/// The protocol.
pub struct Redis;

impl Protocol for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn detect(&self, prefix: Prefix<'_>) -> Detect {
        detect::detect(prefix)
    }

    fn open(&self, conn: &Arc<Conn>, local: Side) -> Box<dyn Session> {
        Box::new(session::RedisSession::new(conn, local))
    }
}

const NAME: &str = "redis";
