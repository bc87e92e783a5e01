//! Signals in any order, of few connections, threads and contexts, some of them twice and some never: nothing panics, and
//! what always holds, holds.

use std::collections::HashSet;

use super::play::{Player, Variant, begin};
use crate::correlate::{Config, Infer};
use crate::model::{Language, Role, Runs, SpanId, Stamp, Task, TraceContext, TraceId, Unit};

fn context(rng: &mut fastrand::Rng) -> Option<TraceContext> {
    (rng.u32(..4) == 0).then(|| TraceContext {
        trace_id: TraceId(rng.u128(1..3).to_be_bytes()),
        span_id: rng.bool().then(|| SpanId(rng.u64(1..3).to_be_bytes())),
        sampled: None,
        trace_state: Box::default(),
        format: "traceparent",
    })
}

fn unit(rng: &mut fastrand::Rng) -> Unit {
    let tgid = rng.u32(10..13);
    let mut task = || if tgid == 10 { rng.u64(..6) } else { 0 };
    let (own, creator, held_since) = (task(), task(), task());
    let awaiters = [task(), task(), task(), task()];
    Unit {
        tgid,
        tid: rng.u32(..4),
        runs: Runs::Task(Task {
            id: own,
            creator,
            awaiters,
            held_since,
        }),
    }
}

fn play(seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut player = Player::new(Config {
        max_open: rng.usize(1..60),
        max_hold_ms: rng.u64(1..100),
        max_trace_spans: rng.u32(1..20),
        max_trace_age_ms: rng.u64(1..1000),
        peer_wait_ms: rng.u64(..60),
        max_units: rng.usize(1..10),
        explain: rng.bool(),
        infer: [Infer::Off, Infer::Links, Infer::Parents][rng.usize(..3)],
    });
    player.service(10, Language::Go, true);
    player.service(11, Language::NodeJs, rng.bool());
    let (mut open, mut over, mut now) = (Vec::new(), HashSet::new(), 0);
    for id in 1..400 {
        for _ in 0..rng.u32(1..6) {
            now += rng.u64(..3_000_000);
            let stamp = Stamp {
                ts: now - rng.u64(..=now.min(2_000_000)),
                unit: unit(&mut rng),
            };
            let Some(&other) = rng.choice(&open) else {
                break;
            };
            match rng.u32(..12) {
                0..4 => player.respond(other, stamp),
                4 => player.request_end(other, stamp),
                5 => {
                    if over.insert(other) {
                        player.lose(other, now);
                    }
                }
                6..10 => {
                    if over.insert(other) {
                        player.end(other, stamp);
                    } else {
                        // Said twice: ignored.
                        player.respond(other, stamp);
                    }
                }
                _ => player.advance(now),
            }
        }
        let role = [Role::Client, Role::Server, Role::Producer, Role::Consumer][rng.usize(..4)];
        let variant = Variant {
            unix: rng.u32(..4) == 0,
            nat: rng.u32(..4) == 0,
            no_position: rng.u32(..8) == 0,
            peer_pos: rng.u32(..2),
        };
        let stamp = Stamp {
            ts: now,
            unit: unit(&mut rng),
        };
        let trace_context = context(&mut rng);
        player.begin(begin(
            id,
            role,
            rng.u32(..5),
            rng.u32(..3),
            stamp,
            trace_context,
            variant,
        ));
        open.push(id);
    }
    player.finish();
    player.check().unwrap_or_else(|why| panic!("seed {seed}: {why}"));
    now += 5_000_000_000;
    player.advance(now);
    assert_eq!(
        player.correlator.remembered().0,
        0,
        "seed {seed}: records are left"
    );
}

#[test]
fn any_signals_in_any_order() {
    for seed in 0..100 {
        play(seed);
    }
}
