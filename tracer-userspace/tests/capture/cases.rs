//! Every way that a byte can move (`tests/cases/`): each message is seen once, with its bytes, by each back end of this host.
//!
//! `TRACER_TEST_CAPTURE` names one back end; else all that the host has are tried. `TRACER_CASES` and `TRACER_CASES_32` name built
//! programs (in a guest there is no compiler); else they are built from their sources. A file that `TRACER_CASES_VERDICTS` names gets a
//! line for each case.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    sync::OnceLock,
    time::Duration,
};

use serde::Deserialize;
use tracer_common::{
    Direction, EventFlags, EventKind, MAX_IOVECS, TAIL_BYTES, UNDECIDED_CHUNK, UNDECIDED_RUN,
};
use tracer_userspace::{
    attach::Capture,
    kernel::{self, Backend},
    source::{Source, monotonic},
};

use crate::harness::{AMPLE, Event, attach_with, backend, pattern, skip};

/// What one end of a connection did, as the program tells.
#[derive(Deserialize, Debug)]
struct End {
    family: u16,
    lport: u16,
    rport: u16,
    eof: usize,
    connect: u32,
    sent: Vec<Message>,
    received: Vec<Message>,
}

/// Bytes, process, thread, where the bytes were ([`IN_MEMORY`] and its like).
#[derive(Deserialize, PartialEq, Eq, Clone, Copy, Debug)]
struct Message(u32, u32, u32, u8);

/// In memory of the process.
const IN_MEMORY: u8 = 1;
/// Taken out of a socket by `splice`.
const SPLICED: u8 = 2;
/// In memory of the process, moved by a ring of io_uring.
const BY_RING: u8 = 3;
/// In memory that is registered with such a ring.
const REGISTERED: u8 = 4;
/// Moved by one of several requests of a ring that waited for it: whether the bytes are told depends on the back end and on who went on first.
const AT_ONCE: u8 = 5;

/// The exit code of the program where the kernel lacks what the case needs.
const LACKING: i32 = 77;

impl Message {
    fn of(event: &Event) -> Self {
        Self(event.header.len, event.header.tgid, event.header.tid, IN_MEMORY)
    }

    /// Whether it is the one that the program tells of, which does not know which of its threads a ring has taken.
    fn is_told_as(&self, told: &Self) -> bool {
        (self.0, self.1) == (told.0, told.1) && (told.2 == 0 || self.2 == told.2)
    }

    /// Whether the back end can see it, by what it says itself.
    fn is_seen_by(&self, backend: Backend) -> bool {
        let excuse = match self.3 {
            SPLICED => "what splice takes out of a socket",
            BY_RING | REGISTERED | AT_ONCE => "messages of io_uring",
            _ => return true,
        };
        !backend.is_blind_to(excuse)
    }

    /// Whether it can see the bytes as well; where that depends on the kernel, `None`.
    fn has_bytes_for(&self, backend: Backend) -> Option<bool> {
        match self.3 {
            IN_MEMORY => Some(true),
            BY_RING => Some(finds_requests(backend)),
            REGISTERED => Some(
                finds_requests(backend) && !backend.is_blind_to("bytes in registered buffers of io_uring"),
            ),
            _ => None,
        }
    }
}

/// Whether it finds the bytes of a ring's requests on this host.
fn finds_requests(backend: Backend) -> bool {
    static BY_TRACEPOINTS: OnceLock<bool> = OnceLock::new();
    backend != Backend::Tracepoint
        || *BY_TRACEPOINTS.get_or_init(|| {
            let plan = kernel::plan(&kernel::Features::probe(), Some(backend)).expect("a plan");
            plan.hooks.iter().any(|hook| hook.target == "io_uring_submit_req")
        })
}

impl End {
    /// Whether the back end can see anything of it.
    fn is_seen_by(&self, backend: Backend) -> bool {
        let mut messages = self.sent.iter().chain(&self.received);
        messages.any(|message| message.is_seen_by(backend))
    }

    fn messages(&self, direction: Direction) -> &[Message] {
        match direction {
            Direction::Send => &self.sent,
            Direction::Recv => &self.received,
        }
    }

    fn processes(&self) -> impl Iterator<Item = u32> {
        self.sent.iter().chain(&self.received).map(|message| message.1)
    }
}

/// The program, in the width that is asked for.
fn program(narrow: bool) -> PathBuf {
    let built = if narrow { "TRACER_CASES_32" } else { "TRACER_CASES" };
    if let Some(path) = std::env::var_os(built) {
        return PathBuf::from(path);
    }
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/cases");
    let name = if narrow { "cases-32" } else { "cases" };
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let mut compiler = Command::new("cc");
    compiler.args(["-std=gnu11", "-O1", "-static", "-pthread"]);
    if narrow {
        compiler.arg("-m32");
    }
    let files = std::fs::read_dir(sources).expect("tests/cases");
    let files = files.map(|entry| entry.expect("an entry").path());
    compiler.args(files.filter(|path| path.extension().is_some_and(|extension| extension == "c")));
    // Several test processes may build it at once.
    let built = path.with_extension(std::process::id().to_string());
    let status = compiler.arg("-o").arg(&built).status().expect("cc starts");
    assert!(status.success(), "cc failed (32-bit programs need gcc-multilib)");
    std::fs::rename(built, &path).expect("the program in its place");
    path
}

/// A capture of everything on the host.
struct Observer {
    backend: Backend,
    _capture: Capture,
    source: Source,
    events: Vec<Event>,
}

impl Observer {
    fn new(backend: Backend) -> Self {
        let mut capture = attach_with(Some(backend), AMPLE);
        let source = capture.take_source().expect("the source");
        Self {
            backend,
            _capture: capture,
            source,
            events: Vec::new(),
        }
    }

    /// Reads all that there is up to now.
    fn settle(&mut self) {
        let now = monotonic();
        let events = &mut self.events;
        loop {
            let drained = self.source.drain(|header, head, tail| {
                events.push(Event {
                    header: *header,
                    head: head.to_vec(),
                    tail: tail.to_vec(),
                });
            });
            assert_eq!(drained.malformed, 0);
            if drained.watermark >= now {
                return;
            }
            self.source.wait(drained.pause).expect("a wait");
        }
    }
}

fn spawn(program: &Path, arguments: &[&str]) -> Child {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts")
}

/// Waits for the program's end; what it tells of each end, or what it says that the kernel lacks.
fn finish(child: Child, name: &str) -> Result<Vec<End>, String> {
    let output = child.wait_with_output().expect("the program ends");
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(LACKING) {
        return Err(said.trim().to_owned());
    }
    assert!(output.status.success(), "{name}: the program failed: {said}");
    let lines = String::from_utf8(output.stdout).expect("text");
    let parse =
        |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{name}: {error}: {line}"));
    Ok(lines.lines().map(parse).collect())
}

/// What a case that was not wrong came to.
enum Outcome {
    /// So many messages the back end cannot see.
    Unseen(usize),
    /// The kernel lacks what it needs.
    Lacking(String),
}

/// The verdicts of a set of cases, told at its end: one that fails does not hide the others.
struct Verdicts {
    set: &'static str,
    failed: Vec<String>,
}

impl Verdicts {
    fn of(set: &'static str) -> Self {
        let failed = Vec::new();
        Self { set, failed }
    }

    /// Runs a case.
    fn note(&mut self, backend: Backend, case: &[&str], run: impl FnOnce() -> Outcome) {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
        let problem = outcome.as_ref().err().map(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()))
                .unwrap_or_default()
        });
        let (unseen, lacking) = match outcome {
            Ok(Outcome::Unseen(count)) => (Some(count), None),
            Ok(Outcome::Lacking(what)) => {
                eprintln!(
                    "not run, because this kernel lacks something: {}: {what}",
                    case.join(" ")
                );
                (None, Some(what))
            }
            Err(_) => (None, None),
        };
        let verdict = serde_json::json!({
            "set": self.set, "backend": backend.name(), "case": case.join(" "), "problem": problem,
            "unseen": unseen, "lacking": lacking,
        });
        if let Some(path) = std::env::var_os("TRACER_CASES_VERDICTS") {
            let file = File::options().create(true).append(true).open(path);
            file.and_then(|mut file| writeln!(file, "{verdict}"))
                .expect("tell the verdict");
        }
        self.failed.extend(problem);
    }

    fn end(self) {
        let Self { set, failed } = self;
        assert!(
            failed.is_empty(),
            "{set}: {} fail:\n{}",
            failed.len(),
            failed.join("\n")
        );
    }
}

/// Runs one case and judges what was captured of it.
fn run(observer: &mut Observer, program: &Path, case: &[&str]) -> Outcome {
    let name = format!("{} {}", observer.backend.name(), case.join(" "));
    observer.settle();
    observer.events.clear();
    match finish(spawn(program, case), &name) {
        Ok(ends) => Outcome::Unseen(judge(observer, &name, ends)),
        Err(what) => Outcome::Lacking(what),
    }
}

/// A program whose connections are there already, and which waits for the capture.
struct Held {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Held {
    fn start(program: &Path, case: &[&str]) -> Self {
        let arguments: Vec<_> = ["--hold"].iter().chain(case).copied().collect();
        let mut child = spawn(program, &arguments);
        let mut output = BufReader::new(child.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n", "{case:?}");
        Self { child, output }
    }

    /// Lets it go on, and judges what was captured of it.
    fn run(mut self, observer: &mut Observer, case: &[&str]) -> Outcome {
        let name = format!("{} late {}", observer.backend.name(), case.join(" "));
        observer.settle();
        observer.events.clear();
        self.child
            .stdin
            .take()
            .expect("its input")
            .write_all(b"\n")
            .expect("it waits");
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("its output");
        assert!(self.child.wait().expect("it ends").success(), "{name}");
        let parse = |line: &str| serde_json::from_str(line).expect("a line of the log");
        Outcome::Unseen(judge(observer, &name, rest.lines().map(parse).collect()))
    }
}

/// Panics if something is wrong; how many messages the back end cannot see.
fn judge(observer: &mut Observer, name: &str, mut ends: Vec<End>) -> usize {
    // Packets of closed connections may still be under way.
    std::thread::sleep(Duration::from_millis(10));
    observer.settle();
    let events = std::mem::take(&mut observer.events);
    for end in ends.extract_if(.., |end| end.connect != 0) {
        failed_connect(name, &end, &events);
    }
    let processes: Vec<u32> = ends.iter().flat_map(End::processes).collect();
    let mut connections = BTreeMap::<u64, Vec<&Event>>::new();
    for event in &events {
        let moved = [EventKind::DATA.0, EventKind::EOF.0].contains(&event.header.kind);
        if moved && processes.contains(&event.header.tgid) {
            connections.entry(event.header.cookie).or_default().push(event);
        }
    }
    let backend = observer.backend;
    let messages = ends.iter().flat_map(|end| end.sent.iter().chain(&end.received));
    let unseen = messages.filter(|message| !message.is_seen_by(backend)).count();
    for end in ends {
        if !end.is_seen_by(backend) {
            continue;
        }
        let mut matching = connections
            .iter()
            .filter(|(_, events)| is_of(&end, backend, events));
        let found = matching.next().map(|(cookie, _)| *cookie);
        let Some(cookie) = found else {
            panic!(
                "{name}: no connection moved {end:?}; left: {}",
                describe(&connections)
            );
        };
        let events = connections.remove(&cookie).unwrap_or_default();
        contents(name, &end, backend, &events);
    }
    assert!(
        connections.is_empty(),
        "{name}: nobody moved {}",
        describe(&connections)
    );
    unseen
}

/// Whether these events are what that end did: the same messages by the same threads in the same order, no more.
fn is_of(end: &End, backend: Backend, events: &[&Event]) -> bool {
    let count = |direction: Direction| {
        let kept: Vec<Message> = of(events, direction).map(Message::of).collect();
        let told = end
            .messages(direction)
            .iter()
            .filter(|told| told.is_seen_by(backend));
        kept.len() == told.clone().count() && kept.iter().zip(told).all(|(kept, told)| kept.is_told_as(told))
    };
    let header = &events[0].header;
    let ends = events
        .iter()
        .filter(|event| event.header.kind == EventKind::EOF.0)
        .count();
    (header.family, header.lport, header.rport) == (end.family, end.lport, end.rport)
        && count(Direction::Send)
        && count(Direction::Recv)
        && ends == end.eof
}

fn of<'a>(events: &'a [&Event], direction: Direction) -> impl Iterator<Item = &'a Event> {
    let wanted =
        move |event: &&&Event| event.header.kind == EventKind::DATA.0 && event.header.dir == direction as u8;
    events.iter().filter(wanted).copied()
}

/// The bytes are those of the stream, as many as the limits allow, and no position is left out.
fn contents(name: &str, end: &End, backend: Backend, events: &[&Event]) {
    let total = |direction| {
        end.messages(direction)
            .iter()
            .map(|message| message.0 as usize)
            .sum::<usize>()
    };
    let stream = pattern(total(Direction::Send).max(total(Direction::Recv)), 0);
    let mut at = [0usize; 2];
    let mut index = [0usize; 2];
    let mut start = [None; 2];
    let mut run = (Direction::Send, 0u32);
    for event in events
        .iter()
        .filter(|event| event.header.kind == EventKind::DATA.0)
    {
        let header = &event.header;
        let direction = if header.dir == 0 {
            Direction::Send
        } else {
            Direction::Recv
        };
        let side = direction as usize;
        let mut told = &end.messages(direction)[index[side]];
        while !told.is_seen_by(backend) {
            at[side] += told.0 as usize;
            index[side] += 1;
            told = &end.messages(direction)[index[side]];
        }
        let len = header.len as usize;
        let bytes = &stream[at[side]..at[side] + len];
        if run.0 != direction {
            run = (direction, 0);
        }
        let limit = header
            .len
            .min(UNDECIDED_CHUNK)
            .min(UNDECIDED_RUN.saturating_sub(run.1)) as usize;
        run.1 = run.1.saturating_add(header.len);
        let what = format!(
            "{name}: message {} of {told:?} {direction:?} {header:?}",
            index[side]
        );
        assert!(
            bytes.starts_with(&event.head) && bytes.ends_with(&event.tail),
            "{what}: wrong bytes"
        );
        let expected = told.has_bytes_for(backend);
        if expected == Some(true) {
            // Ten bytes are the least that a vector of these cases has.
            let head = event.head.len();
            assert!(
                head == limit || head == limit.min(MAX_IOVECS * 10),
                "{what}: {head} bytes of {limit}"
            );
            assert_eq!(header.flags & EventFlags::PAYLOAD_MISSING, 0, "{what}");
            let whole = head == len || head != limit;
            assert_eq!(
                event.tail.len(),
                if whole { 0 } else { TAIL_BYTES.min(len - head) },
                "{what}: tail"
            );
        } else {
            let is_missing = header.flags & EventFlags::PAYLOAD_MISSING != 0;
            assert_eq!(event.head.is_empty(), is_missing, "{what}");
            assert!(
                expected.is_none() || is_missing,
                "{what}: bytes that cannot be seen"
            );
        }
        assert!(header.flags & EventFlags::HAS_POSITION != 0, "{what}");
        let start = *start[side].get_or_insert(header.pos.wrapping_sub(at[side] as u32));
        assert_eq!(
            header.pos.wrapping_sub(start) as usize,
            at[side],
            "{what}: position"
        );
        at[side] += len;
        index[side] += 1;
    }
}

/// A connect that failed is told once, with its error and the process that asked for it.
fn failed_connect(name: &str, end: &End, events: &[Event]) {
    // (state before, state, error) by connection: include/net/tcp_states.h has CLOSE 7, SYN_SENT 2.
    let mut told = BTreeMap::<u64, Vec<(u8, u8, u32)>>::new();
    let headers = events.iter().map(|event| event.header);
    for header in headers.filter(|header| header.kind == EventKind::STATE.0 && header.rport == end.rport) {
        let states = told.entry(header.cookie).or_default();
        states.push((header.old_state, header.state, header.error));
    }
    if end.connect == libc::ENETUNREACH as u32 {
        // Refused by the routing table: the socket's state never changes (net/ipv4/tcp_ipv4.c: tcp_v4_connect).
        assert!(told.is_empty(), "{name}: {told:?}");
        return;
    }
    // Closed while it was under way: the socket has no error.
    let error = if end.connect == libc::EINPROGRESS as u32 {
        0
    } else {
        end.connect
    };
    let failed = [(7, 2, 0), (2, 7, error)];
    let times = told.values().filter(|states| **states == failed).count();
    assert_eq!(times, 1, "{name}: {told:?}");
}

fn describe(connections: &BTreeMap<u64, Vec<&Event>>) -> String {
    let mut text = String::new();
    for (cookie, events) in connections {
        let header = &events[0].header;
        let name = (header.family, header.lport, header.rport);
        text += &format!("\n  {cookie:x} {name:?}:");
        for event in events.iter().take(20) {
            let EventParts {
                kind,
                dir,
                len,
                tgid,
                tid,
            } = EventParts::of(event);
            text += &format!(" [{kind} {dir} {len} {tgid}/{tid}]");
        }
    }
    text
}

struct EventParts {
    kind: u8,
    dir: u8,
    len: u32,
    tgid: u32,
    tid: u32,
}

impl EventParts {
    fn of(event: &Event) -> Self {
        let header = &event.header;
        Self {
            kind: header.kind,
            dir: header.dir,
            len: header.len,
            tgid: header.tgid,
            tid: header.tid,
        }
    }
}

/// Every back end that is to be tried on this host.
fn backends() -> Vec<Backend> {
    if let Some(wanted) = backend() {
        return vec![wanted];
    }
    let features = kernel::Features::probe();
    let usable = |backend: &Backend| kernel::plan(&features, Some(*backend)).is_some();
    Backend::ALL.iter().copied().filter(usable).collect()
}

/// All cases with the variants that they have.
fn all(program: &Path) -> Vec<Vec<String>> {
    let listed = Command::new(program)
        .arg("list")
        .output()
        .expect("the program starts");
    let listed = String::from_utf8(listed.stdout).expect("text");
    let mut cases = Vec::new();
    for line in listed.lines() {
        let mut words = line.split(' ').map(str::to_owned);
        let name = words.next().expect("a name");
        let variants: Vec<String> = words.collect();
        if variants.is_empty() {
            cases.push(vec![name]);
        } else {
            cases.extend(variants.into_iter().map(|variant| vec![name.clone(), variant]));
        }
    }
    assert!(cases.len() > 30, "{listed}");
    cases
}

fn words(case: &[String]) -> Vec<&str> {
    case.iter().map(String::as_str).collect()
}

fn every_way(set: &'static str, narrow: bool) {
    if skip() {
        return;
    }
    let program = program(narrow);
    let mut verdicts = Verdicts::of(set);
    for backend in backends() {
        let mut observer = Observer::new(backend);
        for case in all(&program) {
            let case = words(&case);
            verdicts.note(backend, &case, || run(&mut observer, &program, &case));
        }
    }
    verdicts.end();
}

#[test]
fn every_way_is_seen_once() {
    every_way("64-bit", false);
}

#[test]
fn every_way_of_32_bit_programs_is_seen_once() {
    every_way("32-bit", true);
}

#[test]
fn connections_older_than_the_capture_are_seen() {
    if skip() {
        return;
    }
    let program = program(false);
    let mut verdicts = Verdicts::of("older");
    for backend in backends() {
        let families = ["v4", "v6", "mapped", "unix", "abstract", "socketpair"];
        let calls = families.map(|family| ["every_call", family]);
        let cases = calls.iter().chain(&[["peek", "v4"]]);
        let held: Vec<_> = cases.map(|case| (case, Held::start(&program, case))).collect();
        // One for all of them: in an emulated guest it takes a minute.
        let mut observer = Observer::new(backend);
        for (case, held) in held {
            verdicts.note(backend, case, || held.run(&mut observer, case));
        }
    }
    verdicts.end();
}
