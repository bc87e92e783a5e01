//! One request, from its first record to its end.

use super::NAME;
use super::params::Params;
use super::response;
use crate::model::{Attributes, Exchange, Mark, Outcome, Role, Stamp};
use crate::protocol::Output;
use crate::protocol::http1::request::{Told, describe};
use crate::protocol::semconv::http as name;

/// Longest address of a client that is kept: an IPv6 address with a zone.
const MAX_ADDRESS: usize = 64;

/// Why a request failed, beside its status.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// The connection was reset.
    Reset,
    /// The connection closed.
    Closed,
    /// The web server wanted no answer any more.
    Aborted,
    /// Where a header should be, there was none.
    Malformed,
    /// The application refused it (protocol status of `END_REQUEST`).
    Refused(u8),
}

impl Failure {
    /// `error.type` and a message for people.
    const fn tell(self) -> (&'static str, &'static str) {
        match self {
            Self::Reset => ("ECONNRESET", "the connection was reset before the request ended"),
            Self::Closed => (
                "connection_closed",
                "the connection closed before the request ended",
            ),
            Self::Aborted => ("aborted", "the web server aborted the request"),
            Self::Malformed => ("malformed", "the response has no whole CGI header"),
            Self::Refused(1) => (
                "cant_mpx_conn",
                "the application takes one request at a time on a connection",
            ),
            Self::Refused(2) => ("overloaded", "the application is out of some resource"),
            Self::Refused(3) => ("unknown_role", "the application does not know the role"),
            Self::Refused(_) => ("_OTHER", "the application refused the request"),
        }
    }
}

/// Where a response's CGI header stands.
#[derive(Debug)]
pub enum Head {
    /// It comes: these bytes of it, of which so many were searched for its end.
    Coming(Vec<u8>, usize),
    /// It is over.
    Over(Option<u16>),
}

/// A request that has not ended.
pub struct Open {
    /// Its id on the connection.
    pub id: u16,
    /// The place of its first byte.
    pub first: Mark,
    /// A file follows its content: it ends with that.
    pub is_filter: bool,
    /// Its parameters, until they are whole.
    pub params: Vec<u8>,
    /// Some of them were not captured or not kept: what follows can't be read.
    pub cut: bool,
    /// What is exported, once the parameters are whole.
    pub told: Option<Box<Exchange>>,
    /// The whole request came.
    pub is_whole: bool,
    /// `CONTENT_LENGTH`.
    pub expected: u64,
    /// Bytes of both ways, until it is told.
    pub bytes: [u64; 2],
    /// Bytes of content, both ways; `None` if they could not be counted.
    pub content: [Option<u64>; 2],
    /// The response's header.
    pub head: Head,
    /// The web server wants no answer any more.
    pub is_aborted: bool,
}

impl Open {
    /// A request that begins at `first`; `memory` is for its parameters.
    pub fn new(id: u16, first: Mark, is_filter: bool, memory: Vec<u8>) -> Self {
        Self {
            id,
            first,
            is_filter,
            params: memory,
            cut: false,
            told: None,
            is_whole: false,
            expected: 0,
            bytes: [0; 2],
            content: [Some(0); 2],
            head: Head::Coming(Vec::new(), 0),
            is_aborted: false,
        }
    }

    /// Its parameters are whole, or all that will come: the exchange begins.
    pub fn tell(&mut self, role: Role, out: &mut Output<'_>) {
        if self.told.is_some() {
            return;
        }
        let params = Params::read(&self.params);
        let context = params.trace.parse();
        let started = out.begin(role, &self.first, context.clone());
        let mut attributes = Attributes::default();
        let span = attributes_of(&mut attributes, role, out, &params);
        self.told = Some(Box::new(Exchange {
            attributes,
            context,
            ..started.exchange(out.conn, NAME, role, span)
        }));
        self.expected = params.content_length.unwrap_or(0);
    }

    /// Bytes of content of the response, as many as are here.
    pub fn stdout(&mut self, content: &[u8], room: usize) {
        let Head::Coming(head, searched) = &mut self.head else {
            self.count_content(1, content.len() as u64);
            return;
        };
        let before = head.len();
        let found = if before == 0 {
            response::end(content, 0).map(|end| {
                (
                    end,
                    response::status(content.get(..end).unwrap_or_default(), false),
                )
            })
        } else {
            head.extend_from_slice(content);
            response::end(head, *searched).map(|end| {
                let status = response::status(head.get(..end).unwrap_or_default(), false);
                (end.saturating_sub(before), status)
            })
        };
        if let Some((end, status)) = found {
            self.head = Head::Over(status);
            self.count_content(1, content.len().saturating_sub(end) as u64);
            return;
        }
        if before == 0 {
            head.extend_from_slice(content);
        }
        // An empty line is at most CR LF behind an LF that was the last byte.
        *searched = head.len().saturating_sub(2);
        if head.len() > room {
            self.head_cut();
        }
    }

    /// What follows of the response's header will not be seen.
    pub fn head_cut(&mut self) {
        if let Head::Coming(head, _) = &self.head {
            self.head = Head::Over(response::status(head, true));
            self.content[1] = None;
        }
    }

    /// Counts content of the request (0) or the response (1).
    pub fn count_content(&mut self, way: usize, len: u64) {
        if let Some(Some(content)) = self.content.get_mut(way) {
            *content = content.saturating_add(len);
        }
    }

    /// The request is whole, with the byte that was moved at `stamp`.
    pub fn request_end(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        if let Some(told) = &self.told
            && !std::mem::replace(&mut self.is_whole, true)
        {
            out.request_end(told.id, stamp);
        }
    }

    /// The first byte of the response came.
    pub fn respond(&mut self, stamp: Stamp, role: Role, out: &mut Output<'_>) {
        self.tell(role, out);
        if let Some(told) = &mut self.told
            && told.first_byte.is_none()
        {
            told.first_byte = Some(stamp);
            out.respond(told.id, stamp);
        }
    }

    /// It is over. Nothing to say of what never began.
    pub fn end(self, failure: Option<Failure>, stamp: Stamp, out: &mut Output<'_>) {
        let Some(mut exchange) = self.told else {
            return;
        };
        let (status, malformed) = match &self.head {
            Head::Over(status) => (*status, false),
            Head::Coming(..) => (None, true),
        };
        let failure = failure
            .or(self.is_aborted.then_some(Failure::Aborted))
            .or(malformed.then_some(Failure::Malformed));
        [exchange.request_bytes, exchange.response_bytes] = self.bytes;
        exchange.end = stamp;
        let attributes = &mut exchange.attributes;
        if let Some(status) = status {
            attributes.push_int(name::RESPONSE_STATUS_CODE, i64::from(status));
        }
        let [request, response] = self.content;
        if let Some(size) = request {
            attributes.push_int(name::REQUEST_BODY_SIZE, i64::try_from(size).unwrap_or(i64::MAX));
        }
        if let (Some(size), Some(_)) = (response, status) {
            attributes.push_int(name::RESPONSE_BODY_SIZE, i64::try_from(size).unwrap_or(i64::MAX));
        }
        exchange.outcome = outcome(failure, status, exchange.role);
        out.end(exchange);
    }
}

/// By the conventions a server has failed from 500 on, a client's call from 400 on.
fn outcome(failure: Option<Failure>, status: Option<u16>, role: Role) -> Outcome {
    let failed_from = if role == Role::Server { 500 } else { 400 };
    match (failure, status) {
        (Some(failure), _) => {
            let (kind, message) = failure.tell();
            Outcome::Error {
                kind: kind.into(),
                message: message.into(),
            }
        }
        (None, Some(status)) if status >= failed_from => Outcome::Error {
            kind: status.to_string().into(),
            message: Box::default(),
        },
        _ => Outcome::Unset,
    }
}

/// Adds what the parameters tell; returns the span's name.
fn attributes_of(
    attributes: &mut Attributes,
    role: Role,
    out: &Output<'_>,
    params: &Params<'_>,
) -> std::sync::Arc<str> {
    let target = params.target();
    let Some(method) = params.method.filter(|_| !target.is_empty()) else {
        attributes.push_static(name::NETWORK_PROTOCOL_NAME, NAME);
        return "FastCGI".into();
    };
    *attributes = Attributes::with_capacity(14, 160 + 3 * target.len().min(4_096));
    let told = Told {
        method,
        target: &target,
        host: params.host,
        user_agent: params.user_agent,
        scheme: if params.is_https { "https" } else { "http" },
        protocol: (NAME, "1"),
        passed_on: true,
    };
    let span = describe(attributes, role, out.conn, &told);
    if let (Role::Server, Some(client)) = (role, params.client.filter(|client| client.len() <= MAX_ADDRESS)) {
        attributes.push_str(name::CLIENT_ADDRESS, &String::from_utf8_lossy(client));
    }
    span
}
