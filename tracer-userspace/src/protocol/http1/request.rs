//! What a request head tells of its exchange: attributes by the semantic conventions, the span's name, trace context.

use std::borrow::Cow;
use std::sync::Arc;

use super::framing::{Framing, request_framing};
use super::head::Fields;
use super::line::{KNOWN_METHODS, RequestLine};
use super::target::{Target, host_and_port};
use crate::model::{Address, Attributes, Conn, Role, TraceContext};
use crate::protocol::semconv::http as name;
use crate::protocol::{redact, route};

/// Longest path, query or user agent that is kept, in bytes.
const MAX_TEXT: usize = 4_096;

/// What a request head tells. One of these is used for all the heads of a connection.
#[derive(Default)]
pub struct Request {
    /// What follows the head.
    pub framing: Framing,
    /// The method is HEAD.
    pub is_head: bool,
    /// The method is CONNECT.
    pub is_connect: bool,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// The span's name.
    pub name: Arc<str>,
    /// Everything that the head says.
    pub attributes: Attributes,
    /// Trace context.
    pub context: Option<Arc<TraceContext>>,
}

impl Request {
    /// Becomes what this head tells to the end of `conn` that plays `role`.
    pub fn read(&mut self, role: Role, conn: &Conn, line: &RequestLine<'_>, fields: &Fields<'_>) {
        let Self {
            framing,
            is_head,
            is_connect,
            expects_continue,
            name,
            attributes,
            context,
        } = self;
        *framing = request_framing(fields);
        *is_head = line.method == b"HEAD";
        *is_connect = line.method == b"CONNECT";
        *expects_continue = fields.expects_continue;
        *context = fields.trace.parse();
        // What is there is shared with exchanges, so this one gets new memory.
        *attributes = Attributes::with_capacity(12, 160 + 3 * line.target.len().min(MAX_TEXT));
        let told = Told {
            method: line.method,
            target: line.target,
            host: fields.host,
            user_agent: fields.user_agent,
            scheme: "http",
            protocol: ("http", if line.minor == 0 { "1.0" } else { "1.1" }),
            passed_on: false,
        };
        *name = describe(attributes, role, conn, &told);
        attributes.share();
    }
}

/// What is known of a request, whichever protocol carries it.
pub(in crate::protocol) struct Told<'a> {
    /// The method.
    pub method: &'a [u8],
    /// The target in any of its forms.
    pub target: &'a [u8],
    /// Whom the request was for: name and port.
    pub host: Option<&'a [u8]>,
    /// The `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// The scheme, unless the target has one.
    pub scheme: &'static str,
    /// Name and version of the protocol that carries it.
    pub protocol: (&'static str, &'static str),
    /// `host` was asked, and passes the request on: who is asked now is somebody else.
    pub passed_on: bool,
}

/// Adds what is known of a request; returns the span's name.
pub(in crate::protocol) fn describe(
    attributes: &mut Attributes,
    role: Role,
    conn: &Conn,
    told: &Told<'_>,
) -> Arc<str> {
    let is_connect = told.method == b"CONNECT";
    let known = KNOWN_METHODS.iter().find(|known| known.as_bytes() == told.method);
    match known {
        Some(method) => attributes.push_static(name::REQUEST_METHOD, method),
        None => {
            attributes.push_static(name::REQUEST_METHOD, "_OTHER");
            attributes.push_str(name::REQUEST_METHOD_ORIGINAL, &text(told.method));
        }
    }
    // The conventions name a span whose method is `_OTHER` by `HTTP`.
    let method = known.copied().unwrap_or("HTTP");
    let raw_target = text(told.target);
    let target = Target::parse(&raw_target, is_connect);
    let host = told.host.map(text);
    let authority = target
        .authority
        .or(host.as_deref())
        .filter(|authority| !authority.is_empty());

    let scheme = match target.scheme {
        Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
        Some(_) => "http",
        None => told.scheme,
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
    if let Some(authority) = authority.filter(|_| role == Role::Server || !told.passed_on) {
        let (address, port) = host_and_port(authority);
        let default = if scheme == "https" { 443 } else { 80 };
        attributes.push_str(name::SERVER_ADDRESS, address);
        attributes.push_int(name::SERVER_PORT, i64::from(port.unwrap_or(default)));
    }
    if let Some(agent) = told.user_agent {
        attributes.push_str(name::USER_AGENT_ORIGINAL, &text(agent));
    }
    let (protocol, version) = told.protocol;
    attributes.push_static(name::NETWORK_PROTOCOL_NAME, protocol);
    attributes.push_static(name::NETWORK_PROTOCOL_VERSION, version);
    span_name.into()
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
