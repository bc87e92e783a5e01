//! FastCGI (FastCGI Specification 1.0, Open Market 1996): the hop between a web server and what runs its programs, such as PHP-FPM.
//!
//! - A request is one exchange, from the first byte of its `BEGIN_REQUEST` to the last of its `END_REQUEST`; it is told of once its
//!   parameters are whole, because they hold the trace context. It is an HTTP request that a gateway passes on, and so are its attributes.
//! - Requests on one connection are told apart by their ids, at a time (multiplexing) or one after the other (`FCGI_KEEP_CONN`).
//! - The status is that of the CGI header (RFC 3875 section 6.3), or the protocol's own where the application refused the request.
//! - What the application says on `STDERR` is counted, not read; management records (`GET_VALUES` and its kin) are no exchanges.
//!
//! Parameters and response headers are captured; contents are counted. Where a record's header was not captured, the session looks
//! for the next `BEGIN_REQUEST` or for an `END_REQUEST` of a request that is open: eight bytes that contents do not hold by chance.

mod detect;
mod exchange;
mod params;
mod record;
mod response;
mod session;

use std::sync::Arc;

use super::{Detect, Prefix, Protocol, Session, Side};
use crate::model::Conn;

/// The protocol.
pub struct Fastcgi;

impl Protocol for Fastcgi {
    fn name(&self) -> &'static str {
        NAME
    }

    fn detect(&self, prefix: Prefix<'_>) -> Detect {
        detect::detect(prefix)
    }

    fn open(&self, _conn: &Arc<Conn>, local: Side) -> Box<dyn Session> {
        Box::new(session::FastcgiSession::new(local))
    }
}

const NAME: &str = "fastcgi";
