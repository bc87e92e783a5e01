//! The daemon under measurement.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use super::process;

/// The line on standard error that says that it traces.
const READY: &str = "tracer: ready";

/// An emulated kernel verifies slowly (a minute where nothing else runs): whoever takes so long hangs.
const READY_WITHIN: Duration = Duration::from_secs(1_800);
/// Likewise for its end.
const GONE_WITHIN: Duration = Duration::from_secs(300);

/// Where its spans go.
#[derive(Clone, Debug)]
pub enum Export {
    /// One JSON line a span into that file.
    Json(PathBuf),
    /// OTLP over HTTP to that loopback port.
    Otlp(u16),
}

/// A running daemon.
pub struct Daemon {
    child: Child,
    stderr: Option<JoinHandle<String>>,
    /// From its start to its readiness.
    pub attached_in: Duration,
}

/// What it has used so far.
#[derive(Clone, Copy, Default, Debug)]
pub struct Usage {
    /// User and kernel time of all its threads.
    pub cpu_ns: u64,
    /// The part of its first thread, which reads the rings and makes spans of what is there.
    pub reader_ns: u64,
    /// Page faults, and ticks in user space and in the kernel.
    pub stat: process::Stat,
    /// Resident memory.
    pub rss_kib: u64,
    /// Most resident memory ever.
    pub peak_rss_kib: u64,
    /// Its maps and programs.
    pub bpf: process::Bpf,
}

impl Daemon {
    /// Starts it and waits until it says that it is ready.
    pub fn start(program: &Path, export: &Export) -> anyhow::Result<Self> {
        Self::start_with(program, export, &[])
    }

    /// The same, with further options.
    pub fn start_with(program: &Path, export: &Export, options: &[&str]) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.args(options);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if name.starts_with("OTEL_") || name.starts_with("TRACER_") {
                command.env_remove(&*name);
            }
        }
        match export {
            Export::Json(path) => {
                let file = File::create(path).with_context(|| format!("creating {}", path.display()))?;
                command.args(["--format", "json"]).stdout(file);
            }
            Export::Otlp(port) => {
                command
                    .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://127.0.0.1:{port}"))
                    .env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
                    .stdout(Stdio::null());
            }
        }
        let started = Instant::now();
        let mut child = command.spawn().context("starting the daemon")?;
        let pipe = child.stderr.take().context("the daemon has no standard error")?;
        let (ready, is_ready) = mpsc::channel();
        let stderr = std::thread::spawn(move || collect(pipe, &ready));
        let mut daemon = Self {
            child,
            stderr: Some(stderr),
            attached_in: Duration::ZERO,
        };
        match is_ready.recv_timeout(READY_WITHIN) {
            Ok(at) => daemon.attached_in = at.duration_since(started),
            Err(_) => bail!("the daemon did not become ready; it said:\n{}", daemon.kill()),
        }
        Ok(daemon)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has used so far.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let pid = self.child.id();
        Ok(Usage {
            cpu_ns: process::cpu_ns(pid)?,
            reader_ns: process::first_thread_ns(pid),
            stat: process::stat(pid)?,
            rss_kib: process::status_kib(pid, "VmRSS")?,
            peak_rss_kib: process::status_kib(pid, "VmHWM")?,
            bpf: process::bpf(pid)?,
        })
    }

    /// Asks it to stop, waits until it has, and gives back what it said on standard error.
    pub fn stop(mut self) -> anyhow::Result<String> {
        let pid = self.child.id().cast_signed();
        // SAFETY: the process is a child that was not waited for, so the id is still its own.
        unsafe { libc::kill(pid, libc::SIGTERM) };
        let deadline = Instant::now() + GONE_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                let said = self.said();
                anyhow::ensure!(status.success(), "the daemon ended with {status}:\n{said}");
                return Ok(said);
            }
            if Instant::now() > deadline {
                bail!(
                    "the daemon did not stop within {} s; it said:\n{}",
                    GONE_WITHIN.as_secs(),
                    self.kill()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn kill(&mut self) -> String {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.said()
    }

    fn said(&mut self) -> String {
        self.stderr
            .take()
            .and_then(|thread| thread.join().ok())
            .unwrap_or_default()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.stderr.is_some() {
            self.kill();
        }
    }
}

fn collect(pipe: ChildStderr, ready: &mpsc::Sender<Instant>) -> String {
    let mut said = String::new();
    for line in BufReader::new(pipe).lines().map_while(Result::ok) {
        if line.trim() == READY {
            // Nobody waits any more if it took too long.
            let _ = ready.send(Instant::now());
        }
        if said.len() < 1 << 20 {
            said.push_str(&line);
            said.push('\n');
        }
    }
    said
}

/// The totals of the ledger that the daemon leaves: (seen, exported, the whole line).
pub fn ledger(said: &str) -> Option<(u64, u64, &str)> {
    let line = said
        .lines()
        .rev()
        .find_map(|line| Some(line.split_at(line.find("ledger: seen=")?).1))?;
    let field = |name: &str| {
        line.split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.parse().ok())
    };
    Some((field("seen=")?, field("exported=")?, line))
}

/// Spans in a file of JSON lines: those of the kind that `service` (name of a service) has written.
pub fn count_json(path: &Path, service: &str, kind: &str) -> anyhow::Result<u64> {
    let (service, kind) = (
        format!("\"service\":\"{service}\""),
        format!("\"kind\":\"{kind}\""),
    );
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path)?);
    let (mut line, mut count) = (Vec::new(), 0);
    while reader.read_until(b'\n', &mut line)? > 0 {
        let text = String::from_utf8_lossy(&line);
        count += u64::from(text.contains(&service) && text.contains(&kind));
        line.clear();
    }
    Ok(count)
}

/// Empties a file of spans that has been counted.
pub fn discard(export: &Export) {
    if let Export::Json(path) = export {
        let _ = fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ledger_is_read() {
        let said = "tracer: ready\nledger: seen=1 exported=0 open=1\nx INFO ledger: seen=9 exported=8 open=0 dropped.shutdown=1\n\
                    ledger: service=\"a\" seen=9\n";
        assert_eq!(
            ledger(said),
            Some((9, 8, "ledger: seen=9 exported=8 open=0 dropped.shutdown=1"))
        );
        assert_eq!(ledger("nothing"), None);
    }
}
