//! What is written by hand is decoded with the official types and compared with messages that are built from them.

use std::net::{IpAddr, Ipv6Addr};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as AnyValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue as Any, ArrayValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::{Link as ProtoLink, SpanKind};
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan, Status};
use prost::Message;

use super::*;
use crate::export::fixtures::{self, EPOCH, MS};
use crate::model::{Address, Confidence, Conn, Endpoint, Evidence, Link, SpanId, TraceId};

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, AnyValue::StringValue(value.into()))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, AnyValue::IntValue(value))
}

fn double(key: &str, value: f64) -> KeyValue {
    attribute(key, AnyValue::DoubleValue(value))
}

fn attribute(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(Any { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn encode(spans: &[Span]) -> ExportTraceServiceRequest {
    let mut encoder = Encoder::new(Clock::with_offset(EPOCH));
    spans.iter().for_each(|span| encoder.push(1, span));
    let request = encoder.finish().unwrap();
    assert_eq!(request.spans, spans.len());
    assert_eq!(
        request
            .shares
            .iter()
            .map(|share| share.spans as usize)
            .sum::<usize>(),
        spans.len()
    );
    let decoded = ExportTraceServiceRequest::decode(request.body.joined()).unwrap();
    // Lengths are written in the shortest form, so the official types give the same bytes.
    assert_eq!(decoded.encoded_len(), request.body.len());
    decoded
}

fn encode_one(span: &Span) -> ProtoSpan {
    encode(std::slice::from_ref(span)).resource_spans[0].scope_spans[0].spans[0].clone()
}

/// The attributes that [`fixtures::span`] gives.
fn http() -> Vec<KeyValue> {
    vec![
        text("http.request.method", "GET"),
        int("http.response.status_code", 200),
        text("url.path", "/cart/17"),
        text("url.scheme", "http"),
        text("http.route", "/cart/{id}"),
        text("network.protocol.version", "1.1"),
        text("user_agent.original", "curl/7.88.1"),
        int("http.response.body.size", 1024),
    ]
}

fn server_of(span: u8, parent: Option<u8>) -> ProtoSpan {
    let mut attributes = http();
    attributes.extend([
        text("server.address", "10.0.0.1"),
        text("client.address", "10.0.0.2"),
        text("network.peer.address", "10.0.0.2"),
        text("network.type", "ipv4"),
        int("server.port", 8080),
        int("network.peer.port", 40_312),
    ]);
    if parent.is_some() {
        attributes.push(text("tracer.parent.evidence", "message"));
    }
    attributes.extend([
        int("tracer.request.bytes", 120),
        double("tracer.time_to_first_byte", 10.0),
        double("tracer.queue_time", 0.25),
    ]);
    ProtoSpan {
        trace_id: vec![9; 16],
        span_id: vec![span; 8],
        parent_span_id: parent.map(|parent| vec![parent; 8]).unwrap_or_default(),
        flags: if parent.is_some() { 0x301 } else { 0x101 },
        name: "GET /cart/{id}".into(),
        kind: SpanKind::Server.into(),
        start_time_unix_nano: EPOCH as u64 + 10 * MS,
        end_time_unix_nano: EPOCH as u64 + 30 * MS,
        attributes,
        ..ProtoSpan::default()
    }
}

fn resource_of(name: &str) -> Resource {
    let list = ["shop", "cart"].contains(&name).then(|| {
        let values = [name, "--listen=:8080"].map(|text| Any {
            value: Some(AnyValue::StringValue(text.into())),
        });
        AnyValue::ArrayValue(ArrayValue {
            values: values.into(),
        })
    });
    let mut attributes = vec![
        text("service.name", name),
        text("service.instance.id", "627cc493-f310-47de-96bd-71410b7dec09"),
        text("telemetry.sdk.name", "opentelemetry"),
        text("telemetry.sdk.language", "go"),
        text("telemetry.distro.name", "tracer"),
        text("host.name", "vm-17"),
        text("process.executable.name", name),
        int("process.pid", 4242),
    ];
    attributes.extend(list.map(|list| attribute("process.command_args", list)));
    Resource {
        attributes,
        ..Resource::default()
    }
}

#[test]
fn a_request_is_what_the_official_types_say() {
    let (shop, cart) = (fixtures::service("shop"), fixtures::service("cart"));
    let server = |service, id, parent| fixtures::span(service, 9, id, parent, Role::Server, (10, 30));
    // Services alternate: spans are grouped, in the order of each group.
    let spans = [
        server(&shop, 1, None),
        server(&cart, 2, Some(1)),
        server(&shop, 3, Some(2)),
    ];
    let group = |name, spans| ResourceSpans {
        resource: Some(resource_of(name)),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "tracer".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..InstrumentationScope::default()
            }),
            spans,
            schema_url: SCHEMA_URL.into(),
        }],
        schema_url: SCHEMA_URL.into(),
    };
    let expected = ExportTraceServiceRequest {
        resource_spans: vec![
            group("shop", vec![server_of(1, None), server_of(3, Some(2))]),
            group("cart", vec![server_of(2, Some(1))]),
        ],
    };
    assert_eq!(encode(&spans), expected);
}

#[test]
fn roles_and_failures_and_links() {
    let service = fixtures::service("shop");
    for (role, kind) in [
        (Role::Client, SpanKind::Client),
        (Role::Server, SpanKind::Server),
        (Role::Producer, SpanKind::Producer),
        (Role::Consumer, SpanKind::Consumer),
    ] {
        let mut span = fixtures::span(&service, 9, 1, Some(2), role, (10, 30));
        span.evidence = Some((Evidence::Loop, Confidence::Inferred));
        span.trace_state = "vendor=x".into();
        span.links = vec![Link {
            trace_id: TraceId([3; 16]),
            span_id: SpanId([4; 8]),
            reason: "late",
        }];
        span.exchange.outcome = Outcome::Error {
            kind: "500".into(),
            message: "it broke".into(),
        };
        let got = encode_one(&span);
        assert_eq!(got.kind(), kind);
        assert_eq!(got.trace_state, "vendor=x");
        let status = Status {
            message: "it broke".into(),
            code: StatusCode::Error.into(),
        };
        assert_eq!(got.status, Some(status));
        let link = ProtoLink {
            trace_id: vec![3; 16],
            span_id: vec![4; 8],
            attributes: vec![text("tracer.link.reason", "late")],
            ..ProtoLink::default()
        };
        assert_eq!(got.links, [link]);
        // The server's end is the local one where we are called, the remote one where we call.
        for expected in [
            text("server.address", "10.0.0.1"),
            int("server.port", 8080),
            text("error.type", "500"),
            text("tracer.parent.confidence", "inferred"),
            text("tracer.parent.evidence", "loop"),
        ] {
            assert!(
                got.attributes.contains(&expected),
                "{role:?}: {expected:?} in {:?}",
                got.attributes
            );
        }
        let peer = if role.is_inbound() { "10.0.0.2" } else { "10.0.0.1" };
        assert!(got.attributes.contains(&text("network.peer.address", peer)));
        let has_client = got.attributes.iter().any(|a| a.key == "client.address");
        assert_eq!(has_client, role.is_inbound());
    }
}

#[test]
fn what_the_protocol_says_wins() {
    let mut span = fixtures::span(&fixtures::service("shop"), 9, 1, None, Role::Client, (10, 30));
    let attributes = &mut span.exchange.attributes;
    for key in [
        "server.address",
        "client.address",
        "network.peer.address",
        "network.transport",
        "network.type",
        "error.type",
    ] {
        attributes.push_static(key, "mine");
    }
    for key in ["server.port", "network.peer.port", "http.request.body.size"] {
        attributes.push_int(key, 5);
    }
    attributes.push_double("d", -1.5);
    attributes.push_bool("b", true);
    attributes.push_int("negative", -1);
    span.exchange.outcome = Outcome::Error {
        kind: "500".into(),
        message: "".into(),
    };
    span.exchange.first_byte = None;
    let got = encode_one(&span);
    let mut expected = http();
    expected.extend(
        [
            "server.address",
            "client.address",
            "network.peer.address",
            "network.transport",
            "network.type",
            "error.type",
        ]
        .map(|key| text(key, "mine")),
    );
    expected.extend(["server.port", "network.peer.port", "http.request.body.size"].map(|key| int(key, 5)));
    expected.extend([
        double("d", -1.5),
        attribute("b", AnyValue::BoolValue(true)),
        int("negative", -1),
    ]);
    assert_eq!(got.attributes, expected);
    assert_eq!(
        got.status,
        Some(Status {
            message: String::new(),
            code: StatusCode::Error.into()
        })
    );
}

#[test]
fn addresses_of_every_family() {
    let service = fixtures::service("shop");
    let with = |address, port| {
        let mut span = fixtures::span(&service, 9, 1, None, Role::Client, (10, 30));
        let end = Endpoint { address, port };
        span.exchange.conn = Arc::new(Conn {
            local: end,
            remote: end,
            ..(*fixtures::conn(Role::Client)).clone()
        });
        let added = encode_one(&span).attributes.split_off(http().len());
        added
            .into_iter()
            .filter(|a| !a.key.starts_with("tracer."))
            .collect::<Vec<_>>()
    };
    assert_eq!(with(Address::Unix(77), 0), [text("network.transport", "unix")]);
    let v6 = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));
    assert_eq!(
        with(Address::Ip(v6), 443),
        [
            text("server.address", "2001:db8::1"),
            text("network.peer.address", "2001:db8::1"),
            text("network.type", "ipv6"),
            int("server.port", 443),
            int("network.peer.port", 443),
        ]
    );
}

#[test]
fn lengths_of_every_size() {
    let service = fixtures::service("shop");
    for len in [
        0, 1, 60, 100, 120, 126, 127, 128, 129, 16_000, 16_200, 16_300, 16_383, 16_384, 70_000,
    ] {
        let mut span = fixtures::span(&service, 9, 1, None, Role::Server, (10, 30));
        let long = "x".repeat(len);
        span.exchange.attributes.push_str("db.query.text", &long);
        span.exchange.name = long.as_str().into();
        let got = encode_one(&span);
        assert_eq!(got.name, long);
        assert!(got.attributes.contains(&text("db.query.text", &long)), "{len}");
    }
    // The shortest span there can be, to see lengths below 128.
    let mut span = fixtures::span(&Arc::default(), 9, 1, None, Role::Client, (10, 10));
    let exchange = &mut *span.exchange;
    exchange.attributes.clear();
    exchange.name = "".into();
    (
        exchange.request_bytes,
        exchange.response_bytes,
        exchange.first_byte,
    ) = (0, 0, None);
    let unix = Endpoint {
        address: Address::Unix(1),
        port: 0,
    };
    exchange.conn = Arc::new(Conn {
        local: unix,
        remote: unix,
        ..(*exchange.conn).clone()
    });
    assert_eq!(encode_one(&span).attributes.len(), 1);
}

#[test]
fn a_step_of_the_clock_leaves_durations_alone() {
    let span = fixtures::span(&fixtures::service("shop"), 9, 1, None, Role::Server, (10, 30));
    for offset in [0, EPOCH, EPOCH + 3_600_000_000_000] {
        let mut encoder = Encoder::new(Clock::with_offset(offset));
        encoder.push(1, &span);
        let request = ExportTraceServiceRequest::decode(encoder.finish().unwrap().body.joined()).unwrap();
        let got = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(got.end_time_unix_nano - got.start_time_unix_nano, 20 * MS);
    }
}

#[test]
fn an_encoder_is_used_again() {
    let mut encoder = Encoder::new(Clock::with_offset(EPOCH));
    assert!(encoder.finish().is_none());
    let bodies: Vec<_> = (0..3)
        .map(|ticket| {
            // Many short-lived services: their buffers are let go.
            for i in 0..KEPT_SERVICES + 1 {
                encoder.push(
                    ticket,
                    &fixtures::span(
                        &fixtures::service(&i.to_string()),
                        9,
                        1,
                        None,
                        Role::Server,
                        (1, 2),
                    ),
                );
            }
            let request = encoder.finish().unwrap();
            assert!(
                request
                    .shares
                    .iter()
                    .all(|share| share.ticket == ticket && share.spans == 1)
            );
            assert_eq!(
                (encoder.spans(), encoder.bytes(), encoder.groups.len()),
                (0, 0, 0)
            );
            request.body.joined()
        })
        .collect();
    assert!(bodies[0] == bodies[1] && bodies[1] == bodies[2]);
}

/// Spans of one connection that differ in what is remembered of it.
fn variants() -> Vec<Span> {
    let service = fixtures::service("shop");
    let conn = fixtures::conn(Role::Server);
    let base = |role| {
        let mut span = fixtures::span(&service, 9, 1, None, role, (10, 30));
        span.exchange.conn = Arc::clone(&conn);
        span
    };
    let with = |set: &dyn Fn(&mut crate::model::Attributes)| {
        let mut span = base(Role::Server);
        set(&mut span.exchange.attributes);
        span
    };
    vec![
        base(Role::Server),
        base(Role::Client),
        with(&|attributes| attributes.push_int("server.port", 1)),
        with(&|attributes| attributes.push_int("server.port", 2)),
        with(&|attributes| attributes.push_str("db.query.text", "a")),
        with(&|attributes| attributes.push_str("db.query.text", "b")),
        with(&|attributes| attributes.push_static("db.query.text", "b")),
        with(&|attributes| attributes.push_static("error.type", "x")),
        with(&|attributes| attributes.push_int("http.request.body.size", 3)),
        with(&|attributes| attributes.clear()),
        with(&|attributes| attributes.push_str("db.query.text", &"long".repeat(5000))),
    ]
}

#[test]
fn what_is_remembered_of_a_connection_changes_nothing() {
    let spans = variants();
    for first in &spans {
        for second in &spans {
            let request = encode(&[first.clone(), second.clone(), second.clone()]);
            let got = &request.resource_spans[0].scope_spans[0].spans;
            let expected = [first, second, second].map(encode_one);
            assert_eq!(got[..], expected);
        }
    }
}
