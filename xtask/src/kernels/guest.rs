//! The first process of a guest of the matrix: for each back end starts the daemon, runs the cases, stops it, and tells what it saw.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::cases::{self, CASES, Case};
use super::ways;
use crate::bench::daemon::{self, Daemon, Export};
use crate::bench::process;
use crate::guest::init;

/// Options of the guest.
#[derive(clap::Args)]
pub struct Args {
    /// Back ends, separated by commas
    #[arg(long, value_delimiter = ',')]
    backends: Vec<String>,
    /// Cases, separated by commas
    #[arg(long, value_delimiter = ',')]
    cases: Vec<String>,
}

/// The name that stands for all cases of `tests/cases`.
pub const WAYS: &str = "ways";
/// The same, of 64-bit programs whose connections are younger than the capture: one capture instead of three, each of which the
/// verifier takes its time for.
pub const YOUNG_WAYS: &str = "ways-64";
/// The daemon's place in the image.
pub const DAEMON: &str = "/usr/bin/tracer";
const SPANS: &str = "/tmp/spans";
/// The longest text that is told: a serial line is slow.
const MOST: usize = 32 << 10;

/// Runs and never returns.
pub fn run(args: &Args) -> anyhow::Result<()> {
    init::run(|report| {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        report.tell(&json!({ "booted": release.trim() }))?;
        report.tell(&doctor()?)?;
        let selected: Vec<_> = CASES
            .iter()
            .filter(|case| args.cases.iter().any(|name| name == case.name))
            .collect();
        for backend in &args.backends {
            let mut result = match trace(backend, &selected) {
                Ok(result) => result,
                Err(error) => json!({ "refused": shortened(&format!("{error:#}")) }),
            };
            let asks = |way: &str| args.cases.iter().any(|name| name == way);
            let set = if asks(WAYS) {
                Some(ways::Set::All)
            } else {
                asks(YOUNG_WAYS).then_some(ways::Set::Young)
            };
            if result.get("refused").is_none()
                && let Some(set) = set
            {
                result["ways"] = match ways::run(backend, set) {
                    Ok(told) => told,
                    Err(error) => json!({ "error": shortened(&format!("{error:#}")) }),
                };
            }
            report.tell(&json!({ "backend": backend, "result": result }))?;
        }
        report.tell(&json!({ "done": true }))
    })
}

/// What `tracer doctor` says, and what the kernel itself says of the same hooks.
fn doctor() -> anyhow::Result<Value> {
    let output = Command::new(DAEMON)
        .args(["doctor", "--json"])
        .output()
        .context("running tracer doctor")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value =
        serde_json::from_str(&text).with_context(|| format!("tracer doctor said {text:?}"))?;
    let btf = fs::read("/sys/kernel/btf/vmlinux").unwrap_or_default();
    let symbols = fs::read_to_string("/proc/kallsyms")?;
    let symbols: HashSet<&str> = symbols
        .lines()
        .filter_map(|line| line.split_whitespace().nth(2))
        .collect();
    let findings = report.get("findings").and_then(Value::as_array);
    let truth: serde_json::Map<String, Value> = findings
        .into_iter()
        .flatten()
        .filter_map(|finding| {
            let name = finding.get("name")?.as_str()?;
            let is_there = match name.split_once(' ')? {
                ("tracepoint", hook) => contains(&btf, &format!("\0btf_trace_{hook}\0")),
                ("function", hook) => symbols.contains(hook),
                _ => return None,
            };
            Some((name.to_owned(), is_there.into()))
        })
        .collect();
    Ok(json!({ "doctor": report, "exit": output.status.code(), "hooks": truth }))
}

fn contains(bytes: &[u8], name: &str) -> bool {
    bytes.windows(name.len()).any(|window| window == name.as_bytes())
}

fn trace(backend: &str, selected: &[&Case]) -> anyhow::Result<Value> {
    let mut early = Vec::new();
    for case in selected.iter().filter(|case| case.is_early()) {
        early.push((case.name, Held::start(case)?));
    }
    let export = Export::Json(SPANS.into());
    let options = [
        "--capture",
        backend,
        "--log-level",
        "tracer_userspace::attach=debug,info",
    ];
    let daemon = Daemon::start_with(Path::new(DAEMON), &export, &options)?;
    let mut told = serde_json::Map::new();
    for case in selected {
        let held = early.iter_mut().find(|(name, _)| *name == case.name);
        let result = match held {
            Some((_, held)) => held.go_on(),
            None => run_case(case),
        };
        if let Err(error) = result {
            told.insert(case.name.to_owned(), format!("the case itself: {error:#}").into());
        }
    }
    settle()?;
    let bpf = process::bpf(daemon.id())?;
    let attached_ms = u64::try_from(daemon.attached_in.as_millis())?;
    let said = daemon.stop()?;
    let spans = spans()?;
    for case in selected {
        if !told.contains_key(case.name) {
            let verdict = cases::judge(case, &spans).err().map_or(Value::Null, Value::from);
            told.insert(case.name.to_owned(), verdict);
        }
    }
    let expected: u32 = selected.iter().map(|case| ends(case) * case.exchanges()).sum();
    Ok(json!({
        "cases": told, "programs": bpf.programs, "attached_ms": attached_ms, "spans": spans.len(), "expected": expected,
        "ledger": daemon::ledger(&said).map(|(_, _, line)| line), "said": shortened(&said), "left_out": left_out(&said),
    }))
}

/// What the daemon says that its programs do without.
fn left_out(said: &str) -> Vec<&str> {
    const SIGNS: [&str; 3] = [
        "tasks are not read of",
        "event loops are seen only",
        "messages are missed where",
    ];
    let lines = said
        .lines()
        .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)));
    lines.collect()
}

/// Ends of an exchange that spans are expected from.
fn ends(case: &Case) -> u32 {
    if case.shape == cases::Shape::Refused { 1 } else { 2 }
}

/// Waits until no further span comes.
fn settle() -> anyhow::Result<()> {
    let size = || fs::metadata(SPANS).map(|data| data.len());
    let mut before = size()?;
    loop {
        std::thread::sleep(Duration::from_millis(1500));
        let now = size()?;
        if now == before {
            return Ok(());
        }
        before = now;
    }
}

fn spans() -> anyhow::Result<Vec<Value>> {
    BufReader::new(File::open(SPANS)?)
        .lines()
        .map(|line| {
            let line = line?;
            serde_json::from_str(&line).with_context(|| format!("a span: {line}"))
        })
        .collect()
}

fn shortened(text: &str) -> String {
    let from = text.len().saturating_sub(MOST);
    text.char_indices()
        .find(|(at, _)| *at >= from)
        .map(|(at, _)| text.get(at..).unwrap_or_default())
        .unwrap_or_default()
        .to_owned()
}

fn command(case: &Case) -> Command {
    let mut command = Command::new("/init");
    command.args(["kernels", "case", case.name]);
    command
}

fn run_case(case: &Case) -> anyhow::Result<()> {
    let child = command(case)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    finish(child)
}

/// Longest life of a case: one that hangs would hang the guest.
const PATIENCE: Duration = Duration::from_secs(900);

fn finish(mut child: Child) -> anyhow::Result<()> {
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > PATIENCE {
            let _ = child.kill();
            let _ = child.wait();
            bail!("it did not end within {} s", PATIENCE.as_secs());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", output.status, said.trim());
    Ok(())
}

/// A case that waits for the daemon.
struct Held(Option<Child>);

impl Held {
    fn start(case: &Case) -> anyhow::Result<Self> {
        let mut child = command(case)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let pipe = child.stdout.take().context("the case has no standard output")?;
        BufReader::new(pipe).read_line(&mut line)?;
        ensure!(line.trim() == cases::hold_word(), "{} said {line:?}", case.name);
        Ok(Self(Some(child)))
    }

    fn go_on(&mut self) -> anyhow::Result<()> {
        let mut child = self.0.take().context("the case has gone on already")?;
        child
            .stdin
            .take()
            .context("the case has no standard input")?
            .write_all(b"\n")?;
        finish(child)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
