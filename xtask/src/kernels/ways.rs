//! Every way that a byte can move: the C cases (`tests/cases/`), judged in the guest by the test that judges them on any host
//! (`tracer-userspace/tests/capture/cases.rs`). A row of the table is a case with all its variants, of a 64-bit and of a 32-bit program.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::shell;

/// Places in the image.
pub const JUDGE: &str = "/usr/bin/capture";
pub const PROGRAM: &str = "/usr/bin/cases";
pub const NARROW: &str = "/usr/bin/cases-32";
const VERDICTS: &str = "/tmp/verdicts";
const SAID: &str = "/tmp/said";

/// All cases with one back end; one that hangs would hang the guest. A busy machine needs a fifth of it.
const PATIENCE: Duration = Duration::from_secs(3_600);

/// Which of them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Set {
    All,
    /// Of 64-bit programs, with connections that are younger than the capture.
    Young,
}

impl Set {
    /// The judge's tests.
    fn filter(self) -> &'static str {
        match self {
            Self::All => "cases::",
            Self::Young => "cases::every_way_is_seen_once",
        }
    }
}

/// The sources of the program.
pub fn sources() -> anyhow::Result<Vec<PathBuf>> {
    let mut sources: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(shell::root().join("tests/cases"))? {
        sources.push(entry?.path());
    }
    sources.retain(|path| path.extension().is_some_and(|extension| extension == "c"));
    sources.sort();
    Ok(sources)
}

/// Runs all in the guest with a back end: the verdicts, a line each, and what the judge said if it came to no end.
pub fn run(backend: &str, set: Set) -> anyhow::Result<Value> {
    let _ = fs::remove_file(VERDICTS);
    let narrow = Command::new(NARROW)
        .arg("list")
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    let said = File::create(SAID)?;
    let mut command = Command::new(JUDGE);
    command
        .args([set.filter(), "--test-threads=1", "--nocapture"])
        .env("TRACER_TEST_CAPTURE", backend)
        .env("TRACER_CASES", PROGRAM)
        .env("TRACER_CASES_32", NARROW)
        .env("TRACER_CASES_VERDICTS", VERDICTS)
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said);
    if !narrow {
        command.args(["--skip", "32_bit"]);
    }
    let mut child = command.spawn().context("starting the judge")?;
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if started.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            break None;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let verdicts = fs::read_to_string(VERDICTS).unwrap_or_default();
    let mut told = Vec::new();
    for line in verdicts.lines() {
        let mut verdict: Value = serde_json::from_str(line).with_context(|| line.to_owned())?;
        if let Some(problem) = verdict.get("problem").and_then(Value::as_str) {
            let short: String = problem.chars().take(1_500).collect();
            verdict["problem"] = short.into();
        }
        told.push(verdict);
    }
    let ended = status.is_some_and(|status| status.success()) || told.iter().any(has_problem);
    let said = fs::read_to_string(SAID).unwrap_or_default();
    ensure!(
        ended && !told.is_empty(),
        "the judge ended as {status:?}: {}",
        tail(&said)
    );
    Ok(json!({ "narrow": narrow, "verdicts": told, "seconds": started.elapsed().as_secs() }))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines
        .get(lines.len().saturating_sub(20)..)
        .unwrap_or_default()
        .join("\n")
}

fn has_problem(verdict: &Value) -> bool {
    verdict.get("problem").is_some_and(Value::is_string)
}

/// A row: what is wrong with any variant, and how many messages the back end could not see.
#[derive(Default, PartialEq, Eq, Debug)]
pub struct Row {
    pub problems: Vec<String>,
    pub unseen: u64,
    pub variants: usize,
}

/// The rows by name: `splice`, or `older peek` for connections that are older than the capture.
pub fn rows(ways: &Value) -> BTreeMap<String, Row> {
    let mut rows = BTreeMap::<String, Row>::new();
    let verdicts = ways.get("verdicts").and_then(Value::as_array);
    for verdict in verdicts.into_iter().flatten() {
        let text = |key: &str| verdict.get(key).and_then(Value::as_str).unwrap_or_default();
        let (set, case) = (text("set"), text("case"));
        let name = case.split(' ').next().unwrap_or_default();
        let name = if set == "older" {
            format!("older {name}")
        } else {
            name.to_owned()
        };
        let row = rows.entry(name).or_default();
        row.variants += 1;
        row.unseen += verdict.get("unseen").and_then(Value::as_u64).unwrap_or(0);
        if !text("lacking").is_empty() {
            row.problems
                .push(format!("{set} {case}: the kernel lacks it: {}", text("lacking")));
        }
        if has_problem(verdict) {
            let problem: String = text("problem").chars().take(300).collect();
            row.problems.push(format!("{set} {case}: {problem}"));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_make_one_row() {
        let verdict = |set, case, problem: Value, unseen: Value| json!({"set": set, "case": case, "problem": problem, "unseen": unseen});
        let ways = json!({"verdicts": [
            verdict("64-bit", "peek v4", Value::Null, json!(0)),
            verdict("64-bit", "peek unix", json!("wrong"), Value::Null),
            verdict("32-bit", "peek v4", Value::Null, json!(2)),
            verdict("older", "peek v4", Value::Null, json!(0)),
            json!({"set": "64-bit", "case": "ring_buffers", "problem": null, "unseen": null, "lacking": "EINVAL"}),
        ]});
        let rows = rows(&ways);
        let row = |problems: &[&str], unseen, variants| Row {
            problems: problems.iter().map(|&problem| problem.to_owned()).collect(),
            unseen,
            variants,
        };
        assert_eq!(rows.len(), 3);
        assert_eq!(rows["peek"], row(&["64-bit peek unix: wrong"], 2, 3));
        assert_eq!(rows["older peek"], row(&[], 0, 1));
        assert_eq!(
            rows["ring_buffers"],
            row(&["64-bit ring_buffers: the kernel lacks it: EINVAL"], 0, 1)
        );
    }
}
