//! PostgreSQL, protocol version 3 (PostgreSQL manual, chapter "Frontend/Backend Protocol").
//!
//! What is an exchange:
//! - A simple query is one, however many statements it holds: from the first byte of `Query` to the last of
//!   `ReadyForQuery`. So is a function call, and a COPY with all its data.
//! - In the extended query protocol each `Execute` is one: from the first byte of what prepared it since the last one
//!   (`Parse`, `Bind`, `Describe`), or of itself. The last before a `Sync` ends with the `ReadyForQuery` that answers the
//!   `Sync`, because the commit of an implicit transaction, and its failure, come between `CommandComplete` and that;
//!   the others end with their own `CommandComplete`, `PortalSuspended` or `EmptyQueryResponse`.
//! - `Parse` and `Describe` without `Execute` prepare; they are an exchange only if they fail.
//! - What the server skips after an error, up to the `Sync`, ends with the error type `pipeline_aborted`.
//! - Start-up, authentication and cancellation are none. Passwords are never looked at.
//!
//! Large results are counted, not captured: once a message's header was not seen, the session waits for a `ReadyForQuery` at
//! the end of what was captured, and takes the row count from the `CommandComplete` before it.

mod detect;
mod exchange;
mod message;
mod request;
mod response;
mod session;
mod sqlstate;

use std::sync::Arc;

use super::{Detect, Prefix, Protocol, Session, Side};
use crate::model::Conn;

/// The protocol.
pub struct Postgresql;

impl Protocol for Postgresql {
    fn name(&self) -> &'static str {
        NAME
    }

    fn detect(&self, prefix: Prefix<'_>) -> Detect {
        detect::detect(prefix)
    }

    fn open(&self, conn: &Arc<Conn>, local: Side) -> Box<dyn Session> {
        Box::new(session::PostgresqlSession::new(conn, local))
    }
}

const NAME: &str = "postgresql";
