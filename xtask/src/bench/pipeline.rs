//! Recorded chunks through every stage behind the rings on one core: how many a second, and what an exchange costs in
//! instructions and allocations. The example `pipeline` of the daemon's crate does the work.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::table::{Table, median};
use crate::shell;

/// Options of `cargo xtask bench pipeline`.
#[derive(clap::Args)]
pub struct Args {
    /// Timed runs
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Requests of a timed run
    #[arg(long, default_value_t = 300_000)]
    requests: u32,
    /// Do not count instructions (valgrind takes some seconds)
    #[arg(long)]
    no_instructions: bool,
    /// How many of the dearest functions are named
    #[arg(long, default_value_t = 25)]
    functions: usize,
}

/// Requests before the measured ones: every table has its size then.
const WARM: u32 = 20_000;
/// Requests of the two counted runs, whose difference is free of start and warm-up.
const COUNTED: [u32; 2] = [1_000, 11_000];

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = super::build("tracer-userspace", &["--example", "pipeline"])?;
    let reports: Vec<Value> = (0..args.rounds)
        .map(|_| report(&mut Command::new(&program), WARM, args.requests))
        .collect::<anyhow::Result<_>>()?;
    let figure = |name: &str| median(reports.iter().filter_map(|report| report.get(name)?.as_f64()));
    let (chunks, spans, seconds) = (figure("chunks"), figure("spans"), figure("seconds"));
    let mut table = Table::new(["one thread, nginx and wrk seen at both ends", "median"]);
    let mut row = |what: &str, value: f64, decimals: usize| {
        table.row([what.to_owned(), format!("{value:.decimals$}")]);
    };
    row("chunks/s", chunks / seconds, 0);
    row("exchanges/s", spans / seconds, 0);
    row("chunks an exchange", chunks / spans, 2);
    row("ns a chunk", seconds * 1e9 / chunks, 0);
    row("allocations an exchange", figure("allocations") / spans, 2);
    row(
        "bytes allocated an exchange",
        figure("allocated_bytes") / spans,
        0,
    );
    row("bytes of OTLP an exchange", figure("encoded_bytes") / spans, 0);
    if args.no_instructions {
        print!("{table}");
        return Ok(());
    }
    let (instructions, functions) = count(&program, args.functions)?;
    row("instructions an exchange", instructions, 0);
    row("instructions a chunk", instructions * spans / chunks, 0);
    print!("{table}\n{functions}");
    Ok(())
}

fn report(command: &mut Command, warm: u32, requests: u32) -> anyhow::Result<Value> {
    let text = shell::output(command.args([warm.to_string(), requests.to_string()]))?;
    serde_json::from_str(&text).context("the example's report")
}

/// Instructions an exchange, and the functions in which they are executed.
fn count(program: &Path, functions: usize) -> anyhow::Result<(f64, String)> {
    crate::install::ensure(&[("valgrind", "valgrind")])?;
    let dir = super::scratch("pipeline")?;
    let mut runs = Vec::new();
    for requests in COUNTED {
        let profile = dir.join(format!("callgrind.{requests}"));
        let mut valgrind = Command::new("valgrind");
        valgrind
            .args(["--quiet", "--tool=callgrind"])
            .arg(format!("--callgrind-out-file={}", profile.display()))
            .arg(program);
        let report = report(&mut valgrind, 0, requests)?;
        let spans = report.get("spans").and_then(Value::as_f64).context("no spans")?;
        runs.push((instructions(&profile)?, spans, profile));
    }
    let [(few, few_spans, _), (many, many_spans, profile)] = runs.as_slice() else {
        anyhow::bail!("two runs were meant");
    };
    ensure!(many_spans > few_spans, "the longer run exported no more spans");
    let mut text = String::new();
    // With what a function calls, its lines overlap: the largest is nearest to the truth.
    let joins: [(&str, &str, Join); 2] = [
        ("with what they call", "yes", u64::max),
        ("their own", "no", u64::wrapping_add),
    ];
    for (heading, inclusive, join) in joins {
        let mut annotate = Command::new("callgrind_annotate");
        annotate
            .args([
                "--threshold=100",
                "--auto=no",
                &format!("--inclusive={inclusive}"),
            ])
            .arg(profile);
        let heading = format!("instructions of functions, {heading}");
        let mut table = Table::new([&heading, "an exchange", "%"]);
        // Its warnings about lines that it can't find are of no use.
        let annotated = annotate.stderr(std::process::Stdio::null()).output()?;
        for (name, count) in top(&String::from_utf8_lossy(&annotated.stdout), join)
            .into_iter()
            .take(functions)
        {
            let (each, share) = (count as f64 / many_spans, count as f64 * 100.0 / *many);
            table.row([name, format!("{each:.0}"), format!("{share:.1}")]);
        }
        text += &format!("{table}\n");
    }
    Ok(((many - few) / (many_spans - few_spans), text))
}

type Join = fn(u64, u64) -> u64;

/// The total of a profile: `totals: 123` (callgrind's format, "summary" or "totals" line).
pub(super) fn instructions(profile: &Path) -> anyhow::Result<f64> {
    let text = std::fs::read_to_string(profile)?;
    text.lines()
        .rev()
        .find_map(|line| {
            line.strip_prefix("totals: ")
                .or(line.strip_prefix("summary: "))?
                .trim()
                .parse()
                .ok()
        })
        .context("the profile has no total")
}

/// Instructions of the function whose name ends so, with what it calls; 0 if it was never called.
pub(super) fn of_function(profile: &Path, name: &str) -> anyhow::Result<u64> {
    let output = Command::new("callgrind_annotate")
        .args(["--threshold=100", "--auto=no", "--inclusive=yes"])
        .arg(profile)
        .stderr(std::process::Stdio::null())
        .output()
        .context("running callgrind_annotate")?;
    let functions = top(&String::from_utf8_lossy(&output.stdout), u64::max);
    let found = functions.iter().find(|(known, _)| known.ends_with(name));
    Ok(found.map_or(0, |(_, count)| *count))
}

/// `1,234,567 (12.3%)  file.rs:function [object]`: functions with their instructions, dearest first. Code that was inlined from
/// another file has a line of its own, which is joined with the function's.
fn top(annotated: &str, join: Join) -> Vec<(String, u64)> {
    let mut functions: HashMap<String, u64> = HashMap::new();
    for line in annotated.lines() {
        let Some((count, place)) = line.trim_start().split_once(" (") else {
            continue;
        };
        let (Ok(count), Some((_, place))) = (count.replace(',', "").parse::<u64>(), place.split_once(") "))
        else {
            continue;
        };
        let place = place.trim_start();
        let place = place.rsplit_once(" [").map_or(place, |(place, _)| place);
        // The file comes first, and has no colon.
        let name = place.split_once(':').map_or(place, |(_, name)| name);
        if !name.starts_with("PROGRAM TOTALS") {
            let known = functions.entry(name.to_owned()).or_default();
            *known = join(*known, count);
        }
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    functions
}

#[cfg(test)]
mod tests {
    use super::{Join, top};

    #[test]
    fn annotations_are_added_up_by_function() {
        let text = "--------\nIr\n--------\n147,041,430 (100.0%)  PROGRAM TOTALS\n\n\
                    20,560,000 (13.98%)  /a/b.rs:tracer::flow::table::<impl X>::get_mut [/t/pipeline]\n\
                    25,000,000 (15.98%)  ./malloc/malloc.c:malloc [/lib/libc.so.6]\n\
                    5,000,000 ( 3.98%)  /core/str.rs:tracer::flow::table::<impl X>::get_mut [/t/pipeline]\n";
        let joins: [(Join, u64); 2] = [(u64::wrapping_add, 25_560_000), (u64::max, 20_560_000)];
        for (join, of_table) in joins {
            let functions = top(text, join);
            let count = |name: &str| {
                let known = functions.iter().find(|(known, _)| known == name);
                known.map(|(_, count)| *count)
            };
            assert_eq!(functions.len(), 2);
            assert_eq!(count("tracer::flow::table::<impl X>::get_mut"), Some(of_table));
            assert_eq!(count("malloc"), Some(25_000_000));
        }
    }
}
