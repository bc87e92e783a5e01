//! A capture and a child process whose sockets are looked at.

use std::{
    collections::{BTreeMap, HashSet},
    fs::File,
    io::{BufRead as _, BufReader, Lines, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use tracer_common::EventHeader;
use tracer_userspace::{
    attach::{Capture, Options},
    kernel,
    model::ConnId,
    source::Source,
};

/// One event, copied out of the ring.
pub struct Event {
    pub header: EventHeader,
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
}

impl Event {
    pub fn conn(&self) -> ConnId {
        ConnId(self.header.cookie)
    }
}

/// The back end that `TRACER_TEST_CAPTURE` asks for, so that all of them meet the same tests.
pub fn backend() -> Option<kernel::Backend> {
    let name = std::env::var("TRACER_TEST_CAPTURE").ok()?;
    let found = kernel::Backend::ALL.iter().find(|backend| backend.name() == name);
    Some(*found.unwrap_or_else(|| panic!("there is no back end {name}")))
}

/// Whether this host cannot run these tests; says why, also to `cargo xtask test`.
pub fn skip() -> bool {
    let report = kernel::report(&kernel::Features::probe(), backend());
    if !report.can_run {
        let test = std::thread::current();
        let line = format!("{}: {}", test.name().unwrap_or("?"), report.obstacles());
        eprintln!("skipped: {line}");
        if let Some(path) = std::env::var_os("TRACER_TEST_SKIPS") {
            let file = File::options().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{line}"))
                .expect("record the skip");
        }
    }
    !report.can_run
}

/// The bytes that the child sends: see `pattern` in child.py.
pub fn pattern(len: usize, seed: u32) -> Vec<u8> {
    (0..=len as u32 / 4)
        .flat_map(|i| i.wrapping_mul(2_654_435_761).wrapping_add(seed).to_le_bytes())
        .take(len)
        .collect()
}

/// Events by socket, in time order.
pub fn by_connection(events: &[Event]) -> BTreeMap<u64, Vec<&Event>> {
    let mut connections = BTreeMap::<_, Vec<_>>::new();
    for event in events {
        connections.entry(event.header.cookie).or_default().push(event);
    }
    connections
}

/// All events of a child's run.
pub fn capture(scenario: &[&str]) -> Vec<Event> {
    Running::start(scenario).finish()
}

pub struct Running {
    pub capture: Capture,
    source: Source,
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
    /// Events of any process that have not been handed out, oldest first.
    pending: Vec<Event>,
    /// Sockets known to be the child's.
    sockets: HashSet<u64>,
}

fn spawn(scenario: &[&str]) -> Child {
    Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/capture/child.py"))
        .args(scenario)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 starts")
}

/// Attaches with rings of so many bytes.
fn attach(ring_bytes: u32) -> Capture {
    attach_with(backend(), ring_bytes)
}

/// Attaches with that back end.
pub fn attach_with(backend: Option<kernel::Backend>, ring_bytes: u32) -> Capture {
    let plan = kernel::plan_for_this_host(backend).expect("this host can be traced");
    Capture::start(
        &plan,
        Options {
            ring_bytes,
            ..Options::default()
        },
    )
    .expect("the capture starts")
}

/// Holds all that any scenario makes, however slow the reader is: these tests run on busy machines.
pub const AMPLE: u32 = 16 << 20;

impl Running {
    /// Attaches, then starts the child.
    pub fn start(scenario: &[&str]) -> Self {
        Self::start_with_rings(scenario, AMPLE)
    }

    /// Attaches with rings of so many bytes, then starts the child.
    pub fn start_with_rings(scenario: &[&str], ring_bytes: u32) -> Self {
        let capture = attach(ring_bytes);
        let mut child = spawn(scenario);
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self::new(capture, child, output)
    }

    /// Starts the child, and attaches when it says that it is ready.
    pub fn start_late(scenario: &[&str]) -> Self {
        let mut child = spawn(scenario);
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(output.next().unwrap().unwrap(), "ready");
        Self::new(attach(AMPLE), child, output)
    }

    fn new(mut capture: Capture, mut child: Child, output: Lines<BufReader<ChildStdout>>) -> Self {
        let source = capture.take_source().unwrap();
        let input = child.stdin.take();
        Self {
            capture,
            source,
            child,
            input,
            output,
            pending: Vec::new(),
            sockets: HashSet::new(),
        }
    }

    /// Gives the child a line.
    pub fn tell(&mut self) {
        self.input.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    /// Waits for a line of the child.
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.output.next().unwrap().unwrap(), line);
    }

    /// The child's events up to now.
    pub fn settle(&mut self) -> Vec<Event> {
        let now = tracer_userspace::source::monotonic();
        while self.turn() < now {}
        self.take()
    }

    /// Lets the child end; all its events that were not handed out.
    pub fn finish(&mut self) -> Vec<Event> {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            self.turn();
            if let Some(status) = self.child.try_wait().unwrap() {
                assert!(status.success(), "the child failed");
                break;
            }
            assert!(Instant::now() < limit, "the child hangs");
        }
        // Packets of closed connections may still be under way.
        std::thread::sleep(Duration::from_millis(20));
        self.settle()
    }

    /// Waits for the child's end without reading a ring.
    pub fn let_it_end(&mut self) {
        assert!(self.child.wait().unwrap().success(), "the child failed");
    }

    /// Reads all that there is, of any process; how many events that was.
    pub fn read_all(&mut self) -> usize {
        let drained = self.source.drain_all(|_, _, _| {});
        assert_eq!(drained.malformed, 0);
        drained.events
    }

    /// Sleeps until an event comes, or so long; the child's events since the last call.
    pub fn sleep(&mut self, pause: Duration) -> Vec<Event> {
        self.source.wait(pause).unwrap();
        self.settle()
    }

    /// A counter of the programs.
    pub fn counter(&self, name: &str) -> u64 {
        let counters = self.capture.counters().unwrap();
        counters.iter().find(|(found, _)| *found == name).unwrap().1
    }

    fn turn(&mut self) -> u64 {
        let pending = &mut self.pending;
        let drained = self.source.drain(|header, head, tail| {
            pending.push(Event {
                header: *header,
                head: head.to_vec(),
                tail: tail.to_vec(),
            });
        });
        assert_eq!(drained.malformed, 0);
        self.source.wait(drained.pause).unwrap();
        drained.watermark
    }

    /// The child's own: events that name it, and events of its sockets. Others' processes are traced too.
    fn take(&mut self) -> Vec<Event> {
        let child = self.child.id();
        self.sockets.extend(
            self.pending
                .iter()
                .filter(|e| e.header.tgid == child)
                .map(|e| e.header.cookie),
        );
        self.pending
            .drain(..)
            .filter(|e| self.sockets.contains(&e.header.cookie) && e.header.cookie != 0)
            .collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
