//! The causality judge at full size: every runtime, every style, every concurrency; its table goes into `docs/accuracy.md`.

mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use self::table::Row;
use crate::{install, shell};

const PAGE: &str = "docs/accuracy.md";
/// The table on the page stands behind this line.
const MARK: &str = "<!-- made by `cargo xtask accuracy --write` -->";

/// Options of `cargo xtask accuracy`.
#[derive(clap::Args)]
pub struct Args {
    /// Only runtimes whose test has FILTER in its name
    #[arg(value_name = "FILTER", default_value = "")]
    filter: String,
    /// Put the table into docs/accuracy.md
    #[arg(long)]
    write: bool,
    /// Keep the scores of earlier runs, but for what is judged now
    #[arg(long)]
    keep: bool,
    /// Score the joint inference on the public traces of DIR instead (`docs/accuracy.md`)
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
    /// Install nothing; fail where something is missing
    #[arg(long)]
    no_install: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    if let Some(directory) = &args.offline {
        let example = [
            "run",
            "--quiet",
            "--package",
            "tracer-userspace",
            "--example",
            "offline",
            "--",
        ];
        return shell::run(shell::cargo().args(example).arg(directory));
    }
    let target = shell::target_dir()?;
    if !args.no_install {
        install::everything(&target)?;
    }
    let scores = target.join("accuracy.jsonl");
    if !args.keep {
        fs::write(&scores, "")?;
    }
    let mut judge = judge(&scores)?;
    judge.args(["--nocapture", &args.filter]);
    let judged = shell::run(&mut judge);
    let rows: Vec<Row> = fs::read_to_string(&scores)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("the scores")?;
    ensure!(!rows.is_empty(), "nothing was judged: {judged:?}");
    let rows = table::latest(rows);
    let tables = table::tables(&rows)?;
    println!("\n{tables}");
    if args.write {
        write(&tables)?;
    }
    judged
}

/// The judge, which adds its scores to that file; it takes the arguments of tests. Builds the daemon that it starts.
pub fn judge(scores: &Path) -> Result<Command> {
    shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))?;
    let mut judge = shell::cargo();
    judge
        .args(["test", "--workspace", "--no-fail-fast", "--test", "accuracy"])
        .args(["--", "--test-threads=1"])
        .env("TRACER_ACCURACY", scores);
    Ok(judge)
}

fn write(tables: &str) -> Result<()> {
    let path = shell::root().join(PAGE);
    let page = fs::read_to_string(&path).context(PAGE)?;
    let (head, _) = page
        .split_once(MARK)
        .with_context(|| format!("{PAGE} has no line {MARK:?}"))?;
    let date = shell::output(shell::command("date").arg("+%Y-%m-%d"))?;
    let kernel = shell::output(shell::command("uname").arg("-r"))?;
    let cpus = std::thread::available_parallelism()?;
    let text = format!(
        "{head}{MARK}\n\nOn {}, {cpus} CPUs, Linux {}.\n\n{tables}",
        date.trim(),
        kernel.trim()
    );
    Ok(fs::write(path, text)?)
}
