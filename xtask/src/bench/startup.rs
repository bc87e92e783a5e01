//! What the daemon costs before the first request: time to attached, CPU, memory, maps.

use super::daemon::{Daemon, Export, Usage};
use super::table::{Table, median};

/// Options of `cargo xtask bench startup`.
#[derive(clap::Args)]
pub struct Args {
    /// Starts
    #[arg(long, default_value_t = 7)]
    rounds: u32,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = super::build_daemon()?;
    let export = Export::Json(super::scratch("startup")?.join("spans"));
    let mut starts: Vec<(f64, Usage)> = Vec::new();
    for _ in 0..args.rounds {
        let daemon = Daemon::start(&program, &export)?;
        starts.push((daemon.attached_in.as_secs_f64(), daemon.usage()?));
        daemon.stop()?;
    }
    super::daemon::discard(&export);
    let mut table = Table::new(["at readiness", "median", "least", "most"]);
    let mut row = |what: &str, decimals: usize, figure: &dyn Fn(&(f64, Usage)) -> f64| {
        let values = || starts.iter().map(figure);
        let cell = |value: f64| format!("{value:.decimals$}");
        let (least, most) = (
            values().fold(f64::INFINITY, f64::min),
            values().fold(f64::NEG_INFINITY, f64::max),
        );
        table.row([what.to_owned(), cell(median(values())), cell(least), cell(most)]);
    };
    row("start to attached, ms", 0, &|(seconds, _)| seconds * 1e3);
    row("CPU, ms", 0, &|(_, usage)| usage.cpu_ns as f64 / 1e6);
    row("RSS, MiB", 1, &|(_, usage)| usage.rss_kib as f64 / 1024.0);
    row("RSS, most, MiB", 1, &|(_, usage)| {
        usage.peak_rss_kib as f64 / 1024.0
    });
    row("maps, MiB", 2, &|(_, usage)| {
        usage.bpf.map_bytes as f64 / f64::from(1 << 20)
    });
    row("maps", 0, &|(_, usage)| usage.bpf.maps as f64);
    row("BPF programs", 0, &|(_, usage)| usage.bpf.programs as f64);
    println!("{table}");
    Ok(())
}
