//! The first process of the guest: makes a system of one program's size, runs the rounds, tells the results over the second
//! serial line, one JSON object a line, and powers off.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::super::daemon::{self, Daemon, Export};
use super::super::measure::{self, Load, STATUS_REQUESTS};
use super::super::nginx::{self, Nginx};
use super::super::process::BpfStats;

/// Options of the guest.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each kind
    #[arg(long)]
    rounds: u32,
    /// Guest seconds of load in a round
    #[arg(long)]
    seconds: u32,
    /// Keep-alive connections
    #[arg(long)]
    connections: u32,
    /// Only untraced rounds
    #[arg(long)]
    untraced: bool,
}

/// The daemon's place in the image.
pub const DAEMON: &str = "/usr/bin/tracer";

/// A kernel has work of its own for some seconds after it has booted (measured: a third of the CPU in the first three).
const QUIET: Duration = Duration::from_secs(5);

/// Runs and never returns: the first process must not end.
pub fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::process::id() == 1,
        "this is the first process of the guest of `bench vm`, nothing else"
    );
    let result =
        mount_all().and_then(|()| File::options().write(true).open("/dev/ttyS1").map_err(Into::into));
    match result {
        Ok(mut out) => {
            if let Err(error) = rounds(args, &mut out) {
                let _ = tell(&mut out, &json!({ "error": format!("{error:#}") }));
            }
        }
        Err(error) => eprintln!("bench guest: {error:#}"),
    }
    // SAFETY: the command takes no argument.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn tell(out: &mut File, value: &Value) -> anyhow::Result<()> {
    Ok(out.write_all(format!("{value}\n").as_bytes())?)
}

fn rounds(args: &Args, out: &mut File) -> anyhow::Result<()> {
    loopback_up()?;
    let clock = fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")?;
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    tell(out, &json!({ "booted": release.trim(), "clock": clock.trim() }))?;
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
        tell(out, &json!({ "label": "untraced", "round": round.to_json() }))?;
        if args.untraced {
            continue;
        }
        for export in [&json, &otlp] {
            tell(out, &traced(&load, &nginx, export, &sink)?)?;
        }
    }
    if !args.untraced {
        let _stats = BpfStats::enable()?;
        let mut counted = traced(&load, &nginx, &json, &sink)?;
        if let Some(label) = counted.get_mut("label") {
            *label = "counted".into();
        }
        tell(out, &counted)?;
    }
    tell(out, &json!({ "done": true }))
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

fn mount_all() -> anyhow::Result<()> {
    for (kind, path) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("tracefs", "/sys/kernel/tracing"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        let (kind, path) = (CString::new(kind)?, CString::new(path)?);
        // SAFETY: three strings that end with 0 and outlive the call; the file systems take no data.
        let result = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).with_context(|| format!("mounting {kind:?} on {path:?}"));
        }
    }
    Ok(())
}

/// Sets `IFF_UP` on `lo` (netdevice(7)).
fn loopback_up() -> anyhow::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = from.cast_signed();
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFFLAGS reads one ifreq, whose name ends with 0.
    if unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) } != 0 {
        return Err(std::io::Error::last_os_error()).context("bringing lo up");
    }
    Ok(())
}
