//! Rings made of files: what the kernel would have written, in any state and order.

use std::{
    fs::File,
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    sync::atomic::{AtomicU32, Ordering},
};

use super::*;

const PAGE: u64 = 4096;
const CAPACITY: usize = 4 << 20;
const BUSY_BIT: u32 = 1 << 31;
const DISCARD_BIT: u32 = 1 << 30;

/// A file with the layout of a ring.
struct Fake {
    file: File,
    end: u64,
}

impl Fake {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!(
            "ring-{}-{}",
            std::process::id(),
            NUMBER.fetch_add(1, Ordering::Relaxed)
        );
        let path = std::env::temp_dir().join(name);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.set_len(2 * PAGE + 2 * CAPACITY as u64).unwrap();
        Self { file, end: 0 }
    }

    /// Appends a record whose header holds nothing but a time; where it starts.
    fn push(&mut self, ts: u64, bits: u32) -> u64 {
        let mut record = vec![0; EventHeader::SIZE];
        record[..8].copy_from_slice(&ts.to_ne_bytes());
        self.push_bytes(&record, bits)
    }

    fn push_all(&mut self, times: &[u64]) {
        for ts in times {
            self.push(*ts, 0);
        }
    }

    fn push_bytes(&mut self, record: &[u8], bits: u32) -> u64 {
        let start = self.end;
        let at = 2 * PAGE + start;
        self.file
            .write_at(&(record.len() as u32 | bits).to_ne_bytes(), at)
            .unwrap();
        self.file.write_at(record, at + 8).unwrap();
        self.end += (record.len() as u64 + 8).next_multiple_of(8);
        self.file.write_at(&self.end.to_ne_bytes(), PAGE).unwrap();
        start
    }

    /// The program has finished the record.
    fn commit(&self, start: u64) {
        self.file
            .write_at(&(EventHeader::SIZE as u32).to_ne_bytes(), 2 * PAGE + start)
            .unwrap();
    }

    /// Where the reader is.
    fn consumed(&self) -> u64 {
        let mut word = [0; 8];
        self.file.read_at(&mut word, 0).unwrap();
        u64::from_ne_bytes(word)
    }

    fn lane(&self) -> Lane {
        let fd = OwnedFd::from(self.file.try_clone().unwrap());
        Lane {
            ring: Ring::new(fd, CAPACITY).unwrap(),
            settled: 0,
            next: 0,
        }
    }
}

fn source(rings: &[&Fake]) -> Source {
    Source {
        rings: rings.iter().map(|ring| ring.lane()).collect(),
        epoll: Epoll::new().unwrap(),
        batch: Vec::new(),
        watermark: 0,
        quiet: 0,
        busy: BUSY[0],
        alarm: Box::new(|| Ok(())),
    }
}

/// Times delivered by one turn, and its result.
fn turn(source: &mut Source, now: u64, horizon: u64) -> (Vec<u64>, Drained) {
    let mut times = Vec::new();
    let drained = source.drain_until(now, horizon, |header, head, tail| {
        assert!(head.is_empty() && tail.is_empty());
        times.push(header.ts);
    });
    assert_eq!(drained.events, times.len());
    (times, drained)
}

#[test]
fn rings_are_merged_in_time_order() {
    let (mut a, mut b, c) = (Fake::new(), Fake::new(), Fake::new());
    // An interrupt's event may come to lie before the one that it interrupted.
    a.push_all(&[10, 30, 20, 40]);
    b.push_all(&[15, 25, 35]);
    let mut source = source(&[&a, &b, &c]);
    let (times, drained) = turn(&mut source, 100, 90);
    assert_eq!(times, [10, 15, 20, 25, 30, 35, 40]);
    assert_eq!((drained.watermark, drained.pause), (90, BUSY[0] * 2));
    assert_eq!((a.consumed(), b.consumed()), (a.end, b.end));
}

#[test]
fn the_young_wait() {
    let (mut a, mut b) = (Fake::new(), Fake::new());
    a.push_all(&[10, 95]);
    b.push_all(&[20, 96]);
    let mut source = source(&[&a, &b]);
    assert_eq!(turn(&mut source, 100, 90).0, [10, 20]);
    assert!(turn(&mut source, 101, 91).0.is_empty());
    a.push(97, 0);
    assert_eq!(turn(&mut source, 200, 190).0, [95, 96, 97]);
}

#[test]
fn an_unfinished_record_holds_back_what_is_younger() {
    let (mut a, mut b) = (Fake::new(), Fake::new());
    a.push(10, 0);
    let unfinished = a.push(15, BUSY_BIT);
    a.push(30, 0);
    b.push_all(&[5, 20]);
    let mut source = source(&[&b, &a]);
    let (times, drained) = turn(&mut source, 100, 90);
    assert_eq!((times, drained.watermark), (vec![5, 10], 10));
    a.commit(unfinished);
    assert_eq!(turn(&mut source, 100, 90).0, [15, 20, 30]);
}

#[test]
fn discarded_and_malformed_records_are_passed() {
    let mut a = Fake::new();
    a.push(5, DISCARD_BIT);
    a.push(10, 0);
    a.push(15, DISCARD_BIT);
    a.push_bytes(&12u64.to_ne_bytes(), 0);
    a.push(20, 0);
    let mut source = source(&[&a]);
    let (times, drained) = turn(&mut source, 100, 90);
    assert_eq!((times, drained.malformed), (vec![10, 20], 1));
    assert_eq!(a.consumed(), a.end);
}

#[test]
fn one_turn_is_bounded_and_the_next_goes_on() {
    let (mut a, mut b) = (Fake::new(), Fake::new());
    let many = MAX_PER_RING as u64 + 10;
    for ts in 1..=many {
        a.push(2 * ts, 0);
    }
    b.push(2 * many - 1, 0);
    let mut source = source(&[&a, &b]);
    let (mut times, drained) = turn(&mut source, u64::MAX, u64::MAX);
    assert_eq!((times.len(), drained.pause), (MAX_PER_RING, Duration::ZERO));
    times.extend(turn(&mut source, u64::MAX, u64::MAX).0);
    assert_eq!(times.len() as u64, many + 1);
    assert!(times.is_sorted());
}

#[test]
fn pauses_grow_while_nothing_comes() {
    let mut a = Fake::new();
    let mut source = source(&[&a]);
    let pauses: Vec<_> = (0..12).map(|_| turn(&mut source, 100, 90).1.pause).collect();
    let (quiet, asleep) = pauses.split_at(QUIET_TURNS as usize - 1);
    assert!(quiet.iter().all(|pause| *pause == QUIET), "{pauses:?}");
    assert!(asleep.iter().all(|pause| *pause == ASLEEP), "{pauses:?}");
    a.push(95, 0);
    let (times, drained) = turn(&mut source, 100, 90);
    assert_eq!(
        (times, drained.pause),
        (vec![], BUSY[0]),
        "one that is too young is on its way"
    );
}

#[test]
fn turns_are_rare_while_they_find_rings_nearly_empty() {
    let mut a = Fake::new();
    let mut source = source(&[&a]);
    let mut pauses = |events: usize| {
        for _ in 0..events {
            a.push(1, 0);
        }
        turn(&mut source, 100, 90).1.pause.as_millis()
    };
    let sixteenth = CAPACITY / 16 / (EventHeader::SIZE + 8);
    assert_eq!([1, 1, sixteenth, 1].map(&mut pauses), [4, 8, 8, 8]);
    assert_eq!([4 * sixteenth; 3].map(&mut pauses), [4, 2, 2]);
    assert_eq!([sixteenth * 3 / 2, 1, 1].map(&mut pauses), [2, 4, 8]);
    // After a pause it begins anew.
    assert_eq!([1, 0, 1].map(&mut pauses), [8, QUIET.as_millis(), 4]);
}
