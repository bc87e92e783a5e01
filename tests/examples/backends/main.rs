//! The traffic of a real four-service application (nginx, Flask, PostgreSQL, Redis) through the daemon to every backend that can
//! run here, all at once, and back: what each backend tells is compared span by span with what was sent.
//!
//! `cargo xtask backends` installs the programs and runs this: `backends CACHE JUDGE REQUESTS [DOCUMENT]`.

mod programs;
mod read;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::process::{Program, TempDir};
use tracer_tests::{Host, Ledger, Selection, host, metrics};

use self::programs::{Backends, Round};
use self::read::Spans;

/// How long backends may take to show what they took.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line of the table.
#[derive(Clone, Default)]
struct Row {
    system: &'static str,
    how: &'static str,
    sent: usize,
    found: usize,
    problems: Vec<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [cache, judge, requests, document @ ..] = arguments.as_slice() else {
        eprintln!("run it by `cargo xtask backends`");
        return ExitCode::FAILURE;
    };
    let requests = requests.to_string_lossy().parse().expect("a number of requests");
    let Some(_host) = Host::ready() else {
        return ExitCode::FAILURE;
    };
    let rows = [Round::First, Round::Second].map(|round| run(cache, judge, requests, round));
    let rows = rows.concat();
    let table = table(&rows);
    print!("{table}");
    if let Some(document) = document.first() {
        write(document, &table);
    }
    let failed = rows.iter().any(|row| !row.problems.is_empty());
    ExitCode::from(u8::from(failed))
}

/// Sends to the backends of a round, and reads back from each.
fn run(cache: &Path, judge: &Path, requests: u64, round: Round) -> Vec<Row> {
    let backends = Backends::start(cache, judge, round);
    let (sent, exported) = trace(&backends, requests);
    let lost = (sent.len() as i64 != exported).then(|| format!("{exported} in the ledger"));
    let mut rows = vec![Row {
        system: "file",
        how: "OTLP JSON lines, counted against the ledger",
        sent: sent.len(),
        found: sent.len(),
        problems: lost.into_iter().collect(),
    }];
    for (system, how, ask) in backends.readers() {
        rows.push(patiently(system, how, &sent, || ask(&sent)));
    }
    rows.push(measured(&backends, &sent, round));
    if round == Round::First {
        rows.push(Row {
            system: "zipkin, dependency graph",
            how: "calls in `/api/v2/dependencies` against those that were sent",
            ..backends.dependencies(&sent)
        });
    } else {
        rows.remove(0);
    }
    rows
}

/// The metrics of the same exchanges, which the daemon sends once more when it stops.
fn measured(backends: &Backends, sent: &Spans, round: Round) -> Row {
    let expected = read::durations(sent);
    let points = backends.points();
    let told = metrics::totals(&points);
    let mut problems = metrics::differences(&expected, &told);
    let form = (round == Round::Second, round == Round::Second);
    let others = points
        .iter()
        .filter(|point| (point.is_delta, point.is_exponential) != form);
    problems.extend(others.map(|point| format!("not in the form that was asked for: {point:?}")));
    let count = |totals: &metrics::Totals, key| totals.get(key).map_or(0, |(count, _)| *count as usize);
    Row {
        system: "otlp, metrics",
        how: match round {
            Round::First => {
                "Collector 0.155.0, OTLP/gRPC, cumulative, explicit buckets: number and sum of all durations"
            }
            Round::Second => {
                "Collector 0.155.0, OTLP/HTTP JSON, delta, exponential buckets: number and sum of all durations"
            }
        },
        sent: expected.keys().map(|key| count(&expected, key)).sum(),
        found: expected.keys().map(|key| count(&told, key)).sum(),
        problems,
    }
}

/// Traces the application; what was sent, by the file exporter, and how much the ledger counts as delivered by all.
fn trace(backends: &Backends, requests: u64) -> (Spans, i64) {
    let (shop, database, cache) = apps::flask_with_stores(Setup::named("shop"));
    let front = apps::nginx(Setup::default().calling(&shop));
    let selection = Selection::of(&[&database, &cache, &shop, &front]);
    let folder = TempDir::new("backends");
    let file = folder.path().join("spans.jsonl");
    let mut command = Command::new(host::daemon_binary());
    command
        .args(["--ring-bytes", "4194304", "--shutdown-timeout", "30s"])
        .args(selection.arguments())
        .arg("--export")
        .arg(format!("{},file={}", backends.targets(), file.display()))
        .envs(backends.variables());
    let mut tracer = Program::spawn("tracer", folder, &mut command).until("is ready", |log| {
        log.lines().any(|line| line.trim() == "tracer: ready")
    });
    let path = |n: u64| match n % 10 {
        3 => format!("/pass/dberror/{n}"),
        5 => format!("/pass/hello/{n}"),
        _ => format!("/pass/db/{n}"),
    };
    let records = drive(front.port, 4, 0..requests, |client, n| client.get(&path(n)));
    assert_eq!(records.len() as u64, requests);
    stop(&mut tracer);
    let output = tracer.output();
    print!("{}", ledger_lines(&output));
    let ledger = Ledger::last_in(&output).unwrap_or_else(|| panic!("no ledger:\n{output}"));
    if let Some(problem) = ledger.imbalance() {
        panic!("the ledger does not balance: {problem}\n{output}");
    }
    let text = std::fs::read_to_string(&file).expect("the file of the file exporter");
    (read::otlp_lines(&text), ledger.exported)
}

fn stop(tracer: &mut Program) {
    tracer.signal(libc::SIGTERM);
    let status = tracer.wait(Duration::from_secs(60));
    assert!(status.success(), "{status}:\n{}", tracer.output());
}

fn ledger_lines(output: &str) -> String {
    output
        .lines()
        .filter(|line| line.contains("ledger: ") || line.contains(" WARN ") || line.contains(" ERROR "))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// Asks until everything is there, and says what differs then.
fn patiently(system: &'static str, how: &'static str, sent: &Spans, ask: impl Fn() -> read::Found) -> Row {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = ask();
        let problems = read::differences(sent, &found);
        if problems.is_empty() || Instant::now() > deadline {
            return Row {
                system,
                how,
                sent: sent.len(),
                found: found.spans.len(),
                problems,
            };
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| system | how verified | spans sent | spans found | mismatches |\n|---|---|---|---|---|\n",
    );
    for row in rows {
        let count = row.problems.len();
        text += &format!(
            "| {} | {} | {} | {} | {count} |\n",
            row.system, row.how, row.sent, row.found
        );
        for problem in row.problems.iter().take(5) {
            eprintln!("{}: {problem}", row.system);
        }
    }
    text
}

/// Puts the table between its marks in a document.
fn write(document: &Path, table: &str) {
    const MARKS: [&str; 2] = [
        "<!-- table: cargo xtask backends --write -->\n",
        "<!-- end of table -->",
    ];
    let text = std::fs::read_to_string(document).expect("the document");
    let (before, rest) = text
        .split_once(MARKS[0])
        .expect("the mark where the table begins");
    let (_, after) = rest.split_once(MARKS[1]).expect("the mark where the table ends");
    let text = [before, MARKS[0], table, MARKS[1], after].concat();
    std::fs::write(document, text).expect("write the document");
}

/// Names and values.
type Texts = BTreeMap<String, String>;
