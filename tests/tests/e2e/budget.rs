//! A budget of processor time: what is shed above it, that it is whole traces, and that it ends.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::{Host, Kind, Selection, Span, Spans};

/// What nginx and Flask make of one request.
const SPANS: usize = 3;
/// Long enough for a turn, however rare they are.
const TURNS: Duration = Duration::from_secs(36);
/// Requests after the load, by their markers.
const AFTER: std::ops::Range<u64> = 1_000_000..1_000_020;

fn traces(spans: &Spans) -> BTreeMap<&[u8], Vec<&Span>> {
    let mut traces = BTreeMap::<_, Vec<_>>::new();
    for span in spans {
        traces.entry(&span.trace_id[..]).or_default().push(span);
    }
    traces
}

/// nginx's request, its call and Flask's request, of the same marker, one under the other.
fn is_whole(trace: &[&Span]) -> bool {
    let of = |service: &str, kind| {
        trace
            .iter()
            .find(|span| span.service == service && span.kind == kind)
    };
    let (Some(root), Some(call), Some(served)) = (
        of("nginx", Kind::Server),
        of("nginx", Kind::Client),
        of("b-flask", Kind::Server),
    ) else {
        return false;
    };
    trace.len() == SPANS
        && root.parent.is_none()
        && call.parent.as_ref() == Some(&root.span_id)
        && served.parent.as_ref() == Some(&call.span_id)
        && root.marker().is_some()
        && root.marker() == call.marker()
        && call.marker() == served.marker()
}

#[test]
fn above_the_budget_whole_traces_are_left_out() {
    let Some(host) = Host::ready() else { return };
    let flask = apps::flask(Setup::named("b-flask"));
    let nginx = apps::nginx(Setup::named("a-nginx").calling(&flask));
    // A budget that any load exceeds: how much that takes is not the subject.
    let selection = Selection::of(&[&nginx, &flask]).with("--cpu-budget", "1%");
    let tracer = host.trace(&selection);
    let deadline = Instant::now() + Duration::from_secs(240);
    let mut sent = 0;
    // Until traces and then connections are shed, and for two turns more.
    let mut until = None;
    while until.is_none_or(|until| Instant::now() < until) {
        assert!(Instant::now() < deadline, "nothing is shed:\n{}", tracer.output());
        let round = sent..sent + 500;
        sent = round.end;
        drive(nginx.port, 4, round, |client, n| {
            client.get(&format!("/pass/hello/{n}"))
        });
        if until.is_none() && tracer.output().contains("connections are followed for 4 of") {
            until = Some(Instant::now() + TURNS);
        }
    }
    let deadline = Instant::now() + Duration::from_secs(180);
    while !tracer.output().contains("nothing is shed any more") {
        assert!(
            Instant::now() < deadline,
            "it does not recover:\n{}",
            tracer.output()
        );
        std::thread::sleep(Duration::from_millis(100));
    }
    drive(nginx.port, 2, AFTER, |client, n| {
        client.get(&format!("/pass/hello/{n}"))
    });
    let finished = tracer.finish_with_drops(&["shed", "joined_late"]);
    let shed = finished.ledger.dropped("shed");
    assert!(shed > 0 && finished.ledger.exported > 0, "{:?}", finished.ledger);
    let kept = traces(&finished.spans);
    let parts: Vec<_> = kept.values().filter(|trace| !is_whole(trace)).collect();
    assert!(
        parts.is_empty(),
        "{} of {} traces are not whole: {:?}\n{}",
        parts.len(),
        kept.len(),
        parts
            .iter()
            .flat_map(|trace| trace.iter().map(ToString::to_string))
            .take(20)
            .collect::<Vec<_>>(),
        finished.output
    );
    let after = |trace: &[&Span]| {
        trace
            .iter()
            .any(|s| s.marker().is_some_and(|n| AFTER.contains(&n)))
    };
    let after = kept.values().filter(|trace| after(trace)).count();
    assert_eq!(
        after as u64,
        AFTER.end - AFTER.start,
        "all that came after the load"
    );
}
