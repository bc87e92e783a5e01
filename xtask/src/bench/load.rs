//! Requests at a constant rate, whether or not the answers keep up (open loop): latency counts from the moment at which a
//! request was due, so a stall shows in every request that it delayed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// Options of the client.
#[derive(clap::Args)]
pub struct Args {
    /// Loopback port of the server
    #[arg(long)]
    port: u16,
    /// Requests per second
    #[arg(long)]
    rate: f64,
    /// Length of the run
    #[arg(long)]
    seconds: f64,
    /// Keep-alive connections
    #[arg(long)]
    connections: usize,
}

/// What the client saw.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Answers per second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile, likewise.
    pub p99_us: f64,
}

/// Runs the client in a process of its own, built for release.
pub fn spawn(
    program: &std::path::Path,
    port: u16,
    rate: f64,
    seconds: u32,
    connections: u32,
) -> anyhow::Result<Report> {
    let output = std::process::Command::new(program)
        .args([
            "bench",
            "load",
            "--port",
            &port.to_string(),
            "--rate",
            &rate.to_string(),
        ])
        .args([
            "--seconds",
            &seconds.to_string(),
            "--connections",
            &connections.to_string(),
        ])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting the constant-rate client")?;
    ensure!(output.status.success(), "the constant-rate client failed");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let field = |name: &str| {
        report
            .get(name)
            .and_then(serde_json::Value::as_f64)
            .context("no such figure")
    };
    Ok(Report {
        rate: field("rate")?,
        p50_us: field("p50_us")?,
        p99_us: field("p99_us")?,
    })
}

/// Prints one JSON object: requests, rate, p50_us, p99_us.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(args.rate > 0.0 && args.connections > 0, "nothing to do");
    precise_timers();
    let mut connections = Vec::with_capacity(args.connections);
    for _ in 0..args.connections {
        connections.push(Connection::open(args.port)?);
    }
    let mut latencies = drive(&mut connections, args.rate, Duration::from_secs_f64(args.seconds))?;
    latencies.sort_unstable();
    let quantile = |q: f64| {
        let index = (latencies.len() as f64 * q) as usize;
        latencies
            .get(index)
            .or(latencies.last())
            .map_or(f64::NAN, |ns| *ns as f64 / 1e3)
    };
    println!(
        "{}",
        serde_json::json!({
            "requests": latencies.len(), "rate": latencies.len() as f64 / args.seconds,
            "p50_us": quantile(0.5), "p99_us": quantile(0.99),
        })
    );
    Ok(())
}

fn drive(connections: &mut [Connection], rate: f64, length: Duration) -> anyhow::Result<Vec<u64>> {
    let interval = Duration::from_secs_f64(1.0 / rate);
    let mut latencies = Vec::with_capacity((rate * length.as_secs_f64()) as usize + 1);
    let mut free: VecDeque<usize> = (0..connections.len()).collect();
    let mut polls: Vec<libc::pollfd> = connections
        .iter()
        .map(|connection| libc::pollfd {
            fd: connection.stream.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        })
        .collect();
    let start = Instant::now();
    let (end, drained) = (start + length, start + length + Duration::from_secs(5));
    let mut due = start;
    loop {
        let now = Instant::now();
        while due <= now && due < end {
            let Some(connection) = free.pop_front().and_then(|index| connections.get_mut(index)) else {
                break;
            };
            connection.send(due)?;
            due += interval;
        }
        if due >= end && free.len() == connections.len() {
            return Ok(latencies);
        }
        if now > drained {
            bail!(
                "{} requests had no answer 5 s after the end",
                connections.len() - free.len()
            );
        }
        // Nothing can be sent while no connection is free: an answer wakes us then.
        let wait = if free.is_empty() || due >= end {
            Duration::from_secs(1)
        } else {
            due.saturating_duration_since(now)
        };
        wait_readable(&mut polls, wait)?;
        for (index, poll) in polls.iter().enumerate().filter(|(_, poll)| poll.revents != 0) {
            let Some(connection) = connections.get_mut(index) else {
                continue;
            };
            if let Some(since) = connection.receive().with_context(|| format!("fd {}", poll.fd))? {
                latencies.push(u64::try_from(since.elapsed().as_nanos())?);
                free.push_back(index);
            }
        }
    }
}

struct Connection {
    stream: TcpStream,
    request: Vec<u8>,
    /// When the open request was due.
    due: Option<Instant>,
    /// Bytes of the answer so far.
    got: usize,
    /// Bytes of an answer: all are the same.
    whole: usize,
}

impl Connection {
    fn open(port: u16) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n",
            super::nginx::FILE
        )
        .into_bytes();
        stream.write_all(&request)?;
        let (mut answer, mut part) = (Vec::new(), [0; 4096]);
        let whole = loop {
            let n = stream.read(&mut part)?;
            ensure!(n > 0, "the server closed the connection");
            answer.extend_from_slice(part.get(..n).unwrap_or_default());
            if let Some(whole) = length(&answer)
                && answer.len() >= whole
            {
                break whole;
            }
        };
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            request,
            due: None,
            got: 0,
            whole,
        })
    }

    fn send(&mut self, due: Instant) -> anyhow::Result<()> {
        // The connection is idle, so its buffer takes a request whole.
        self.stream.write_all(&self.request)?;
        self.due = Some(due);
        Ok(())
    }

    /// When the request that this answers was due, once the answer is whole.
    fn receive(&mut self) -> anyhow::Result<Option<Instant>> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part) {
            Ok(0) => bail!("the server closed the connection"),
            Ok(n) => self.got += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        if self.got < self.whole {
            return Ok(None);
        }
        self.got = 0;
        Ok(self.due.take())
    }
}

/// Bytes of an answer with its headers, once they are whole.
fn length(answer: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(answer);
    let (head, _) = text.split_once("\r\n\r\n")?;
    let body: usize = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse().ok())?
    })?;
    Some(head.len() + 4 + body)
}

fn wait_readable(polls: &mut [libc::pollfd], wait: Duration) -> io::Result<()> {
    let timeout = libc::timespec {
        tv_sec: wait.as_secs().cast_signed(),
        tv_nsec: i64::from(wait.subsec_nanos()),
    };
    // SAFETY: the slice and the timespec are valid for the call; no signal mask is given.
    let n = unsafe {
        libc::ppoll(
            polls.as_mut_ptr(),
            polls.len() as libc::nfds_t,
            &raw const timeout,
            std::ptr::null(),
        )
    };
    if n >= 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sleeps end within a microsecond instead of 50 (prctl(2), `PR_SET_TIMERSLACK`).
fn precise_timers() {
    // SAFETY: takes a number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
}

#[cfg(test)]
mod tests {
    use super::length;

    #[test]
    fn an_answer_has_a_length() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n";
        assert_eq!(length(format!("{head}ab").as_bytes()), Some(head.len() + 5));
        assert_eq!(length(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"), None);
        assert_eq!(length(b"HTTP/1.1 200 OK\r\n\r\n"), None);
    }
}
