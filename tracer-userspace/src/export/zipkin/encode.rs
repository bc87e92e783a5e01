//! Spans -> a JSON array of Zipkin v2 spans, by the OpenTelemetry specification's "OpenTelemetry to Zipkin Transformation":
//!
//! | Zipkin | from |
//! |---|---|
//! | `traceId`, `id`, `parentId`, `name`, `kind` | the same; lower-case hexadecimal |
//! | `timestamp`, `duration` | microseconds; a duration below one counts as one |
//! | `localEndpoint` | `service.name`, and our end of the connection |
//! | `remoteEndpoint` | the peer's end; on CLIENT and PRODUCER spans with the first of `peer.service`, `server.address` (if it is a name), `db.namespace`, `db.system.name`, `messaging.system` as its name, so that services that nobody traces are in the dependency graph too |
//! | `annotations` | `first_byte`: when the first byte of the response moved (`tracer.time_to_first_byte`) |
//! | `tags` | attributes of the span and, but for the name, of the resource; lists as JSON text; `otel.scope.*`; `otlp.link.N` as the Collector writes it |
//! | `tags`: `otel.status_code`, `error` | only on ERROR; `error` is the status description |

use std::net::IpAddr;
use std::sync::Arc;

use hashbrown::HashMap;
use opentelemetry_semantic_conventions::attribute as semconv;

use crate::export::accounts::{Share, TicketId};
use crate::export::buffer::{Buffer, Cursor};
use crate::export::clock::Clock;
use crate::export::console::json::{hex, integer, millis, string};
use crate::export::delivery::{Encode, Request};
use crate::export::shape::{Form, Item, LINK_REASON, Shape, duration};
use crate::model::{Address, Endpoint, Exchange, Key, Outcome, Role, Service, Span, Value};

/// Services that are remembered.
const SERVICES: usize = 256;
/// Bytes of memory that are kept between requests.
const KEPT_BYTES: usize = 1 << 20;
/// Attributes that name the peer, best first.
const PEER_NAMES: [Key; 5] = [
    "peer.service",
    semconv::SERVER_ADDRESS,
    semconv::DB_NAMESPACE,
    semconv::DB_SYSTEM_NAME,
    semconv::MESSAGING_SYSTEM,
];

/// What every span of a service says about it.
struct Described {
    /// Keeps the address from being used again.
    _service: Arc<Service>,
    /// `"serviceName":…`
    name: Buffer,
    /// `,"key":"value"` for each attribute of the resource.
    tags: Buffer,
}

/// Collects spans until a request is full.
pub(super) struct Encoder {
    clock: Clock,
    shape: Shape,
    services: HashMap<usize, Described>,
    /// The array, without its end.
    body: Buffer,
    spans: usize,
    shares: Vec<Share>,
}

impl Encoder {
    pub fn new(clock: Clock) -> Self {
        Self {
            clock,
            shape: Shape::default(),
            services: HashMap::new(),
            body: Buffer::default(),
            spans: 0,
            shares: Vec::new(),
        }
    }
}

impl Encode for Encoder {
    fn push(&mut self, ticket: TicketId, span: &Span) {
        let Self {
            clock,
            shape,
            services,
            body,
            spans,
            shares,
        } = self;
        if services.len() >= SERVICES {
            services.clear();
        }
        let at = Arc::as_ptr(&span.service) as usize;
        let described = services.entry(at).or_insert_with(|| describe(&span.service));
        let before: &[u8; 1] = if *spans == 0 { b"[" } else { b"," };
        body.append(|out| {
            out.put(before)?;
            write_span(out, span, clock, shape, described)
        });
        *spans += 1;
        match shares.last_mut() {
            Some(last) if last.ticket == ticket && Arc::ptr_eq(&last.service, &span.service) => {
                last.spans += 1
            }
            _ => shares.push(Share {
                ticket,
                service: Arc::clone(&span.service),
                spans: 1,
            }),
        }
    }

    fn spans(&self) -> usize {
        self.spans
    }

    fn bytes(&self) -> usize {
        self.body.len()
    }

    fn finish(&mut self) -> Option<Request> {
        if self.spans == 0 {
            return None;
        }
        let body = [self.body.as_slice(), b"]"].concat();
        self.body.clear(KEPT_BYTES);
        Some(Request {
            body: bytes::Bytes::from(body).into(),
            spans: std::mem::take(&mut self.spans),
            shares: std::mem::take(&mut self.shares),
        })
    }
}

fn write_span(
    out: &mut Cursor<'_>,
    span: &Span,
    clock: &Clock,
    shape: &mut Shape,
    service: &Described,
) -> Option<()> {
    let exchange = &*span.exchange;
    out.put(b"{\"traceId\":\"")?;
    hex(out, &span.trace_id.0)?;
    out.put(b"\",\"id\":\"")?;
    hex(out, &span.span_id.0)?;
    if let Some(parent) = &span.parent {
        out.put(b"\",\"parentId\":\"")?;
        hex(out, &parent.0)?;
    }
    out.put(b"\",\"kind\":\"")?;
    out.copy(kind(exchange.role).as_bytes())?;
    out.put(b"\",\"name\":")?;
    string(out, &exchange.name)?;
    out.put(b",\"timestamp\":")?;
    integer(out, clock.unix(exchange.start.ts) / 1000)?;
    out.put(b",\"duration\":")?;
    integer(out, (duration(span) / 1000).max(1))?;
    out.put(b",\"localEndpoint\":{")?;
    out.copy(service.name.as_slice())?;
    address(out, exchange.conn.local, true)?;
    out.put(b"}")?;
    remote(out, exchange)?;
    if let Some(first) = exchange.first_byte {
        out.put(b",\"annotations\":[{\"timestamp\":")?;
        integer(out, clock.unix(first.ts) / 1000)?;
        out.put(b",\"value\":\"first_byte\"}]")?;
    }
    out.put(b",\"tags\":{\"otel.scope.name\":\"tracer\",\"otel.scope.version\":\"")?;
    out.copy(env!("CARGO_PKG_VERSION").as_bytes())?;
    out.put(b"\"")?;
    shape.attributes(out, span, &mut Tags)?;
    out.copy(service.tags.as_slice())?;
    if let Outcome::Error { message, .. } = &exchange.outcome {
        out.put(b",\"otel.status_code\":\"ERROR\",\"error\":")?;
        string(out, message)?;
    }
    links(out, span)?;
    out.put(b"}}")
}

const fn kind(role: Role) -> &'static str {
    match role {
        Role::Server => "SERVER",
        Role::Client => "CLIENT",
        Role::Producer => "PRODUCER",
        Role::Consumer => "CONSUMER",
    }
}

/// `"ipv4":…,"port":…`; `behind` another field, with a comma in front.
fn address(out: &mut Cursor<'_>, end: Endpoint, behind: bool) -> Option<()> {
    let Address::Ip(ip) = end.address else {
        return Some(());
    };
    if behind {
        out.put(b",")?;
    }
    match ip {
        IpAddr::V4(_) => out.put(b"\"ipv4\":\"")?,
        IpAddr::V6(_) => out.put(b"\"ipv6\":\"")?,
    }
    out.copy(ip.to_string().as_bytes())?;
    out.put(b"\"")?;
    if end.port != 0 {
        out.put(b",\"port\":")?;
        integer(out, end.port)?;
    }
    Some(())
}

/// The peer. A client's is the service that it calls; only the address of a server's is known.
fn remote(out: &mut Cursor<'_>, exchange: &Exchange) -> Option<()> {
    let name = if exchange.role.is_inbound() {
        None
    } else {
        PEER_NAMES
            .iter()
            .find_map(|key| match exchange.attributes.get(key) {
                Some(Value::Str(name)) if !name.is_empty() && name.parse::<IpAddr>().is_err() => Some(name),
                _ => None,
            })
    };
    if name.is_none() && !matches!(exchange.conn.remote.address, Address::Ip(_)) {
        return Some(());
    }
    out.put(b",\"remoteEndpoint\":{")?;
    if let Some(name) = name {
        out.put(b"\"serviceName\":")?;
        string(out, name)?;
    }
    address(out, exchange.conn.remote, name.is_some())?;
    out.put(b"}")
}

/// The Collector's form, which its Zipkin receiver reads back: ids, state, attributes, and how many of these were dropped.
fn links(out: &mut Cursor<'_>, span: &Span) -> Option<()> {
    for (number, link) in span.links.iter().enumerate() {
        out.put(b",\"otlp.link.")?;
        integer(out, number)?;
        out.put(b"\":\"")?;
        hex(out, &link.trace_id.0)?;
        out.put(b"|")?;
        hex(out, &link.span_id.0)?;
        // Reasons are constants of ours, without anything to escape.
        out.put(b"||{\\\"")?;
        out.copy(LINK_REASON.as_bytes())?;
        out.put(b"\\\":\\\"")?;
        out.copy(link.reason.as_bytes())?;
        out.put(b"\\\"}|0\"")?;
    }
    Some(())
}

fn describe(service: &Arc<Service>) -> Described {
    let (mut name, mut tags) = (Buffer::default(), Buffer::default());
    name.append(|out| {
        out.put(b"\"serviceName\":")?;
        string(out, &service.name)
    });
    let resource = &service.resource;
    let key = |out: &mut Cursor<'_>, key: &str| {
        out.put(b",")?;
        string(out, key)?;
        out.put(b":")
    };
    tags.append(|out| {
        for (name, value) in resource.text.iter().filter(|(name, _)| &**name != "service.name") {
            key(out, name)?;
            string(out, value)?;
        }
        for (name, value) in &resource.ints {
            key(out, name)?;
            out.put(b"\"")?;
            integer(out, *value)?;
            out.put(b"\"")?;
        }
        for (name, values) in &resource.lists {
            key(out, name)?;
            let values: Vec<&str> = values.iter().map(|value| &**value).collect();
            string(out, &serde_json::to_string(&values).unwrap_or_default())?;
        }
        Some(())
    });
    Described {
        _service: Arc::clone(service),
        name,
        tags,
    }
}

/// `,"key":"value"`: Zipkin's tags are text.
struct Tags;

impl Form for Tags {
    fn write(&mut self, out: &mut Cursor<'_>, key: Key, item: Item<'_>) -> Option<()> {
        // Keys are constants of ours, without anything to escape.
        out.put(b",\"")?;
        out.copy(key.as_bytes())?;
        out.put(b"\":")?;
        if let Item::Plain(Value::Str(value)) = item {
            return string(out, value);
        }
        out.put(b"\"")?;
        match item {
            Item::Plain(Value::Str(_)) => {}
            Item::Plain(Value::Int(value)) => integer(out, value)?,
            Item::Plain(Value::Double(value)) => out.copy(value.to_string().as_bytes())?,
            Item::Plain(Value::Bool(value)) => out.copy(value.to_string().as_bytes())?,
            Item::Millis(nanos) => millis(out, nanos)?,
        }
        out.put(b"\"")
    }
}
