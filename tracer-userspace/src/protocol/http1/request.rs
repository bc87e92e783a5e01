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
        *name = describe(attributes, role, conn, line, fields, *is_connect);
        attributes.share();
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
) -> Arc<str> {
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
