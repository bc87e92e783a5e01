//! Sampling by the real daemon: whole traces, the same ones wherever it is decided, counts that can be restored, metrics of all.

use std::collections::BTreeMap;

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::process::TempDir;
use tracer_tests::{Client, Host, Kind, Record, Selection, Span, Spans, Tracer, Transport, metrics};

/// Traces whose ids are spread evenly over the 56 random bits: of any share, just that share is kept.
const TRACES: u64 = 200;
/// What nginx and Flask make of one request.
const SPANS: usize = 3;

/// The id of trace `n`, in hexadecimal. Those beyond the evenly spread ones would be left out by any chance.
fn trace_id(n: u64) -> String {
    let randomness = if n < TRACES {
        (u128::from(n) << 56) / u128::from(TRACES)
    } else {
        u128::from(n)
    };
    format!("5eed00000000000001{randomness:014x}")
}

fn get(client: &mut Client, target: &str, n: u64, flags: &str) -> Record {
    let parent = format!("00-{}-00f067aa0ba902b7-{flags}", trace_id(n));
    client.request("GET", target, &[("traceparent", &parent)], b"")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Spans by their trace.
fn traces(spans: &Spans) -> BTreeMap<String, Vec<&Span>> {
    let mut traces = BTreeMap::<_, Vec<_>>::new();
    for span in spans {
        traces.entry(hex(&span.trace_id)).or_default().push(span);
    }
    traces
}

/// How many traces this one stands for, by the threshold on its spans (OpenTelemetry, "Probability Sampling").
fn weight(trace: &[&Span]) -> f64 {
    let state = &trace[0].trace_state;
    assert!(trace.iter().all(|span| span.trace_state == *state), "{trace:?}");
    let digits = state
        .split("ot=")
        .nth(1)
        .and_then(|ot| ot.split([';', ',']).find_map(|field| field.strip_prefix("th:")))
        .unwrap_or_else(|| panic!("no threshold in {state:?}"));
    let threshold = u64::from_str_radix(&format!("{digits:0<14}"), 16).expect("hexadecimal");
    1.0 / (1.0 - threshold as f64 / (1_u64 << 56) as f64)
}

fn expect(ids: impl IntoIterator<Item = u64>) -> Vec<String> {
    ids.into_iter().map(trace_id).collect()
}

/// A configuration that measures, too.
fn with(folder: &TempDir, selection: Selection, sample: &str) -> Selection {
    let text = format!("sample: {sample}\nexport: {{metrics: {{otlp: true}}}}\n");
    let config = folder.write("tracer.yaml", text);
    selection.with("--config", &config.display().to_string())
}

/// Two daemons, each of which sees one service only, decide alike.
#[test]
fn a_ratio_is_the_same_everywhere() {
    let Some(host) = Host::ready() else { return };
    let flask = apps::flask(Setup::named("b-flask"));
    let nginx = apps::nginx(Setup::default().calling(&flask));
    let folder = TempDir::new("sampling");
    let tracers = [&nginx, &flask].map(|app| {
        let selection = with(
            &folder,
            Selection::of(&[app]),
            "{sampler: traceidratio, ratio: 0.25}",
        );
        Tracer::start(&selection, Transport::Grpc)
    });
    drive(nginx.port, 4, 0..TRACES, |client, n| {
        get(client, "/pass/hello/1", n, "01")
    });
    let expected = [("nginx", &["nginx"][..]), ("b-flask", &["b-flask", "nginx"])];
    for (tracer, (server, services)) in tracers.into_iter().zip(expected) {
        let finished = tracer.finish_with_drops(&["not_sampled"]);
        let kept = traces(&finished.spans);
        let ids: Vec<String> = kept.keys().cloned().collect();
        assert_eq!(ids, expect(TRACES * 3 / 4..TRACES));
        for trace in kept.values() {
            let mut found: Vec<&str> = trace.iter().map(|span| span.service.as_str()).collect();
            found.sort_unstable();
            assert_eq!(found, services, "a whole trace");
            assert_eq!(weight(trace), 4.0);
        }
        let measured = metrics::totals(&finished.points);
        let (count, _) = measured[&(server.to_owned(), "http.server.request.duration".to_owned())];
        assert_eq!(count, TRACES, "metrics are not sampled");
    }
    drop(host);
}

/// The caller's decision is followed; where there is none, the ratio decides.
#[test]
fn callers_decide_first() {
    let Some(host) = Host::ready() else { return };
    let flask = apps::flask(Setup::named("b-flask"));
    let nginx = apps::nginx(Setup::default().calling(&flask));
    let folder = TempDir::new("sampling");
    let selection = Selection::of(&[&nginx, &flask]);
    let selection = with(
        &folder,
        selection,
        "{sampler: parentbased_traceidratio, ratio: 0}",
    );
    let tracer = Tracer::start(&selection, Transport::Http);
    drive(nginx.port, 4, 0..TRACES, |client, n| {
        get(client, "/pass/hello/1", n, if n % 3 == 0 { "01" } else { "00" })
    });
    // Nobody has decided here.
    drive(nginx.port, 4, 0..50, |client, _| client.get("/pass/hello/1"));
    let finished = tracer.finish_with_drops(&["not_sampled"]);
    let kept = traces(&finished.spans);
    let ids: Vec<String> = kept.keys().cloned().collect();
    assert_eq!(ids, expect((0..TRACES).step_by(3)));
    assert!(
        kept.values().all(|trace| trace.len() == SPANS),
        "{}",
        finished.spans
    );
    drop(host);
}

/// What failed or was slow is kept however unlikely, of the rest a share; both restore the counts.
#[test]
fn tail_keeps_what_matters() {
    let Some(host) = Host::ready() else { return };
    let flask = apps::flask(Setup::named("b-flask"));
    let nginx = apps::nginx(Setup::default().calling(&flask));
    let folder = TempDir::new("sampling");
    let selection = Selection::of(&[&nginx, &flask]);
    let tail = "{enabled: true, slow: 400ms, slow_p99: false, rare_per_minute: 0, traces_per_second: 0, base_ratio: 0.25}";
    let selection = with(&folder, selection, &format!("{{tail: {tail}}}"));
    let tracer = Tracer::start(&selection, Transport::Grpc);
    let (failed, slow) = (TRACES..TRACES + 10, TRACES + 10..TRACES + 15);
    drive(nginx.port, 4, 0..slow.end, |client, n| {
        let path = match n {
            n if failed.contains(&n) => "/pass/status/503",
            n if slow.contains(&n) => "/pass/slow/500",
            _ => "/pass/hello/1",
        };
        get(client, path, n, "01")
    });
    let finished = tracer.finish_with_drops(&["not_sampled"]);
    let kept = traces(&finished.spans);
    let ids: Vec<String> = kept.keys().cloned().collect();
    let worth = failed.clone().chain(slow.clone());
    assert_eq!(ids, expect(worth.clone().chain(TRACES * 3 / 4..TRACES)));
    for (id, trace) in &kept {
        let is_worth = worth.clone().any(|n| trace_id(n) == *id);
        assert_eq!(
            (trace.len(), weight(trace)),
            (SPANS, if is_worth { 1.0 } else { 4.0 }),
            "{id}"
        );
    }
    let restored: f64 = kept.values().map(|trace| weight(trace)).sum();
    assert_eq!(
        restored, slow.end as f64,
        "every request, by the weights of those that were kept"
    );
    let measured = metrics::totals(&finished.points);
    for service in ["nginx", "b-flask"] {
        let (count, _) = measured[&(service.to_owned(), "http.server.request.duration".to_owned())];
        assert_eq!(count, slow.end, "metrics are not sampled");
    }
    let errors = finished
        .spans
        .filter(|span| span.error && span.kind == Kind::Server);
    assert_eq!(errors.len(), 2 * failed.count());
    drop(host);
}
