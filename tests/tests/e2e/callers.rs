//! Services that call another: the call is a child of the request that it serves, the callee's span a child of the call.

use std::ops::Range;
use std::time::Duration;

use tracer_tests::apps::{self, Setup, Start};
use tracer_tests::client::drive;
use tracer_tests::judge::{assert_called, assert_served, score};
use tracer_tests::{Host, Kind, Record, Selection};

/// Markers of the requests right after the daemon's start: exactly told, no wrong parent; recall is printed only.
const FIRST: Range<u64> = 1_000..1_100;
/// Markers of the requests once the daemon knows the processes.
const SETTLED: Range<u64> = 10_000..10_200;
/// The daemon looks at the processes that were there before it in the background.
const ACQUAINTANCE: Duration = Duration::from_secs(1);

/// Drives `path` of the app with eight kept connections. Every claimed parent must be right; `recall` is the part that must be
/// claimed where the runtime hands calls to other threads.
fn check(start: Start, path: &str, recall: f64) {
    let Some(host) = Host::ready() else { return };
    let next = apps::go(Setup::named("next"));
    let app = start(Setup::named("app").calling(&next));
    // Dialling is not what is tested here; the pools have connections for all afterwards.
    drive(app.port, 16, 0..800, |client, n| {
        client.get(&format!("{path}/{n}"))
    });
    let tracer = host.trace(&Selection::of(&[&app, &next]));
    let mut records = drive(app.port, 16, FIRST, |client, n| {
        client.get(&format!("{path}/{n}"))
    });
    std::thread::sleep(ACQUAINTANCE);
    records.extend(drive(app.port, 8, SETTLED, |client, n| {
        client.get(&format!("{path}/{n}"))
    }));
    let finished = tracer.finish();
    let spans = &finished.spans;

    assert_served(spans, &app.service, &records);
    let calls: Vec<Record> = records.iter().map(called).collect();
    assert_called(spans, &app.service, &calls);
    assert_served(spans, "next", &calls);

    let served = spans.service(&app.service).kind(Kind::Server);
    let called = spans.service(&app.service).kind(Kind::Client);
    let next = spans.service("next").kind(Kind::Server);
    let between = score(&next, &called);
    let settled = called.filter(|s| s.marker().is_some_and(|n| SETTLED.contains(&n)));
    let first = called.filter(|s| s.marker().is_some_and(|n| FIRST.contains(&n)));
    let first = score(&first, &served);
    let within = score(&settled, &served);
    eprintln!(
        "{path} of {}: within the service {within:?}, precision {:.3}, recall {:.3}; \
         in the first second {first:?}; between services {between:?}",
        app.program.name(),
        within.precision(),
        within.recall()
    );
    let orphans: Vec<_> = settled
        .iter()
        .filter(|s| s.parent.is_none())
        .filter_map(tracer_tests::Span::marker)
        .collect();
    eprintln!("calls without a parent: {orphans:?}");
    assert_eq!(
        between.right,
        next.len(),
        "every callee's span is a child of its call: {between:?}\n{spans}"
    );
    assert_eq!(
        (first.wrong, within.wrong),
        (0, 0),
        "no parent may be wrong\n{spans}"
    );
    assert!(
        within.recall() >= recall,
        "recall below {recall}: {within:?}\n{spans}"
    );
}

/// What the app asks of the next service when it serves `record`, within the time of that; from which port is its affair.
fn called(record: &Record) -> Record {
    let n = record.target.rsplit('/').next().unwrap_or_default();
    Record {
        target: format!("/hello/{n}"),
        port: 0,
        ..record.clone()
    }
}

macro_rules! callers {
    ($($name:ident: $app:ident, $path:literal, $recall:literal;)+) => {
        $(#[test] fn $name() { check(apps::$app, $path, $recall); })+
    };
}

callers! {
    nginx_proxy: nginx, "/call", 1.0;
    apache_proxy: apache, "/call", 1.0;
    go_pooled_client: go, "/call", 1.0;
    node_agent: node, "/call", 1.0;
    node_fetch: node, "/fetch", 0.0;
    python_http_client: python_http, "/call", 1.0;
    flask_requests: flask, "/call", 1.0;
    flask_sync_requests: flask_sync, "/call", 1.0;
    java_url_connection: java, "/call", 1.0;
    java_http_client: java, "/client", 0.0;
    ruby_net_http: ruby, "/call", 1.0;
}

/// Every other caller does not wait yet when its request is written: it is found when the response is read.
#[test]
fn go_callers_come_late() {
    let Some(host) = Host::ready() else { return };
    let next = apps::go(Setup::named("next").env("LATE", "1"));
    let app = apps::go(Setup::named("app").env("LATE", "1").calling(&next));
    let call = |requests| {
        drive(app.port, 8, requests, |client, n| {
            client.get(&format!("/call/{n}"))
        })
    };
    call(0..100);
    let tracer = host.trace(&Selection::of(&[&app, &next]));
    call(FIRST);
    std::thread::sleep(ACQUAINTANCE);
    let records = call(SETTLED);
    let finished = tracer.finish();
    let spans = finished
        .spans
        .filter(|s| s.marker().is_some_and(|n| SETTLED.contains(&n)));
    assert_served(&spans, &app.service, &records);
    let calls = spans.service(&app.service).kind(Kind::Client);
    let served = spans.service(&app.service).kind(Kind::Server);
    let score = score(&calls, &served);
    assert_eq!(
        (score.right, score.wrong, score.missing),
        (records.len(), 0, 0),
        "{spans}"
    );
}

/// Three goroutines of one request call at once; each call belongs to that request.
#[test]
fn go_fan_out() {
    let Some(host) = Host::ready() else { return };
    let next = apps::go(Setup::named("next"));
    let app = apps::go(Setup::named("app").calling(&next));
    drive(app.port, 8, 0..400, |client, n| {
        client.get(&format!("/fanout/{n}"))
    });
    let tracer = host.trace(&Selection::of(&[&app, &next]));
    drive(app.port, 8, 1_000..1_050, |client, n| {
        client.get(&format!("/fanout/{n}"))
    });
    std::thread::sleep(ACQUAINTANCE);
    let records = drive(app.port, 4, 10_000..10_050, |client, n| {
        client.get(&format!("/fanout/{n}"))
    });
    let finished = tracer.finish();
    let spans = finished
        .spans
        .filter(|s| s.marker().is_some_and(|n| n % 1_000_000 >= 10_000));
    let spans = &spans;
    assert_served(spans, &app.service, &records);
    spans
        .service("app")
        .kind(Kind::Client)
        .assert_len(150, "three calls for each request");
    let mut missing = 0;
    for record in &records {
        let n: u64 = record
            .target
            .rsplit('/')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a marker");
        let served = spans.service(&app.service).kind(Kind::Server).marked(n);
        let served = served.only("the request");
        for call in 0..3 {
            let called = spans
                .service("app")
                .kind(Kind::Client)
                .marked(n + call * 1_000_000);
            let called = called.only("a call");
            match &called.parent {
                Some(parent) => assert_eq!(parent, &served.span_id, "{called} belongs to {served}"),
                None => missing += 1,
            }
        }
    }
    assert_eq!(missing, 0, "calls without a parent\n{spans}");
}
