use std::cell::RefCell;
use std::rc::Rc;

use tracer_common::Family;

use super::*;
use crate::model::{Exchange, Outcome, Role, SignalKind};
use crate::telemetry::Reason;

const CLIENT: u32 = 10;
const REQUEST: &[u8] = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

#[derive(Clone, Default)]
struct Everything {
    refused: Vec<u32>,
    introduced: Rc<RefCell<Vec<(u32, String)>>>,
}

impl Selects for Everything {
    fn selects(&self, conn: &Conn) -> bool {
        !self.refused.contains(&conn.tgid)
    }
    fn introduce(&self, tgid: u32, comm: &str) {
        self.introduced.borrow_mut().push((tgid, comm.to_owned()));
    }
    fn is_alive(&self, _tgid: u32) -> bool {
        true
    }
}

fn header(kind: EventKind, ts: u64) -> EventHeader {
    EventHeader {
        ts,
        cookie: 7,
        tgid: CLIENT,
        tid: CLIENT + 1,
        netns: 1,
        flags: EventFlags::HAS_POSITION,
        kind: kind.0,
        family: Family::INET.0,
        lport: 40_000,
        rport: 80,
        ..EventHeader::EMPTY
    }
}

/// A lane and the positions of its one connection.
struct Bench {
    lane: Lane<Everything>,
    ledger: Arc<Ledger>,
    pos: [u32; 2],
    now: u64,
}

impl Bench {
    fn new(selection: Everything) -> Self {
        let ledger = Arc::new(Ledger::default());
        Self {
            lane: Lane::new(0, selection, Arc::clone(&ledger)),
            ledger,
            pos: [100, 500],
            now: 0,
        }
    }

    fn state(&mut self, old: u8, new: u8, error: u32, comm: &[u8]) {
        self.now += 1;
        let header = EventHeader {
            state: new,
            old_state: old,
            error,
            ..header(EventKind::STATE, self.now)
        };
        self.lane.event(&header, comm, &[]);
    }

    /// Bytes moved; only `seen` of them are told to the lane, as if the others' event had been lost when it is 0.
    fn data(&mut self, direction: Direction, bytes: &[u8], seen: usize) {
        self.now += 1;
        let d = direction as usize;
        let header = EventHeader {
            dir: direction as u8,
            len: bytes.len() as u32,
            captured: seen as u32,
            pos: self.pos[d],
            peer_pos: self.pos[1 - d],
            ..header(EventKind::DATA, self.now)
        };
        self.pos[d] = self.pos[d].wrapping_add(bytes.len() as u32);
        if seen > 0 {
            self.lane.event(&header, &bytes[..seen], &[]);
        }
    }

    fn exchange(&mut self) {
        self.data(Direction::Send, REQUEST, REQUEST.len());
        self.data(Direction::Recv, RESPONSE, RESPONSE.len());
    }

    fn ended(&mut self) -> Vec<Exchange> {
        self.lane
            .signals()
            .drain(..)
            .filter_map(|signal| match signal.kind {
                SignalKind::End(exchange) => Some(*exchange),
                _ => None,
            })
            .collect()
    }
}

#[test]
fn a_connection_seen_from_its_start_gives_its_exchanges() {
    let mut bench = Bench::new(Everything::default());
    bench.state(7, tcp_state::SYN_SENT, 0, b"curl\0\0\0\0");
    bench.state(tcp_state::SYN_SENT, tcp_state::ESTABLISHED, 0, &[]);
    bench.exchange();
    bench.exchange();
    let ended = bench.ended();
    assert_eq!(ended.len(), 2);
    for exchange in &ended {
        assert_eq!((exchange.role, &*exchange.name), (Role::Client, "GET /hello"));
        assert_eq!((exchange.conn.joined_late, exchange.conn.tgid), (false, CLIENT));
    }
    assert_eq!(
        *bench.lane.selection.introduced.borrow(),
        [(CLIENT, "curl".to_owned())]
    );
}

#[test]
fn a_connection_that_was_open_before_is_joined_at_its_next_request() {
    let mut bench = Bench::new(Everything::default());
    bench.data(Direction::Recv, b"the rest of some body", 21);
    bench.exchange();
    let ended = bench.ended();
    assert_eq!(ended.len(), 1);
    assert!(ended[0].conn.joined_late);
}

#[test]
fn a_refused_connect_is_an_exchange_of_its_own() {
    let mut bench = Bench::new(Everything::default());
    bench.state(7, tcp_state::SYN_SENT, 0, b"curl\0");
    bench.state(
        tcp_state::SYN_SENT,
        tcp_state::CLOSE,
        libc::ECONNREFUSED.cast_unsigned(),
        &[],
    );
    let ended = bench.ended();
    assert_eq!(
        (ended.len(), &*ended[0].name, ended[0].start.unit.tgid),
        (1, "connect", CLIENT)
    );
    assert!(matches!(&ended[0].outcome, Outcome::Error { kind, .. } if &**kind == "ECONNREFUSED"));
    assert_eq!(bench.ledger.snapshot().seen, 1);
}

#[test]
fn a_connect_that_its_own_process_gives_up_is_told_so() {
    let mut bench = Bench::new(Everything::default());
    bench.state(7, tcp_state::SYN_SENT, 0, b"curl\0");
    bench.state(tcp_state::SYN_SENT, tcp_state::CLOSE, 0, &[]);
    let ended = bench.ended();
    assert_eq!((ended.len(), &*ended[0].name), (1, "connect"));
    assert!(matches!(&ended[0].outcome, Outcome::Error { kind, .. } if &**kind == "given_up"));
    assert!(ended[0].end.ts > ended[0].start.ts);
}

#[test]
fn the_exchange_after_a_lost_one_is_right_again() {
    for (request_seen, response_seen) in [(true, false), (false, true), (false, false)] {
        let mut bench = Bench::new(Everything::default());
        bench.exchange();
        bench.data(
            Direction::Send,
            REQUEST,
            if request_seen { REQUEST.len() } else { 0 },
        );
        bench.data(
            Direction::Recv,
            RESPONSE,
            if response_seen { RESPONSE.len() } else { 0 },
        );
        bench.exchange();
        bench.exchange();
        bench.state(1, tcp_state::CLOSE, 0, &[]);
        let ended = bench.ended();
        let whole = ended.iter().filter(|e| e.outcome == Outcome::Unset).count();
        assert_eq!(
            whole,
            3,
            "request seen: {request_seen}, response seen: {response_seen}: {:?} {}",
            ended
                .iter()
                .map(|e| (&e.outcome, e.start.ts, e.end.ts))
                .collect::<Vec<_>>(),
            bench.ledger.snapshot()
        );
        let ledger = bench.ledger.snapshot();
        let gaps = u64::from(!request_seen) + u64::from(!response_seen);
        assert_eq!(ledger.kernel.get("gaps"), Some(&gaps));
        let dropped: u64 = ledger.dropped.values().sum();
        assert_eq!(ledger.seen, ended.len() as u64 + dropped, "{ledger}");
    }
}

#[test]
fn bytes_that_come_twice_count_once() {
    let mut bench = Bench::new(Everything::default());
    bench.data(Direction::Send, REQUEST, REQUEST.len());
    bench.pos[0] = bench.pos[0].wrapping_sub(4);
    bench.data(
        Direction::Send,
        &[&REQUEST[REQUEST.len() - 4..], REQUEST].concat(),
        REQUEST.len() + 4,
    );
    bench.data(Direction::Recv, RESPONSE, RESPONSE.len());
    bench.data(Direction::Recv, RESPONSE, RESPONSE.len());
    assert_eq!(bench.ended().len(), 2);
}

#[test]
fn an_unselected_connection_is_ignored_in_the_kernel() {
    let mut bench = Bench::new(Everything {
        refused: vec![CLIENT],
        ..Everything::default()
    });
    bench.exchange();
    assert!(bench.lane.signals().is_empty());
    assert_eq!(*bench.lane.policies(), [(ConnId(7), CapturePolicy::Ignore)]);
    assert_eq!(bench.ledger.snapshot().seen, 0);
}

#[test]
fn what_is_open_at_the_end_is_accounted_for() {
    let mut bench = Bench::new(Everything::default());
    bench.data(Direction::Send, REQUEST, REQUEST.len());
    bench.lane.finish(100);
    let ended = bench.ended().len() as u64;
    let ledger = bench.ledger.snapshot();
    let dropped = ledger
        .dropped
        .get(&Reason::Abandoned)
        .copied()
        .unwrap_or_default();
    assert_eq!((ledger.seen, ended + dropped), (1, 1), "{ledger}");
}

/// A response whose request is told after it, as if the thread that sends had been held up before that.
#[test]
fn a_response_that_is_told_before_its_request_waits_for_it() {
    let mut bench = Bench::new(Everything::default());
    bench.state(7, tcp_state::SYN_SENT, 0, b"curl");
    bench.exchange();
    let [sent, received] = bench.pos;
    let request = EventHeader {
        dir: Direction::Send as u8,
        len: REQUEST.len() as u32,
        captured: REQUEST.len() as u32,
        pos: sent,
        peer_pos: received + RESPONSE.len() as u32,
        ..header(EventKind::DATA, 100)
    };
    let response = EventHeader {
        dir: Direction::Recv as u8,
        len: RESPONSE.len() as u32,
        captured: RESPONSE.len() as u32,
        pos: received,
        peer_pos: sent + REQUEST.len() as u32,
        ..header(EventKind::DATA, 90)
    };
    let end = EventHeader {
        ts: 95,
        kind: EventKind::EOF.0,
        len: 0,
        captured: 0,
        pos: response.pos + response.len,
        ..response
    };
    bench.lane.event(&response, RESPONSE, &[]);
    bench.lane.event(&end, &[], &[]);
    assert_eq!(bench.ended().len(), 1, "the first one alone");
    bench.lane.event(&request, REQUEST, &[]);
    let signals = bench.lane.signals().iter().map(|signal| signal.ts);
    assert!(
        signals.eq([100; 3]),
        "what is told now (the end, too) became known now"
    );
    let ended = bench.ended();
    assert_eq!(ended.len(), 1);
    assert_eq!((ended[0].start.ts, ended[0].end.ts), (89, 90));
    assert_eq!(&*ended[0].name, "GET /hello");
    bench.lane.finish(200);
    assert_eq!(bench.ledger.snapshot().dropped, [].into());
}

/// Nothing waits for long, and what follows a loss does not wait for it again.
#[test]
fn what_waits_for_lost_bytes_goes_on() {
    let mut bench = Bench::new(Everything::default());
    bench.state(7, tcp_state::SYN_SENT, 0, b"curl");
    bench.exchange();
    bench.data(Direction::Send, REQUEST, 0);
    bench.data(Direction::Recv, RESPONSE, RESPONSE.len());
    assert!(!bench.lane.overtaken.is_empty());
    bench.lane.release_overdue(40_000_000);
    assert!(!bench.lane.overtaken.is_empty());
    bench.lane.release_overdue(60_000_000);
    assert!(bench.lane.overtaken.is_empty());
    bench.data(Direction::Recv, RESPONSE, RESPONSE.len());
    assert!(bench.lane.overtaken.is_empty());
    bench.exchange();
    assert_eq!(bench.ended().len(), 2);
}

/// A server that sends something that is not seen (an old kernel's `sendfile`): its next request does not wait for the answer.
#[test]
fn a_request_goes_before_its_answer_whatever_was_lost_before() {
    let mut bench = Bench::new(Everything::default());
    for _ in 0..3 {
        bench.data(Direction::Recv, REQUEST, REQUEST.len());
        bench.data(Direction::Send, RESPONSE, RESPONSE.len());
        bench.data(Direction::Send, b"unseen", 0);
    }
    let ended = bench.ended();
    assert_eq!(ended.len(), 3);
    assert!(ended.iter().all(|exchange| exchange.role == Role::Server));
}
