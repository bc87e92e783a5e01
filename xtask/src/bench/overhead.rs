//! nginx under load on this machine, with and without the daemon, in pairs (A B A B …) so that drift hits both alike.

use std::path::Path;

use super::daemon::{self, Daemon, Export};
use super::load;
use super::measure::{self, Load, Round};
use super::nginx::Nginx;
use super::process::BpfStats;
use super::table::{Table, median};

/// Options of `cargo xtask bench overhead`.
#[derive(clap::Args)]
pub struct Args {
    /// Pairs of an untraced and a traced round
    #[arg(long, default_value_t = 7)]
    pairs: u32,
    /// Seconds of each load in a round (one at saturation, one at half of it)
    #[arg(long, default_value_t = 3)]
    seconds: u32,
    /// Keep-alive connections
    #[arg(long, default_value_t = 20)]
    connections: u32,
    /// Requests per second of the constant rate; half of what nginx does untraced if absent
    #[arg(long)]
    rate: Option<f64>,
}

struct Case {
    full: Round,
    half: load::Report,
    /// CPU time of the daemon per request at the constant rate.
    half_daemon_ns: f64,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    crate::install::ensure(&[("nginx", "nginx-light"), ("wrk", "wrk")])?;
    let (program, own) = (super::build_daemon()?, super::build_self()?);
    let dir = super::scratch("overhead")?;
    let nginx = measure::nginx(&dir)?;
    let load = Load {
        program: super::program("wrk")?,
        connections: args.connections,
        seconds: args.seconds,
    };
    // Spans go to memory if there is some: the disk is not what we measure.
    let memory = Path::new("/dev/shm");
    let spans = if memory.is_dir() { memory } else { &dir };
    let export = Export::Json(spans.join(format!("tracer-bench-{}", std::process::id())));
    let rate = match args.rate {
        Some(rate) => rate,
        None => measure::round(&load, &nginx, None, None)?.wrk.rate / 2.0,
    };
    let case = |daemon: Option<&Daemon>| -> anyhow::Result<Case> {
        let full = measure::round(&load, &nginx, daemon, None)?;
        let cpu = || daemon.map_or(Ok(0), |daemon| daemon.usage().map(|usage| usage.cpu_ns));
        let before = cpu()?;
        let half = load::spawn(&own, nginx.port, rate, args.seconds, args.connections)?;
        let requests = half.rate * f64::from(args.seconds);
        Ok(Case {
            full,
            half,
            half_daemon_ns: (cpu()? - before) as f64 / requests,
        })
    };
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for pair in 1..=args.pairs {
        without.push(case(None)?);
        let daemon = Daemon::start(&program, &export)?;
        with.push(case(Some(&daemon))?);
        let said = daemon.stop()?;
        daemon::discard(&export);
        let ledger = daemon::ledger(&said).map_or("no ledger", |(_, _, line)| line);
        eprintln!("bench: pair {pair} of {}; {ledger}", args.pairs);
    }
    let counted = counted(&program, &export, &load, &nginx)?;
    println!("{}", table(&without, &with, rate));
    println!(
        "kernel: {:.2} us a request in BPF programs, {:.2} runs of {:.0} ns (clock readings included)",
        counted.per_request(counted.bpf_ns) / 1e3,
        counted.per_request(counted.bpf_runs),
        counted.bpf_ns as f64 / counted.bpf_runs.max(1) as f64,
    );
    Ok(())
}

/// One more traced round with the kernel's statistics on: they cost each run two clock readings.
fn counted(program: &Path, export: &Export, load: &Load, nginx: &Nginx) -> anyhow::Result<Round> {
    let _stats = BpfStats::enable()?;
    let daemon = Daemon::start(program, export)?;
    let round = measure::round(load, nginx, Some(&daemon), None)?;
    daemon.stop()?;
    daemon::discard(export);
    Ok(round)
}

fn table(without: &[Case], with: &[Case], rate: f64) -> Table {
    let mut table = Table::new([
        "medians",
        "without",
        "with",
        "ratio",
        "ratio of pairs, least to most",
    ]);
    let mut row = |what: &str, decimals: usize, figure: &dyn Fn(&Case) -> f64| {
        let ratios: Vec<f64> = without
            .iter()
            .zip(with)
            .map(|(a, b)| figure(b) / figure(a))
            .collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        table.row([
            what.to_owned(),
            format!("{:.decimals$}", median(without.iter().map(figure))),
            format!("{:.decimals$}", median(with.iter().map(figure))),
            format!("{:.3}", median(ratios)),
            format!("{least:.3} to {most:.3}"),
        ]);
    };
    row("saturated: requests/s", 0, &|case| case.full.wrk.rate);
    row("  p50, us", 0, &|case| case.full.wrk.p50_us);
    row("  p99, us", 0, &|case| case.full.wrk.p99_us);
    row("  nginx, CPU us a request", 2, &|case| {
        case.full.per_request(case.full.nginx_ns) / 1e3
    });
    row(&format!("at {rate:.0} requests/s: answers/s"), 0, &|case| {
        case.half.rate
    });
    row("  p50, us", 0, &|case| case.half.p50_us);
    row("  p99, us", 0, &|case| case.half.p99_us);
    let alone = |figure: &dyn Fn(&Case) -> f64| format!("{:.2}", median(with.iter().map(figure)));
    let nothing = || "-".to_owned();
    table.row([
        "daemon, CPU us a request, saturated".to_owned(),
        nothing(),
        alone(&|case| case.full.per_request(case.full.daemon_ns) / 1e3),
    ]);
    table.row([
        "daemon, CPU us a request, constant rate".to_owned(),
        nothing(),
        alone(&|case| case.half_daemon_ns / 1e3),
    ]);
    table
}
