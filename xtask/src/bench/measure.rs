//! One round: load on nginx for some seconds, and who used how much meanwhile. The guest and this machine share it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::daemon::{Daemon, Usage};
use super::nginx::Nginx;
use super::{process, wrk};

/// How the load is made.
pub struct Load {
    /// wrk.
    pub program: PathBuf,
    /// Keep-alive connections.
    pub connections: u32,
    /// Length of a round.
    pub seconds: u32,
}

/// What one round used.
#[derive(Clone, Copy, Debug)]
pub struct Round {
    /// What wrk saw.
    pub wrk: wrk::Report,
    /// Requests that nginx served to wrk.
    pub requests: u64,
    /// From wrk's start to its end.
    pub elapsed_ns: u64,
    /// CPU time of nginx.
    pub nginx_ns: u64,
    /// CPU time of wrk.
    pub wrk_ns: u64,
    /// CPU time of the daemon, until it had nothing left to do.
    pub daemon_ns: u64,
    /// The part of the thread that reads the rings.
    pub reader_ns: u64,
    /// The daemon's page faults.
    pub faults: u64,
    /// The daemon's clock ticks in user space and in the kernel.
    pub ticks: [u64; 2],
    /// CPU time of the process that takes the spans.
    pub sink_ns: u64,
    /// Time in BPF programs and their runs, if the kernel counts them.
    pub bpf_ns: u64,
    /// See [`Self::bpf_ns`].
    pub bpf_runs: u64,
    /// The daemon at the end of the round.
    pub daemon: Option<Usage>,
}

/// Runs one round. `sink` is the process that takes the spans, if it is one of ours.
pub fn round(
    load: &Load,
    nginx: &Nginx,
    daemon: Option<&Daemon>,
    sink: Option<u32>,
) -> anyhow::Result<Round> {
    let usage = || daemon.map(Daemon::usage).transpose();
    let sink_ns = || sink.map_or(Ok(0), process::cpu_ns);
    let served = nginx.requests()?;
    let (nginx_before, wrk_before) = (process::cpu_ns(nginx.pid())?, process::reaped_cpu_ns()?);
    let (daemon_before, sink_before) = (usage()?, sink_ns()?);
    let start = Instant::now();
    let wrk = wrk::run(&load.program, nginx.port, load.connections, load.seconds)?;
    let elapsed = start.elapsed();
    let (nginx_after, wrk_after) = (process::cpu_ns(nginx.pid())?, process::reaped_cpu_ns()?);
    if let Some(daemon) = daemon {
        settle(daemon)?;
    }
    let (daemon_after, sink_after) = (usage()?, sink_ns()?);
    // The status page counts its own request: this one, and not the one before.
    let requests = nginx.requests()?.saturating_sub(served + 1);
    let before = daemon_before.unwrap_or_default();
    let after = daemon_after.unwrap_or_default();
    Ok(Round {
        wrk,
        requests,
        elapsed_ns: u64::try_from(elapsed.as_nanos())?,
        nginx_ns: nginx_after - nginx_before,
        wrk_ns: wrk_after - wrk_before,
        daemon_ns: after.cpu_ns - before.cpu_ns,
        reader_ns: after.reader_ns - before.reader_ns,
        faults: after.stat.faults - before.stat.faults,
        ticks: [
            after.stat.user - before.stat.user,
            after.stat.kernel - before.stat.kernel,
        ],
        sink_ns: sink_after - sink_before,
        bpf_ns: after.bpf.run_ns - before.bpf.run_ns,
        bpf_runs: after.bpf.runs - before.bpf.runs,
        daemon: daemon_after,
    })
}

/// Requests for the status page in one round: the daemon sees them too.
pub const STATUS_REQUESTS: u64 = 2;

/// Waits until the daemon uses less than a fiftieth of a core, 2 s at most: then it has taken what was in its rings and queues.
fn settle(daemon: &Daemon) -> anyhow::Result<()> {
    const STEP: Duration = Duration::from_millis(100);
    let mut before = daemon.usage()?.cpu_ns;
    for _ in 0..20 {
        std::thread::sleep(STEP);
        let now = daemon.usage()?.cpu_ns;
        if u128::from(now - before) * 50 < STEP.as_nanos() {
            break;
        }
        before = now;
    }
    Ok(())
}

impl Round {
    /// Nanoseconds per request (in the guest: instructions).
    pub fn per_request(&self, ns: u64) -> f64 {
        ns as f64 / self.requests.max(1) as f64
    }

    /// One JSON object, for the way out of the guest.
    pub fn to_json(self) -> Value {
        let daemon = self.daemon.map(|usage| {
            json!({
                "rss_kib": usage.rss_kib, "peak_rss_kib": usage.peak_rss_kib,
                "maps": usage.bpf.maps, "map_bytes": usage.bpf.map_bytes, "programs": usage.bpf.programs,
            })
        });
        json!({
            "rate": self.wrk.rate, "p50_us": self.wrk.p50_us, "p99_us": self.wrk.p99_us,
            "requests": self.requests, "elapsed_ns": self.elapsed_ns,
            "nginx_ns": self.nginx_ns, "wrk_ns": self.wrk_ns, "daemon_ns": self.daemon_ns, "sink_ns": self.sink_ns,
            "reader_ns": self.reader_ns, "faults": self.faults, "user_ticks": self.ticks[0], "kernel_ticks": self.ticks[1],
            "bpf_ns": self.bpf_ns, "bpf_runs": self.bpf_runs, "daemon": daemon,
        })
    }
}

/// A server and its client, made ready under `dir`.
pub fn nginx(dir: &Path) -> anyhow::Result<Nginx> {
    Nginx::start(&super::program("nginx")?, dir, super::free_port()?)
}
