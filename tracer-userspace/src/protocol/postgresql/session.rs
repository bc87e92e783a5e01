//! Follows one connection: framing of both directions, what waits for an answer, and what to do when bytes are missing.

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use super::exchange::{Item, Open, Prepared, failed};
use super::message::{Framed, HEADER, Header, header};
use crate::model::{Close, Conn, Mark, Role, Stamp};
use crate::protocol::depth::{Depth, Limits};
use crate::protocol::sql::{Cache, Statement};
use crate::protocol::{Marks, Output, Session, Side};
use crate::telemetry::Reason;

/// Most items that wait for an answer. Clients that pipeline send some thousands at once at most.
const MAX_OPEN: usize = 8_192;
/// Named statements, and named portals, remembered for a connection; pools of clients keep a few hundred.
const MAX_NAMES: usize = 1_024;

/// Captured of requests: the usual statement whole. Captured of responses: the headers of a small one; the rest of a
/// large one is followed by its last bytes.
const SHALLOW: Limits = [(32_768, 4_096), (1_024, 512)];
/// For pipelines: every message's header counts.
const DEEP: Limits = [(1 << 20, 65_536), (1 << 20, 65_536)];
/// Items in flight from which a connection is one of pipelines.
const PIPELINE: usize = 6;

/// Where a direction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// The next byte begins a message.
    Aligned,
    /// That many bytes of a body remain that nobody looks at.
    Body(u64),
    /// That many bytes were handed over before and belong to nothing any more.
    Stale(u64),
    /// A header was not seen. `since`: the time of the chunk in which that happened.
    Lost { since: u64 },
}

/// What has been agreed on the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// The client's next packet has no type.
    Startup,
    /// The client has asked for encryption; the server answers with one byte.
    Negotiating,
    /// Messages.
    Running,
}

/// The session.
pub struct PostgresqlSession {
    pub role: Role,
    pub phase: Phase,
    pub framing: [Framing; 2],
    pub namespace: Option<Box<str>>,
    pub names: Names,
    /// What was prepared since the last `Execute` or `Sync`.
    pub building: Option<Prepared>,
    pub queue: VecDeque<Item>,
    /// A COPY from the client is going on.
    pub copying_in: bool,
    /// The request whose body is still coming is the newest item: its end has to be told.
    pub request_open: bool,
    depth: Depth,
    /// Bytes of the server's lost stream that were left in the buffer.
    kept: u64,
}

impl PostgresqlSession {
    pub fn new(conn: &Arc<Conn>, local: Side) -> Self {
        Self {
            role: local.role(),
            phase: if conn.joined_late {
                Phase::Running
            } else {
                Phase::Startup
            },
            framing: [Framing::Aligned; 2],
            namespace: None,
            names: Names::new(),
            building: None,
            queue: VecDeque::new(),
            copying_in: false,
            request_open: false,
            depth: Depth::new(local, SHALLOW, DEEP),
            kept: 0,
        }
    }

    /// Sets how much is captured: more where so many queries wait that an answer which is not seen can't be told from the next.
    pub fn capture(&mut self, out: &mut Output<'_>) {
        if self.queue.len() >= PIPELINE {
            self.depth.deep(out);
        } else {
            self.depth.shallow(out);
        }
    }

    /// Adds something that the server will answer. False if too much waits already.
    pub fn push(&mut self, item: Item, out: &mut Output<'_>) -> bool {
        if self.queue.is_empty() && matches!(self.framing[Side::Server as usize], Framing::Lost { .. }) {
            // The client has its answers: the server's next byte begins one.
            self.framing[Side::Server as usize] = match std::mem::take(&mut self.kept) {
                0 => Framing::Aligned,
                kept => Framing::Stale(kept),
            };
        }
        if self.queue.len() >= MAX_OPEN {
            // What comes now can't be told from what is not remembered: the client's stream counts as lost until a quiet moment.
            if let Item::Query(open) | Item::Execute(open) = item {
                out.drop_exchange(open.started.id, Reason::TooManyOpen);
            }
            self.framing[Side::Client as usize] = Framing::Lost { since: out.now };
            return false;
        }
        self.queue.push_back(item);
        self.capture(out);
        true
    }

    /// Drops every open exchange.
    pub fn drop_all(&mut self, reason: Reason, out: &mut Output<'_>) {
        for item in self.queue.drain(..) {
            if let Item::Query(open) | Item::Execute(open) = item {
                out.drop_exchange(open.started.id, reason);
            }
        }
        self.building = None;
        self.copying_in = false;
        self.request_open = false;
    }

    /// Counts bytes of the client for what they belong to.
    pub fn count_request(&mut self, bytes: u64) {
        match (&mut self.building, self.queue.back_mut()) {
            (Some(prepared), _) => prepared.bytes = prepared.bytes.saturating_add(bytes),
            (None, Some(Item::Query(open) | Item::Execute(open))) => {
                open.request_bytes = open.request_bytes.saturating_add(bytes);
            }
            _ => {}
        }
    }

    /// Counts bytes of the server for what they answer, which has its first byte by then.
    pub fn count_response(&mut self, bytes: u64, stamp: Stamp, out: &mut Output<'_>) {
        match self.queue.front_mut() {
            Some(Item::Query(open) | Item::Execute(open)) => {
                open.respond(stamp, out);
                open.response_bytes = open.response_bytes.saturating_add(bytes);
            }
            Some(Item::Sync(Some(prepared))) => {
                prepared.first_byte.get_or_insert(stamp);
                prepared.response_bytes = prepared.response_bytes.saturating_add(bytes);
            }
            Some(Item::Sync(None)) | None => {}
        }
    }

    /// A header of this side was not seen.
    pub fn lose(&mut self, side: Side, stamp: Stamp, out: &mut Output<'_>) {
        let framing = &mut self.framing[side as usize];
        if !matches!(framing, Framing::Lost { .. }) {
            *framing = Framing::Lost { since: stamp.ts };
        }
        if side == Side::Client {
            self.building = None;
            self.end_request(stamp, out);
        }
    }

    /// A header of this side was not captured: more has to be, if that can help.
    fn miss(&mut self, side: Side, stamp: Stamp, out: &mut Output<'_>) {
        self.lose(side, stamp, out);
        let pipelined = match side {
            Side::Client => !self.copying_in,
            Side::Server => self.queue.len() > 2,
        };
        if pipelined {
            self.depth.deep(out);
        }
    }

    /// The last byte of the newest request came.
    pub fn end_request(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        if std::mem::take(&mut self.request_open)
            && let Some(Item::Query(open) | Item::Execute(open)) = self.queue.back()
        {
            out.request_end(open.started.id, stamp);
        }
    }

    /// One whole message, or as much of it as is wanted; returns the bytes consumed, `None` if more are needed.
    fn message(&mut self, side: Side, rest: &[u8], mark: &Mark, out: &mut Output<'_>) -> Option<usize> {
        let message = match header(rest) {
            Framed::Incomplete => return None,
            Framed::Invalid => {
                self.lose(side, mark.stamp, out);
                return Some(0);
            }
            Framed::Message(message) => message,
        };
        let wanted = match side {
            Side::Client => Self::wanted_of_request(message),
            Side::Server => Self::wanted_of_response(message),
        };
        let Some(wanted) = wanted else {
            self.lose(side, mark.stamp, out);
            return Some(0);
        };
        let behind = rest.get(HEADER..).unwrap_or_default();
        if behind.len() < wanted {
            return None;
        }
        let body = behind.get(..message.body as usize).unwrap_or(behind);
        self.deliver(side, message, body, mark, out);
        Some(HEADER.saturating_add(body.len()))
    }

    /// Hands a message to its side, with as much of its body as there is.
    fn deliver(&mut self, side: Side, message: Header, body: &[u8], mark: &Mark, out: &mut Output<'_>) {
        let remain = u64::from(message.body).saturating_sub(body.len() as u64);
        // What the message leads to may set the framing itself.
        self.framing[side as usize] = if remain > 0 {
            Framing::Body(remain)
        } else {
            Framing::Aligned
        };
        match side {
            Side::Client => self.request(message, body, mark, remain > 0, out),
            Side::Server => self.response(message, body, mark.stamp, out),
        }
    }
}

impl Session for PostgresqlSession {
    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks<'_>, out: &mut Output<'_>) -> usize {
        let mut at = 0_usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let mark = marks.at(at);
            let consumed = match (self.phase, side) {
                (Phase::Startup, Side::Client) => self.startup(rest, out),
                (Phase::Negotiating, Side::Server) => self.negotiated(rest, out),
                (Phase::Negotiating, Side::Client) => {
                    self.phase = Phase::Running;
                    Some(0)
                }
                _ => match self.framing[side as usize] {
                    Framing::Aligned => self.message(side, rest, &mark, out),
                    Framing::Body(left) => {
                        let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                        self.body(side, n as u64, mark.stamp, out);
                        Some(n)
                    }
                    Framing::Stale(left) => {
                        let n = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
                        self.stale(side, left, n as u64);
                        Some(n)
                    }
                    Framing::Lost { since } => match side {
                        Side::Client => {
                            self.count_request(rest.len() as u64);
                            Some(rest.len())
                        }
                        Side::Server => {
                            let n = self.resynchronise(rest, since, marks.now.stamp, out);
                            self.kept = rest.len().saturating_sub(n) as u64;
                            if n == 0 {
                                return at;
                            }
                            Some(n)
                        }
                    },
                },
            };
            match consumed {
                None => return at,
                Some(n) => at = at.saturating_add(n),
            }
            if out.switch.is_some() {
                return at;
            }
        }
        at
    }

    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks<'_>, out: &mut Output<'_>) {
        let stamp = marks.now.stamp;
        if self.phase != Phase::Running {
            self.phase = Phase::Running;
            return self.lose(side, stamp, out);
        }
        let mut len = len;
        let framing = self.framing[side as usize];
        match (framing, header(partial)) {
            // As much of the body as there is has to do.
            (Framing::Aligned, Framed::Message(message)) => {
                let body = partial.get(HEADER..).unwrap_or_default();
                self.deliver(side, message, body, marks.first, out);
            }
            _ => len = len.saturating_add(partial.len() as u64),
        }
        if side == Side::Server {
            self.kept = 0;
        }
        if let Framing::Stale(left) = self.framing[side as usize] {
            let n = left.min(len);
            self.stale(side, left, n);
            len -= n;
        }
        if let Framing::Body(left) = self.framing[side as usize] {
            let n = left.min(len);
            self.body(side, n, stamp, out);
            len -= n;
        }
        if len > 0 {
            match side {
                Side::Client => self.count_request(len),
                Side::Server => self.count_response(len, stamp, out),
            }
            self.miss(side, stamp, out);
        }
    }

    fn lost(&mut self, side: Side, mark: &Mark, out: &mut Output<'_>) {
        self.phase = Phase::Running;
        self.lose(side, mark.stamp, out);
        if side == Side::Server {
            self.kept = 0;
        }
        match side {
            // What was sent before will still be answered; how much came after is unknown.
            Side::Client => {}
            Side::Server => self.drop_all(Reason::BytesLost, out),
        }
    }

    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        let kind = match how {
            Close::Finished(_) => return,
            Close::Reset => "connection_reset",
            Close::Closed => "connection_closed",
            Close::Forgotten => return self.drop_all(Reason::Abandoned, out),
        };
        let unsure = matches!(self.framing[Side::Server as usize], Framing::Lost { .. });
        let namespace = self.namespace.take();
        for item in self.queue.drain(..) {
            let (Item::Query(open) | Item::Execute(open)) = item else {
                continue;
            };
            if open.error.is_some() || open.complete {
                open.end(self.role, namespace.as_deref(), mark.stamp, out);
            } else if unsure {
                out.drop_exchange(open.started.id, Reason::BytesLost);
            } else {
                open.end_as(failed(kind), self.role, namespace.as_deref(), mark.stamp, out);
            }
        }
    }
}

impl PostgresqlSession {
    fn stale(&mut self, side: Side, left: u64, n: u64) {
        let left = left.saturating_sub(n);
        self.framing[side as usize] = if left == 0 {
            Framing::Aligned
        } else {
            Framing::Stale(left)
        };
    }

    /// `n` bytes of a body that nobody looks at.
    fn body(&mut self, side: Side, n: u64, stamp: Stamp, out: &mut Output<'_>) {
        let Framing::Body(left) = self.framing[side as usize] else {
            return;
        };
        let left = left.saturating_sub(n);
        self.framing[side as usize] = if left == 0 {
            Framing::Aligned
        } else {
            Framing::Body(left)
        };
        match side {
            Side::Client => {
                self.count_request(n);
                if left == 0 {
                    self.end_request(stamp, out);
                }
            }
            Side::Server => self.count_response(n, stamp, out),
        }
    }
}

/// Which statement a name stands for.
pub struct Names {
    hasher: hashbrown::DefaultHashBuilder,
    statements: Cache<Arc<Statement>>,
    portals: Cache<Arc<Statement>>,
    unnamed: [Option<Arc<Statement>>; 2],
}

/// What a name is the name of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named {
    /// A prepared statement.
    Statement = 0,
    /// A portal.
    Portal = 1,
}

impl Names {
    fn new() -> Self {
        Self {
            hasher: hashbrown::DefaultHashBuilder::default(),
            statements: Cache::new(MAX_NAMES),
            portals: Cache::new(MAX_NAMES),
            unnamed: [None, None],
        }
    }

    fn table(&mut self, of: Named) -> &mut Cache<Arc<Statement>> {
        match of {
            Named::Statement => &mut self.statements,
            Named::Portal => &mut self.portals,
        }
    }

    /// `name` stands for `statement` now; `None`: for one that we have not seen.
    pub fn set(&mut self, of: Named, name: &[u8], statement: Option<Arc<Statement>>) {
        if name.is_empty() {
            self.unnamed[of as usize] = statement;
            return;
        }
        let hash = self.hasher.hash_one(name);
        match statement {
            Some(statement) => self.table(of).insert(hash, statement),
            None => self.table(of).remove(hash),
        }
    }

    /// The statement of that name.
    pub fn get(&mut self, of: Named, name: &[u8]) -> Option<Arc<Statement>> {
        if name.is_empty() {
            return self.unnamed[of as usize].clone();
        }
        let hash = self.hasher.hash_one(name);
        self.table(of).get(hash)
    }
}

impl Item {
    /// The exchange, if it is one.
    pub fn open_mut(&mut self) -> Option<&mut Open> {
        match self {
            Self::Query(open) | Self::Execute(open) => Some(open),
            Self::Sync(_) => None,
        }
    }
}
