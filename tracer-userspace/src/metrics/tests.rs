//! What is counted of which exchange.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::model::{
    Attributes, ConnId, Distribution, Endpoint, ExchangeId, Label, Resource, Role, SpanId, Stamp, TraceId,
};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;

fn service(name: &str, tgid: u32) -> Arc<Service> {
    Arc::new(Service {
        name: name.into(),
        tgid,
        resource: Resource {
            text: vec![
                ("service.name".into(), name.into()),
                ("service.instance.id".into(), format!("{name}-{tgid}").into()),
            ],
            ..Resource::default()
        },
        selected: true,
        ..Service::default()
    })
}

fn conn(id: u64, server_port: u16, is_server: bool) -> Arc<Conn> {
    let end = |port| Endpoint {
        address: Address::Ip(Ipv4Addr::LOCALHOST.into()),
        port,
    };
    let (local, remote) = if is_server {
        (end(server_port), end(50_000))
    } else {
        (end(50_000), end(server_port))
    };
    Arc::new(Conn {
        id: ConnId(id),
        local,
        remote,
        netns: 1,
        tgid: 1,
        joined_late: false,
    })
}

/// An exchange in the making.
struct Maker {
    span: Span,
}

impl Maker {
    fn new(service: &Arc<Service>, conn: &Arc<Conn>, role: Role, start: Nanos, duration: Nanos) -> Self {
        let stamp = |ts| Stamp {
            ts,
            ..Stamp::default()
        };
        Self {
            span: Span {
                trace_id: TraceId([7; 16]),
                span_id: SpanId(start.to_be_bytes()),
                parent: None,
                parent_is_remote: false,
                evidence: None,
                trace_state: Box::default(),
                links: Vec::new(),
                exchange: Box::new(Exchange {
                    id: ExchangeId(start),
                    conn: Arc::clone(conn),
                    protocol: "http1",
                    role,
                    start: stamp(start),
                    first_byte: None,
                    end: stamp(start + duration),
                    queue_time: None,
                    request_bytes: 0,
                    response_bytes: 0,
                    name: "GET /".into(),
                    outcome: Outcome::Unset,
                    attributes: Attributes::default(),
                    context: None,
                }),
                service: Arc::clone(service),
            },
        }
    }

    fn with(mut self, change: impl FnOnce(&mut Attributes)) -> Self {
        change(&mut self.span.exchange.attributes);
        self
    }

    /// As HTTP/1 does: the head's attributes are shared, what the end tells is not.
    fn http(self, route: &'static str, status: i64, sizes: (i64, i64)) -> Self {
        self.with(|a| {
            a.push_static("http.request.method", "GET");
            a.push_static("url.scheme", "http");
            a.push_str("url.path", "/some/path");
            a.push_static("http.route", route);
            a.push_static("server.address", "shop.example");
            a.push_int("server.port", 80);
            a.push_static("network.protocol.name", "http");
            a.push_static("network.protocol.version", "1.1");
            a.share();
            a.push_int("http.response.status_code", status);
            a.push_int("http.request.body.size", sizes.0);
            a.push_int("http.response.body.size", sizes.1);
        })
    }

    fn error(mut self, kind: &str) -> Self {
        self.span.exchange.outcome = Outcome::Error {
            kind: kind.into(),
            message: Box::default(),
        };
        self
    }

    fn parent(mut self, parent: u64) -> Self {
        self.span.parent = Some(SpanId(parent.to_be_bytes()));
        self
    }
}

fn metrics(config: Config) -> Metrics {
    Metrics::new(config, false, 0)
}

/// Labels of a point as `key=value` texts, with the service.
fn told(point: &Point) -> String {
    let service = point
        .service
        .as_ref()
        .map(|s| s.name.to_string())
        .unwrap_or_default();
    let labels = point.labels.iter().map(|(key, label)| match label {
        Label::Text(text) => format!("{key}={text}"),
        Label::Static(text) => format!("{key}={text}"),
        Label::Int(number) => format!("{key}={number}"),
        Label::Bool(truth) => format!("{key}={truth}"),
    });
    let mut parts = vec![service];
    parts.extend(labels);
    parts.join(" ")
}

fn points(families: &[Family], name: &str) -> Vec<(String, Reading)> {
    let mut all: Vec<_> = families
        .iter()
        .filter(|family| family.instrument.name == name)
        .flat_map(|family| &family.points)
        .map(|point| (told(point), point.value.clone()))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

fn distributions(families: &[Family], name: &str) -> Vec<(String, Distribution)> {
    let only = |(labels, reading)| match reading {
        Reading::Distribution(told) => (labels, *told),
        _ => panic!("{name} is a histogram"),
    };
    points(families, name).into_iter().map(only).collect()
}

fn counts(families: &[Family], name: &str) -> Vec<(String, u64)> {
    let only = |(labels, reading)| match reading {
        Reading::Distribution(told) => (labels, told.count()),
        Reading::Number(number) => (labels, number),
        Reading::Real(_) => panic!("{name} counts"),
    };
    points(families, name).into_iter().map(only).collect()
}

fn one(text: &str, count: u64) -> (String, u64) {
    (text.to_owned(), count)
}

#[test]
fn series_have_the_attributes_of_the_conventions() {
    let metrics = metrics(Config {
        service_graph: false,
        ..Config::default()
    });
    let shop = service("shop", 1);
    let (server, client) = (conn(1, 80, true), conn(2, 80, false));
    let db = |a: &mut Attributes| {
        a.push_static("db.system.name", "postgresql");
        a.push_static("db.namespace", "main");
        a.push_static("db.operation.name", "SELECT");
        a.push_static("db.collection.name", "users");
        a.push_static("db.query.summary", "SELECT users");
        a.push_static("db.query.text", "SELECT ?");
    };
    let rpc = |a: &mut Attributes| {
        a.push_static("http.request.method", "POST");
        a.push_static("rpc.system.name", "grpc");
        a.push_static("rpc.method", "Shop/Buy");
        a.push_static("rpc.response.status_code", "OK");
    };
    let spans = [
        Maker::new(&shop, &server, Role::Server, 1, MS).http("/items/{id}", 200, (0, 10)),
        Maker::new(&shop, &server, Role::Server, 2, MS)
            .http("/items/{id}", 500, (5, 0))
            .error("500"),
        Maker::new(&shop, &client, Role::Client, 3, MS).http("/x", 200, (0, 0)),
        Maker::new(&shop, &client, Role::Client, 4, MS).with(db),
        Maker::new(&shop, &server, Role::Server, 5, MS).with(db),
        Maker::new(&shop, &server, Role::Server, 6, MS).with(rpc),
        Maker::new(&shop, &client, Role::Client, 7, MS).with(rpc),
        Maker::new(&shop, &client, Role::Producer, 8, MS).with(|a| {
            a.push_static("messaging.system", "kafka");
            a.push_static("messaging.operation.name", "send");
            a.push_static("messaging.destination.name", "orders");
        }),
        Maker::new(&shop, &client, Role::Client, 9, MS)
            .with(|a| a.push_static("dns.question.name", "a.example")),
    ];
    metrics.record(&spans.map(|maker| maker.span), false);
    let families = metrics.gather(SECOND);
    let plain = "http.request.method=GET url.scheme=http";
    let version = "http.route=/items/{id} network.protocol.version=1.1";
    let rows: &[(&str, &[(String, u64)])] = &[
        (
            "http.server.request.duration",
            &[
                one(
                    &format!("shop {plain} error.type=500 http.response.status_code=500 {version}"),
                    1,
                ),
                one(
                    &format!("shop {plain} http.response.status_code=200 {version}"),
                    1,
                ),
            ],
        ),
        (
            "http.client.request.duration",
            &[one(
                "shop http.request.method=GET server.address=shop.example server.port=80 \
                 http.response.status_code=200 network.protocol.version=1.1",
                1,
            )],
        ),
        (
            "db.client.operation.duration",
            &[one(
                "shop db.system.name=postgresql db.collection.name=users db.namespace=main db.operation.name=SELECT \
                 server.address=127.0.0.1 server.port=80 db.query.summary=SELECT users",
                1,
            )],
        ),
        (
            "rpc.server.call.duration",
            &[one(
                "shop rpc.system.name=grpc rpc.method=Shop/Buy rpc.response.status_code=OK \
                 server.address=127.0.0.1 server.port=80",
                1,
            )],
        ),
        (
            "messaging.client.operation.duration",
            &[one(
                "shop messaging.system=kafka messaging.operation.name=send messaging.destination.name=orders \
                 server.address=127.0.0.1 server.port=80",
                1,
            )],
        ),
        (
            "dns.lookup.duration",
            &[one("shop dns.question.name=a.example", 1)],
        ),
    ];
    for (name, expected) in rows {
        assert_eq!(&counts(&families, name), expected, "{name}");
    }
    assert_eq!(counts(&families, "rpc.client.call.duration").len(), 1);
    let sizes = distributions(&families, "http.server.response.body.size");
    assert_eq!(sizes.iter().map(|(_, told)| told.sum).sum::<u64>(), 10);
}

/// Whatever the order in which connections say things, each exchange counts where its own attributes say.
#[test]
fn what_a_connection_said_last_decides_nothing() {
    let metrics = metrics(Config::default());
    let services = [service("a", 1), service("b", 2)];
    // More connections than there are places to remember them.
    let conns: Vec<_> = (0..3_000).map(|id| conn(id, 80, true)).collect();
    let mut rng = fastrand::Rng::with_seed(3);
    let mut expected = std::collections::BTreeMap::<(usize, &str, i64), (u64, u64, i64)>::new();
    let shared: Vec<_> = ["/a", "/b"]
        .into_iter()
        .map(|route| {
            let maker = Maker::new(&services[0], &conns[0], Role::Server, 1, MS);
            (route, maker.http(route, 200, (0, 0)).span.exchange.attributes)
        })
        .collect();
    for n in 0..30_000 {
        let at = rng.usize(..2);
        // Few connections with many exchanges, many with few.
        let conn = &conns[if rng.bool() {
            rng.usize(..4)
        } else {
            rng.usize(..3_000)
        }];
        let (route, head) = &shared[rng.usize(..2)];
        let status = [200, 200, 200, 404, 500][rng.usize(..5)];
        let size = rng.i64(0..5_000);
        let duration = rng.u64(..SECOND);
        let mut maker = Maker::new(&services[at], conn, Role::Server, n + 1, duration);
        if rng.bool() {
            // The same memory as others, as with a head that came again.
            let mut attributes = Attributes::default();
            attributes.copy_from(head);
            let mut own = Attributes::default();
            own.copy_from(&attributes);
            maker.span.exchange.attributes = rebuild(&own, status, size);
        } else {
            maker = maker.http(route, status, (0, size));
        }
        if status >= 500 {
            maker = maker.error("500");
        }
        let entry = expected.entry((at, route, status)).or_default();
        entry.0 += 1;
        entry.1 += duration;
        entry.2 += size;
        metrics.record(&[maker.span], true);
    }
    let families = metrics.gather(SECOND);
    let durations = distributions(&families, "http.server.request.duration");
    let sizes = distributions(&families, "http.server.response.body.size");
    assert_eq!(durations.len(), expected.len());
    for ((at, route, status), (count, time, bytes)) in expected {
        let is = |labels: &str| {
            labels.starts_with(&*services[at].name)
                && labels.contains(&format!("http.route={route} "))
                && labels.contains(&format!("status_code={status}"))
                && labels.contains("error.type=500") == (status == 500)
        };
        let found: Vec<_> = durations.iter().filter(|(labels, _)| is(labels)).collect();
        assert_eq!(found.len(), 1, "{at} {route} {status}");
        assert_eq!((found[0].1.count(), found[0].1.sum), (count, time));
        let found: Vec<_> = sizes.iter().filter(|(labels, _)| is(labels)).collect();
        assert_eq!((found[0].1.count(), found[0].1.sum), (count, bytes as u64));
    }
    // Exemplars lie in their buckets and name what was there.
    for (_, told) in &durations {
        assert!(told.exemplars.len() > 5, "one for nearly every bucket");
        assert!(
            told.exemplars
                .iter()
                .all(|e| e.trace_id == TraceId([7; 16]) && e.value < SECOND)
        );
    }
}

fn rebuild(head: &Attributes, status: i64, size: i64) -> Attributes {
    let mut attributes = Attributes::default();
    for (key, value) in head.iter() {
        match (key, value) {
            ("http.response.status_code", _) => attributes.push_int(key, status),
            ("http.response.body.size", _) => attributes.push_int(key, size),
            (_, Value::Str(text)) => attributes.push_str(key, text),
            (_, Value::Int(number)) => attributes.push_int(key, number),
            _ => {}
        }
    }
    attributes
}

#[test]
fn the_limit_of_series_holds_and_nothing_is_lost() {
    let metrics = metrics(Config {
        max_series_per_service: 5,
        max_series: 8,
        service_graph: false,
        ..Config::default()
    });
    let routes: [&'static str; 9] = ["/1", "/2", "/3", "/4", "/5", "/6", "/7", "/8", "/9"];
    for (tgid, name) in [(1, "a"), (2, "b")] {
        let service = service(name, tgid);
        let conn = conn(u64::from(tgid), 80, true);
        for (n, route) in routes.into_iter().enumerate() {
            for again in 0..2 {
                let maker = Maker::new(&service, &conn, Role::Server, (n * 2 + again + 1) as u64, MS);
                metrics.record(&[maker.http(route, 200, (0, 0)).span], false);
            }
        }
    }
    let families = metrics.gather(SECOND);
    let all = counts(&families, "http.server.request.duration");
    let overflow = |service: &str| {
        let wanted = format!("{service} otel.metric.overflow=true");
        all.iter()
            .find(|(labels, _)| *labels == wanted)
            .map(|(_, count)| *count)
    };
    // The overflow series is one of the eight.
    assert_eq!((overflow("a"), overflow("b")), (Some(8), Some(14)));
    assert_eq!(all.len(), 9);
    assert_eq!(all.iter().map(|(_, count)| count).sum::<u64>(), 36);
    assert_eq!(counts(&families, "tracer.metrics.overflowed"), [one("", 22)]);
}

#[test]
fn series_of_dead_services_expire_and_of_others_stay() {
    let metrics = metrics(Config {
        expire_after: Duration::from_secs(60),
        ..Config::default()
    });
    let (dead, idle) = (service("dead", 1), service("idle", 2));
    let conns = [conn(1, 80, true), conn(2, 80, true)];
    let exchange = |service, conn, at| {
        Maker::new(service, conn, Role::Server, at, MS)
            .http("/", 200, (0, 0))
            .span
    };
    metrics.record(
        &[
            exchange(&dead, &conns[0], SECOND),
            exchange(&idle, &conns[1], SECOND),
        ],
        false,
    );
    metrics.connection(Event::Opened, Some(Side::Server), &conns[0], &dead, SECOND);
    metrics.ended(&[1, 99], 100 * SECOND);
    let names = |now| -> Vec<String> {
        let families = metrics.gather(now);
        let mut all = counts(&families, "http.server.request.duration");
        all.extend(counts(&families, "traces_service_graph_request_total"));
        all.extend(counts(&families, "tracer.connection.opened"));
        all.into_iter().map(|(labels, _)| labels).collect()
    };
    let before = names(159 * SECOND);
    assert_eq!(before.len(), 5, "{before:?}");
    let after = names(161 * SECOND);
    assert_eq!(after.len(), 2, "{after:?}");
    assert!(after.iter().all(|labels| labels.contains("idle")), "{after:?}");
    // Another service takes its number; the connection's end is not taken for the dead one's.
    let next = service("next", 3);
    metrics.record(&[exchange(&next, &conns[0], 162 * SECOND)], false);
    let families = metrics.gather(163 * SECOND);
    let all = counts(&families, "http.server.request.duration");
    assert!(
        all.iter()
            .any(|(labels, count)| labels.starts_with("next ") && *count == 1),
        "{all:?}"
    );
}

#[test]
fn two_descriptions_of_one_service_are_one() {
    let metrics = metrics(Config::default());
    let conns = conn(1, 80, true);
    for at in 1..4 {
        // Described anew each time.
        let service = service("shop", 1);
        metrics.record(
            &[Maker::new(&service, &conns, Role::Server, at, MS)
                .http("/", 200, (0, 0))
                .span],
            false,
        );
    }
    let families = metrics.gather(SECOND);
    let all = counts(&families, "http.server.request.duration");
    assert_eq!(all.iter().map(|(_, count)| *count).collect::<Vec<_>>(), [3]);
}

/// Short-lived processes, such as those of scripts that call curl.
#[test]
fn instances_of_a_service_are_bounded() {
    let metrics = metrics(Config {
        max_instances_per_service: 3,
        expire_after: Duration::from_secs(60),
        ..Config::default()
    });
    let call = |tgid: u32| {
        let conn = conn(tgid.into(), 80, false);
        let span = Maker::new(&service("curl", tgid), &conn, Role::Client, SECOND, MS)
            .http("/", 200, (0, 0))
            .span;
        metrics.record(&[span], false);
        metrics.ended(&[tgid], 2 * SECOND);
    };
    let told = |now| -> Vec<(Option<String>, u64)> {
        let families = metrics.gather(now);
        let family = families
            .iter()
            .find(|f| f.instrument.name == "http.client.request.duration");
        let mut told: Vec<_> = family
            .into_iter()
            .flat_map(|family| &family.points)
            .map(|point| {
                let text = &point.service.as_ref().unwrap().resource.text;
                let instance = text.iter().find(|(key, _)| **key == *"service.instance.id");
                let Reading::Distribution(d) = &point.value else {
                    panic!("a histogram")
                };
                (instance.map(|(_, value)| value.to_string()), d.count())
            })
            .collect();
        told.sort();
        told
    };
    (1..=50).for_each(call);
    let instance = |n: u32| (Some(format!("curl-{n}")), 1);
    assert_eq!(
        told(3 * SECOND),
        [(None, 47), instance(1), instance(2), instance(3)]
    );
    // All are over; others take their places.
    assert_eq!(told(100 * SECOND), []);
    (51..=52).for_each(call);
    assert_eq!(told(3 * SECOND), [instance(51), instance(52)]);
}

/// Both ends of every request, whichever is known first, and ends whose other end is never seen.
#[test]
fn edges_count_every_request_once() {
    let metrics = metrics(Config::default());
    let (front, back) = (service("front", 1), service("back", 2));
    let (out, inward) = (conn(1, 81, false), conn(2, 81, true));
    let mut spans = Vec::new();
    for n in 0..100u64 {
        let at = (n + 1) * MS;
        let client = Maker::new(&front, &out, Role::Client, at, 3 * MS).http("/", 200, (0, 0));
        let server = Maker::new(&back, &inward, Role::Server, at + 1, 2 * MS)
            .http("/", 200, (0, 0))
            .parent(at);
        let client = if n % 10 == 0 { client.error("500") } else { client };
        let mut pair = [client.span, server.span];
        if n % 3 == 0 {
            pair.reverse();
        }
        spans.extend(pair);
    }
    // Requests by nobody who is traced, and to somebody who is not.
    let (door, away) = (conn(3, 80, true), conn(4, 5432, false));
    for n in 0..7u64 {
        let at = 200 * MS + n;
        spans.push(
            Maker::new(&front, &door, Role::Server, at, 5 * MS)
                .http("/", 200, (0, 0))
                .span,
        );
        let query = Maker::new(&back, &away, Role::Client, 300 * MS + n, MS);
        spans.push(query.with(|a| a.push_static("db.system.name", "postgresql")).span);
    }
    // The caller is on another host.
    let far = conn(5, 80, true);
    spans.push(
        Maker::new(&front, &far, Role::Server, 400 * MS, MS)
            .http("/", 200, (0, 0))
            .parent(9)
            .span,
    );
    metrics.record(&spans, false);
    // Those that wait for an end that never comes are counted when they have waited long enough.
    let families = metrics.gather(20 * SECOND);
    let edge = |client, server, kind| format!(" client={client} server={server} connection_type={kind}");
    let (inner, user) = (edge("front", "back", ""), edge("user", "front", "virtual_node"));
    let query = edge("back", "127.0.0.1:5432", "database");
    assert_eq!(
        counts(&families, "traces_service_graph_request_total"),
        [one(&query, 7), one(&inner, 100), one(&user, 7)]
    );
    assert_eq!(
        counts(&families, "traces_service_graph_request_failed_total"),
        [one(&query, 0), one(&inner, 10), one(&user, 0)]
    );
    let times = |name| -> Vec<(String, u64, u64)> {
        let all = distributions(&families, name);
        all.into_iter()
            .map(|(labels, told)| (labels, told.count(), told.sum))
            .collect()
    };
    assert_eq!(
        times("traces_service_graph_request_server_seconds"),
        [(inner.clone(), 100, 200 * MS), (user, 7, 35 * MS)]
    );
    assert_eq!(
        times("traces_service_graph_request_client_seconds"),
        [(query, 7, 7 * MS), (inner, 100, 300 * MS)]
    );
    assert_eq!(
        counts(&families, "traces_service_graph_unpaired_spans_total"),
        [one("", 1)]
    );
    assert_eq!(
        counts(&families, "traces_service_graph_dropped_spans_total"),
        [one("", 0)]
    );
}

#[test]
fn connections_are_counted() {
    let metrics = metrics(Config::default());
    let shop = service("shop", 1);
    let (server, client) = (conn(1, 80, true), conn(2, 5432, false));
    metrics.connection(Event::Opened, Some(Side::Server), &server, &shop, 1);
    metrics.connection(Event::Opened, Some(Side::Server), &server, &shop, 2);
    metrics.connection(Event::Opened, Some(Side::Client), &client, &shop, 3);
    metrics.connection(Event::Reset, None, &client, &shop, 4);
    for at in 5..8 {
        metrics.connection(Event::Retransmitted, None, &client, &shop, at);
    }
    let mut failed = Maker::new(&shop, &client, Role::Client, 5, MS).error("ECONNREFUSED");
    failed.span.exchange.protocol = CONNECT;
    metrics.record(&[failed.span], true);
    let families = metrics.gather(SECOND);
    let to = "tracer.connection.side=client server.address=127.0.0.1 server.port=5432";
    assert_eq!(
        counts(&families, "tracer.connection.opened"),
        [
            one(&format!("shop {to}"), 1),
            one("shop tracer.connection.side=server server.port=80", 2)
        ]
    );
    assert_eq!(counts(&families, "tracer.connection.reset"), [one("shop", 1)]);
    assert_eq!(
        counts(&families, "tracer.connection.retransmitted"),
        [one("shop", 3)]
    );
    assert_eq!(
        counts(&families, "tracer.connection.failed"),
        [one(&format!("shop {to} error.type=ECONNREFUSED"), 1)]
    );
    assert!(counts(&families, "traces_service_graph_request_total").is_empty());
}

#[test]
fn queue_time_is_told_by_endpoint() {
    let metrics = metrics(Config::default());
    let shop = service("shop", 1);
    let server = conn(1, 80, true);
    for (at, wait) in [(1, Some(2 * MS)), (2, None), (3, Some(4 * MS))] {
        let mut maker = Maker::new(&shop, &server, Role::Server, at, MS).http("/", 200, (0, 0));
        maker.span.exchange.queue_time = wait;
        metrics.record(&[maker.span], false);
    }
    let families = metrics.gather(SECOND);
    let told = distributions(&families, "tracer.server.queue.duration");
    assert_eq!((told.len(), told[0].1.count(), told[0].1.sum), (1, 2, 6 * MS));
}

#[test]
fn names_are_used_once() {
    let mut names: Vec<_> = instruments().map(|instrument| instrument.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(names.len(), all);
}
