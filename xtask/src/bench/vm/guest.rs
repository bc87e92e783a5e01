//! The first process of the guest: runs the rounds and tells the results.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::super::daemon::{self, Daemon, Export};
use super::super::measure::{self, Load, STATUS_REQUESTS};
use super::super::nginx::{self, Nginx};
use super::super::process::BpfStats;
use crate::guest::init::{self, Report};

/// Options of the guest.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each kind
    #[arg(long, default_value_t = 0)]
    rounds: u32,
    /// Guest seconds of load in a round
    #[arg(long, default_value_t = 0)]
    seconds: u32,
    /// Keep-alive connections
    #[arg(long, default_value_t = 0)]
    connections: u32,
    /// Only untraced rounds
    #[arg(long)]
    untraced: bool,
    /// Instead of the rounds: what a message costs (`bench capture --vm`)
    #[arg(long)]
    capture: bool,
}

/// The daemon's place in the image.
pub const DAEMON: &str = "/usr/bin/tracer";
/// The place of the example `capture`.
pub const CAPTURE: &str = "/usr/bin/capture";

/// A kernel has work of its own for some seconds after it has booted (measured: a third of the CPU in the first three).
const QUIET: Duration = Duration::from_secs(5);

/// Runs and never returns: the first process must not end.
pub fn run(args: &Args) -> anyhow::Result<()> {
    init::run(|report| {
        booted(report)?;
        if args.capture {
            capture(report)
        } else {
            rounds(args, report)
        }
    })
}

fn capture(out: &mut Report) -> anyhow::Result<()> {
    std::thread::sleep(QUIET);
    for backend in ["tracepoint", "fentry", "syscall"] {
        let text = crate::shell::output(Command::new(CAPTURE).arg(backend))?;
        let report: Value = serde_json::from_str(&text).context("the report of the example")?;
        out.tell(&json!({ "label": backend, "report": report }))?;
    }
    out.tell(&json!({ "done": true }))
}

/// Ready to measure: says which kernel and which clock.
fn booted(out: &mut Report) -> anyhow::Result<()> {
    let clock = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    out.tell(&json!({ "booted": release.trim(), "clock": clock.trim() }))
}

fn rounds(args: &Args, out: &mut Report) -> anyhow::Result<()> {
    let load = Load {
        program: super::super::program("wrk")?,
        connections: args.connections,
        seconds: args.seconds,
    };
    let nginx = measure::nginx(Path::new("/tmp/nginx"))?;
    let json = Export::Json(PathBuf::from("/tmp/spans"));
    let sink = Sink::start()?;
    let otlp = Export::Otlp(sink.port);
    std::thread::sleep(QUIET);
    measure::round(&load, &nginx, None, None)?;
    for _ in 0..args.rounds {
        let round = measure::round(&load, &nginx, None, None)?;
        out.tell(&json!({ "label": "untraced", "round": round.to_json() }))?;
        if args.untraced {
            continue;
        }
        for export in [&json, &otlp] {
            out.tell(&traced(&load, &nginx, export, &sink)?)?;
        }
    }
    if !args.untraced {
        let _stats = BpfStats::enable()?;
        let mut counted = traced(&load, &nginx, &json, &sink)?;
        if let Some(label) = counted.get_mut("label") {
            *label = "counted".into();
        }
        out.tell(&counted)?;
    }
    out.tell(&json!({ "done": true }))
}

fn traced(load: &Load, nginx: &Nginx, export: &Export, sink: &Sink) -> anyhow::Result<Value> {
    let before = sink.counts()?;
    let daemon = Daemon::start(Path::new(DAEMON), export)?;
    let attached_in = daemon.attached_in;
    let at_start = daemon.usage()?;
    let round = measure::round(load, nginx, Some(&daemon), Some(sink.child.id()))?;
    let said = daemon.stop()?;
    let (label, counts) = match export {
        Export::Json(path) => {
            let counts = [("nginx", "server"), ("wrk", "client")]
                .map(|(service, kind)| daemon::count_json(path, service, kind));
            ("json", counts)
        }
        Export::Otlp(_) => {
            let after = sink.counts()?;
            let counts =
                ["nginx server", "wrk client"].map(|name| Ok(count(&after, name) - count(&before, name)));
            ("otlp", counts)
        }
    };
    daemon::discard(export);
    let [server, client] = counts;
    let ledger = daemon::ledger(&said).map(|(seen, exported, line)| json!([seen, exported, line]));
    Ok(json!({
        "label": label, "round": round.to_json(), "attached_us": u64::try_from(attached_in.as_micros())?,
        "attached_cpu_ns": at_start.cpu_ns,
        // The daemon also saw nginx answer our questions about the number of requests.
        "server_spans": server?.saturating_sub(STATUS_REQUESTS), "client_spans": client?, "ledger": ledger,
    }))
}

fn count(counts: &Value, name: &str) -> u64 {
    counts.get(name).and_then(Value::as_u64).unwrap_or(0)
}

struct Sink {
    child: Child,
    port: u16,
}

impl Sink {
    fn start() -> anyhow::Result<Self> {
        let port = super::super::free_port()?;
        let child = Command::new("/init")
            .args(["bench", "sink", "--port", &port.to_string()])
            .spawn()?;
        let sink = Self { child, port };
        while sink.counts().is_err() {
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(sink)
    }

    fn counts(&self) -> anyhow::Result<Value> {
        Ok(serde_json::from_str(&nginx::get(self.port, "/count")?)?)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
