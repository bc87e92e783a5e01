//! The causality judge at full size: every runtime, every style, every concurrency; its table goes into `docs/accuracy.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

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
    /// Score the joint inference on the public traces of DIR instead (`docs/accuracy.md`)
    #[arg(long, value_name = "DIR")]
    offline: Option<PathBuf>,
    /// Install nothing; fail where something is missing
    #[arg(long)]
    no_install: bool,
}

/// One run, as the judge writes it (`tests/tests/accuracy.rs`).
#[derive(Deserialize)]
struct Row {
    runtime: String,
    style: String,
    concurrency: u32,
    right: u64,
    wrong: u64,
    missing: u64,
    across_right: u64,
    across: u64,
    whole_right: u64,
    whole: u64,
    /// Right and all, by evidence and confidence.
    by_evidence: BTreeMap<String, (u64, u64)>,
    /// The same of what times alone name, by how likely that is said to be.
    by_probability: BTreeMap<String, (u64, u64)>,
    thread_rule: Rule,
}

#[derive(Deserialize)]
struct Rule {
    right: u64,
    wrong: u64,
    missing: u64,
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
    fs::write(&scores, "")?;
    shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))?;
    let mut judge = shell::cargo();
    judge
        .args([
            "test",
            "--workspace",
            "--no-fail-fast",
            "--test",
            "accuracy",
            "--",
            "--test-threads=1",
        ])
        .args(["--nocapture", &args.filter])
        .env("TRACER_ACCURACY", &scores);
    let judged = shell::run(&mut judge);
    let rows: Vec<Row> = fs::read_to_string(&scores)?
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .context("the scores")?;
    ensure!(!rows.is_empty(), "nothing was judged: {judged:?}");
    let by_evidence = shares(
        "evidence and confidence",
        "parents",
        rows.iter().map(|row| &row.by_evidence),
    )?;
    let by_probability = rows.iter().map(|row| &row.by_probability);
    let by_probability = shares(
        "probability told by times alone",
        "parents and links",
        by_probability,
    )?;
    let tables = format!("{}\n{by_evidence}\n{by_probability}", table(&rows)?);
    println!("\n{tables}");
    if args.write {
        write(&tables)?;
    }
    judged
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.2}", 100.0 * part as f64 / whole as f64)
}

fn table(rows: &[Row]) -> Result<String> {
    let mut text = String::from(
        "| runtime | style | concurrency | calls | precision % | recall % | across services % | whole traces % | thread rule: precision %, recall % |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let rule = &row.thread_rule;
        let all = row.right + row.wrong + row.missing;
        writeln!(
            text,
            "| {} | {} | {} | {all} | {} | {} | {} | {} | {}, {} |",
            row.runtime,
            row.style,
            row.concurrency,
            percent(row.right, row.right + row.wrong),
            percent(row.right, all),
            percent(row.across_right, row.across),
            percent(row.whole_right, row.whole),
            percent(rule.right, rule.right + rule.wrong),
            percent(rule.right, rule.right + rule.wrong + rule.missing),
        )?;
    }
    Ok(text)
}

/// How often what was told was right, by what was said of it: the calibration.
fn shares<'a>(
    what: &str,
    counted: &str,
    rows: impl Iterator<Item = &'a BTreeMap<String, (u64, u64)>>,
) -> Result<String> {
    let mut sums: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (name, (right, all)) in rows.flatten() {
        let sum = sums.entry(name).or_default();
        sum.0 += right;
        sum.1 += all;
    }
    let mut text = format!("| {what} | {counted} | right % |\n|---|---|---|\n");
    for (name, (right, all)) in sums {
        writeln!(text, "| {name} | {all} | {} |", percent(right, all))?;
    }
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_of_the_judge_becomes_a_row_of_the_table() {
        let row = r#"{"runtime":"Go","style":"seq","concurrency":50,"right":98,"wrong":1,"missing":1,"across_right":3,"across":4,
            "whole_right":1,"whole":2,"by_evidence":{"task certain":[98,99]},"by_probability":{},"thread_rule":{"right":1,"wrong":3,"missing":0}}"#;
        let rows = [serde_json::from_str(row).expect("a row")];
        let table = table(&rows).expect("a table");
        assert!(
            table.ends_with("| Go | seq | 50 | 100 | 98.99 | 98.00 | 75.00 | 50.00 | 25.00, 25.00 |\n"),
            "{table}"
        );
        let by_evidence = rows.iter().map(|row| &row.by_evidence);
        let evidence = shares("evidence and confidence", "parents", by_evidence).expect("a table");
        assert!(
            evidence.ends_with("| task certain | 99 | 98.99 |\n"),
            "{evidence}"
        );
    }
}
