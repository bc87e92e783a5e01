//! One connection's bytes on their way to its session: detection first, then whole messages.
//!
//! Bounds: at most [`HELD_BYTES`] bytes in [`HELD_CHUNKS`] chunks wait for a detection; a run that no protocol recognises is
//! dropped (each datagram counts as one); after [`RUNS_FROM_START`] such runs (or [`RUNS_JOINED_LATE`], because a connection joined late can be in the
//! middle of anything) the connection is opaque and the kernel is told to ignore it.

use std::sync::Arc;

use tracer_common::Direction;

use super::{CapturePolicy, Detect, MAX_BUFFER, Marks, Output, Prefix, Protocol, Session, Side, Transport};
use crate::model::{Chunk, Close, Conn, Mark};

/// Most bytes kept while detection is undecided.
pub const HELD_BYTES: usize = 64 * 1024;
/// Most chunks kept while detection is undecided.
pub const HELD_CHUNKS: usize = 4_096;
/// Unrecognised runs after which a connection seen from its start is given up.
pub const RUNS_FROM_START: u32 = 4;
/// Unrecognised runs after which a connection joined late is given up.
pub const RUNS_JOINED_LATE: u32 = 32;

/// Follows one connection.
pub struct Conversation {
    registry: &'static [&'static dyn Protocol],
    transport: Transport,
    state: State,
    carry: [Carry; 2],
}

enum State {
    Detecting(Box<Detecting>),
    Following { session: Box<dyn Session>, local: Side },
    Opaque,
}

/// Bytes of one direction that the session has not consumed yet.
#[derive(Default)]
struct Carry {
    bytes: Vec<u8>,
    first: Mark,
}

#[derive(Default)]
struct Detecting {
    bytes: Vec<u8>,
    chunks: Vec<Held>,
    run: Option<Run>,
    seen: [bool; 2],
    unrecognised: u32,
}

struct Run {
    direction: Direction,
    /// Where the run's bytes start in `Detecting::bytes`, and its first chunk in `Detecting::chunks`.
    bytes_from: usize,
    chunks_from: usize,
    from_start: bool,
    /// Every protocol has said no, or the prefix can't grow any more.
    dead: bool,
}

struct Held {
    direction: Direction,
    mark: Mark,
    len: u32,
    head: usize,
    tail: usize,
}

impl Side {
    /// The other side.
    #[must_use]
    pub const fn peer(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

impl Conversation {
    /// A connection about which nothing is known, to be recognised as one of `registry` that travels in that.
    #[must_use]
    pub fn new(registry: &'static [&'static dyn Protocol], transport: Transport) -> Self {
        Self {
            registry,
            transport,
            state: State::Detecting(Box::default()),
            carry: Default::default(),
        }
    }

    /// A connection that is of no interest.
    #[must_use]
    pub fn opaque(transport: Transport) -> Self {
        Self {
            registry: &[],
            transport,
            state: State::Opaque,
            carry: Default::default(),
        }
    }

    /// What its messages travel in.
    #[must_use]
    pub const fn transport(&self) -> Transport {
        self.transport
    }

    /// Whether nothing more will come of this connection.
    #[must_use]
    pub const fn is_opaque(&self) -> bool {
        matches!(self.state, State::Opaque)
    }

    /// The next chunk of its direction. Chunks come in stream order; holes were announced by [`Self::gap`] or [`Self::lost`].
    pub fn chunk(&mut self, chunk: &Chunk<'_>, out: &mut Output<'_>) {
        match &mut self.state {
            State::Opaque => {}
            State::Following { session, local } => {
                let side = side_of(chunk.direction, *local);
                if !self.carry[chunk.direction as usize].bytes.is_empty() || !session.whole(side, chunk, out)
                {
                    self.follow(chunk, out);
                }
            }
            State::Detecting(_) => self.detect(chunk, out),
        }
    }

    /// `len` bytes of this direction passed unseen before the byte at `mark`.
    pub fn gap(&mut self, direction: Direction, len: u32, mark: &Mark, out: &mut Output<'_>) {
        match &mut self.state {
            State::Opaque => {}
            State::Detecting(detecting) => detecting.abandon_run(direction),
            State::Following { .. } => {
                let missing = Mark {
                    pos: mark.pos.wrapping_sub(len),
                    ..*mark
                };
                self.skip(direction, u64::from(len), &missing, out);
            }
        }
    }

    /// An unknown number of bytes of this direction was lost before the byte at `mark`.
    pub fn lost(&mut self, direction: Direction, mark: &Mark, out: &mut Output<'_>) {
        match &mut self.state {
            State::Opaque => {}
            State::Detecting(detecting) => detecting.abandon_run(direction),
            State::Following { session, local } => {
                self.carry[direction as usize].bytes.clear();
                session.lost(side_of(direction, *local), mark, out);
            }
        }
    }

    /// The stream ended.
    pub fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        if let State::Following { session, .. } = &mut self.state {
            session.close(how, mark, out);
            if !matches!(how, Close::Finished(_)) {
                self.state = State::Opaque;
            }
        }
    }

    #[inline]
    fn follow(&mut self, chunk: &Chunk<'_>, out: &mut Output<'_>) {
        self.bytes(chunk.direction, chunk.head, &chunk.mark, out);
        if chunk.head.len() < chunk.len as usize {
            self.follow_cut(chunk, out);
        }
    }

    /// What is behind the head of a chunk that was not captured whole.
    fn follow_cut(&mut self, chunk: &Chunk<'_>, out: &mut Output<'_>) {
        let seen = chunk.head.len() + chunk.tail.len();
        let hole = (chunk.len as usize).saturating_sub(seen);
        if hole > 0 {
            self.skip(
                chunk.direction,
                hole as u64,
                &advance(&chunk.mark, chunk.head.len()),
                out,
            );
        }
        if !chunk.tail.is_empty() {
            let before = (chunk.len as usize).saturating_sub(chunk.tail.len());
            self.bytes(chunk.direction, chunk.tail, &advance(&chunk.mark, before), out);
        }
    }

    #[inline]
    fn bytes(&mut self, direction: Direction, bytes: &[u8], mark: &Mark, out: &mut Output<'_>) {
        if bytes.is_empty() {
            return;
        }
        let State::Following { session, local } = &mut self.state else {
            return;
        };
        let side = side_of(direction, *local);
        if self.carry[direction as usize].bytes.is_empty() {
            // The usual case: nothing was left over, and the session takes the captured bytes in place, all of them.
            let marks = Marks {
                first: mark,
                now: mark,
                carried: 0,
            };
            let consumed = session.bytes(side, bytes, &marks, out);
            if consumed < bytes.len() || out.switch.is_some() {
                self.settle(direction, None, bytes, consumed, marks, out);
            }
        } else {
            self.carried_bytes(direction, bytes, mark, out);
        }
    }

    /// More bytes, behind those that the session left.
    fn carried_bytes(&mut self, direction: Direction, bytes: &[u8], mark: &Mark, out: &mut Output<'_>) {
        let State::Following { session, local } = &mut self.state else {
            return;
        };
        let carry = &mut self.carry[direction as usize];
        let first = carry.first;
        let marks = Marks {
            first: &first,
            now: mark,
            carried: carry.bytes.len(),
        };
        let mut whole = std::mem::take(&mut carry.bytes);
        whole.extend_from_slice(bytes);
        let consumed = session.bytes(side_of(direction, *local), &whole, &marks, out);
        self.settle(direction, Some(whole), bytes, consumed, marks, out);
    }

    /// Follows up on what the session did: it consumed some of `bytes` (behind those left over before, in `whole`, if there
    /// were any), and may have asked for another protocol, which gets the rest.
    fn settle(
        &mut self,
        direction: Direction,
        whole: Option<Vec<u8>>,
        bytes: &[u8],
        mut consumed: usize,
        marks: Marks<'_>,
        out: &mut Output<'_>,
    ) {
        let mut rest = whole.as_deref().unwrap_or(bytes);
        let mut consumed_in_all = 0;
        let (mut first, mut now, mut carried) = (*marks.first, *marks.now, marks.carried);
        loop {
            consumed = consumed.min(rest.len());
            let switched = self.apply_switch(out);
            consumed_in_all += consumed;
            first = Marks {
                first: &first,
                now: &now,
                carried,
            }
            .at(consumed);
            carried = carried.saturating_sub(consumed);
            if carried == 0 {
                now = first;
            }
            rest = rest.get(consumed..).unwrap_or_default();
            let State::Following { session, local } = &mut self.state else {
                // Given up: nobody wants the rest.
                return;
            };
            // Each turn but the last makes a switch.
            if !switched || rest.is_empty() {
                break;
            }
            let marks = Marks {
                first: &first,
                now: &now,
                carried,
            };
            consumed = session.bytes(side_of(direction, *local), rest, &marks, out);
        }
        let was_carried = whole.is_some();
        self.keep(
            direction,
            whole.unwrap_or_default(),
            bytes,
            was_carried,
            consumed_in_all,
            first,
            out,
        );
    }

    /// Stores what the session left, in the buffer that it came from where there is one.
    #[allow(clippy::too_many_arguments)]
    fn keep(
        &mut self,
        direction: Direction,
        mut whole: Vec<u8>,
        bytes: &[u8],
        was_carried: bool,
        consumed: usize,
        first: Mark,
        out: &mut Output<'_>,
    ) {
        if was_carried {
            whole.drain(..consumed.min(whole.len()));
        } else {
            whole.extend_from_slice(bytes.get(consumed..).unwrap_or_default());
        }
        if whole.len() > MAX_BUFFER {
            whole.clear();
            if let State::Following { session, local } = &mut self.state {
                session.lost(side_of(direction, *local), &first, out);
            }
        }
        self.carry[direction as usize] = Carry { bytes: whole, first };
    }

    fn skip(&mut self, direction: Direction, len: u64, mark: &Mark, out: &mut Output<'_>) {
        let State::Following { session, local } = &mut self.state else {
            return;
        };
        let carry = &mut self.carry[direction as usize];
        let carried = carry.bytes.len();
        let marks = Marks {
            first: if carried == 0 { mark } else { &carry.first },
            now: mark,
            carried,
        };
        session.skipped(side_of(direction, *local), &carry.bytes, len, &marks, out);
        carry.bytes.clear();
        self.apply_switch(out);
    }

    /// Does what the session asked with [`Output::switch_to`]; tells whether another session follows now.
    fn apply_switch(&mut self, out: &mut Output<'_>) -> bool {
        let Some(name) = out.switch.take() else {
            return false;
        };
        let State::Following { local, .. } = &self.state else {
            return false;
        };
        let local = *local;
        match self.registry.iter().find(|p| p.name() == name) {
            Some(protocol) => {
                self.state = State::Following {
                    session: protocol.open(out.conn, local),
                    local,
                };
                true
            }
            None => {
                self.give_up(out);
                false
            }
        }
    }

    fn give_up(&mut self, out: &mut Output<'_>) {
        self.state = State::Opaque;
        self.carry = Default::default();
        out.capture(CapturePolicy::Ignore);
    }

    fn detect(&mut self, chunk: &Chunk<'_>, out: &mut Output<'_>) {
        let State::Detecting(detecting) = &mut self.state else {
            return;
        };
        let verdict = detecting.add(chunk, out.conn, self.registry, self.transport);
        match verdict {
            Verdict::Wait => {}
            Verdict::GiveUp => self.give_up(out),
            Verdict::Found(protocol, local) => {
                let State::Detecting(detecting) = std::mem::replace(
                    &mut self.state,
                    State::Following {
                        session: protocol.open(out.conn, local),
                        local,
                    },
                ) else {
                    return;
                };
                detecting.replay(|held| self.chunk(held, out));
            }
        }
    }
}

enum Verdict {
    Wait,
    GiveUp,
    Found(&'static dyn Protocol, Side),
}

impl Detecting {
    fn add(
        &mut self,
        chunk: &Chunk<'_>,
        conn: &Arc<Conn>,
        registry: &'static [&'static dyn Protocol],
        transport: Transport,
    ) -> Verdict {
        if self
            .run
            .as_ref()
            .is_none_or(|run| run.direction != chunk.direction || transport == Transport::Datagrams)
        {
            self.start_run(chunk.direction, conn);
        }
        let Some(run) = &mut self.run else {
            return Verdict::Wait;
        };
        if run.dead {
            return Verdict::Wait;
        }
        self.bytes.extend_from_slice(chunk.head);
        let prefix_end = self.bytes.len();
        self.bytes.extend_from_slice(chunk.tail);
        self.chunks.push(Held {
            direction: chunk.direction,
            mark: chunk.mark,
            len: chunk.len,
            head: chunk.head.len(),
            tail: chunk.tail.len(),
        });
        let prefix = Prefix {
            bytes: self.bytes.get(run.bytes_from..prefix_end).unwrap_or_default(),
            from_start: run.from_start,
        };
        let mut undecided = false;
        for protocol in registry.iter().filter(|p| p.transport() == transport) {
            match protocol.detect(prefix) {
                Detect::Yes { sender } => {
                    let local = if chunk.direction == Direction::Send {
                        sender
                    } else {
                        sender.peer()
                    };
                    return Verdict::Found(*protocol, local);
                }
                Detect::NeedMore => undecided = true,
                Detect::No => {}
            }
        }
        // A chunk that was not captured whole ends the prefix: what follows does not continue it.
        let cut = chunk.head.len() < chunk.len as usize;
        if undecided && !cut && self.bytes.len() <= HELD_BYTES && self.chunks.len() <= HELD_CHUNKS {
            return Verdict::Wait;
        }
        run.dead = true;
        self.bytes.truncate(run.bytes_from);
        self.chunks.truncate(run.chunks_from);
        self.unrecognised += 1;
        let bound = if conn.joined_late {
            RUNS_JOINED_LATE
        } else {
            RUNS_FROM_START
        };
        if self.unrecognised >= bound {
            Verdict::GiveUp
        } else {
            Verdict::Wait
        }
    }

    fn start_run(&mut self, direction: Direction, conn: &Arc<Conn>) {
        let first = !std::mem::replace(&mut self.seen[direction as usize], true);
        self.run = Some(Run {
            direction,
            bytes_from: self.bytes.len(),
            chunks_from: self.chunks.len(),
            from_start: first && !conn.joined_late,
            dead: false,
        });
    }

    /// The run has a hole: what it would begin with is not its beginning.
    fn abandon_run(&mut self, direction: Direction) {
        self.seen[direction as usize] = true;
        if let Some(run) = self
            .run
            .as_mut()
            .filter(|run| run.direction == direction && !run.dead)
        {
            run.dead = true;
            self.bytes.truncate(run.bytes_from);
            self.chunks.truncate(run.chunks_from);
        }
    }

    fn replay(&self, mut deliver: impl FnMut(&Chunk<'_>)) {
        let mut bytes = self.bytes.as_slice();
        for held in &self.chunks {
            let (Some((head, rest)), direction) = (bytes.split_at_checked(held.head), held.direction) else {
                return;
            };
            let Some((tail, rest)) = rest.split_at_checked(held.tail) else {
                return;
            };
            bytes = rest;
            deliver(&Chunk {
                direction,
                mark: held.mark,
                len: held.len,
                head,
                tail,
            });
        }
    }
}

const fn side_of(direction: Direction, local: Side) -> Side {
    match direction {
        Direction::Send => local,
        Direction::Recv => local.peer(),
    }
}

fn advance(mark: &Mark, by: usize) -> Mark {
    Mark {
        pos: mark.pos.wrapping_add(by as u32),
        ..*mark
    }
}
