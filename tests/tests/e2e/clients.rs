//! Client programs, short-lived and busy ones.

use std::process::Command;

use tracer_tests::apps::{self, Setup};
use tracer_tests::judge::{assert_attribute, score};
use tracer_tests::{Host, Kind, Selection};

#[test]
fn curl() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    for n in 0..20 {
        let url = format!("{}/hello/{n}", app.url().replace("http://", "http://me:secret@"));
        let output = Command::new("curl")
            .args(["-sS", "-w", "%{time_total}"])
            .arg(url)
            .output();
        let output = output.expect("curl");
        assert!(output.status.success(), "{output:?}");
    }
    let failing = Command::new("curl")
        .args(["-sS", "-o", "/dev/null"])
        .arg(format!("{}/status/404", app.url()))
        .status();
    assert!(failing.expect("curl").success());
    let finished = tracer.finish();
    let spans = &finished.spans;
    let called = spans.service("curl").kind(Kind::Client);
    let served = spans.service(&app.service).kind(Kind::Server);
    called.assert_len(21, "one for each run of curl");
    served.assert_len(21, "one for each request");
    let between = score(&served, &called);
    assert_eq!(
        between.right, 21,
        "each request at the server belongs to its curl: {between:?}\n{spans}"
    );
    for n in 0..20 {
        let call = called.marked(n);
        let call = call.only("a run of curl");
        assert_attribute(call, "url.full", format!("{}/hello/{n}", app.url()).as_str());
        assert_attribute(call, "server.port", i64::from(app.port));
        assert_attribute(call, "http.response.status_code", 200);
        assert_eq!(call.parent, None);
        assert!(
            !format!("{call:?}").contains("secret"),
            "credentials are removed: {call:?}"
        );
    }
    let failed = called.with("http.response.status_code", 404);
    let failed = failed.only("the failing run");
    assert!(failed.error, "a client's 404 is an error");
    assert_attribute(failed, "error.type", "404");
}

#[test]
fn wrk() {
    /// wrk stops with at most this many requests in flight, which it does not count.
    const CONNECTIONS: usize = 10;
    let Some(host) = Host::ready() else { return };
    // A slow server: what a tracer loses when the processors are saturated is the benches' subject.
    let app = apps::python_http(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let output = Command::new("wrk")
        .args(["-t1", &format!("-c{CONNECTIONS}"), "-d1s"])
        .arg(format!("{}/hello/1", app.url()))
        .output()
        .expect("wrk");
    let text = String::from_utf8_lossy(&output.stdout);
    let counted: usize = text
        .lines()
        .find_map(|line| line.trim().split_once(" requests in ")?.0.parse().ok())
        .unwrap_or_else(|| panic!("no count in {text}"));
    let finished = tracer.finish_with_drops(&["abandoned"]);
    let called = finished
        .spans
        .service("wrk")
        .kind(Kind::Client)
        .filter(|span| !span.error);
    let served = finished.spans.service(&app.service).kind(Kind::Server);
    for (what, n) in [("called", called.len()), ("served", served.len())] {
        assert!(
            (counted..=counted + CONNECTIONS).contains(&n),
            "{what}: {n} spans, wrk counted {counted} requests and had up to {CONNECTIONS} in flight"
        );
    }
}
