//! What an exchange costs the causality engine, by runtime: recordings of the judge's runs through the correlation stage alone. The example
//! `engine` of the daemon's crate does the work.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::table::{Table, median};
use crate::{accuracy, install, shell};

/// Options of `cargo xtask bench engine`.
#[derive(clap::Args)]
pub struct Args {
    /// Recordings (`tracer --record FILE`); if none are named, runs of the judge at concurrency 50 are recorded
    recordings: Vec<PathBuf>,
    /// Runs of each recording
    #[arg(long, default_value_t = 9)]
    rounds: u32,
}

/// Tests of the judge, one for each kind of evidence, and what is recorded of them.
const TESTS: [&str; 7] = [
    "go",
    "haproxy_proxy",
    "java",
    "node",
    "python_asyncio",
    "ruby_puma",
    "rust_tokio",
];
const STYLES: &str = "seq,par,pass/leaf";
const CONCURRENCY: &str = "50";

#[derive(Deserialize)]
struct Report {
    file: PathBuf,
    exchanges: u64,
    nanoseconds: Vec<f64>,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = super::build("tracer-userspace", &["--example", "engine"])?;
    let recordings = if args.recordings.is_empty() {
        record()?
    } else {
        args.recordings.clone()
    };
    let mut engine = Command::new(program);
    engine.arg(args.rounds.to_string()).args(&recordings);
    let mut table = Table::new([
        "recording",
        "exchanges",
        "ns an exchange: least",
        "median",
        "most",
    ]);
    for line in shell::output(&mut engine)?.lines() {
        let report: Report = serde_json::from_str(line).context("the example's report")?;
        ensure!(report.exchanges > 0, "{}: no exchange", report.file.display());
        let mut each: Vec<f64> = report
            .nanoseconds
            .iter()
            .map(|nanoseconds| nanoseconds / report.exchanges as f64)
            .collect();
        each.sort_by(f64::total_cmp);
        let name = report.file.file_stem().unwrap_or_default().to_string_lossy();
        let figures = [each.first(), Some(&median(each.iter().copied())), each.last()]
            .map(|figure| format!("{:.0}", figure.copied().unwrap_or(f64::NAN)));
        let cells = [name.into_owned(), report.exchanges.to_string()];
        table.row(cells.into_iter().chain(figures));
    }
    print!("{table}");
    Ok(())
}

/// Records runs of the judge; returns the files, by name.
fn record() -> anyhow::Result<Vec<PathBuf>> {
    install::everything(&shell::target_dir()?)?;
    let dir = super::scratch("engine")?;
    std::fs::remove_dir_all(&dir).and_then(|()| std::fs::create_dir_all(&dir))?;
    let mut judge = accuracy::judge(&dir.join("scores"))?;
    judge
        .arg("--exact")
        .args(TESTS)
        .env("TRACER_ACCURACY_RECORD", &dir)
        .env("TRACER_ACCURACY_CONCURRENCY", CONCURRENCY)
        .env("TRACER_ACCURACY_STYLES", STYLES);
    shell::run(&mut judge)?;
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
    files.sort();
    ensure!(!files.is_empty(), "the judge has recorded nothing");
    Ok(files)
}
