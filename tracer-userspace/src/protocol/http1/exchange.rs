//! One exchange from its request head to its end.

use std::sync::Arc;

use super::request::Request;
use crate::model::{Conn, Exchange, ExchangeId, Outcome, Role, Stamp};
use crate::protocol::semconv::http as name;
use crate::protocol::{Side, Started};

/// Why an exchange ended before its response did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The connection was reset.
    Reset,
    /// The connection closed.
    Closed,
    /// The bytes broke the grammar.
    Malformed,
}

impl Failure {
    /// `error.type` and a message for people.
    const fn tell(self) -> (&'static str, &'static str) {
        match self {
            Self::Reset => ("ECONNRESET", "the connection was reset before the response ended"),
            Self::Closed => (
                "connection_closed",
                "the connection closed before the response ended",
            ),
            Self::Malformed => ("malformed", "the message broke the grammar of HTTP/1"),
        }
    }
}

/// The request or the response of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Part {
    /// Bytes of content; `None` if they could not be counted.
    pub content: Option<u64>,
    /// Whether its last byte was moved.
    pub done: bool,
}

/// An exchange that has not ended.
pub struct Open {
    /// What is exported in the end, as far as it is known: the bytes so far, and as its end the response's last byte so far.
    pub exchange: Box<Exchange>,
    /// When the request's last byte so far was moved.
    pub request_last: Stamp,
    /// The request.
    pub request: Part,
    /// The response, interim ones included.
    pub response: Part,
    /// Status of the final response.
    pub status: Option<u16>,
    /// A final response, or what should have been one, has begun.
    pub answered: bool,
    /// What broke.
    pub failure: Option<Failure>,
    /// The method is HEAD: the response has no content whatever its head says.
    pub is_head: bool,
    /// The method is CONNECT.
    pub is_connect: bool,
    /// The client waits for 100 (Continue) before it sends the content.
    pub expects_continue: bool,
}

impl Open {
    /// An exchange whose request head is known.
    pub fn new(started: Started, role: Role, conn: &Arc<Conn>, request: &Request) -> Self {
        let part = Part {
            content: Some(0),
            done: false,
        };
        Self {
            exchange: Box::new(Exchange {
                id: started.id,
                conn: Arc::clone(conn),
                protocol: super::NAME,
                role,
                start: started.start,
                first_byte: None,
                end: started.start,
                queue_time: started.queue_time,
                request_bytes: 0,
                response_bytes: 0,
                name: Arc::clone(&request.name),
                outcome: Outcome::Unset,
                attributes: request.attributes.clone(),
                context: request.context.clone(),
            }),
            request_last: started.start,
            request: part,
            response: part,
            status: None,
            answered: false,
            failure: None,
            is_head: request.is_head,
            is_connect: request.is_connect,
            expects_continue: request.expects_continue,
        }
    }

    /// Which exchange.
    pub fn id(&self) -> ExchangeId {
        self.exchange.id
    }

    /// Bytes of one part were moved, the last of them at `stamp`; `content` is `None` where it can't be told from framing.
    #[inline]
    pub fn count(&mut self, side: Side, len: u64, content: Option<u64>, stamp: &Stamp) {
        let exchange = &mut *self.exchange;
        let (part, bytes, last) = match side {
            Side::Client => (
                &mut self.request,
                &mut exchange.request_bytes,
                &mut self.request_last,
            ),
            Side::Server => (
                &mut self.response,
                &mut exchange.response_bytes,
                &mut exchange.end,
            ),
        };
        if !part.done {
            *bytes = bytes.saturating_add(len);
            part.content = part.content.zip(content).map(|(a, b)| a.saturating_add(b));
            *last = *stamp;
        }
    }

    /// The exchange is over: at `end`, or else at the last byte moved either way.
    pub fn finish(self, end: Option<&Stamp>) -> Box<Exchange> {
        let outcome = self.outcome();
        let mut exchange = self.exchange;
        let attributes = &mut exchange.attributes;
        if let Some(status) = self.status {
            attributes.push_int(name::RESPONSE_STATUS_CODE, i64::from(status));
        }
        if let Some(size) = self.request.content {
            attributes.push_int(name::REQUEST_BODY_SIZE, size as i64);
        }
        if let (Some(size), Some(_)) = (self.response.content, self.status) {
            attributes.push_int(name::RESPONSE_BODY_SIZE, size as i64);
        }
        match end {
            Some(end) => exchange.end = *end,
            None if self.request_last.ts > exchange.end.ts => exchange.end = self.request_last,
            None => {}
        }
        exchange.outcome = outcome;
        exchange
    }

    /// By the conventions a server has failed from 500 on, a client's call from 400 on.
    fn outcome(&self) -> Outcome {
        if let Some(failure) = self.failure {
            let (kind, message) = failure.tell();
            return Outcome::Error {
                kind: kind.into(),
                message: message.into(),
            };
        }
        let failed_from = if self.exchange.role == Role::Server {
            500
        } else {
            400
        };
        match self.status {
            Some(status) if status >= failed_from => Outcome::Error {
                kind: status.to_string().into(),
                message: Box::default(),
            },
            _ => Outcome::Unset,
        }
    }
}
