//! The load at saturation: wrk with keep-alive connections.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};

/// What wrk says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// Requests per second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile, likewise.
    pub p99_us: f64,
    /// Requests that were answered.
    pub requests: u64,
}

/// Runs one thread with `connections` connections for `seconds`.
pub fn run(program: &Path, port: u16, connections: u32, seconds: u32) -> anyhow::Result<Report> {
    let output = Command::new(program)
        .args(["--threads", "1", "--latency"])
        .args([
            "--connections",
            &connections.to_string(),
            "--duration",
            &format!("{seconds}s"),
        ])
        .arg(format!("http://127.0.0.1:{port}{}", super::nginx::FILE))
        .output()
        .context("running wrk")?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "wrk failed: {text}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        !text.contains("Non-2xx") && !text.contains("Socket errors"),
        "wrk saw errors:\n{text}"
    );
    parse(&text).with_context(|| format!("not a report of wrk:\n{text}"))
}

fn parse(text: &str) -> Option<Report> {
    let after = |label: &str| {
        text.lines().find_map(|line| {
            line.trim()
                .strip_prefix(label)
                .and_then(|rest| rest.split_whitespace().next())
        })
    };
    Some(Report {
        rate: after("Requests/sec:")?.parse().ok()?,
        p50_us: micros(after("50%")?)?,
        p99_us: micros(after("99%")?)?,
        requests: text
            .lines()
            .find_map(|line| line.trim().split_once(" requests in ").map(|(count, _)| count))?
            .parse()
            .ok()?,
    })
}

/// `612.00us`, `1.23ms`, `2.00s`.
fn micros(text: &str) -> Option<f64> {
    let (number, factor) = if let Some(number) = text.strip_suffix("us") {
        (number, 1.0)
    } else if let Some(number) = text.strip_suffix("ms") {
        (number, 1e3)
    } else {
        (text.strip_suffix('s')?, 1e6)
    };
    number.parse::<f64>().ok().map(|value| value * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read() {
        let text = "Running 1s test @ http://127.0.0.1:1/file
  1 threads and 20 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency   500.11us    1.25ms  20.45ms   97.16%
    Req/Sec    56.46k     6.30k   61.86k    90.91%
  Latency Distribution
     50%  305.00us
     75%  353.00us
     90%  461.00us
     99%    7.11ms
  61711 requests in 1.10s, 74.40MB read
Requests/sec:  56101.56
Transfer/sec:     67.64MB
";
        let report = Report {
            rate: 56101.56,
            p50_us: 305.0,
            p99_us: 7110.0,
            requests: 61711,
        };
        assert_eq!(parse(text), Some(report));
        assert_eq!(parse("nonsense"), None);
        assert_eq!((micros("2.00s"), micros("7")), (Some(2e6), None));
    }
}
