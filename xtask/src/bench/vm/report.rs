//! The guest's rounds as a table, and as named figures.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::super::table::{Table, median};

/// Medians by kind of round and name, all per request unless said.
pub struct Figures {
    kinds: BTreeMap<String, BTreeMap<&'static str, f64>>,
    /// (largest - smallest) / median of the untraced throughput.
    spread: f64,
    rounds: usize,
    ledgers: Vec<String>,
}

/// Each exchange has two ends on this machine, and the daemon sees both.
const EXCHANGES_PER_REQUEST: f64 = 2.0;

impl Figures {
    /// Reads what the guest told.
    pub fn new(results: &[Value]) -> anyhow::Result<Self> {
        let clock = results
            .first()
            .and_then(|first| first.get("clock"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        ensure!(
            clock.starts_with("tsc"),
            "the guest's clock is {clock:?}: only the time-stamp counter counts instructions"
        );
        let mut rounds: BTreeMap<String, Vec<BTreeMap<&'static str, f64>>> = BTreeMap::new();
        let mut ledgers = Vec::new();
        for result in results {
            let Some(label) = result.get("label").and_then(Value::as_str) else {
                continue;
            };
            rounds.entry(label.to_owned()).or_default().push(figures(result)?);
            if let Some(line) = result.pointer("/ledger/2").and_then(Value::as_str) {
                ledgers.push(format!("{label}: {line}"));
            }
        }
        let untraced = rounds
            .get("untraced")
            .context("the guest told no untraced round")?;
        let rates: Vec<f64> = untraced
            .iter()
            .filter_map(|round| round.get("rate").copied())
            .collect();
        let spread = (rates.iter().copied().fold(f64::MIN, f64::max)
            - rates.iter().copied().fold(f64::MAX, f64::min))
            / median(rates.iter().copied());
        let count = untraced.len();
        let kinds = rounds
            .into_iter()
            .map(|(label, rounds)| (label, medians(&rounds)))
            .collect();
        let mut all = Self {
            kinds,
            spread,
            rounds: count,
            ledgers,
        };
        all.compare();
        Ok(all)
    }

    /// A figure of one kind of round.
    pub fn get(&self, kind: &str, name: &str) -> Option<f64> {
        self.kinds.get(kind)?.get(name).copied()
    }

    /// Names what was measured.
    pub fn heading(&self, kernel: &str, connections: u32) -> String {
        format!(
            "nginx (1 worker, 1 KiB, keep-alive) under wrk -t1 -c{connections}, 1 vCPU, kernel {kernel}; medians of {} rounds, \
             spread of the untraced throughput {:.2}%; k = 1,000 instructions",
            self.rounds,
            self.spread * 100.0
        )
    }

    fn compare(&mut self) {
        let base = |name| self.get("untraced", name);
        let (Some(rate), Some(total), Some(nginx)) = (base("rate"), base("total"), base("nginx")) else {
            return;
        };
        for kind in self.kinds.values_mut() {
            let Some((r, t, n)) = kind
                .get("rate")
                .zip(kind.get("total"))
                .zip(kind.get("nginx"))
                .map(|((r, t), n)| (*r, *t, *n))
            else {
                continue;
            };
            let sink = kind.get("sink").copied().unwrap_or(0.0);
            kind.insert("rate_ratio", r / rate);
            kind.insert("rate_ratio_without_sink", total / (t - sink));
            kind.insert("nginx_ratio", n / nginx);
        }
    }
}

fn figures(result: &Value) -> anyhow::Result<BTreeMap<&'static str, f64>> {
    let number = |path: &str| result.pointer(path).and_then(Value::as_f64);
    let round =
        |name: &str| number(&format!("/round/{name}")).with_context(|| format!("no {name} in {result}"));
    let requests = round("requests")?.max(1.0);
    let mut figures = BTreeMap::from([
        ("rate", round("rate")?),
        ("p50_us", round("p50_us")?),
        ("p99_us", round("p99_us")?),
        ("requests", requests),
        ("total", round("elapsed_ns")? / requests),
        ("nginx", round("nginx_ns")? / requests),
        ("wrk", round("wrk_ns")? / requests),
    ]);
    if number("/round/daemon/rss_kib").is_none() {
        return Ok(figures);
    }
    let daemon = round("daemon_ns")? / requests;
    figures.insert("daemon", daemon);
    figures.insert("daemon_per_exchange", daemon / EXCHANGES_PER_REQUEST);
    let (user, kernel) = (round("user_ticks")?, round("kernel_ticks")?);
    let kernel_share = kernel / (user + kernel).max(1.0);
    figures.insert(
        "kernel_per_exchange",
        daemon * kernel_share / EXCHANGES_PER_REQUEST,
    );
    figures.insert(
        "reader_per_exchange",
        round("reader_ns")? / requests / EXCHANGES_PER_REQUEST,
    );
    figures.insert("faults", round("faults")? / requests / EXCHANGES_PER_REQUEST);
    figures.insert("sink", round("sink_ns")? / requests);
    figures.insert("bpf", round("bpf_ns")? / requests);
    figures.insert("bpf_runs", round("bpf_runs")? / requests);
    figures.insert("rss_mib", round("daemon/rss_kib")? / 1024.0);
    figures.insert("peak_rss_mib", round("daemon/peak_rss_kib")? / 1024.0);
    figures.insert("map_mib", round("daemon/map_bytes")? / f64::from(1 << 20));
    figures.insert("programs", round("daemon/programs")?);
    figures.insert("attached_ms", number("/attached_us").context("no start")? / 1e3);
    figures.insert(
        "attached_cpu_ms",
        number("/attached_cpu_ns").context("no start")? / 1e6,
    );
    figures.insert(
        "lost_server",
        requests - number("/server_spans").context("no spans")?,
    );
    // wrk leaves when its time is over: as many requests as it has connections may be without an answer.
    figures.insert(
        "lost_client",
        requests - number("/client_spans").context("no spans")?,
    );
    Ok(figures)
}

fn medians(rounds: &[BTreeMap<&'static str, f64>]) -> BTreeMap<&'static str, f64> {
    let names = rounds
        .first()
        .map(|round| round.keys().copied().collect::<Vec<_>>())
        .unwrap_or_default();
    names
        .into_iter()
        .map(|name| {
            (
                name,
                median(rounds.iter().filter_map(|round| round.get(name).copied())),
            )
        })
        .collect()
}

/// (what, kind or "" for every kind, figure, factor, decimals)
const ROWS: &[(&str, &str, f64, usize)] = &[
    ("throughput, requests a guest second", "rate", 1.0, 0),
    ("  of the untraced", "rate_ratio", 1.0, 3),
    (
        "  of the untraced, sink's own taken off",
        "rate_ratio_without_sink",
        1.0,
        3,
    ),
    ("p50, guest us", "p50_us", 1.0, 0),
    ("p99, guest us", "p99_us", 1.0, 0),
    ("all, k a request", "total", 1e-3, 1),
    ("nginx, k a request", "nginx", 1e-3, 2),
    ("  of the untraced", "nginx_ratio", 1.0, 3),
    ("wrk, k a request", "wrk", 1e-3, 2),
    ("daemon, k a request", "daemon", 1e-3, 2),
    ("daemon, k an exchange", "daemon_per_exchange", 1e-3, 2),
    (
        "  in the thread that reads the rings",
        "reader_per_exchange",
        1e-3,
        2,
    ),
    ("  in the kernel (sampled)", "kernel_per_exchange", 1e-3, 2),
    ("  page faults", "faults", 1.0, 3),
    ("sink, k a request", "sink", 1e-3, 2),
    ("BPF programs, k a request", "bpf", 1e-3, 2),
    ("BPF programs, runs a request", "bpf_runs", 1.0, 2),
    ("requests", "requests", 1.0, 0),
    ("requests without a server span", "lost_server", 1.0, 0),
    ("requests without a client span", "lost_client", 1.0, 0),
    ("daemon RSS, MiB", "rss_mib", 1.0, 1),
    ("daemon RSS, most, MiB", "peak_rss_mib", 1.0, 1),
    ("maps, MiB", "map_mib", 1.0, 2),
    ("BPF programs", "programs", 1.0, 0),
    ("start to attached, guest ms", "attached_ms", 1.0, 0),
    ("  CPU, guest ms", "attached_cpu_ms", 1.0, 0),
];

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(["", "untraced", "JSON lines", "OTLP", "JSON, BPF counted"]);
        for &(what, name, factor, decimals) in ROWS {
            let cell = |kind| match self.get(kind, name) {
                Some(value) => format!("{:.decimals$}", value * factor),
                None => "-".to_owned(),
            };
            table.row([
                what.to_owned(),
                cell("untraced"),
                cell("json"),
                cell("otlp"),
                cell("counted"),
            ]);
        }
        write!(f, "{table}")?;
        for ledger in &self.ledgers {
            writeln!(f, "{ledger}")?;
        }
        Ok(())
    }
}
