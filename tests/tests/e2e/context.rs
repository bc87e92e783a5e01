//! Trace context that the request carries (evidence E1).

use tracer_tests::apps::{self, Setup};
use tracer_tests::judge::score;
use tracer_tests::{Client, Host, Kind, Selection};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Each format of headers makes the caller's span the parent.
#[test]
fn formats() {
    let Some(host) = Host::ready() else { return };
    let cases: Vec<Vec<(&str, String)>> = vec![
        vec![("traceparent", format!("00-{TRACE}-{PARENT}-01"))],
        vec![("b3", format!("{TRACE}-{PARENT}-1"))],
        vec![
            ("X-B3-TraceId", TRACE.into()),
            ("X-B3-SpanId", PARENT.into()),
            ("X-B3-Sampled", "1".into()),
        ],
        vec![(
            "X-Amzn-Trace-Id",
            format!("Root=1-{}-{};Parent={PARENT};Sampled=1", &TRACE[..8], &TRACE[8..]),
        )],
        vec![(
            "X-Cloud-Trace-Context",
            format!("{TRACE}/{};o=1", u64::from_str_radix(PARENT, 16).unwrap_or(0)),
        )],
        vec![("uber-trace-id", format!("{TRACE}:{PARENT}:0:1"))],
        vec![("elastic-apm-traceparent", format!("00-{TRACE}-{PARENT}-01"))],
    ];
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::connect(app.port);
    for (n, headers) in cases.iter().enumerate() {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        client.request("GET", &format!("/hello/{n}"), &headers, &[]);
    }
    let finished = tracer.finish();
    for (n, headers) in cases.iter().enumerate() {
        let span = finished.spans.marked(n as u64);
        let span = span.only(headers[0].0);
        assert_eq!(hex(&span.trace_id), TRACE, "{headers:?}");
        assert_eq!(
            span.parent.as_deref().map(hex).as_deref(),
            Some(PARENT),
            "{headers:?}"
        );
    }
}

/// A proxy passes the header on: the proxy's request is the caller's child, and what is behind the proxy hangs below the
/// proxy's call, all in the caller's trace.
#[test]
fn forwarded() {
    let Some(host) = Host::ready() else { return };
    let next = apps::go(Setup::named("next"));
    let proxy = apps::nginx(Setup::named("proxy").calling(&next));
    let tracer = host.trace(&Selection::of(&[&proxy, &next]));
    let mut client = Client::connect(proxy.port);
    for n in 0..20_u64 {
        let context = format!("00-{:032x}-{:016x}-01", n + 1, n + 100);
        client.request(
            "GET",
            &format!("/call/{n}"),
            &[("traceparent", context.as_str()), ("tracestate", "vendor=1")],
            &[],
        );
    }
    let finished = tracer.finish();
    let spans = &finished.spans;
    spans.assert_len(60, "three spans for each request");
    for n in 0..20_u64 {
        let own = spans.marked(n);
        assert_eq!(
            own.traces().iter().map(|id| hex(id)).collect::<Vec<_>>(),
            [format!("{:032x}", n + 1)],
            "{own}"
        );
        let served = own.service(&proxy.service).kind(Kind::Server);
        let parent = served.only("the proxy's request").parent.as_deref().map(hex);
        assert_eq!(parent, Some(format!("{:016x}", n + 100)));
    }
    let called = spans.service(&proxy.service).kind(Kind::Client);
    let within = score(&called, &spans.service(&proxy.service).kind(Kind::Server));
    let between = score(&spans.service("next"), &called);
    assert_eq!(
        (within.right, between.right),
        (20, 20),
        "{within:?} {between:?}\n{spans}"
    );
}
