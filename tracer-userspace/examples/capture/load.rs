//! What is lost, and how often the reader wakes, by how much of what the machine can move it moves.
//!
//! A child has a thread for each CPU, which sends messages to itself over TCP as the policy of new connections has it
//! (captured whole). The reader does here what the daemon's does, but hands the events to nobody.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use tracer_userspace::attach::{Capture, Options};
use tracer_userspace::kernel;
use tracer_userspace::source::Source;

/// Shares of what the child can do, traced, that are offered; 0 stands for as fast as it can.
const SHARES: [f64; 5] = [0.2, 0.4, 0.6, 0.8, 0.0];
/// How long each is.
const MILLIS: u64 = 2_000;
const BYTES: usize = 128;
/// A thread that keeps a rate looks at the clock after so many messages.
const BURST: u64 = 8;

/// Prints one JSON object.
pub fn run(one_ring: bool) -> anyhow::Result<()> {
    let plan = kernel::plan_for_this_host(None)?;
    let options = Options {
        one_ring,
        ..Options::default()
    };
    let mut capture = Capture::start(&plan, options)?;
    let reader = Reader::start(capture.take_source().context("the source")?);
    child(0.0)?; // caches, lazily bound symbols
    let most = child(0.0)?;
    let rows = SHARES
        .iter()
        .map(|share| {
            let lost_before = lost(&capture)?;
            let [events, turns] = reader.counts();
            let moved = child(most * share)?;
            reader.settle();
            let [events, turns] = {
                let [events_now, turns_now] = reader.counts();
                [events_now - events, turns_now - turns]
            };
            Ok(json!({
                "share": share, "messages_per_second": moved, "events": events, "turns": turns, "lost": lost(&capture)? - lost_before,
            }))
        })
        .collect::<anyhow::Result<Vec<Value>>>()?;
    reader.stop()?;
    println!("{}", json!({ "rows": rows, "ring_bytes": options.ring_bytes }));
    Ok(())
}

fn lost(capture: &Capture) -> anyhow::Result<u64> {
    let counters = capture.counters()?;
    let found = counters.iter().find(|(name, _)| *name == "ring_full");
    Ok(found.context("a counter of full rings")?.1)
}

/// Lets a child move so many messages a second (0: as many as it can); how many it did.
fn child(rate: f64) -> anyhow::Result<f64> {
    let output = Command::new(std::env::current_exe()?)
        .args(["flood", &rate.to_string(), &MILLIS.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let moved: f64 = text
        .trim()
        .parse()
        .with_context(|| format!("the child said {text:?}"))?;
    Ok(moved * 1000.0 / MILLIS as f64)
}

/// The thread that empties the rings.
struct Reader {
    shared: Arc<Shared>,
    thread: thread::JoinHandle<anyhow::Result<()>>,
}

#[derive(Default)]
struct Shared {
    events: AtomicU64,
    /// Sleeps that ended.
    turns: AtomicU64,
    over: AtomicBool,
}

impl Reader {
    fn start(mut source: Source) -> Self {
        let shared = Arc::new(Shared::default());
        let here = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !here.over.load(Ordering::Relaxed) {
                let drained = source.drain(|_, _, _| {});
                here.events.fetch_add(drained.events as u64, Ordering::Relaxed);
                if !drained.pause.is_zero() {
                    source.wait(drained.pause)?;
                    here.turns.fetch_add(1, Ordering::Relaxed);
                }
            }
            Ok(())
        });
        Self { shared, thread }
    }

    /// Events and turns so far.
    fn counts(&self) -> [u64; 2] {
        [&self.shared.events, &self.shared.turns].map(|counter| counter.load(Ordering::Relaxed))
    }

    /// Waits until nothing comes any more.
    fn settle(&self) {
        let mut before = self.counts()[0];
        loop {
            thread::sleep(Duration::from_millis(50));
            let now = self.counts()[0];
            if now == before {
                return;
            }
            before = now;
        }
    }

    fn stop(self) -> anyhow::Result<()> {
        self.shared.over.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow::anyhow!("the reader panicked"))?
    }
}

/// The child: prints how many messages it has moved (one that is sent and received counts as two).
pub fn flood(rate: f64, millis: u64) -> anyhow::Result<()> {
    let cpus = thread::available_parallelism()?.get();
    let pairs = (0..cpus).map(|_| pair()).collect::<anyhow::Result<Vec<_>>>()?;
    let end = Instant::now() + Duration::from_millis(millis);
    let moved = thread::scope(|scope| {
        let threads: Vec<_> = pairs
            .into_iter()
            .enumerate()
            .map(|(cpu, pair)| scope.spawn(move || messages(cpu, pair, rate / cpus as f64, end)))
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?)
            .sum::<anyhow::Result<u64>>()
    })?;
    println!("{moved}");
    Ok(())
}

fn pair() -> anyhow::Result<[TcpStream; 2]> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let client = TcpStream::connect(listener.local_addr()?)?;
    client.set_nodelay(true)?;
    Ok([client, listener.accept()?.0])
}

fn messages(
    cpu: usize,
    [mut client, mut server]: [TcpStream; 2],
    rate: f64,
    end: Instant,
) -> anyhow::Result<u64> {
    pin(cpu)?;
    let buffer = [b'x'; BYTES];
    let mut received = [0; BYTES];
    let start = Instant::now();
    let mut moved = 0;
    while Instant::now() < end {
        if rate > 0.0 {
            let due = start + Duration::from_secs_f64(moved as f64 / rate);
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        for _ in 0..BURST {
            client.write_all(&buffer)?;
            server.read_exact(&mut received)?;
            moved += 2;
        }
    }
    Ok(moved)
}

fn pin(cpu: usize) -> anyhow::Result<()> {
    // SAFETY: a set of CPUs is plain bits.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the set is ours; a number that it does not have panics.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the kernel reads as many bytes as the size says.
    let failed = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if failed != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    Ok(())
}
