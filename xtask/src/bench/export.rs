//! Spans through the exporters to a backend on this machine that takes everything: how many a second and core, and what one costs in
//! CPU time, instructions and allocations; and memory while the backend is down, with and without a disk queue. The example `export` of the daemon's crate does the
//! work.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

use super::pipeline::{instructions, of_function};
use super::table::{Table, median};

/// Options of `cargo xtask bench export`.
#[derive(clap::Args)]
pub struct Args {
    /// Timed runs of each kind
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Spans of a timed run
    #[arg(long, default_value_t = 500_000)]
    spans: u32,
    /// Do not count instructions (valgrind takes some seconds for each kind)
    #[arg(long)]
    no_instructions: bool,
    /// How long the backend is down; 0 leaves that out
    #[arg(long, default_value_t = 60)]
    dead_seconds: u32,
    /// Spans a second while it is
    #[arg(long, default_value_t = 10_000)]
    dead_rate: u32,
}

/// Where spans go, and whether every request has a path of its own.
const KINDS: [(&str, &str); 6] = [
    ("http", "repeated"),
    ("http", "varied"),
    ("grpc", "repeated"),
    ("grpc", "varied"),
    ("json", "repeated"),
    ("json", "varied"),
];
/// Spans before the measured ones.
const WARM: u32 = 20_000;
/// Spans of the two counted runs, whose difference is free of start and warm-up.
const COUNTED: [u32; 2] = [10_240, 30_720];

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = super::build("tracer-userspace", &["--example", "export"])?;
    let dir = super::scratch("export")?;
    if !args.no_instructions {
        crate::install::ensure(&[("valgrind", "valgrind")])?;
    }
    let mut table = Table::new([
        "to, requests",
        "spans/s/core",
        "ns CPU/span",
        "of it handing over",
        "allocations/span",
        "instructions/span",
    ]);
    for (to, shape) in KINDS {
        let sink = match to {
            "json" => None,
            _ => Some(Sink::start(&program, to)?),
        };
        let sink = sink.as_ref();
        let reports: Vec<Value> = (0..args.rounds)
            .map(|_| send(Command::new(&program), [to, shape], [WARM, args.spans], sink))
            .collect::<anyhow::Result<_>>()?;
        let each = |name: &str| {
            median(
                reports
                    .iter()
                    .filter_map(|report| Some(report.get(name)?.as_f64()? / report.get("spans")?.as_f64()?)),
            )
        };
        let cpu = each("cpu_seconds");
        let counted = if args.no_instructions {
            "-".to_owned()
        } else {
            format!("{:.0}", count(&program, &dir, [to, shape], sink)?)
        };
        table.row([
            format!("{to}, {shape}"),
            format!("{:.0}", 1.0 / cpu),
            format!("{:.0}", cpu * 1e9),
            format!("{:.0}", each("handing_over_seconds") * 1e9),
            format!("{:.2}", each("allocations")),
            counted,
        ]);
    }
    println!("{table}");
    if args.dead_seconds > 0 {
        dead(&program, args, None)?;
        let queue = dir.join("queue");
        let _ = std::fs::remove_dir_all(&queue);
        dead(&program, args, Some(&queue))?;
    }
    Ok(())
}

fn send(
    mut command: Command,
    words: [&str; 2],
    spans: [u32; 2],
    sink: Option<&Sink>,
) -> anyhow::Result<Value> {
    command
        .arg("send")
        .args(words)
        .args(spans.map(|n| n.to_string()))
        .args(sink.map(|sink| &sink.url))
        .stdout(Stdio::null());
    report(&mut command)
}

/// The report on standard error: standard output may carry the spans.
fn report(command: &mut Command) -> anyhow::Result<Value> {
    let output = command
        .stderr(Stdio::piped())
        .output()
        .context("running the example")?;
    let text = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the example failed: {text}");
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    serde_json::from_str(line.context("no report")?).context("the example's report")
}

/// Instructions a span in user space, without the making of the spans.
fn count(program: &Path, dir: &Path, words: [&str; 2], sink: Option<&Sink>) -> anyhow::Result<f64> {
    let mut totals = Vec::new();
    for spans in COUNTED {
        let profile: PathBuf = dir.join(format!("callgrind.{}.{}.{spans}", words[0], words[1]));
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(program);
        send(valgrind, words, [0, spans], sink)?;
        let making = of_function(&profile, "Generator::batch")?;
        totals.push(instructions(&profile)? - making as f64);
    }
    let [few, many] = totals.as_slice() else {
        anyhow::bail!("two runs were meant");
    };
    Ok((many - few) / f64::from(COUNTED[1] - COUNTED[0]))
}

fn dead(program: &Path, args: &Args, queue: Option<&Path>) -> anyhow::Result<()> {
    let numbers = [args.dead_rate, args.dead_seconds].map(|n| n.to_string());
    let report = report(Command::new(program).arg("dead").args(numbers).args(queue))?;
    let number = |name: &str| report.get(name).and_then(Value::as_u64).unwrap_or_default();
    let resident = report
        .get("resident")
        .and_then(Value::as_array)
        .context("no memory")?;
    let mib = |at: usize| {
        let bytes = resident.get(at).and_then(Value::as_f64);
        bytes.map_or_else(|| "-".to_owned(), |bytes| format!("{:.1}", bytes / 1_048_576.0))
    };
    let last = resident.len().saturating_sub(1);
    let heading = format!(
        "backend down, {} spans/s for {} s{}",
        args.dead_rate,
        args.dead_seconds,
        queue.map_or("", |_| ", with a disk queue")
    );
    let mut table = Table::new([heading.as_str(), ""]);
    table.row(["bound, spans".to_owned(), number("max_spans").to_string()]);
    let max_bytes = number("max_bytes") as f64 / 1_048_576.0;
    table.row(["bound, MiB".to_owned(), format!("{max_bytes:.1}")]);
    for (name, at) in [
        ("RSS after 1 s, MiB", 0),
        ("RSS at half time, MiB", last / 2),
        ("RSS at the end, MiB", last),
    ] {
        table.row([name.to_owned(), mib(at)]);
    }
    table.row([
        "spans, dropped of these, on the disk".to_owned(),
        format!(
            "{}, {}, {}",
            number("spans"),
            number("dropped"),
            number("spilled")
        ),
    ]);
    if queue.is_some() {
        let bytes = number("on_disk") as f64;
        let each = bytes / number("spilled").max(1) as f64;
        table.row([
            "disk, MiB, and bytes a span".to_owned(),
            format!("{:.1}, {each:.0}", bytes / 1_048_576.0),
        ]);
    }
    ensure!(
        report.get("open").and_then(Value::as_i64) == Some(0),
        "the ledger does not balance: {report}"
    );
    println!("{table}");
    Ok(())
}

/// A backend in a process of its own.
struct Sink {
    url: String,
    process: Child,
}

impl Sink {
    fn start(program: &Path, protocol: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(program)
            .args(["sink", protocol])
            .stdout(Stdio::piped())
            .spawn()
            .context("starting the sink")?;
        let mut url = String::new();
        let out = process.stdout.take().context("the sink has no output")?;
        BufReader::new(out).read_line(&mut url)?;
        ensure!(url.starts_with("http://"), "the sink does not say where it is");
        Ok(Self {
            url: url.trim().to_owned(),
            process,
        })
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
