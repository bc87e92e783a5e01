//! What the BPF programs cost a message, by what the policy says of its connection. The example `capture` of the daemon's crate
//! does the work: here, where the figures are nanoseconds, or in the guest that counts instructions.

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
    ("udp_not_traced", "UDP, 128 bytes, not traced"),
    ("getppid", "a system call without a socket"),
];

const PROGRAMS: [&str; 3] = ["sock_send_length", "sock_recv_length", "sk_data_ready"];

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let program = super::build("tracer-userspace", &["--example", "capture"])?;
    if !args.vm {
        let text = shell::output(&mut Command::new(program))?;
        println!(
            "nanoseconds a message on this machine\n{}",
            table(&serde_json::from_str(&text)?)?
        );
        return Ok(());
    }
    let programs = [(program, vm::guest::CAPTURE.to_owned())];
    let (kernel, results) = vm::in_guest("capture", &programs, "--capture")?;
    let report = results
        .iter()
        .find_map(|result| result.get("report"))
        .context("the guest told no figures")?;
    println!(
        "instructions a message, 1 vCPU, kernel {kernel}\n{}",
        table(report)?
    );
    if args.check {
        let path = shell::root().join("xtask/src/bench/capture.json");
        vm::bounds::check(&path, |row, name| figure(report, row, name))?;
    }
    Ok(())
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
