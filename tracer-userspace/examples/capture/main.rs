//! What the BPF programs cost a message, by what the policy says of its connection. `cargo xtask bench capture` runs it, on the
//! machine and in the guest that counts instructions; it prints one JSON object. `capture load` tells what is lost instead ([`load`]).
//!
//! A child moves messages over its own sockets, one thread at both ends, and reads its own CPU clock. What a message costs more
//! than without the programs is theirs, the kernel's way to them included.

mod load;
mod traffic;

use std::collections::BTreeMap;

use anyhow::Context as _;
use serde_json::{Value, json};
use tracer_userspace::{
    attach::{Capture, Limit, Options, Policy, ProgramStats, RunTimeStats},
    kernel,
    model::ConnId,
    source::Source,
};

use traffic::{Child, Kind};

/// Messages of one measurement. Their events fit into the ring, so nobody needs to read meanwhile.
const MESSAGES: u32 = 8_000;
const RING_BYTES: u32 = 8 << 20;
/// Measurements of which the median counts.
const ROUNDS: usize = 5;

/// What the policy says of both ends of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    /// Nothing yet.
    Undecided,
    /// So many bytes of each chunk.
    Capture(u32),
    /// Every chunk makes an event without payload.
    Count,
    /// No events.
    Ignore,
}

impl Verdict {
    fn apply(self, policy: &Policy, conns: [ConnId; 2]) -> anyhow::Result<()> {
        for conn in conns {
            match self {
                Self::Undecided => policy.forget(conn)?,
                Self::Capture(bytes) => {
                    let limit = Limit {
                        run: u32::MAX,
                        chunk: bytes,
                    };
                    policy.set_policy(conn, limit, limit)?;
                }
                Self::Count => {
                    let limit = Limit { run: 0, chunk: 0 };
                    policy.set_policy(conn, limit, limit)?;
                }
                Self::Ignore => policy.ignore(conn)?,
            }
        }
        Ok(())
    }
}

/// (name of the row, messages, verdict)
const ROWS: &[(&str, Kind, Verdict)] = &[
    ("tcp_128_captured", Kind::Tcp(128), Verdict::Capture(128)),
    (
        "tcp_1k_first_128_captured",
        Kind::Tcp(1024),
        Verdict::Capture(128),
    ),
    ("tcp_undecided", Kind::Tcp(128), Verdict::Undecided),
    (
        "tcp_two_vectors_captured",
        Kind::TcpVectors(128),
        Verdict::Capture(128),
    ),
    ("tcp_counted", Kind::Tcp(128), Verdict::Count),
    ("tcp_ignored", Kind::Tcp(128), Verdict::Ignore),
    ("unix_128_captured", Kind::Unix(128), Verdict::Capture(128)),
    ("unix_ignored", Kind::Unix(128), Verdict::Ignore),
    ("udp_ignored", Kind::Udp(128), Verdict::Ignore),
    ("getppid", Kind::Getppid, Verdict::Undecided),
];

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match *words.as_slice() {
        ["traffic"] => traffic::serve(),
        ["flood", rate, millis] => load::flood(rate.parse()?, millis.parse()?),
        ["load", rings @ ("sharded" | "one")] => load::run(rings == "one"),
        [] => cost(None),
        [backend] => cost(Some(backend)),
        _ => anyhow::bail!("say nothing, a back end, or `load sharded|one`"),
    }
}

/// What a message costs through that back end, or the best one.
fn cost(backend: Option<&str>) -> anyhow::Result<()> {
    let mut child = Child::start()?;
    for (_, kind, _) in ROWS {
        child.run(*kind, MESSAGES / 10)?; // caches, buffers, lazily bound symbols
    }
    let before = measure_all(&mut child, |_, _| Ok(()))?;

    let wanted = match backend {
        Some(name) => {
            let found = kernel::Backend::ALL.iter().find(|backend| backend.name() == name);
            Some(*found.with_context(|| format!("there is no back end {name}"))?)
        }
        None => None,
    };
    let plan = kernel::plan_for_this_host(wanted)?;
    let options = Options {
        ring_bytes: RING_BYTES,
        ..Options::default()
    };
    let started = std::time::Instant::now();
    let mut capture = Capture::start(&plan, options)?;
    let attached_in = started.elapsed();
    let mut source = capture.take_source().context("the source")?;
    let policy = capture.policy();
    let conns = child.conns;
    for (_, kind, _) in ROWS {
        child.run(*kind, 2)?; // decisions are about connections that the programs have seen
    }
    let traced = measure_all(&mut child, |kind, verdict| {
        verdict.apply(&policy, conns.of(kind))?;
        source.drain_all(|_, _, _| {});
        Ok(())
    })?;

    let programs = counted(&mut child, &capture, &policy, &mut source)?;
    let counters: BTreeMap<_, _> = capture.counters()?.into_iter().collect();
    drop(source);
    drop(capture);
    let after = measure_all(&mut child, |_, _| Ok(()))?;

    let rows: BTreeMap<_, Value> = ROWS
        .iter()
        .zip(before.iter().zip(&after).zip(&traced))
        .map(|((name, ..), ((before, after), traced))| {
            let untraced = f64::midpoint(*before, *after);
            (
                *name,
                json!({ "untraced": untraced, "traced": traced, "cost": traced - untraced }),
            )
        })
        .collect();
    println!(
        "{}",
        json!({ "rows": rows, "programs": programs, "counters": counters, "attached_us": attached_in.as_micros() as u64 })
    );
    Ok(())
}

/// CPU nanoseconds a message (a system call, for those that move nothing), by row; medians.
fn measure_all(
    child: &mut Child,
    mut prepare: impl FnMut(Kind, Verdict) -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    ROWS.iter()
        .map(|(_, kind, verdict)| {
            let mut rounds = Vec::with_capacity(ROUNDS);
            for _ in 0..ROUNDS {
                prepare(*kind, *verdict)?;
                rounds.push(child.run(*kind, MESSAGES)? as f64 / f64::from(MESSAGES));
            }
            rounds.sort_by(f64::total_cmp);
            rounds.get(ROUNDS / 2).copied().context("no rounds")
        })
        .collect()
}

/// The kernel's own statistics: nanoseconds a run of each program, by row. They contain the reading of a clock.
fn counted(
    child: &mut Child,
    capture: &Capture,
    policy: &Policy,
    source: &mut Source,
) -> anyhow::Result<BTreeMap<&'static str, BTreeMap<String, Value>>> {
    let _stats = RunTimeStats::enable()?;
    let mut all = BTreeMap::new();
    for (name, kind, verdict) in ROWS {
        verdict.apply(policy, child.conns.of(*kind))?;
        source.drain_all(|_, _, _| {});
        let before = capture.program_stats()?;
        child.run(*kind, MESSAGES)?;
        let after = capture.program_stats()?;
        let programs = before
            .iter()
            .zip(&after)
            .filter_map(|(before, after)| per_run(before, after))
            .collect();
        all.insert(*name, programs);
    }
    Ok(all)
}

fn per_run(before: &ProgramStats, after: &ProgramStats) -> Option<(String, Value)> {
    let runs = after
        .run_count
        .checked_sub(before.run_count)
        .filter(|runs| *runs > 0)?;
    let time = after.run_time.saturating_sub(before.run_time);
    Some((
        after.name.clone(),
        json!({ "ns": time.as_nanos() as f64 / runs as f64, "runs": runs, "verified": after.verified_instructions }),
    ))
}
