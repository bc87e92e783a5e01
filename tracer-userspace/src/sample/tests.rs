//! Statistics with fixed seeds: shares, whole traces, restored counts, bounds.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::model::{
    Address, Attributes, Conn, ConnId, Endpoint, Exchange, ExchangeId, Outcome, Role, Service, SpanId, Stamp,
    TraceContext,
};

const MS: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;

/// A trace of a root and calls below it.
#[derive(Clone)]
struct Trace {
    id: TraceId,
    name: &'static str,
    duration: Nanos,
    spans: u64,
    failed: bool,
    /// Its root is a request, and no call.
    from_outside: bool,
    caller: Option<bool>,
    state: &'static str,
}

impl Trace {
    fn new(rng: &mut fastrand::Rng) -> Self {
        let id = u128::from(rng.u64(..)) << 64 | u128::from(rng.u64(..));
        Self {
            id: TraceId(id.to_be_bytes()),
            name: "GET /",
            duration: 10 * MS,
            spans: 3,
            failed: false,
            from_outside: true,
            caller: None,
            state: "",
        }
    }

    /// Its spans, the root last.
    fn spans(&self, end: Nanos) -> Vec<Span> {
        let span = |n: u64| {
            let is_root = n == 0;
            let stamp = |ts| Stamp {
                ts,
                ..Stamp::default()
            };
            let place = Endpoint {
                address: Address::Ip(Ipv4Addr::LOCALHOST.into()),
                port: 80,
            };
            Span {
                trace_id: self.id,
                span_id: SpanId((n + 1).to_be_bytes()),
                parent: (!is_root).then_some(SpanId(1u64.to_be_bytes())),
                parent_is_remote: false,
                evidence: None,
                trace_state: if is_root {
                    self.state.into()
                } else {
                    Box::default()
                },
                links: Vec::new(),
                exchange: Box::new(Exchange {
                    id: ExchangeId(n),
                    conn: Arc::new(Conn {
                        id: ConnId(1),
                        local: place,
                        remote: place,
                        netns: 1,
                        tgid: 1,
                        joined_late: false,
                    }),
                    protocol: "http1",
                    role: if is_root && self.from_outside {
                        Role::Server
                    } else {
                        Role::Client
                    },
                    start: stamp(end - self.duration),
                    first_byte: None,
                    end: stamp(end),
                    queue_time: None,
                    request_bytes: 0,
                    response_bytes: 0,
                    name: self.name.into(),
                    outcome: if self.failed && n == 1 {
                        Outcome::Error {
                            kind: "500".into(),
                            message: Box::default(),
                        }
                    } else {
                        Outcome::Unset
                    },
                    attributes: Attributes::default(),
                    context: self.caller.filter(|_| is_root).map(|sampled| {
                        Arc::new(TraceContext {
                            trace_id: self.id,
                            span_id: None,
                            sampled: Some(sampled),
                            trace_state: self.state.into(),
                            format: "traceparent",
                        })
                    }),
                }),
                service: Arc::new(Service {
                    name: "shop".into(),
                    ..Service::default()
                }),
            }
        };
        (0..self.spans).rev().map(span).collect()
    }
}

/// Runs traces through, `gap` apart, span by span, and returns the kept ones: their number of spans and their `tracestate`.
fn run(config: &Config, traces: &[Trace], gap: Nanos) -> (BTreeMap<TraceId, (u64, String)>, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::default());
    let mut sampler = Sampler::new(config, Arc::clone(&ledger)).expect("a sampler");
    let mut kept = Vec::new();
    let mut now = SECOND;
    for trace in traces {
        for span in trace.spans(now) {
            ledger.seen(1);
            sampler.offer(&mut vec![span], now, &mut kept);
        }
        now += gap;
    }
    sampler.finish(now, &mut kept);
    let mut found = BTreeMap::<TraceId, (u64, String)>::new();
    for span in &kept {
        let entry = found
            .entry(span.trace_id)
            .or_insert((0, span.trace_state.to_string()));
        entry.0 += 1;
        assert_eq!(entry.1, &*span.trace_state, "all spans of a trace tell the same");
    }
    ledger.exported("shop", kept.len() as u64);
    assert_eq!(ledger.snapshot().open(), 0, "the ledger balances");
    let spans: BTreeMap<_, _> = traces.iter().map(|trace| (trace.id, trace.spans)).collect();
    for (id, (count, _)) in &found {
        assert_eq!(*count, spans[id], "whole traces only");
    }
    (found, ledger)
}

fn head(kind: Kind, ratio: f64) -> Config {
    Config {
        sampler: Some(kind),
        ratio,
        ..Config::default()
    }
}

fn tail(change: impl FnOnce(&mut Tail)) -> Config {
    let mut tail = Tail {
        enabled: true,
        slow_p99: false,
        rare_per_minute: 0,
        traces_per_second: 0.0,
        base_ratio: 0.0,
        ..Tail::default()
    };
    change(&mut tail);
    Config {
        tail,
        ..Config::default()
    }
}

fn many(seed: u64, count: usize) -> Vec<Trace> {
    let mut rng = fastrand::Rng::with_seed(seed);
    (0..count).map(|_| Trace::new(&mut rng)).collect()
}

/// Kept traces by their weights: what the whole is taken to be.
fn restored(kept: &BTreeMap<TraceId, (u64, String)>) -> f64 {
    let weight = |(_, state): &(u64, String)| {
        1.0 / threshold::read(state)
            .threshold
            .expect("a threshold")
            .probability()
    };
    kept.values().map(weight).sum()
}

#[test]
fn without_configuration_there_is_no_sampler() {
    assert!(Sampler::new(&Config::default(), Arc::default()).is_none());
}

#[test]
fn head_samplers_do_what_their_names_say() {
    let mut traces = many(1, 600);
    for (n, trace) in traces.iter_mut().enumerate() {
        trace.caller = [None, Some(true), Some(false)][n % 3];
    }
    let none = |n: usize| n.is_multiple_of(3);
    let told = |n: usize| n % 3 == 1;
    for (kind, expected) in [
        (Kind::AlwaysOn, (|_| true) as fn(usize) -> bool),
        (Kind::AlwaysOff, |_| false),
        (Kind::ParentBasedAlwaysOn, |n| n % 3 != 2),
        (Kind::ParentBasedAlwaysOff, |n| n % 3 == 1),
    ] {
        let (kept, _) = run(&head(kind, 0.0), &traces, MS);
        for (n, trace) in traces.iter().enumerate() {
            assert_eq!(kept.contains_key(&trace.id), expected(n), "{kind:?} {n}");
        }
    }
    let (kept, _) = run(&head(Kind::ParentBasedTraceIdRatio, 0.5), &traces, MS);
    let count = |which: &dyn Fn(usize) -> bool| {
        traces
            .iter()
            .enumerate()
            .filter(|(n, t)| which(*n) && kept.contains_key(&t.id))
            .count()
    };
    assert_eq!(count(&told), 200, "as the caller said");
    // Four standard deviations of a binomial distribution: 100 +- 4 * 7.1.
    assert!((72..=128).contains(&count(&none)), "{}", count(&none));
    assert_eq!(kept.len(), count(&told) + count(&none));
}

#[test]
fn ratios_are_kept_and_nest() {
    let traces = many(2, 20_000);
    let mut before: Option<BTreeMap<_, _>> = None;
    for ratio in [0.5, 0.25, 0.1, 0.01] {
        let (kept, _) = run(&head(Kind::TraceIdRatio, ratio), &traces, MS);
        let expected = 20_000.0 * ratio;
        let deviation = (expected * (1.0 - ratio)).sqrt();
        assert!(
            (kept.len() as f64 - expected).abs() < 4.0 * deviation,
            "{ratio}: {}",
            kept.len()
        );
        let error = (restored(&kept) - 20_000.0).abs();
        assert!(error < 4.0 * deviation / ratio, "{ratio}: {error}");
        // Samplers with other ratios agree: what the smaller keeps, the larger keeps too.
        if let Some(before) = before {
            assert!(kept.keys().all(|id| before.contains_key(id)), "{ratio}");
        }
        before = Some(kept);
    }
}

#[test]
fn an_earlier_threshold_is_not_forgotten() {
    let mut traces = many(3, 4_000);
    // The caller kept one in four by its own randomness, which is not the id's.
    for trace in &mut traces {
        trace.state = "ot=th:c;rv:d0000000000000";
    }
    for config in [head(Kind::TraceIdRatio, 0.5), tail(|tail| tail.base_ratio = 0.5)] {
        let (kept, _) = run(&config, &traces, MS);
        // 0xd of 16 is above the thresholds of 1/4 and 1/2; what is told is the smaller probability.
        assert_eq!(kept.len(), 4_000);
        assert!(
            kept.values()
                .all(|(_, state)| state == "ot=th:c;rv:d0000000000000")
        );
    }
    let (kept, _) = run(&tail(|tail| tail.base_ratio = 0.1), &traces, MS);
    assert!(kept.is_empty());
}

#[test]
fn errors_and_slow_traces_are_kept_and_counts_can_be_restored() {
    let mut traces = many(4, 20_000);
    for (n, trace) in traces.iter_mut().enumerate() {
        trace.failed = n % 50 == 7;
        trace.duration = if n % 40 == 3 { 900 * MS } else { 10 * MS };
    }
    let config = tail(|tail| {
        tail.slow = Some(Duration::from_millis(500));
        tail.base_ratio = 0.05;
    });
    let (kept, ledger) = run(&config, &traces, 10 * MS);
    let special = |trace: &Trace| trace.failed || trace.duration > 500 * MS;
    for trace in traces.iter().filter(|trace| special(trace)) {
        let (_, state) = kept.get(&trace.id).expect("every trace that failed or is slow");
        assert_eq!(state, "ot=th:0");
    }
    let plain = traces.iter().filter(|trace| !special(trace)).count() as f64;
    let sampled = kept.len() as f64 - (20_000.0 - plain);
    let deviation = (plain * 0.05 * 0.95).sqrt();
    assert!(
        (sampled - plain * 0.05).abs() < 4.0 * deviation,
        "{sampled} of {plain}"
    );
    assert!(
        (restored(&kept) - 20_000.0).abs() < 4.0 * deviation / 0.05,
        "{}",
        restored(&kept)
    );
    let left = ledger.snapshot().dropped[&Reason::NotSampled];
    assert_eq!(left, 3 * (20_000 - kept.len() as u64));
}

#[test]
fn what_is_slow_is_learned_by_endpoint() {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut traces = many(6, 20_000);
    for (n, trace) in traces.iter_mut().enumerate() {
        // What is usual at one is slow at the other.
        (trace.name, trace.duration) = if n % 2 == 0 {
            ("GET /fast", rng.u64(MS..2 * MS))
        } else {
            ("GET /slow", rng.u64(500 * MS..1_000 * MS))
        };
        if n > 10_000 && n % 1_000 == 0 {
            trace.duration = 20 * MS;
        }
    }
    let (kept, _) = run(&tail(|tail| tail.slow_p99 = true), &traces, 10 * MS);
    let outliers: Vec<_> = traces
        .iter()
        .filter(|t| t.name == "GET /fast" && t.duration == 20 * MS)
        .collect();
    assert!(outliers.len() == 9 && outliers.iter().all(|trace| kept.contains_key(&trace.id)));
    assert!(
        kept.len() < 20_000 / 100 + 9,
        "at most one in a hundred: {}",
        kept.len()
    );
}

#[test]
fn rare_endpoints_are_seen_and_the_budget_holds() {
    let mut traces = many(7, 12_000);
    for (n, trace) in traces.iter_mut().enumerate() {
        trace.name = if n % 3_000 == 1_500 {
            "GET /rare"
        } else {
            "GET /usual"
        };
    }
    // 100 a second for two minutes.
    let config = tail(|tail| {
        tail.rare_per_minute = 1;
        tail.traces_per_second = 10.0;
    });
    let (kept, _) = run(&config, &traces, 10 * MS);
    // One or two of the four rare ones fall into the minute of another.
    let rare = traces
        .iter()
        .filter(|t| t.name == "GET /rare" && kept.contains_key(&t.id))
        .count();
    assert!(rare >= 2, "{rare}");
    // 1,200 by the budget, but for the beginning of each second, of which nobody knows how full it will be.
    assert!((1_000..=1_500).contains(&kept.len()), "{}", kept.len());
    assert!(
        (restored(&kept) - 12_000.0).abs() < 1_500.0,
        "{}",
        restored(&kept)
    );
    // Fewer than the budget: all.
    let (kept, _) = run(&config, &traces[..600], SECOND / 5);
    assert_eq!(kept.len(), 600);
}

#[test]
fn memory_is_bounded_and_late_spans_follow_their_trace() {
    let traces = many(8, 1_000);
    let config = Config {
        sampler: Some(Kind::AlwaysOff),
        ..tail(|tail| {
            tail.max_spans = 30;
            tail.base_ratio = 1.0;
        })
    };
    // A thousand traces at one moment, of which ten fit.
    let (kept, ledger) = run(&config, &traces, 0);
    assert_eq!(kept.len(), 10);
    assert_eq!(
        ledger
            .health()
            .sampling_overflow
            .load(std::sync::atomic::Ordering::Relaxed),
        990
    );

    let mut sampler = Sampler::new(&tail(|tail| tail.base_ratio = 0.5), Arc::default()).expect("a sampler");
    for trace in &traces {
        let (mut early, mut late, mut spans) = (Vec::new(), Vec::new(), trace.spans(SECOND));
        let mut last = vec![spans.remove(0)];
        sampler.offer(&mut spans, SECOND, &mut early);
        sampler.advance(2 * SECOND, &mut early);
        sampler.offer(&mut last, 100 * SECOND, &mut late);
        assert_eq!(early.is_empty(), late.is_empty(), "the verdict is remembered");
        assert!(sampler.waiting.is_empty() && sampler.held == 0);
    }
}

/// Sheds by what `shed` says before each span of each trace, and returns the kept spans by trace.
fn shed(
    traces: &[Trace],
    shedding: &Shedding,
    mut before: impl FnMut(usize, usize),
) -> BTreeMap<TraceId, u64> {
    let ledger = Arc::new(Ledger::default());
    let mut shedder = Shedder::new(shedding.clone(), Arc::clone(&ledger));
    let mut kept = Vec::new();
    let mut now = SECOND;
    for (n, trace) in traces.iter().enumerate() {
        for (at, span) in trace.spans(now).into_iter().enumerate() {
            before(n, at);
            ledger.seen(1);
            shedder.offer(&mut vec![span], now, &mut kept);
        }
        now += 10 * MS;
    }
    shedder.finish(now, &mut kept);
    ledger.exported("shop", kept.len() as u64);
    assert_eq!(ledger.snapshot().open(), 0, "the ledger balances");
    let mut found = BTreeMap::new();
    for span in &kept {
        *found.entry(span.trace_id).or_insert(0) += 1;
    }
    found
}

#[test]
fn shedding_keeps_what_the_sampler_of_that_ratio_keeps() {
    let traces = many(20, 500);
    for ratio in [1.0, 0.5, 0.125] {
        let shedding = Shedding::default();
        shedding.set(Shed {
            traces: ratio,
            connections: 1.0,
        });
        let kept = shed(&traces, &shedding, |_, _| {});
        let (sampled, _) = run(&head(Kind::TraceIdRatio, ratio), &traces, MS);
        assert!(kept.keys().eq(sampled.keys()), "{ratio}");
        assert!(kept.values().all(|&spans| spans == 3), "whole traces only");
    }
}

#[test]
fn a_change_of_what_is_shed_does_not_part_a_trace() {
    let traces = many(21, 400);
    let shedding = Shedding::default();
    let kept = shed(&traces, &shedding, |n, at| {
        // In the middle of each trace, in both directions.
        let halvings = (n + at) % 7;
        shedding.set(Shed {
            traces: 0.5f64.powi(halvings as i32),
            connections: 1.0,
        });
    });
    assert!(kept.values().all(|&spans| spans == 3), "{kept:?}");
    assert!(kept.len() > 20 && kept.len() < 380, "{}", kept.len());
}

/// What is done to a trace before it comes to the shedder.
type Harm = fn(&mut Vec<Span>, &mut Shedder, &mut Vec<Span>);

/// One trace of a turn, that began at 11.0 s and takes traces in until 12 s: what is kept of it.
fn in_turn(begins: Nanos, from_outside: bool, harm: Harm) -> usize {
    let shedding = Shedding::default();
    shedding.set(Shed {
        traces: 1.0,
        connections: 0.5,
    });
    shedding.end_turn(SECOND, 2 * SECOND);
    shedding.pause(2 * SECOND);
    assert_eq!(shedding.paused_since(), Some(2 * SECOND));
    shedding.resume(Window {
        opens: 11 * SECOND,
        closes: 12 * SECOND,
        ends: 13 * SECOND,
    });
    assert_eq!(shedding.paused_since(), None);
    let ledger = Arc::new(Ledger::default());
    let mut shedder = Shedder::new(shedding, Arc::clone(&ledger));
    let mut trace = many(22, 1).remove(0);
    trace.from_outside = from_outside;
    let mut spans = trace.spans(begins + trace.duration);
    let mut kept = Vec::new();
    harm(&mut spans, &mut shedder, &mut kept);
    ledger.seen(spans.len() as u64);
    // One after the other.
    for span in spans {
        shedder.offer(&mut vec![span], begins + trace.duration, &mut kept);
    }
    assert!(kept.is_empty(), "nobody knows yet what is still to come");
    shedder.offer(&mut Vec::new(), 15 * SECOND, &mut kept);
    ledger.exported("shop", kept.len() as u64);
    assert_eq!(ledger.snapshot().open(), 0, "the ledger balances");
    kept.len()
}

#[test]
fn in_turns_only_whole_traces_are_kept() {
    const IN_TIME: Nanos = 11 * SECOND + 500 * MS;
    let whole: Harm = |_, _, _| ();
    assert_eq!(in_turn(IN_TIME, true, whole), 3);
    assert_eq!(in_turn(11 * SECOND - 1, true, whole), 0, "in the turn's lead");
    assert_eq!(in_turn(12 * SECOND, true, whole), 0, "in its trail");
    assert_eq!(in_turn(IN_TIME, false, whole), 3, "a process that serves nobody");
    let rootless: Harm = |spans, _, _| {
        spans.pop();
    };
    assert_eq!(in_turn(IN_TIME, true, rootless), 0);
    let parted: Harm = |spans, _, _| spans[0].parent = Some(SpanId([9; 8]));
    assert_eq!(in_turn(IN_TIME, true, parted), 0);
    let torn: Harm = |spans, shedder, kept| shedder.torn([spans[0].trace_id], IN_TIME, kept);
    assert_eq!(in_turn(IN_TIME, true, torn), 0);
    // The process of the root has been asked before: its call may belong to a request that was not seen.
    let serves: Harm = |spans, _, _| {
        let asked = many(23, 1).remove(0).spans(10 * SECOND).remove(2);
        spans.insert(0, asked);
    };
    assert_eq!(in_turn(IN_TIME, false, serves), 0);
}

#[test]
fn a_turn_is_told_once() {
    let shedding = Shedding::default();
    let mut shedder = Shedder::new(shedding.clone(), Arc::default());
    assert!(!shedder.turn_began(SECOND));
    shedding.end_turn(SECOND, 2 * SECOND);
    shedding.resume(Window {
        opens: 5 * SECOND,
        closes: 7 * SECOND,
        ends: 8 * SECOND,
    });
    let told: Vec<bool> = (3..9).map(|at| shedder.turn_began(at * SECOND)).collect();
    assert_eq!(told, [false, false, true, false, false, false]);
}
