//! Replays a conversation through one [`Session`], as `flow/` would: for the tests, the fuzz targets and the benches.

mod capture;
pub mod script;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use tracer_common::Direction;

use super::{CapturePolicy, MAX_BUFFER, Marks, Output, Protocol, Session, Side};
use crate::model::{
    Address, Chunk, Close, Conn, ConnId, Endpoint, Exchange, Job, Mark, Signal, SignalKind, Stamp, Unit,
};
use crate::telemetry::{Ledger, Reason};

pub use capture::{Capture, Expected, Only, Part, Scalar, Step};

/// Nanoseconds between two steps of a replay.
pub const STEP: u64 = 1_000_000;

/// How long received bytes waited in the socket buffer, in nanoseconds.
pub const QUEUED: u64 = 100_000;

/// One connection being replayed.
pub struct Replay {
    session: Option<Box<dyn Session>>,
    conn: Arc<Conn>,
    local: Side,
    lanes: [Lane; 2],
    now: u64,
    ledger: Ledger,
    last_id: u64,
    signals: Vec<Signal>,
    policy: Option<CapturePolicy>,
    switch: Option<&'static str>,
}

#[derive(Default)]
struct Lane {
    buffer: Vec<u8>,
    first: Mark,
    pos: u32,
}

/// What a replay brought forth.
#[derive(Default)]
pub struct Outcomes {
    /// Exchanges in the order in which they ended.
    pub exchanges: Vec<Exchange>,
    /// Reasons of the dropped ones, in order.
    pub dropped: Vec<Reason>,
    /// What the exchanges did with jobs, in order.
    pub jobs: Vec<Job>,
    /// What the connection was handed to.
    pub switch: Option<&'static str>,
    /// The last capture policy.
    pub policy: Option<CapturePolicy>,
}

impl Replay {
    /// A connection on which `local` is the watched end.
    #[must_use]
    pub fn new(protocol: &dyn Protocol, local: Side, port: u16, joined_late: bool) -> Self {
        let endpoint = |last, port| Endpoint {
            address: Address::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))),
            port,
        };
        let (client, server) = (endpoint(1, 40_000), endpoint(2, port));
        let (here, there) = match local {
            Side::Client => (client, server),
            Side::Server => (server, client),
        };
        let conn = Arc::new(Conn {
            id: ConnId(1),
            local: here,
            remote: there,
            netns: 1,
            tgid: 1,
            joined_late,
        });
        Self {
            session: Some(protocol.open(&conn, local)),
            conn,
            local,
            lanes: Default::default(),
            now: 0,
            ledger: Ledger::default(),
            last_id: 0,
            signals: Vec::new(),
            policy: None,
            switch: None,
        }
    }

    /// One step later.
    pub fn tick(&mut self) {
        self.now += STEP;
    }

    /// The capture policy that the session set last.
    #[must_use]
    pub fn policy(&self) -> Option<CapturePolicy> {
        self.policy
    }

    /// What was said since the last call.
    pub fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    /// `side` sent these bytes.
    pub fn bytes(&mut self, side: Side, bytes: &[u8]) {
        let now = self.mark(side);
        let lane = &mut self.lanes[side as usize];
        let carried = lane.buffer.len();
        if carried == 0 {
            lane.first = now;
        }
        let first = lane.first;
        lane.pos = lane.pos.wrapping_add(bytes.len() as u32);
        if carried == 0 && self.whole(side, bytes, 0, &now) {
            return;
        }
        let lane = &mut self.lanes[side as usize];
        lane.buffer.extend_from_slice(bytes);
        let buffer = std::mem::take(&mut lane.buffer);
        let marks = Marks {
            first: &first,
            now: &now,
            carried,
        };
        let consumed = self.with(|session, out| session.bytes(side, &buffer, &marks, out));
        let consumed = consumed.unwrap_or(buffer.len());
        assert!(consumed <= buffer.len(), "consumed more than there was");
        let mut buffer = buffer;
        let lane = &mut self.lanes[side as usize];
        if consumed > 0 {
            lane.first = marks.at(consumed);
            buffer.drain(..consumed);
        }
        lane.buffer = buffer;
        if lane.buffer.len() > MAX_BUFFER {
            self.lost(side);
        }
    }

    /// Whether the session takes a chunk at once: these bytes and `unseen` ones that were not captured.
    fn whole(&mut self, side: Side, bytes: &[u8], unseen: u32, now: &Mark) -> bool {
        let direction = if side == self.local {
            Direction::Send
        } else {
            Direction::Recv
        };
        let chunk = Chunk {
            direction,
            mark: *now,
            len: bytes.len() as u32 + unseen,
            head: bytes,
            tail: &[],
        };
        self.with(|session, out| session.whole(side, &chunk, out))
            .unwrap_or(false)
    }

    /// `side` sent a chunk of which only these first bytes were captured, and not `unseen` ones behind them.
    pub fn cut(&mut self, side: Side, bytes: &[u8], unseen: u32) {
        let now = self.mark(side);
        let lane = &mut self.lanes[side as usize];
        if lane.buffer.is_empty() && self.whole(side, bytes, unseen, &now) {
            let lane = &mut self.lanes[side as usize];
            lane.pos = lane.pos.wrapping_add(bytes.len() as u32 + unseen);
            return;
        }
        self.bytes(side, bytes);
        self.skip(side, u64::from(unseen));
    }

    /// `side` sent `len` bytes that were not captured.
    pub fn skip(&mut self, side: Side, len: u64) {
        let now = self.mark(side);
        let lane = &mut self.lanes[side as usize];
        let partial = std::mem::take(&mut lane.buffer);
        let first = lane.first;
        let marks = Marks {
            first: if partial.is_empty() { &now } else { &first },
            now: &now,
            carried: partial.len(),
        };
        lane.pos = lane.pos.wrapping_add(len as u32);
        self.with(|session, out| session.skipped(side, &partial, len, &marks, out));
    }

    /// An unknown number of bytes of `side` was lost.
    pub fn lost(&mut self, side: Side) {
        self.lanes[side as usize].buffer.clear();
        let mark = self.mark(side);
        self.with(|session, out| session.lost(side, &mark, out));
    }

    /// `side` has finished sending.
    pub fn fin(&mut self, side: Side) {
        let direction = if side == self.local {
            Direction::Send
        } else {
            Direction::Recv
        };
        self.close(Close::Finished(direction));
    }

    /// The stream ended.
    pub fn close(&mut self, how: Close) {
        let mark = self.mark(self.local);
        self.with(|session, out| session.close(how, &mark, out));
        if !matches!(how, Close::Finished(_)) {
            self.session = None;
        }
    }

    /// One step of a capture.
    pub fn step(&mut self, step: &Step) {
        self.tick();
        match step {
            Step::Data { side, parts } => {
                for part in parts {
                    match part {
                        Part::Bytes(bytes) => self.bytes(*side, bytes),
                        Part::Skip(len) => self.skip(*side, *len),
                    }
                }
            }
            Step::Lost(side) => self.lost(*side),
            Step::Fin(side) => self.fin(*side),
            Step::Close(how) => self.close(*how),
        }
    }

    /// Closes the connection (if it was not) and checks that signals and ledger tell one story.
    ///
    /// # Errors
    /// What does not add up: an exchange begun and never ended, ended twice, or counted wrongly.
    pub fn finish(mut self) -> Result<Outcomes, String> {
        self.tick();
        self.close(Close::Closed);
        let mut open = std::collections::BTreeMap::new();
        let mut outcomes = Outcomes {
            switch: self.switch,
            policy: self.policy,
            ..Outcomes::default()
        };
        let mut last = 0;
        for signal in self.signals {
            if signal.ts < last {
                return Err("signals go back in time".into());
            }
            last = signal.ts;
            let (id, seen) = match &signal.kind {
                SignalKind::Act(_) => return Err("a session tells of bytes only".into()),
                SignalKind::Begin(begin) => {
                    if open.insert(begin.id, (false, false)).is_some() {
                        return Err(format!("{:?} began twice", begin.id));
                    }
                    continue;
                }
                SignalKind::RequestEnd(id, _) => (*id, open.get_mut(id).map(|o| &mut o.0)),
                SignalKind::Respond(id, _) => (*id, open.get_mut(id).map(|o| &mut o.1)),
                SignalKind::Job(id, job) => {
                    if !open.contains_key(id) {
                        return Err(format!("{id:?} is told of and not open"));
                    }
                    outcomes.jobs.push(*job);
                    continue;
                }
                SignalKind::End(exchange) => (exchange.id, None),
                SignalKind::Drop(id, _) => (*id, None),
                SignalKind::Wake(..) | SignalKind::ThreadEnd(_) | SignalKind::Replaced(_) => {
                    return Err("a session knows no threads".into());
                }
            };
            match signal.kind {
                SignalKind::End(exchange) => {
                    if exchange.end.ts < exchange.start.ts {
                        return Err(format!("{id:?} ends before it starts"));
                    }
                    open.remove(&id)
                        .ok_or(format!("{id:?} ended without a beginning"))?;
                    outcomes.exchanges.push(*exchange);
                }
                SignalKind::Drop(_, reason) => {
                    open.remove(&id)
                        .ok_or(format!("{id:?} dropped without a beginning"))?;
                    outcomes.dropped.push(reason);
                }
                _ => {
                    let said = seen.ok_or(format!("{id:?} is told of and not open"))?;
                    if std::mem::replace(said, true) {
                        return Err(format!("{id:?} said the same twice"));
                    }
                }
            }
        }
        if !open.is_empty() {
            return Err(format!("never ended: {open:?}"));
        }
        let ledger = self.ledger.snapshot();
        if ledger.open() != outcomes.exchanges.len() as i64 {
            return Err(format!("unbalanced: {ledger}"));
        }
        Ok(outcomes)
    }

    fn with<T>(&mut self, f: impl FnOnce(&mut dyn Session, &mut Output<'_>) -> T) -> Option<T> {
        let session = self.session.as_mut()?;
        let mut out = Output {
            taken: None,
            conn: &self.conn,
            now: self.now,
            signals: &mut self.signals,
            last_id: &mut self.last_id,
            ledger: &self.ledger,
            policy: &mut self.policy,
            switch: &mut self.switch,
            given_up: Reason::Abandoned,
        };
        let result = f(session.as_mut(), &mut out);
        if self.switch.is_some() {
            self.session = None;
        }
        Some(result)
    }

    fn mark(&self, side: Side) -> Mark {
        let received = side != self.local;
        let [client, server] = &self.lanes;
        let (own, peer) = match side {
            Side::Client => (client.pos, server.pos),
            Side::Server => (server.pos, client.pos),
        };
        Mark {
            stamp: Stamp {
                ts: self.now,
                unit: Unit {
                    tgid: 1,
                    tid: 1,
                    ..Unit::default()
                },
            },
            pos: own,
            peer_pos: peer,
            has_position: true,
            arrival: if received {
                self.now.saturating_sub(QUEUED)
            } else {
                0
            },
        }
    }
}
