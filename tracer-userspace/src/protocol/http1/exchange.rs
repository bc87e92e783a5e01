//! One exchange from its request head to its end, and its attributes by the semantic conventions.

use std::borrow::Cow;
use std::sync::Arc;

use super::head::{Fields, KNOWN_METHODS, RequestLine};
use super::target::{Target, host_and_port};
use crate::model::{Address, Attributes, Conn, Exchange, Outcome, Role, Stamp, TraceContext};
use crate::protocol::semconv::http as name;
use crate::protocol::{Started, redact, route};

/// Longest path, query or user agent that is kept, in bytes.
const MAX_TEXT: usize = 4_096;

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
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Bytes on the wire.
    pub bytes: u64,
    /// Bytes of content; `None` if they could not be counted.
    pub content: Option<u64>,
    /// When its last byte so far was moved.
    pub last: Stamp,
    /// Whether that was its last byte.
    pub done: bool,
}

/// An exchange that has not ended.
pub struct Open {
    /// How it began.
    pub started: Started,
    /// The request.
    pub request: Part,
    /// The response, interim ones included.
    pub response: Part,
    /// First byte of the final response.
    pub first_byte: Option<Stamp>,
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
    role: Role,
    name: Box<str>,
    attributes: Attributes,
    context: Option<TraceContext>,
}

impl Open {
    /// An exchange whose request head is known.
    pub fn new(
        started: Started,
        role: Role,
        conn: &Conn,
        line: &RequestLine<'_>,
        fields: &Fields<'_>,
        context: Option<TraceContext>,
    ) -> Self {
        let is_connect = line.method == b"CONNECT";
        let mut attributes = Attributes::with_capacity(16, 96 + 3 * line.target.len().min(MAX_TEXT));
        let name = describe(&mut attributes, role, conn, line, fields, is_connect);
        let part = Part {
            content: Some(0),
            last: started.start,
            ..Part::default()
        };
        Self {
            started,
            request: part,
            response: part,
            first_byte: None,
            status: None,
            answered: false,
            failure: None,
            is_head: line.method == b"HEAD",
            is_connect,
            expects_continue: fields.expects_continue,
            role,
            name,
            attributes,
            context,
        }
    }

    /// The last byte moved either way.
    pub fn last(&self) -> Stamp {
        let (request, response) = (self.request.last, self.response.last);
        if request.ts > response.ts {
            request
        } else {
            response
        }
    }

    /// The exchange is over at `end`.
    pub fn finish(mut self, conn: &Arc<Conn>, end: Stamp) -> Exchange {
        if let Some(status) = self.status {
            self.attributes
                .push_int(name::RESPONSE_STATUS_CODE, i64::from(status));
        }
        if let Some(size) = self.request.content {
            self.attributes.push_int(name::REQUEST_BODY_SIZE, size as i64);
        }
        if let (Some(size), Some(_)) = (self.response.content, self.status) {
            self.attributes.push_int(name::RESPONSE_BODY_SIZE, size as i64);
        }
        let outcome = self.outcome();
        Exchange {
            id: self.started.id,
            conn: Arc::clone(conn),
            protocol: super::NAME,
            role: self.role,
            start: self.started.start,
            first_byte: self.first_byte,
            end,
            queue_time: self.started.queue_time,
            request_bytes: self.request.bytes,
            response_bytes: self.response.bytes,
            name: self.name,
            outcome,
            attributes: self.attributes,
            context: self.context,
        }
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
        let failed_from = if self.role == Role::Server { 500 } else { 400 };
        match self.status {
            Some(status) if status >= failed_from => Outcome::Error {
                kind: status.to_string().into(),
                message: Box::default(),
            },
            _ => Outcome::Unset,
        }
    }
}

/// Adds what the request head tells; returns the span's name.
fn describe(
    attributes: &mut Attributes,
    role: Role,
    conn: &Conn,
    line: &RequestLine<'_>,
    fields: &Fields<'_>,
    is_connect: bool,
) -> Box<str> {
    let known = KNOWN_METHODS.iter().find(|known| known.as_bytes() == line.method);
    match known {
        Some(method) => attributes.push_static(name::REQUEST_METHOD, method),
        None => {
            attributes.push_static(name::REQUEST_METHOD, "_OTHER");
            attributes.push_str(name::REQUEST_METHOD_ORIGINAL, &text(line.method));
        }
    }
    // The conventions name a span whose method is `_OTHER` by `HTTP`.
    let method = known.copied().unwrap_or("HTTP");
    let raw_target = text(line.target);
    let target = Target::parse(&raw_target, is_connect);
    let host = fields.host.map(text);
    let authority = target
        .authority
        .or(host.as_deref())
        .filter(|authority| !authority.is_empty());

    let scheme = match target.scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        _ => "http",
    };
    attributes.push_static(name::URL_SCHEME, scheme);
    let mut span_name = String::with_capacity(method.len() + 1 + target.path.map_or(0, str::len).min(256));
    span_name.push_str(method);
    if let Some(path) = target.path {
        attributes.push_with(name::URL_PATH, |out| redact::write_path(path, out));
        if path.starts_with('/') {
            span_name.push(' ');
            route::write(path, &mut span_name);
            if role == Role::Server
                && let Some(route) = span_name.get(method.len() + 1..)
            {
                attributes.push_str(name::ROUTE, route);
            }
        }
    }
    if let Some(query) = target.query {
        attributes.push_with(name::URL_QUERY, |out| redact::write_query(query, out));
    }
    if role == Role::Client && !is_connect {
        attributes.push_with(name::URL_FULL, |out| {
            write_url(out, scheme, authority, conn, &target)
        });
    }
    if let Some(authority) = authority {
        let (address, port) = host_and_port(authority);
        let default = if scheme == "https" { 443 } else { 80 };
        attributes.push_str(name::SERVER_ADDRESS, address);
        attributes.push_int(name::SERVER_PORT, i64::from(port.unwrap_or(default)));
    }
    if let Some(agent) = fields.user_agent {
        attributes.push_str(name::USER_AGENT_ORIGINAL, &text(agent));
    }
    attributes.push_static(name::NETWORK_PROTOCOL_NAME, "http");
    attributes.push_static(
        name::NETWORK_PROTOCOL_VERSION,
        if line.minor == 0 { "1.0" } else { "1.1" },
    );
    span_name.into_boxed_str()
}

fn write_url(out: &mut String, scheme: &str, authority: Option<&str>, conn: &Conn, target: &Target<'_>) {
    use std::fmt::Write;
    out.push_str(scheme);
    out.push_str("://");
    match (authority, conn.remote.address) {
        (Some(authority), _) => redact::write_authority(authority, out),
        // Writing to a string does not fail.
        (None, Address::Ip(ip)) if ip.is_ipv6() => _ = write!(out, "[{ip}]:{}", conn.remote.port),
        (None, Address::Ip(ip)) => _ = write!(out, "{ip}:{}", conn.remote.port),
        (None, Address::Unix(_)) => {}
    }
    match target.path {
        // `OPTIONS *` is about the server as a whole (RFC 9110 section 7.1).
        None | Some("*") => {}
        Some(path) => redact::write_path(path, out),
    }
    if let Some(query) = target.query {
        out.push('?');
        redact::write_query(query, out);
    }
}

/// Foreign bytes as text, cut to a bound.
fn text(bytes: &[u8]) -> Cow<'_, str> {
    let bytes = bytes.get(..MAX_TEXT).unwrap_or(bytes);
    // Nearly always valid, and then much cheaper to find out this way.
    std::str::from_utf8(bytes).map_or_else(|_| String::from_utf8_lossy(bytes), Cow::Borrowed)
}
