//! Four services on one host: curl -> Go -> Flask -> PostgreSQL and Redis is one trace.

use std::process::Command;

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::judge::{assert_attribute, assert_served};
use tracer_tests::{Client, Host, Kind, Selection, Span, Spans};

/// Nanoseconds by which two spans may differ because calendar time was measured anew between them.
const CLOCK_SLACK: u64 = 100_000;

/// The only child of that service and kind.
fn child<'a>(spans: &'a Spans, parent: &Span, service: &str, kind: Kind) -> &'a Span {
    let mut children = spans
        .iter()
        .filter(|s| s.parent.as_ref() == Some(&parent.span_id) && s.service == service && s.kind == kind);
    let found = children
        .next()
        .unwrap_or_else(|| panic!("no {kind:?} of {service} under {parent}\n{spans}"));
    assert!(
        children.next().is_none(),
        "two {kind:?} of {service} under {parent}\n{spans}"
    );
    assert_eq!(
        found.trace_id, parent.trace_id,
        "{found} is in the trace of {parent}"
    );
    // Both ends of a connection are stamped when a system call returns, and on loopback the peer may have read, served and answered
    // within the very call that sent the request. But each end bounds the other's, so whatever a span caused lies inside of it.
    assert!(
        parent.start <= found.start + CLOCK_SLACK && found.end <= parent.end + CLOCK_SLACK,
        "{found} lies inside of {parent}: starts {} ns after it, ends {} ns before it",
        found.start as i64 - parent.start as i64,
        parent.end as i64 - found.end as i64,
    );
    found
}

/// Everything that the request `n` at Go caused.
fn assert_chain(spans: &Spans, n: u64) {
    let roots = spans.service("a-go").kind(Kind::Server).marked(n);
    let root = roots.only("the request at Go");
    let trace = spans.filter(|span| span.trace_id == root.trace_id);
    let call = child(&trace, root, "a-go", Kind::Client);
    assert_eq!(call.marker(), Some(n));
    let flask = child(&trace, call, "b-flask", Kind::Server);
    assert_eq!(flask.marker(), Some(n));

    let queries = trace.filter(|s| {
        s.parent.as_ref() == Some(&flask.span_id)
            && s.kind == Kind::Client
            && s.text("db.system.name") == "postgresql"
    });
    let query = queries.filter(|s| s.text("db.operation.name") == "SELECT");
    let query = query.only("the query");
    assert!(
        query.text("db.query.text").contains(&format!("marker_{n} ")),
        "the query of request {n}: {}",
        query.text("db.query.text")
    );
    assert_eq!(query.name, "SELECT users");
    child(&trace, query, "postgres", Kind::Server);

    let gets = trace.filter(|s| {
        s.parent.as_ref() == Some(&flask.span_id)
            && s.kind == Kind::Client
            && s.text("db.operation.name") == "GET"
    });
    gets.assert_len(1 + (n % 3) as usize, "the GETs of the request");
    for get in &gets {
        assert_attribute(get, "db.system.name", "redis");
        child(&trace, get, "redis-server", Kind::Server);
    }
}

#[test]
fn curl_go_flask_postgresql_redis() {
    trace_the_chain("1");
}

/// Events travel through queues to three workers, whose signals are merged again: the same must come of it.
#[test]
fn the_chain_with_several_workers() {
    trace_the_chain("3");
}

fn trace_the_chain(workers: &str) {
    let Some(host) = Host::ready() else { return };
    let (flask, postgresql, redis) = apps::flask_with_stores(Setup::named("b-flask"));
    let go = apps::go(Setup::named("a-go").calling(&flask));
    assert_eq!(Client::connect(go.port).get("/chain/1").status, 200);

    let selection = Selection::of(&[&go, &flask, &postgresql, &redis]).with("--workers", workers);
    let tracer = host.trace(&selection);
    // Dialling is not what is tested here; the pools have connections for all afterwards.
    drive(go.port, 8, 0..50, |client, n| client.get(&format!("/chain/{n}")));
    for n in 100..110 {
        let output = Command::new("curl")
            .args(["-sS", "--fail"])
            .arg(format!("{}/chain/{n}", go.url()))
            .output();
        assert!(output.expect("curl").status.success());
    }
    let records = drive(go.port, 4, 200..300, |client, n| {
        client.get(&format!("/chain/{n}"))
    });
    let finished = tracer.finish();
    let spans = &finished.spans;

    for n in 100..110 {
        let curl = spans.service("curl").kind(Kind::Client).marked(n);
        let curl = curl.only("the run of curl");
        assert_eq!(curl.parent, None);
        child(spans, curl, "a-go", Kind::Server);
        assert_chain(spans, n);
    }
    let concurrent = spans.filter(|span| span.service != "a-go" || span.marker().is_none_or(|n| n >= 200));
    assert_served(&concurrent, "a-go", &records);
    // Go's caller is read from the channel that it waits on, and it may not have parked yet when the write happens: such a call has no
    // parent (CAUSALITY: 6 writes of a run). What has one must be right.
    let called = spans.service("a-go").kind(Kind::Client);
    let whole: Vec<u64> = (200..300)
        .filter(|&n| called.marked(n).iter().all(|call| call.parent.is_some()))
        .collect();
    for &n in &whole {
        assert_chain(spans, n);
    }
    assert!(whole.len() >= 95, "{} of 100 chains are whole", whole.len());
    let requests = spans.service("a-go").kind(Kind::Server);
    assert_eq!(
        requests.traces().len(),
        requests.len(),
        "no two requests share a trace"
    );
}
