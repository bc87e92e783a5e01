//! What the BPF programs cost a message, by what the policy says of its connection, and what is lost under load. The example
//! `capture` of the daemon's crate does the work: here, where the figures are nanoseconds, or in the guest that counts instructions.

use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use super::table::Table;
use super::vm;
use crate::shell;

/// Options of `cargo xtask bench capture`.
#[derive(clap::Args)]
pub struct Args {
    /// In the guest of `bench vm`: instructions, which repeat, instead of nanoseconds
    #[arg(long)]
    vm: bool,
    /// With --vm: fail if a figure is outside its bound in xtask/src/bench/capture.json
    #[arg(long, requires = "vm")]
    check: bool,
}

/// (name in the report, what it says)
const ROWS: &[(&str, &str)] = &[
    ("tcp_128_captured", "TCP, 128 bytes, captured whole"),
    (
        "tcp_1k_first_128_captured",
        "TCP, 1 KiB, first 128 bytes and the tail captured",
    ),
    ("tcp_undecided", "TCP, 128 bytes, nothing decided yet"),
    (
        "tcp_two_vectors_captured",
        "TCP, 128 bytes in two vectors, captured whole",
    ),
    ("tcp_counted", "TCP, 128 bytes, counted"),
    ("tcp_ignored", "TCP, 128 bytes, ignored"),
    ("unix_128_captured", "Unix socket, 128 bytes, captured whole"),
    ("unix_ignored", "Unix socket, 128 bytes, ignored"),
    ("udp_ignored", "UDP, 128 bytes, ignored"),
    ("getppid", "a system call without a socket"),
];

const PROGRAMS: [&str; 3] = ["sock_send_length", "sock_recv_length", "sk_data_ready"];

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = super::build("tracer-userspace", &["--example", "capture"])?;
    if !args.vm {
        let run = |words: &[&str]| -> anyhow::Result<Value> {
            Ok(serde_json::from_str(&shell::output(
                Command::new(&program).args(words),
            )?)?)
        };
        println!("nanoseconds a message on this machine\n{}", table(&run(&[])?)?);
        for (rings, what) in [
            ("sharded", "a ring for each CPU"),
            ("one", "one ring for all CPUs"),
        ] {
            println!("{what}\n{}", losses(&run(&["load", rings])?)?);
        }
        return Ok(());
    }
    let programs = [(program, vm::guest::CAPTURE.to_owned())];
    let (kernel, results) = vm::in_guest("capture", &programs, "--capture")?;
    let reports: Vec<(&str, &Value)> = results
        .iter()
        .filter_map(|result| Some((result.get("label")?.as_str()?, result.get("report")?)))
        .collect();
    println!("instructions a message, 1 vCPU, kernel {kernel}");
    for (backend, report) in &reports {
        println!("{backend}\n{}", table(report)?);
    }
    println!("{}", side_by_side(&reports));
    if args.check {
        let path = shell::root().join("xtask/src/bench/capture.json");
        let (_, report) = reports.first().context("the guest told no figures")?;
        vm::bounds::check(&path, |row, name| figure(report, row, name))?;
    }
    Ok(())
}

/// What each back end costs, and its ratio to the first one.
fn side_by_side(reports: &[(&str, &Value)]) -> Table {
    let mut table = Table::default();
    table.row(
        std::iter::once(String::new())
            .chain(reports.iter().map(|(backend, _)| (*backend).to_owned()))
            .chain(reports.iter().skip(1).map(|_| "ratio".to_owned())),
    );
    for (name, what) in ROWS {
        let costs: Vec<f64> = reports
            .iter()
            .map(|(_, report)| figure(report, name, "cost").unwrap_or(f64::NAN))
            .collect();
        let first = costs.first().copied().unwrap_or(f64::NAN);
        table.row(
            std::iter::once((*what).to_owned())
                .chain(costs.iter().map(|cost| format!("{cost:.0}")))
                .chain(costs.iter().skip(1).map(|cost| {
                    // Next to nothing has no ratio.
                    if first < 50.0 {
                        "-".to_owned()
                    } else {
                        format!("{:.2}", cost / first)
                    }
                })),
        );
    }
    table
}

/// Losses and wake-ups by what was offered.
fn losses(report: &Value) -> anyhow::Result<Table> {
    let rows = report
        .get("rows")
        .and_then(Value::as_array)
        .context("the example told no rows")?;
    let mut table = Table::new(["offered", "messages/s", "events", "wake-ups per 1,000", "lost"]);
    for row in rows {
        let number = |name: &str| {
            row.get(name)
                .and_then(Value::as_f64)
                .with_context(|| format!("a row without {name}"))
        };
        let (share, events) = (number("share")?, number("events")?);
        let offered = if share == 0.0 {
            "all it can".to_owned()
        } else {
            format!("{:.0}%", share * 100.0)
        };
        table.row([
            offered,
            format!("{:.0}", number("messages_per_second")?),
            format!("{events:.0}"),
            format!("{:.2}", number("turns")? * 1000.0 / events),
            format!("{:.0}", number("lost")?),
        ]);
    }
    Ok(table)
}

fn figure(report: &Value, row: &str, name: &str) -> Option<f64> {
    report.pointer(&format!("/rows/{row}/{name}"))?.as_f64()
}

fn table(report: &Value) -> anyhow::Result<Table> {
    let lost = report.pointer("/counters/ring_full").and_then(Value::as_u64);
    ensure!(lost == Some(0), "events were lost: {:?}", report.get("counters"));
    let mut table = Table::new(["", "untraced", "traced", "cost", "send", "receive", "arrival"]);
    for (name, what) in ROWS {
        let number = |value: Option<f64>| match value {
            Some(value) => format!("{value:.0}"),
            None => "-".to_owned(),
        };
        let measured = ["untraced", "traced", "cost"].map(|column| number(figure(report, name, column)));
        let counted = PROGRAMS.map(|program| {
            let path = format!("/programs/{name}/{program}/ns");
            number(report.pointer(&path).and_then(Value::as_f64))
        });
        table.row(std::iter::once((*what).to_owned()).chain(measured).chain(counted));
    }
    Ok(table)
}
