use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use opentelemetry_semantic_conventions::attribute as semconv;
use serde_json::{Value, json};

use super::*;
use crate::export::config::{Config, Retry};
use crate::export::fixtures::{self, EPOCH, MS};
use crate::export::{Clock, Pipeline};
use crate::model::{Address, Attributes, Link, Outcome, Role, Span, SpanId, TraceId};
use crate::telemetry::Ledger;

fn encode(spans: &[Span]) -> Value {
    use crate::export::delivery::Encode as _;
    let mut encoder = Encoder::new(Clock::with_offset(EPOCH));
    spans.iter().for_each(|span| encoder.push(0, span));
    let request = encoder.finish().unwrap();
    assert_eq!(request.spans, spans.len());
    let shared: u32 = request.shares.iter().map(|share| share.spans).sum();
    assert_eq!(shared as usize, spans.len());
    serde_json::from_slice(&request.body.joined()).unwrap()
}

#[test]
fn a_server_span_is_mapped_field_by_field() {
    let shop = fixtures::service("shop");
    let span = fixtures::span(&shop, 7, 9, Some(3), Role::Server, (1, 3));
    let expected = json!([{
        "traceId": "07".repeat(16),
        "id": "09".repeat(8),
        "parentId": "03".repeat(8),
        "kind": "SERVER",
        "name": "GET /cart/{id}",
        "timestamp": EPOCH as u64 / 1000 + 1000,
        "duration": 2000,
        "localEndpoint": {"serviceName": "shop", "ipv4": "10.0.0.1", "port": 8080},
        "remoteEndpoint": {"ipv4": "10.0.0.2", "port": 40312},
        "annotations": [{"timestamp": EPOCH as u64 / 1000 + 2000, "value": "first_byte"}],
        "tags": {
            "otel.scope.name": "tracer",
            "otel.scope.version": env!("CARGO_PKG_VERSION"),
            "http.request.method": "GET",
            "http.response.status_code": "200",
            "url.path": "/cart/17",
            "url.scheme": "http",
            "http.route": "/cart/{id}",
            "network.protocol.version": "1.1",
            "user_agent.original": "curl/7.88.1",
            "http.response.body.size": "1024",
            "server.address": "10.0.0.1",
            "client.address": "10.0.0.2",
            "network.peer.address": "10.0.0.2",
            "network.type": "ipv4",
            "server.port": "8080",
            "network.peer.port": "40312",
            "tracer.parent.evidence": "message",
            "tracer.request.bytes": "120",
            "tracer.time_to_first_byte": "1",
            "tracer.queue_time": "0.25",
            "service.instance.id": "627cc493-f310-47de-96bd-71410b7dec09",
            "telemetry.sdk.name": "opentelemetry",
            "telemetry.sdk.language": "go",
            "telemetry.distro.name": "tracer",
            "host.name": "vm-17",
            "process.executable.name": "shop",
            "process.pid": "4242",
            "process.command_args": "[\"shop\",\"--listen=:8080\"]",
        },
    }]);
    assert_eq!(encode(&[span]), expected);
}

#[test]
fn a_peer_has_the_best_name_there_is() {
    // (attributes) -> name of the remote end of a client's span
    for (attributes, name) in [
        (&[][..], None),
        (&[(semconv::SERVER_ADDRESS, "10.0.0.9")][..], None),
        (
            &[(semconv::SERVER_ADDRESS, "db.internal")][..],
            Some("db.internal"),
        ),
        (
            &[
                (semconv::SERVER_ADDRESS, "10.0.0.9"),
                (semconv::DB_SYSTEM_NAME, "redis"),
            ][..],
            Some("redis"),
        ),
        (
            &[
                (semconv::DB_SYSTEM_NAME, "postgresql"),
                (semconv::DB_NAMESPACE, "shop"),
            ][..],
            Some("shop"),
        ),
        (
            &[
                (semconv::SERVER_ADDRESS, "db.internal"),
                ("peer.service", "orders"),
            ][..],
            Some("orders"),
        ),
    ] {
        for (role, is_named) in [
            (Role::Client, true),
            (Role::Producer, true),
            (Role::Server, false),
            (Role::Consumer, false),
        ] {
            let mut span = fixtures::span(&fixtures::service("shop"), 1, 1, None, role, (1, 2));
            span.exchange.attributes = Attributes::default();
            for (key, value) in attributes {
                span.exchange.attributes.push_str(key, value);
            }
            let remote = &encode(&[span])[0]["remoteEndpoint"];
            let expected = name.filter(|_| is_named);
            assert_eq!(
                remote["serviceName"].as_str(),
                expected,
                "{attributes:?} {role:?}"
            );
            assert!(remote["ipv4"].is_string(), "{remote}");
        }
    }
}

#[test]
fn failures_links_and_ends_without_addresses() {
    let mut span = fixtures::span(&fixtures::service("a\"b"), 1, 2, None, Role::Client, (5, 5));
    span.exchange.outcome = Outcome::Error {
        kind: "ECONNREFUSED".into(),
        message: "Connection \"refused\"".into(),
    };
    span.exchange.first_byte = None;
    let mut conn = (*span.exchange.conn).clone();
    (conn.local.address, conn.local.port) = (Address::Unix(1), 0);
    (conn.remote.address, conn.remote.port) = (Address::Ip("::1".parse().unwrap()), 0);
    span.exchange.conn = Arc::new(conn);
    span.links = vec![Link {
        trace_id: TraceId([0xab; 16]),
        span_id: SpanId([0xcd; 8]),
        reason: "continued",
    }];
    let zipkin = &encode(&[span])[0];
    assert_eq!(zipkin["duration"], 1, "Zipkin takes 0 for unknown");
    assert_eq!(zipkin["localEndpoint"], json!({"serviceName": "a\"b"}));
    assert_eq!(zipkin["remoteEndpoint"], json!({"ipv6": "::1"}));
    assert_eq!(zipkin.get("annotations"), None);
    assert_eq!(zipkin.get("parentId"), None);
    let tags = &zipkin["tags"];
    assert_eq!(tags["otel.status_code"], "ERROR");
    assert_eq!(tags["error"], "Connection \"refused\"");
    assert_eq!(tags["error.type"], "ECONNREFUSED");
    let link = format!(
        "{}|{}||{{\"tracer.link.reason\":\"continued\"}}|0",
        "ab".repeat(16),
        "cd".repeat(8)
    );
    assert_eq!(tags["otlp.link.0"], link.as_str());
}

#[test]
fn endpoints_and_variables() {
    for (given, url) in [
        ("http://z:9411", "http://z:9411/api/v2/spans"),
        ("http://z:9411/", "http://z:9411/api/v2/spans"),
        ("https://z/mine/spans", "https://z/mine/spans"),
    ] {
        let mut section = Zipkin::default();
        section.set_target(given);
        assert_eq!(section.url().unwrap().to_string(), url);
        let mut section = Zipkin::default();
        let env = |name: &str| (name == ENDPOINT).then(|| format!(" {given} "));
        section.apply_env(&env).unwrap();
        assert_eq!(section.url().unwrap().to_string(), url);
    }
    for given in ["z:9411", "ftp://z", "", "http://"] {
        let mut section = Zipkin::default();
        section.set_target(given);
        let error = section.url().unwrap_err().to_string();
        assert!(error.contains("write it as http://host:9411"), "{error}");
    }
    let mut section = Zipkin::default();
    let error = section.apply_env(&|name| (name == TIMEOUT).then(|| "5s".into()));
    assert!(error.unwrap_err().to_string().contains("milliseconds"));
    section
        .apply_env(&|name| (name == TIMEOUT).then(|| "250".into()))
        .unwrap();
    assert_eq!(section.timeout, Duration::from_millis(250));
}

/// Paths and bodies of the requests.
type Asked = Vec<(String, Vec<u8>)>;

/// Answers one request after the other with the given statuses and hands out what was asked.
fn server(statuses: &'static [u16]) -> (String, std::thread::JoinHandle<Asked>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for status in statuses {
            let mut stream = listener.accept().unwrap().0;
            let mut read = Vec::new();
            let head = loop {
                let mut part = [0; 4096];
                let n = stream.read(&mut part).unwrap();
                read.extend_from_slice(&part[..n]);
                if let Some(at) = memchr::memmem::find(&read, b"\r\n\r\n") {
                    break at + 4;
                }
            };
            let text = String::from_utf8(read[..head].to_vec()).unwrap().to_lowercase();
            let length = text.split("content-length: ").nth(1).unwrap();
            let length: usize = length.lines().next().unwrap().parse().unwrap();
            let mut body = read[head..].to_vec();
            let rest = length - body.len();
            Read::by_ref(&mut stream)
                .take(rest as u64)
                .read_to_end(&mut body)
                .unwrap();
            write!(
                stream,
                "HTTP/1.1 {status} x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
            )
            .unwrap();
            requests.push((text, body));
        }
        requests
    });
    (url, thread)
}

#[test]
fn a_server_that_is_busy_gets_the_same_spans_again() {
    let (url, server) = server(&[503, 202]);
    let mut config = Config {
        retry: Retry {
            initial: Duration::from_millis(MS / MS),
            ..Retry::default()
        },
        ..Config::default()
    };
    config.choose(&[format!("zipkin={url}")]).unwrap();
    config.zipkin.compression = Compression::Gzip;
    let ledger = Arc::new(Ledger::default());
    let pipeline = Pipeline::start(&config, Clock::with_offset(EPOCH), Arc::clone(&ledger)).unwrap();
    ledger.seen(3);
    pipeline.send(fixtures::spans(&fixtures::service("shop"), 3));
    pipeline.shutdown(Duration::from_secs(60));
    let requests = server.join().unwrap();
    assert_eq!(requests[0].1, requests[1].1);
    let (head, body) = &requests[1];
    assert!(head.starts_with("post /api/v2/spans http/1.1"), "{head}");
    assert!(
        head.contains("content-type: application/json") && head.contains("content-encoding: gzip"),
        "{head}"
    );
    let mut text = String::new();
    flate2::read::GzDecoder::new(body.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let spans: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(spans.len(), 3);
    let snapshot = ledger.snapshot();
    assert_eq!((snapshot.exported, snapshot.open()), (3, 0), "{snapshot}");
}

#[test]
fn what_is_too_large_is_sent_in_halves() {
    let (url, server) = server(&[413, 202, 413, 202, 202]);
    let mut config = Config::default();
    config.choose(&[format!("zipkin={url}")]).unwrap();
    let ledger = Arc::new(Ledger::default());
    let pipeline = Pipeline::start(&config, Clock::with_offset(EPOCH), Arc::clone(&ledger)).unwrap();
    ledger.seen(5);
    pipeline.send(fixtures::spans(&fixtures::service("shop, [cart]"), 5));
    pipeline.shutdown(Duration::from_secs(60));
    let requests = server.join().unwrap();
    let ids: Vec<Vec<String>> = requests
        .iter()
        .map(|(_, body)| {
            let spans: Vec<Value> = serde_json::from_slice(body).unwrap();
            let id = |span: &Value| span["id"].as_str().unwrap().trim_start_matches('0').to_owned();
            spans.iter().map(id).collect()
        })
        .collect();
    let expected: [&[&str]; 5] = [
        &["1", "2", "3", "4", "5"],
        &["1", "2"],
        &["3", "4", "5"],
        &["3"],
        &["4", "5"],
    ];
    assert_eq!(ids, expected);
    let snapshot = ledger.snapshot();
    assert_eq!((snapshot.exported, snapshot.open()), (5, 0), "{snapshot}");
}
