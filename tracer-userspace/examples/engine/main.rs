//! Recorded runs (`tracer --record FILE`) through the correlation stage alone: the CPU time that an exchange costs there, evidence of the
//! runtimes included. Reading the recording is not counted.

use std::collections::HashMap;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tracer_userspace::correlate::Correlator;
use tracer_userspace::record::{Event, Recording};
use tracer_userspace::telemetry::Ledger;

/// Prints a line of JSON for each recording: its exchanges, and the nanoseconds that each of so many runs took.
fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let rounds: usize = arguments
        .next()
        .context("usage: engine ROUNDS RECORDING...")?
        .parse()
        .context("ROUNDS is no number")?;
    for file in arguments {
        let path = Path::new(&file);
        let runs: Vec<(usize, Duration)> = (0..rounds)
            .map(|_| run(path))
            .collect::<anyhow::Result<_>>()
            .with_context(|| file.clone())?;
        let nanoseconds: Vec<u128> = runs.iter().map(|(_, time)| time.as_nanos()).collect();
        let exchanges = runs.first().map_or(0, |&(spans, _)| spans);
        println!(
            "{}",
            json!({"file": file, "exchanges": exchanges, "nanoseconds": nanoseconds})
        );
    }
    Ok(())
}

/// How many spans came out, and what that took.
fn run(file: &Path) -> anyhow::Result<(usize, Duration)> {
    let mut recording = Recording::open(BufReader::new(File::open(file)?))?;
    let mut correlate: Value = recording.correlate.take();
    // The judge's runs explain each parent; a daemon does not unless it is asked to.
    if let Some(explain) = correlate.get_mut("explain") {
        *explain = Value::Bool(false);
    }
    let mut events = Vec::new();
    while let Some(event) = recording.next_event()? {
        events.push(event);
    }
    let mut correlator = Correlator::new(serde_json::from_value(correlate)?, Arc::new(Ledger::default()));
    let mut services = HashMap::new();
    let mut spans = Vec::new();
    let start = clock_gettime(ClockId::ThreadCPUTime);
    for event in events {
        match event {
            Event::Service(tgid, service) => _ = services.insert(tgid, service),
            Event::Signal(signal) => {
                correlator.signal(signal, &mut |tgid| {
                    services.get(&tgid).cloned().unwrap_or_default()
                });
            }
            Event::Advance(to) => correlator.advance(to, &mut spans),
        }
    }
    correlator.finish(&mut spans);
    let end = clock_gettime(ClockId::ThreadCPUTime);
    let nanoseconds = |time: rustix::time::Timespec| time.tv_sec * 1_000_000_000 + time.tv_nsec;
    let took = u64::try_from(nanoseconds(end) - nanoseconds(start))?;
    Ok((spans.len(), Duration::from_nanos(took)))
}
