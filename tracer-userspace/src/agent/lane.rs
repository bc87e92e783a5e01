//! One worker's part of the pipeline: events of its connections -> flow -> protocol -> signals.

mod header;
mod overtaken;

use std::sync::Arc;

use hashbrown::HashMap;
use tracer_common::{
    ActKind, Direction, EventFlags, EventHeader, EventKind, ProcessFacts, UNDECIDED_CHUNK, UNDECIDED_RUN,
};

use super::connect;
use crate::flow::{Flow, Order, Place, Stream, Table};
use crate::metrics::{Event, Side};
use crate::model::{
    Act, Address, Chunk, Close, Conn, ConnId, Deed, Mark, Nanos, Signal, SignalKind, Stamp, Taken, Unit,
};
use crate::protocol::{CapturePolicy, Conversation, Output, REGISTRY, Transport};
use crate::telemetry::{Ledger, Reason};
use overtaken::Overtaken;

/// Connections that one worker follows.
const MAX_FLOWS: usize = 65_536;
/// A flow that has not moved for this long may be forgotten once its process is gone, or if it is a Unix socket (whose
/// end no event tells).
const IDLE: Nanos = 600_000_000_000;

/// The same for sockets that send datagrams: no event tells their end, and resolvers make one for each lookup.
const IDLE_DATAGRAMS: Nanos = 30_000_000_000;

/// `TCP_ESTABLISHED` … of include/net/tcp_states.h.
mod tcp_state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const FIN_WAIT1: u8 = 4;
    pub const CLOSE: u8 = 7;
    pub const LAST_ACK: u8 = 9;
}

/// What a lane asks about a connection before it follows it.
pub trait Selects {
    /// Whether the process and the ports are selected for tracing.
    fn selects(&self, conn: &Conn) -> bool;
    /// A process connects, by the name of its thread; it may be gone before its first byte is seen.
    fn introduce(&self, tgid: u32, comm: &str);
    /// Who a process is from now on; whether something else was known under its id.
    fn told(&self, _facts: &ProcessFacts<'_>, _at: Nanos) -> bool {
        false
    }
    /// The kernel side asks where a task at that address has those that it awaits, whose type the other address names.
    fn sought(&self, _tgid: u32, _of: u64, _by: u64) {}
    /// A process has ended.
    fn ended(&self, _tgid: u32) {}
    /// Whether the process still exists.
    fn is_alive(&self, tgid: u32) -> bool;
    /// Since when connections are not followed, while the tracer is above its budget.
    fn paused_since(&self) -> Option<Nanos> {
        None
    }
    /// Something happened to a connection as such.
    fn happened(&self, _event: Event, _side: Option<Side>, _conn: &Conn, _now: Nanos) {}
}

/// One worker's connections.
pub struct Lane<S> {
    table: Table<Conversation>,
    /// Connections whose opening was seen and that have not moved bytes yet: when, (for connects) by whom, and which end it is.
    opening: HashMap<ConnId, (Stamp, Side)>,
    /// Connections that were taken for an exchange that has not begun.
    taken: HashMap<ConnId, Taken>,
    /// What waits for the bytes to which it is the answer.
    overtaken: Overtaken,
    voice: Voice,
    selection: S,
    /// Connections are not followed; when they were taken up again.
    is_paused: bool,
    resumed: Nanos,
}

/// What a lane says: signals and policies.
struct Voice {
    signals: Vec<Signal>,
    policies: Vec<(ConnId, CapturePolicy)>,
    last_id: u64,
    /// The event at hand comes from an event loop whose turns are told.
    in_turn: bool,
    ledger: Arc<Ledger>,
}

impl<S: Selects> Lane<S> {
    /// The lane numbered `index`: exchange ids of different lanes never meet.
    pub fn new(index: usize, selection: S, ledger: Arc<Ledger>) -> Self {
        Self {
            table: Table::new(MAX_FLOWS),
            opening: HashMap::new(),
            taken: HashMap::new(),
            overtaken: Overtaken::default(),
            voice: Voice {
                signals: Vec::new(),
                policies: Vec::new(),
                last_id: (index as u64) << 48,
                in_turn: false,
                ledger,
            },
            selection,
            is_paused: false,
            resumed: 0,
        }
    }

    /// Takes one event. Events of one connection come in time order.
    pub fn event(&mut self, header: &EventHeader, head: &[u8], tail: &[u8]) {
        match EventKind(header.kind) {
            EventKind::DATA => self.data(header, head, tail),
            EventKind::EOF => self.finished(header, Direction::Recv),
            EventKind::RESET => self.close(header, Close::Reset, header.ts),
            EventKind::STATE => self.state(header, head),
            EventKind::ACT => self.act(header),
            EventKind::RETRANSMIT => self.retransmitted(header),
            EventKind::PROBE => self.take(header),
            EventKind::WAKE => self.voice.signals.push(Signal {
                ts: header.ts,
                kind: SignalKind::Wake(header::wake(header)),
            }),
            EventKind::THREAD_END => self.voice.signals.push(Signal {
                ts: header.ts,
                kind: SignalKind::ThreadEnd(header::thread_end(header)),
            }),
            EventKind::PROCESS => self.process(header, head),
            EventKind::EXIT => self.selection.ended(header.tgid),
            _ => {}
        }
    }

    /// The signals since the last call, in time order; the caller drains them.
    pub fn signals(&mut self) -> &mut Vec<Signal> {
        &mut self.voice.signals
    }

    /// The capture policies asked for since the last call; the caller drains them.
    pub fn policies(&mut self) -> &mut Vec<(ConnId, CapturePolicy)> {
        &mut self.voice.policies
    }

    /// Gives all connections up when they are followed no longer; those that move bytes later are new. Whatever happened until `now` is known.
    pub fn pause(&mut self, now: Nanos) {
        match self.selection.paused_since() {
            Some(since) if !self.is_paused && since <= now => {
                self.is_paused = true;
                self.taken.clear();
                self.overtaken = Overtaken::default();
                let followed = self.table.iter().filter(|flow| !flow.consumer.is_opaque());
                let followed: Vec<ConnId> = followed.map(|flow| flow.conn.id).collect();
                for flow in followed.into_iter().filter_map(|id| self.table.remove(id)) {
                    self.voice.give_up(flow, now);
                }
            }
            None if self.is_paused => {
                self.is_paused = false;
                self.resumed = now;
            }
            Some(_) | None => {}
        }
    }

    /// Lets go what has waited long enough. Everything up to `now` is known.
    pub fn release_overdue(&mut self, now: Nanos) {
        while let Some(id) = self.overtaken.overdue(now) {
            self.let_go(id, now);
        }
    }

    /// What waits on that connection goes on: what it waits for was lost.
    fn let_go(&mut self, id: ConnId, now: Nanos) {
        let events = self.overtaken.give_up(id);
        self.go_on(events, now);
    }

    /// Events that have waited go on; they become known now.
    fn go_on(&mut self, events: Vec<overtaken::Event>, now: Nanos) {
        for event in events {
            match EventKind(event.header.kind) {
                EventKind::EOF => self.close(&event.header, Close::Finished(Direction::Recv), now),
                EventKind::STATE => self.close(&event.header, Close::Finished(Direction::Send), now),
                _ => self.moved(&event.header, &event.head, &event.tail, now),
            }
        }
    }

    /// One direction has ended, if nothing of that connection waits.
    fn finished(&mut self, header: &EventHeader, direction: Direction) {
        let waits = self.overtaken.since(ConnId(header.cookie)).is_some();
        if !waits || !self.overtaken.hold(header, &[], &[], header.ts) {
            self.close(header, Close::Finished(direction), header.ts);
        }
    }

    /// Forgets what has been idle for long and can't come back.
    pub fn sweep(&mut self, now: Nanos) {
        let selection = &self.selection;
        let mut gone = self.table.expire(now.saturating_sub(IDLE), |flow| {
            matches!(flow.conn.local.address, Address::Unix(_)) || !selection.is_alive(flow.conn.tgid)
        });
        gone.extend(self.table.expire(now.saturating_sub(IDLE_DATAGRAMS), |flow| {
            flow.consumer.transport() == Transport::Datagrams
        }));
        for flow in gone {
            self.voice.finish(flow, Close::Forgotten, now);
        }
    }

    /// Ends everything at shut-down.
    pub fn finish(&mut self, now: Nanos) {
        for id in self.overtaken.all() {
            self.let_go(id, now);
        }
        let flows: Vec<_> = self.table.drain().collect();
        for flow in flows {
            self.voice.finish(flow, Close::Forgotten, now);
        }
    }

    fn data(&mut self, header: &EventHeader, head: &[u8], tail: &[u8]) {
        let id = ConnId(header.cookie);
        let since = match header.dir == Direction::Send as u8 && !self.overtaken.is_empty() {
            true => self.overtaken.since(id),
            false => None,
        };
        let continues = |flow: &mut Flow<Conversation>| stream(flow, Direction::Send).continues(header.pos);
        match since {
            Some(since) if self.table.get_mut(id).is_some_and(continues) => {
                // It was sent before the answer came, whenever that was told.
                let ts = header.ts.min(since.saturating_sub(1));
                self.moved(&EventHeader { ts, ..*header }, head, tail, header.ts);
                let events = self.overtaken.take(id);
                self.go_on(events, header.ts);
            }
            Some(_) => {
                self.let_go(id, header.ts);
                self.moved(header, head, tail, header.ts);
            }
            None => self.moved(header, head, tail, header.ts),
        }
    }

    /// The bytes take their place in their stream; they become known now.
    fn moved(&mut self, header: &EventHeader, head: &[u8], tail: &[u8], now: Nanos) {
        let Some(direction) = header::direction(header) else {
            return;
        };
        let place = match self.table.find(ConnId(header.cookie)) {
            Some(place) => place,
            None if self.is_paused => return,
            None => self.open(header),
        };
        let Some(flow) = self.table.at(place) else {
            return;
        };
        let mark = header::mark(header);
        if direction == Direction::Recv
            && mark.has_position
            && stream(flow, Direction::Send).lacks(mark.peer_pos)
            && !flow.consumer.is_opaque()
            && self.overtaken.hold(header, head, tail, now)
        {
            return;
        }
        flow.last_seen = header.ts;
        self.voice.in_turn = mark.stamp.unit.turn().is_some();
        if self.voice.in_turn {
            let deed = match direction {
                Direction::Send => Deed::Sends,
                Direction::Recv => Deed::Receives,
            };
            self.voice.act(mark.stamp, deed(flow.conn.id));
        }
        let mut chunk = Chunk {
            direction,
            mark,
            len: header.len,
            head,
            tail,
        };
        let order = stream(flow, direction).place(&chunk.mark, chunk.len);
        let Flow { conn, consumer, .. } = flow;
        if consumer.is_opaque() {
            return;
        }
        if let Order::Gap(_) = order {
            self.voice.ledger.gap();
        }
        let taken = match direction {
            Direction::Send if !self.taken.is_empty() => self.taken.remove(&conn.id),
            Direction::Send | Direction::Recv => None,
        };
        self.voice.with(conn, now, |out| {
            out.taken = taken;
            match order {
                Order::Next => {}
                Order::Gap(missing) => consumer.gap(direction, missing, &chunk.mark, out),
                Order::Unknown => consumer.lost(direction, &chunk.mark, out),
                Order::Duplicate => return,
                Order::Overlap(by) => {
                    // Two threads on one socket: the kernel tells the position after the fact. Keep what is new.
                    let captured_whole = tail.is_empty() && head.len() == chunk.len as usize;
                    let Some(rest) = head.get(by as usize..).filter(|_| captured_whole) else {
                        consumer.lost(direction, &chunk.mark, out);
                        return;
                    };
                    (chunk.head, chunk.tail) = (rest, &[]);
                    chunk.len -= by;
                    chunk.mark.pos = chunk.mark.pos.wrapping_add(by);
                }
            }
            consumer.chunk(&chunk, out);
        });
    }

    #[cold]
    fn open(&mut self, header: &EventHeader) -> Place {
        let id = ConnId(header.cookie);
        let opening = self.opening.remove(&id);
        let transport = transport_of(header);
        // Its first bytes may have moved unseen.
        let seen_from_start = opening.is_some_and(|(stamp, _)| stamp.ts >= self.resumed);
        // A datagram needs nothing before it.
        let joined_late = !seen_from_start && transport == Transport::Streams;
        let conn = header::conn(header, header.tgid, joined_late);
        let is_wanted = transport == Transport::Streams || !is_multicast_dns(&conn);
        let conversation = if is_wanted && self.selection.selects(&conn) {
            if let Some((_, side)) = opening {
                self.selection
                    .happened(Event::Opened, Some(side), &conn, header.ts);
            }
            Conversation::new(REGISTRY, transport)
        } else {
            let policy = ignoring(header::unit(header).turn().is_some());
            self.voice.policies.push((id, policy));
            Conversation::opaque(transport)
        };
        self.voice.ledger.health().opened();
        let (place, evicted) = self.table.insert(Arc::new(conn), header.ts, conversation);
        if let Some(evicted) = evicted {
            self.voice.finish(evicted, Close::Forgotten, header.ts);
        }
        place
    }

    fn process(&mut self, header: &EventHeader, payload: &[u8]) {
        let replaced = match ProcessFacts::decode(header, payload) {
            Some(facts) => self.selection.told(&facts, header.ts),
            None => true, // the reader has taken it in, see `Sharded`
        };
        if replaced {
            self.voice.signals.push(Signal {
                ts: header.ts,
                kind: SignalKind::Replaced(header.tgid),
            });
        }
    }

    fn act(&mut self, header: &EventHeader) {
        let deed = match ActKind(header.state) {
            ActKind::WAITS => Deed::Waits,
            ActKind::WOKEN => Deed::Woken,
            ActKind::HELD => Deed::Held,
            ActKind::SOUGHT => {
                self.selection
                    .sought(header.tgid, header.creator, header.awaiters[0]);
                return;
            }
            _ => return,
        };
        self.voice.act(header::mark(header).stamp, deed);
    }

    /// Somebody takes the connection; who did before gave it back without a request.
    fn take(&mut self, header: &EventHeader) {
        if !EventFlags(header.flags).has(EventFlags::TAKEN) {
            return;
        }
        if self.taken.len() >= MAX_FLOWS {
            self.taken.clear();
        }
        self.taken.insert(ConnId(header.cookie), header::taken(header));
    }

    fn state(&mut self, header: &EventHeader, comm: &[u8]) {
        if header.state == tcp_state::SYN_SENT {
            let name = comm.split(|&byte| byte == 0).next().unwrap_or_default();
            self.selection
                .introduce(header.tgid, &String::from_utf8_lossy(name));
            let stamp = header::mark(header).stamp;
            self.voice.act(stamp, Deed::Connects(ConnId(header.cookie)));
            self.take(header);
        }
        match header.state {
            // Here the connecting thread itself runs; later states of a connect come from interrupts.
            tcp_state::SYN_SENT | tcp_state::ESTABLISHED if self.opening.len() < MAX_FLOWS => {
                let connects = tcp_state::SYN_SENT == header.state || tcp_state::SYN_SENT == header.old_state;
                let side = if connects { Side::Client } else { Side::Server };
                self.opening
                    .entry(ConnId(header.cookie))
                    .or_insert_with(|| (header::taken(header).stamp, side));
            }
            tcp_state::FIN_WAIT1 | tcp_state::LAST_ACK => {
                self.finished(header, Direction::Send);
            }
            tcp_state::CLOSE => {
                let opening = self.opening.remove(&ConnId(header.cookie));
                match opening.filter(|_| header.old_state == tcp_state::SYN_SENT) {
                    Some((start, _)) => self.connect_failed(header, start),
                    None => self.close(header, Close::Closed, header.ts),
                }
            }
            _ => {}
        }
    }

    fn connect_failed(&mut self, header: &EventHeader, start: Stamp) {
        let conn = header::conn(header, start.unit.tgid, false);
        if self.selection.selects(&conn) {
            let end = Stamp {
                ts: header.ts,
                unit: start.unit,
            };
            self.voice.with(&Arc::new(conn), header.ts, |out| {
                connect::failed(start, end, header.error, out)
            });
        }
    }

    fn retransmitted(&mut self, header: &EventHeader) {
        if let Some(flow) = self.table.get_mut(ConnId(header.cookie)) {
            self.selection
                .happened(Event::Retransmitted, None, &flow.conn, header.ts);
        }
    }

    fn close(&mut self, header: &EventHeader, how: Close, now: Nanos) {
        let id = ConnId(header.cookie);
        if !self.taken.is_empty() {
            self.taken.remove(&id);
        }
        if let Close::Finished(_) = how {
            if let Some(flow) = self.table.get_mut(id) {
                let Flow { conn, consumer, .. } = flow;
                let mark = header::mark(header);
                self.voice.with(conn, now, |out| consumer.close(how, &mark, out));
                if how == Close::Finished(Direction::Recv) {
                    self.voice.act_at(now, mark.stamp, Deed::ReadsEnd(id));
                }
            }
            return;
        }
        self.let_go(id, now);
        self.overtaken.forget(id);
        if let Some(mut flow) = self.table.remove(id) {
            self.voice.ledger.health().closed();
            if how == Close::Reset {
                self.selection.happened(Event::Reset, None, &flow.conn, header.ts);
            }
            let mark = header::mark(header);
            let Flow { conn, consumer, .. } = &mut flow;
            self.voice.with(conn, now, |out| consumer.close(how, &mark, out));
        }
    }
}

impl Voice {
    fn act(&mut self, stamp: Stamp, deed: Deed) {
        self.act_at(stamp.ts, stamp, deed);
    }

    fn act_at(&mut self, ts: Nanos, stamp: Stamp, deed: Deed) {
        self.signals.push(Signal {
            ts,
            kind: SignalKind::Act(Act { stamp, deed }),
        });
    }

    /// The connection is followed no longer. If it ever is again, nothing is known about it.
    fn give_up(&mut self, mut flow: Flow<Conversation>, now: Nanos) {
        self.ledger.health().closed();
        let Flow { conn, consumer, .. } = &mut flow;
        self.with(conn, now, |out| {
            out.given_up = Reason::Shed;
            consumer.close(Close::Forgotten, &nobody(now), out);
        });
        self.policies.push((conn.id, UNDECIDED));
    }

    fn finish(&mut self, mut flow: Flow<Conversation>, how: Close, now: Nanos) {
        self.ledger.health().closed();
        let mark = nobody(now);
        let Flow { conn, consumer, .. } = &mut flow;
        self.with(conn, now, |out| consumer.close(how, &mark, out));
    }

    #[inline]
    fn with(&mut self, conn: &Arc<Conn>, now: Nanos, f: impl FnOnce(&mut Output<'_>)) {
        let mut policy = None;
        f(&mut Output {
            conn,
            now,
            signals: &mut self.signals,
            last_id: &mut self.last_id,
            ledger: &self.ledger,
            policy: &mut policy,
            taken: None,
            switch: &mut None,
            given_up: Reason::Abandoned,
        });
        if let Some(policy) = policy {
            let policy = match policy {
                CapturePolicy::Ignore => ignoring(self.in_turn),
                CapturePolicy::Limit { .. } => policy,
            };
            self.policies.push((conn.id, policy));
        }
    }
}

/// A moment in which nobody moved anything.
fn nobody(now: Nanos) -> Mark {
    Mark {
        stamp: Stamp {
            ts: now,
            unit: Unit::default(),
        },
        ..Mark::default()
    }
}

/// What is captured of a connection about which nothing is decided.
const UNDECIDED: CapturePolicy = CapturePolicy::Limit {
    send: (UNDECIDED_RUN, UNDECIDED_CHUNK),
    recv: (UNDECIDED_RUN, UNDECIDED_CHUNK),
};

/// What is captured of a connection that is of no interest. What an event loop moves over it still tells which turn is whose.
const fn ignoring(by_loop: bool) -> CapturePolicy {
    if by_loop {
        CapturePolicy::Limit {
            send: (0, 0),
            recv: (0, 0),
        }
    } else {
        CapturePolicy::Ignore
    }
}

fn stream(flow: &mut Flow<Conversation>, direction: Direction) -> &mut Stream {
    let [send, recv] = &mut flow.streams;
    match direction {
        Direction::Send => send,
        Direction::Recv => recv,
    }
}

const fn transport_of(header: &EventHeader) -> Transport {
    if EventFlags(header.flags).has(EventFlags::DATAGRAM) {
        Transport::Datagrams
    } else {
        Transport::Streams
    }
}

/// RFC 6762: questions to nobody in particular, which look like DNS.
fn is_multicast_dns(conn: &Conn) -> bool {
    const PORT: u16 = 5353;
    conn.local.port == PORT || conn.remote.port == PORT
}

#[cfg(test)]
mod tests;
