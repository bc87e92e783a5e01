//! Tests that every registered protocol is enrolled in; `captures/README.md` tells what they do with a capture.

use std::fs;
use std::path::{Path, PathBuf};

use tracer_common::TAIL_BYTES;

use super::replay::{Capture, Expected, Only, Outcomes, Part, QUEUED, Replay, STEP, Scalar, Step};
use super::{CapturePolicy, Detect, Prefix, Protocol, REGISTRY, Side};
use crate::model::{Close, Exchange, Outcome, Value};

const ENDS: [Side; 2] = [Side::Client, Side::Server];

/// Fewest captures of a protocol.
const FEWEST: usize = 10;

/// Positions tried in one capture; longer ones are sampled at a regular distance.
const POSITIONS: usize = 400;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/protocol/captures")
        .join(name)
}

fn captures(name: &str) -> Vec<(String, Capture)> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder(name))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    files.retain(|path| path.extension().is_some_and(|e| e == "cap"));
    files.sort();
    let read = |path: PathBuf| {
        let file = format!("{name}/{}", path.file_name().unwrap().display());
        let capture =
            Capture::parse(&fs::read_to_string(&path).unwrap()).unwrap_or_else(|e| panic!("{file}: {e}"));
        (file, capture)
    };
    files.into_iter().map(read).collect()
}

fn every_capture(f: impl Fn(&'static dyn Protocol, &str, &Capture)) {
    for protocol in REGISTRY {
        for (file, capture) in captures(protocol.name()) {
            f(*protocol, &file, &capture);
        }
    }
}

fn start(protocol: &dyn Protocol, local: Side, capture: &Capture) -> Replay {
    Replay::new(protocol, local, capture.port, capture.late)
}

fn play(protocol: &dyn Protocol, local: Side, capture: &Capture, steps: &[Step]) -> Result<Outcomes, String> {
    let mut replay = start(protocol, local, capture);
    for step in steps {
        replay.step(step);
    }
    replay.finish()
}

/// Every position inside a chunk's captured bytes: step, part, offset.
fn positions(capture: &Capture) -> Vec<(usize, usize, usize)> {
    let mut all = Vec::new();
    for (s, step) in capture.steps.iter().enumerate() {
        let Step::Data { parts, .. } = step else { continue };
        for (p, part) in parts.iter().enumerate() {
            if let Part::Bytes(bytes) = part {
                all.extend((0..=bytes.len()).map(|offset| (s, p, offset)));
            }
        }
    }
    let stride = all.len().div_ceil(POSITIONS).max(1);
    all.into_iter().step_by(stride).collect()
}

fn holds(only: Only, local: Side) -> bool {
    only.is_none_or(|side| side == local)
}

fn last<T: Clone>(lines: &[(Only, T)], local: Side) -> Option<T> {
    lines
        .iter()
        .rev()
        .find(|(only, _)| holds(*only, local))
        .map(|(_, value)| value.clone())
}

fn step_of(ts: u64) -> u64 {
    ts / STEP
}

fn compare(expected: &Expected, exchange: &Exchange, local: Side, file: &str, how: &str) {
    let whence = format!("{file}:{}, {local:?}'s end, {how}", expected.line);
    assert_eq!(&*exchange.name, expected.name, "{whence}: name");
    assert_eq!(
        exchange.role.is_inbound(),
        local == Side::Server,
        "{whence}: role"
    );
    if let Some(at) = last(&expected.at, local) {
        let first = exchange.first_byte.map_or(0, |stamp| step_of(stamp.ts));
        let seen = [step_of(exchange.start.ts), first, step_of(exchange.end.ts)];
        assert_eq!(seen, at, "{whence}: at");
    }
    if let Some(bytes) = last(&expected.request, local) {
        assert_eq!(exchange.request_bytes, bytes, "{whence}: request");
    }
    if let Some(bytes) = last(&expected.response, local) {
        assert_eq!(exchange.response_bytes, bytes, "{whence}: response");
    }
    if let Some(outcome) = last(&expected.outcome, local) {
        let seen = match &exchange.outcome {
            Outcome::Unset => None,
            Outcome::Error { kind, .. } => Some(kind.to_string()),
        };
        assert_eq!(seen, outcome, "{whence}: outcome");
    }
    if let Some([format, trace, span]) = &expected.context {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let seen = exchange.context.as_ref().map(|context| {
            let span = context.span_id.map_or("-".into(), |id| hex(&id.0));
            [context.format.to_string(), hex(&context.trace_id.0), span]
        });
        let wanted = Some([format.clone(), trace.clone(), span.clone()]);
        assert_eq!(seen, wanted, "{whence}: context");
    }
    for (only, key, value) in &expected.attributes {
        if !holds(*only, local) {
            continue;
        }
        let seen = exchange.attributes.get(key).map(|value| match value {
            Value::Str(text) => Scalar::Str(text.into()),
            Value::Int(number) => Scalar::Int(number),
            Value::Bool(truth) => Scalar::Bool(truth),
            Value::Double(number) => panic!("{whence}: {key} is {number}"),
        });
        assert_eq!(&seen, value, "{whence}: {key}");
    }
    let mut keys: Vec<_> = exchange.attributes.iter().map(|(key, _)| key).collect();
    keys.sort_unstable();
    let number = keys.len();
    keys.dedup();
    assert_eq!(keys.len(), number, "{whence}: a key twice in {keys:?}");
    if exchange.queue_time.is_some() {
        assert!(local == Side::Server, "{whence}: queue time on a client's end");
        assert_eq!(exchange.queue_time, Some(QUEUED), "{whence}: queue time");
    }
}

fn check(file: &str, capture: &Capture, local: Side, outcomes: Result<Outcomes, String>, how: &str) {
    let outcomes = outcomes.unwrap_or_else(|e| panic!("{file}, {local:?}'s end, {how}: {e}"));
    let expected: Vec<_> = capture
        .exchanges
        .iter()
        .filter(|e| holds(e.only, local))
        .collect();
    let names = |of: Vec<&str>| of.join(" | ");
    assert_eq!(
        names(outcomes.exchanges.iter().map(|e| &*e.name).collect()),
        names(expected.iter().map(|e| &*e.name).collect()),
        "{file}, {local:?}'s end, {how}: exchanges"
    );
    for (expected, exchange) in expected.into_iter().zip(&outcomes.exchanges) {
        compare(expected, exchange, local, file, how);
    }
    let mut dropped: Vec<_> = outcomes.dropped.iter().map(|r| r.as_str()).collect();
    let mut wanted: Vec<_> = capture
        .dropped
        .iter()
        .filter(|(only, ..)| holds(*only, local))
        .flat_map(|(_, reason, n)| (0..*n).map(|_| reason.as_str()))
        .collect();
    dropped.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(dropped, wanted, "{file}, {local:?}'s end, {how}: dropped");
    assert_eq!(
        outcomes.switch,
        capture.switch.as_deref(),
        "{file}, {local:?}'s end, {how}: switch"
    );
}

#[test]
fn every_protocol_has_captures() {
    for protocol in REGISTRY {
        let n = captures(protocol.name()).len();
        assert!(n >= FEWEST, "{} has {n} captures", protocol.name());
    }
    for entry in fs::read_dir(folder("")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let known = name == "none" || super::by_name(&name).is_some();
        assert!(known || entry.path().is_file(), "captures/{name} is nobody's");
    }
}

#[test]
fn captures_whole() {
    every_capture(|protocol, file, capture| {
        for local in ENDS {
            let outcomes = play(protocol, local, capture, &capture.steps);
            check(file, capture, local, outcomes, "whole");
        }
    });
}

#[test]
fn captures_split_at_every_byte() {
    every_capture(|protocol, file, capture| {
        if capture.unsplit {
            return;
        }
        for local in ENDS {
            let mut replay = start(protocol, local, capture);
            for step in &capture.steps {
                let Step::Data { side, parts } = step else {
                    replay.step(step);
                    continue;
                };
                replay.tick();
                for part in parts {
                    match part {
                        Part::Bytes(bytes) => bytes.iter().for_each(|b| replay.bytes(*side, &[*b])),
                        Part::Skip(len) => {
                            replay.skip(*side, *len / 2);
                            replay.skip(*side, *len - *len / 2);
                        }
                    }
                }
            }
            check(file, capture, local, replay.finish(), "byte by byte");
            for (s, p, offset) in positions(capture) {
                let how = format!("split in step {} at byte {offset} of part {p}", s + 1);
                check(
                    file,
                    capture,
                    local,
                    split(protocol, local, capture, (s, p, offset)),
                    &how,
                );
            }
        }
    });
}

/// Replays with one chunk handed over in two pieces.
fn split(
    protocol: &dyn Protocol,
    local: Side,
    capture: &Capture,
    (s, p, offset): (usize, usize, usize),
) -> Result<Outcomes, String> {
    let mut replay = start(protocol, local, capture);
    for (index, step) in capture.steps.iter().enumerate() {
        let Step::Data { side, parts } = step else {
            replay.step(step);
            continue;
        };
        replay.tick();
        for (number, part) in parts.iter().enumerate() {
            match part {
                Part::Bytes(bytes) if (index, number) == (s, p) => {
                    let (a, b) = bytes.split_at(offset);
                    for piece in [a, b] {
                        if !piece.is_empty() {
                            replay.bytes(*side, piece);
                        }
                    }
                }
                Part::Bytes(bytes) => replay.bytes(*side, bytes),
                Part::Skip(len) => replay.skip(*side, *len),
            }
        }
    }
    replay.finish()
}

#[test]
fn truncation_anywhere_leaves_nothing_open() {
    every_capture(|protocol, file, capture| {
        for (s, p, offset) in positions(capture) {
            let mut steps: Vec<Step> = capture.steps.iter().take(s + 1).cloned().collect();
            if let Some(Step::Data { parts, .. }) = steps.last_mut() {
                parts.truncate(p + 1);
                if let Some(Part::Bytes(bytes)) = parts.last_mut() {
                    bytes.truncate(offset);
                }
            }
            for how in [Close::Reset, Close::Closed, Close::Forgotten] {
                steps.push(Step::Close(how));
                for local in ENDS {
                    play(protocol, local, capture, &steps)
                        .unwrap_or_else(|e| panic!("{file}: step {} cut at {offset}, {how:?}: {e}", s + 1));
                }
                steps.pop();
            }
        }
    });
}

#[test]
fn gaps_anywhere_leave_nothing_open() {
    every_capture(|protocol, file, capture| {
        for (s, p, offset) in positions(capture) {
            for len in [1, 7, 1_000] {
                for known in [true, false] {
                    let mut steps = capture.steps.clone();
                    punch(&mut steps, (s, p, offset), len, known);
                    for local in ENDS {
                        play(protocol, local, capture, &steps).unwrap_or_else(|e| {
                            panic!("{file}: step {}, {len} bytes from {offset} missing: {e}", s + 1)
                        });
                    }
                }
            }
        }
    });
}

/// Takes `len` bytes out of one part, as a skip or as a loss.
fn punch(steps: &mut Vec<Step>, (s, p, offset): (usize, usize, usize), len: usize, known: bool) {
    let Step::Data { side, parts } = &mut steps[s] else {
        return;
    };
    let side = *side;
    let Part::Bytes(bytes) = &mut parts[p] else { return };
    let after = bytes.split_off(offset);
    let gone = after.len().min(len);
    let rest = Part::Bytes(after[gone..].to_vec());
    if known {
        parts.splice(p + 1..p + 1, [Part::Skip(gone as u64), rest]);
    } else {
        let mut later = parts.split_off(p + 1);
        later.insert(0, rest);
        let after = [Step::Lost(side), Step::Data { side, parts: later }];
        steps.splice(s + 1..s + 1, after);
    }
}

/// Cuts chunks as the kernel would under the policy that the session has set: the head of a run within its limits, the
/// chunk's last bytes, a number in between.
fn play_captured(protocol: &dyn Protocol, local: Side, capture: &Capture) -> Result<Outcomes, String> {
    let mut replay = start(protocol, local, capture);
    let mut run = (None, 0u64);
    for step in &capture.steps {
        let Step::Data { side, parts } = step else {
            replay.step(step);
            continue;
        };
        replay.tick();
        let (run_limit, chunk_limit) = match replay.policy() {
            None => (tracer_common::UNDECIDED_RUN, tracer_common::UNDECIDED_CHUNK),
            Some(CapturePolicy::Ignore) => continue,
            Some(CapturePolicy::Limit { send, .. }) if *side == local => send,
            Some(CapturePolicy::Limit { recv, .. }) => recv,
        };
        if run.0 != Some(*side) {
            run = (Some(*side), 0);
        }
        let total: u64 = parts
            .iter()
            .map(|part| match part {
                Part::Bytes(bytes) => bytes.len() as u64,
                Part::Skip(len) => *len,
            })
            .sum();
        let head = u64::from(chunk_limit).min(u64::from(run_limit).saturating_sub(run.1));
        run.1 += total;
        let tail = total.saturating_sub(TAIL_BYTES as u64).max(head);
        let mut at = 0;
        for part in parts {
            match part {
                Part::Skip(len) => {
                    replay.skip(*side, *len);
                    at += len;
                }
                Part::Bytes(bytes) => {
                    let place = |n: u64| usize::try_from(n.saturating_sub(at)).unwrap().min(bytes.len());
                    let (first, rest) = bytes.split_at(place(head));
                    let (middle, end) = rest.split_at(place(tail) - place(head).min(place(tail)));
                    if !first.is_empty() {
                        replay.bytes(*side, first);
                    }
                    if !middle.is_empty() {
                        replay.skip(*side, middle.len() as u64);
                    }
                    if !end.is_empty() {
                        replay.bytes(*side, end);
                    }
                    at += bytes.len() as u64;
                }
            }
        }
    }
    replay.finish()
}

/// What the session asks the kernel to capture suffices to find every exchange, with its name, status and outcome.
#[test]
fn captures_under_the_policy_that_the_session_sets() {
    every_capture(|protocol, file, capture| {
        for local in ENDS {
            let whole = play(protocol, local, capture, &capture.steps).unwrap();
            let cut = play_captured(protocol, local, capture).unwrap_or_else(|e| panic!("{file}: {e}"));
            let tell = |outcomes: &Outcomes| -> Vec<_> {
                let one = |e: &Exchange| (e.name.clone(), e.outcome.clone(), e.end.ts, e.first_byte);
                outcomes.exchanges.iter().map(one).collect()
            };
            assert_eq!(tell(&whole), tell(&cut), "{file}, {local:?}'s end");
        }
    });
}

#[test]
fn mutated_captures_stay_balanced() {
    let random = Random(0x9e37_79b9_7f4a_7c15);
    every_capture(|protocol, file, capture| {
        let mut random = Random(random.0 ^ file.len() as u64);
        for round in 0..200 {
            let mut steps = capture.steps.clone();
            for _ in 0..=random.below(4) {
                mutate(&mut steps, &mut random);
            }
            for local in ENDS {
                play(protocol, local, capture, &steps)
                    .unwrap_or_else(|e| panic!("{file}: round {round}: {e}\n{steps:?}"));
            }
        }
    });
}

struct Random(u64);

impl Random {
    /// xorshift64: the same sequence in every run.
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

fn mutate(steps: &mut Vec<Step>, random: &mut Random) {
    if steps.is_empty() {
        return;
    }
    let s = random.below(steps.len());
    match random.below(8) {
        0 => {
            steps.remove(s);
        }
        1 => steps.insert(s, steps[random.below(steps.len())].clone()),
        2 => {
            let other = random.below(steps.len());
            steps.swap(s, other);
        }
        3 => steps.insert(s, Step::Lost(ENDS[random.below(2)])),
        4 => steps.insert(s, Step::Fin(ENDS[random.below(2)])),
        _ => {
            let Step::Data { parts, .. } = &mut steps[s] else {
                return;
            };
            if parts.is_empty() {
                return;
            }
            let p = random.below(parts.len());
            let Part::Bytes(bytes) = &mut parts[p] else { return };
            let at = random.below(bytes.len());
            match random.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, random.below(256) as u8),
                2 => parts.insert(p, Part::Skip(random.below(5_000) as u64)),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << random.below(8);
                    }
                }
            }
        }
    }
}

/// The bytes of a side's first run.
fn first_run(capture: &Capture, wanted: Side) -> Vec<u8> {
    let mut run = Vec::new();
    for step in &capture.steps {
        match step {
            Step::Data { side, parts } if *side == wanted => {
                for part in parts {
                    match part {
                        Part::Bytes(bytes) => run.extend_from_slice(bytes),
                        Part::Skip(_) => return run,
                    }
                }
            }
            _ if run.is_empty() => {}
            _ => break,
        }
    }
    run
}

fn answers(protocol: &dyn Protocol, capture: &Capture, run: &[u8]) -> Vec<Detect> {
    let ask = |n| {
        protocol.detect(Prefix {
            bytes: &run[..n],
            from_start: !capture.late,
        })
    };
    (1..=run.len().min(2_000)).chain([run.len()]).map(ask).collect()
}

#[test]
fn detection_answers_once_and_for_its_own_only() {
    every_capture(|protocol, file, capture| {
        let mut recognised = false;
        for side in ENDS {
            let run = first_run(capture, side);
            let own = answers(protocol, capture, &run);
            let decided = own.iter().find(|answer| **answer != Detect::NeedMore);
            if let Some(decided) = decided {
                recognised |= *decided == Detect::Yes { sender: side };
                let wrong = !matches!(decided, Detect::No) && *decided != Detect::Yes { sender: side };
                assert!(!wrong, "{file}: {side:?}'s bytes taken for the other's");
                let turned = own
                    .iter()
                    .skip_while(|answer| **answer == Detect::NeedMore)
                    .any(|answer| answer != decided);
                assert!(!turned, "{file}: {side:?}'s bytes: the answer changes");
            }
            for other in REGISTRY.iter().filter(|other| other.name() != protocol.name()) {
                let claims = answers(*other, capture, &run)
                    .iter()
                    .any(|answer| matches!(answer, Detect::Yes { .. }));
                assert!(!claims, "{file}: {} claims {side:?}'s bytes", other.name());
            }
        }
        assert!(recognised, "{file}: not recognised from either side's first run");
    });
}

#[test]
fn strangers_are_claimed_by_nobody() {
    for (file, capture) in captures("none") {
        for side in ENDS {
            let run = first_run(&capture, side);
            for protocol in REGISTRY {
                let claims = answers(*protocol, &capture, &run)
                    .iter()
                    .any(|answer| matches!(answer, Detect::Yes { .. }));
                assert!(!claims, "{file}: {} claims {side:?}'s bytes", protocol.name());
            }
        }
    }
}
