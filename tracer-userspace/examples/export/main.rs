//! Spans through the exporters, as fast as they go, or into a backend that is down. `cargo xtask bench export` runs it; it prints one
//! JSON object.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tracer_userspace::export::{Clock, Config, Format, Pipeline, Protocol};
use tracer_userspace::telemetry::Ledger;

#[path = "../pipeline/allocations.rs"]
mod allocations;
mod sink;
mod spans;

use spans::Generator;

/// Spans in one hand-over: a drain of the rings under load.
const BATCH: usize = 128;
/// Spans that may wait in the exporter, so that none is dropped.
const AHEAD: u64 = 8_192;

const USAGE: &str = "usage: export sink http|grpc
       export send http|grpc|json repeated|varied WARM-UP-SPANS SPANS [URL]
       export dead SPANS-A-SECOND SECONDS [QUEUE-DIR]";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["sink", "http"] => sink::http(),
        ["sink", "grpc"] => sink::grpc(),
        ["send", to, shape, warm, spans, url @ ..] => {
            let config = config(to, url.first().copied())?;
            send(&config, *shape == "varied", warm.parse()?, spans.parse()?)
        }
        ["dead", rate, seconds, dir @ ..] => dead(rate.parse()?, seconds.parse()?, dir.first().copied()),
        _ => bail!(USAGE),
    }
}

fn config(to: &str, url: Option<&str>) -> anyhow::Result<Config> {
    let mut config = Config::default();
    config.otlp.protocol = match to {
        "http" => Some(Protocol::HttpBinary),
        "grpc" => Some(Protocol::Grpc),
        "json" => {
            config.console.enabled = Some(true);
            config.console.format = Format::Json;
            return Ok(config);
        }
        _ => bail!(USAGE),
    };
    config.console.enabled = Some(false);
    config.otlp.set_endpoint(url.context(USAGE)?);
    Ok(config)
}

/// Sends spans and tells what that took: of the whole process, without the making of the spans and the waiting.
fn send(config: &Config, varied: bool, warm: u64, spans: u64) -> anyhow::Result<()> {
    let ledger = Arc::new(Ledger::default());
    let mut generator = Generator::new(varied);
    // Alone so far: what is allocated is the generator's.
    generator.batch(BATCH);
    let before = allocations::total().0;
    generator.batch(BATCH);
    let making = allocations::total().0 - before;
    let pipeline = Pipeline::start(config, clock(), Arc::clone(&ledger))?;
    let mut sent = 0;
    let mut run = |until: u64| -> anyhow::Result<f64> {
        let mut handing_over = 0.0;
        while sent < until {
            let batch = generator.batch(BATCH);
            sent += batch.len() as u64;
            ledger.seen(batch.len() as u64);
            let start = seconds(libc::CLOCK_THREAD_CPUTIME_ID);
            pipeline.send(batch);
            handing_over += seconds(libc::CLOCK_THREAD_CPUTIME_ID) - start;
            await_exported(&ledger, sent.saturating_sub(AHEAD))?;
        }
        await_exported(&ledger, sent)?;
        Ok(handing_over)
    };
    run(warm)?;
    let clocks = || {
        let process = seconds(libc::CLOCK_PROCESS_CPUTIME_ID);
        (process, seconds(libc::CLOCK_THREAD_CPUTIME_ID))
    };
    let (process, thread) = clocks();
    let (allocated, start) = (allocations::total().0, Instant::now());
    let handing_over = run(warm + spans)?;
    let elapsed = start.elapsed().as_secs_f64();
    let (process_after, thread_after) = clocks();
    let spans = sent - warm.next_multiple_of(BATCH as u64);
    let cpu = process_after - process - (thread_after - thread) + handing_over;
    let allocated = allocations::total().0 - allocated - spans / BATCH as u64 * making;
    pipeline.shutdown(Duration::from_secs(5));
    // Standard output may carry the spans.
    eprintln!(
        "{{\"spans\":{spans},\"seconds\":{elapsed},\"cpu_seconds\":{cpu},\"handing_over_seconds\":{handing_over},\
         \"allocations\":{allocated}}}"
    );
    Ok(())
}

/// Waits until so many spans have arrived.
fn await_exported(ledger: &Ledger, spans: u64) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(600);
    loop {
        let snapshot = ledger.snapshot();
        if let Some((reason, n)) = snapshot.dropped.first_key_value() {
            bail!("{n} spans were dropped: {}", reason.as_str());
        }
        if snapshot.exported >= spans {
            return Ok(());
        }
        if Instant::now() > deadline {
            bail!("stuck at {} of {spans} spans", snapshot.exported);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Spans at a constant rate to a port where nobody listens: memory by the second, and the disk where there is a queue.
fn dead(rate: u64, seconds: u64, dir: Option<&str>) -> anyhow::Result<()> {
    let ledger = Arc::new(Ledger::default());
    let mut generator = Generator::new(true);
    let free = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
    let mut config = config("http", Some(&format!("http://{free}")))?;
    config.queue.dir = dir.map(Into::into);
    let pipeline = Pipeline::start(&config, clock(), Arc::clone(&ledger))?;
    let start = Instant::now();
    let (mut sent, mut memory) = (0, Vec::new());
    for second in 1..=seconds {
        while sent < rate * second {
            let due = Duration::from_secs_f64(sent as f64 / rate as f64);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
            let batch = generator.batch(BATCH);
            sent += batch.len() as u64;
            ledger.seen(batch.len() as u64);
            pipeline.send(batch);
        }
        memory.push(resident()?);
    }
    pipeline.shutdown(Duration::from_secs(1));
    let snapshot = ledger.snapshot();
    let on_disk: u64 = ledger.health().disks().iter().map(|(_, used, _)| used).sum();
    let dropped: u64 = snapshot.dropped.values().sum();
    eprintln!(
        "{{\"spans\":{sent},\"dropped\":{dropped},\"spilled\":{},\"on_disk\":{on_disk},\"open\":{},\"max_spans\":{},\"max_bytes\":{},\"resident\":{memory:?}}}",
        snapshot.spilled,
        snapshot.open(),
        config.queue.max_spans,
        config.queue.max_bytes,
    );
    Ok(())
}

/// Resident bytes of this process (proc(5), `VmRSS`).
fn resident() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("no VmRSS")? * 1024)
}

/// A clock that is never measured: valgrind hides what measuring needs.
fn clock() -> Clock {
    Clock::with_offset(1_700_000_000_000_000_000)
}

fn seconds(clock: libc::clockid_t) -> f64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid timespec for the call to write to (clock_gettime(2)).
    unsafe { libc::clock_gettime(clock, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}
