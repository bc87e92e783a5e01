//! Spans for tests.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use opentelemetry_semantic_conventions::attribute as semconv;

use crate::model::{
    Address, Attributes, Confidence, Conn, ConnId, Endpoint, Evidence, Exchange, ExchangeId, Outcome,
    Resource, Role, Service, Span, SpanId, Stamp, TraceId, Unit,
};

/// Calendar time of the kernel clock's zero: 2024-05-06 12:41:07 UTC.
pub(crate) const EPOCH: i64 = 1_714_999_267_000_000_000;
/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;

/// A service with a resource of every kind of value.
pub(crate) fn service(name: &str) -> Arc<Service> {
    let text = |key: &str, value: &str| (key.into(), value.into());
    Arc::new(Service {
        name: name.into(),
        tgid: 4242,
        resource: Resource {
            text: vec![
                text("service.name", name),
                text("service.instance.id", "627cc493-f310-47de-96bd-71410b7dec09"),
                text("telemetry.sdk.name", "opentelemetry"),
                text("telemetry.sdk.language", "go"),
                text("telemetry.distro.name", "tracer"),
                text("host.name", "vm-17"),
                text("process.executable.name", name),
            ],
            ints: vec![("process.pid".into(), 4242)],
            lists: vec![(
                "process.command_args".into(),
                vec![name.into(), "--listen=:8080".into()],
            )],
        },
        selected: true,
        ..Service::default()
    })
}

/// An end of a connection over IPv4.
pub(crate) fn conn(role: Role) -> Arc<Conn> {
    let end = |last, port| Endpoint {
        address: Address::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))),
        port,
    };
    let (server, client) = (end(1, 8080), end(2, 40_312));
    let (local, remote) = if role.is_inbound() {
        (server, client)
    } else {
        (client, server)
    };
    Arc::new(Conn {
        id: ConnId(7),
        local,
        remote,
        netns: 1,
        tgid: 4242,
        joined_late: false,
    })
}

/// A moment of some thread.
pub(crate) fn stamp(ts: u64) -> Stamp {
    Stamp {
        ts,
        unit: Unit {
            tgid: 4242,
            tid: 4243,
            ..Unit::default()
        },
    }
}

/// A span of trace `trace`; times in milliseconds on the kernel's clock.
pub(crate) fn span(
    service: &Arc<Service>,
    trace: u8,
    id: u8,
    parent: Option<u8>,
    role: Role,
    at: (u64, u64),
) -> Span {
    let (start, end) = at;
    let mut attributes = Attributes::with_capacity(10, 128);
    attributes.push_static(semconv::HTTP_REQUEST_METHOD, "GET");
    attributes.push_int(semconv::HTTP_RESPONSE_STATUS_CODE, 200);
    attributes.push_str(semconv::URL_PATH, "/cart/17");
    attributes.push_static(semconv::URL_SCHEME, "http");
    attributes.push_str(semconv::HTTP_ROUTE, "/cart/{id}");
    attributes.push_static(semconv::NETWORK_PROTOCOL_VERSION, "1.1");
    attributes.push_str(semconv::USER_AGENT_ORIGINAL, "curl/7.88.1");
    attributes.push_int(semconv::HTTP_RESPONSE_BODY_SIZE, 1024);
    let parent = parent.map(|parent| SpanId([parent; 8]));
    Span {
        trace_id: TraceId([trace; 16]),
        span_id: SpanId([id; 8]),
        parent,
        parent_is_remote: parent.is_some() && role.is_inbound(),
        evidence: parent.map(|_| (Evidence::Message, Confidence::Certain)),
        trace_state: Box::default(),
        links: Vec::new(),
        exchange: Box::new(Exchange {
            id: ExchangeId(u64::from(id)),
            conn: conn(role),
            protocol: "http1",
            role,
            start: stamp(start * MS),
            first_byte: Some(stamp((start + end) / 2 * MS)),
            end: stamp(end * MS),
            queue_time: role.is_inbound().then_some(MS / 4),
            request_bytes: 120,
            response_bytes: 1300,
            name: "GET /cart/{id}".into(),
            outcome: Outcome::Unset,
            attributes,
            context: None,
        }),
        service: Arc::clone(service),
    }
}

/// `n` spans of one service, each a trace of its own.
pub(crate) fn spans(service: &Arc<Service>, n: usize) -> Vec<Span> {
    (0..n)
        .map(|i| {
            let mut span = span(service, 1, 1, None, Role::Server, (1, 2));
            span.span_id = SpanId((i as u64 + 1).to_be_bytes());
            span.trace_id = TraceId((i as u128 + 1).to_be_bytes());
            span
        })
        .collect()
}
