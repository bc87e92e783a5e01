//! Follows one connection: records of both directions, the requests that are open, and what to do when bytes are missing.

use super::exchange::{Failure, Head, Open};
use super::record::{Framed, HEADER, Header, Kind, Role as Asked, Window, header, protocol_status, role};
use crate::model::{Close, Mark, Role, Stamp};
use crate::protocol::depth::{Depth, Limits};
use crate::protocol::{Marks, Output, Session, Side};
use crate::telemetry::Reason;

/// Most requests that are open at a time. Applications that multiplex at all take a few tens.
const MAX_OPEN: usize = 256;
/// Most bytes of parameters or of a response's header that are kept of one request.
const MAX_KEPT: usize = 32 * 1024;
/// Most of them for a connection, when many requests are open.
const MAX_KEPT_IN_ALL: usize = 256 * 1024;

/// Captured of requests: parameters with long cookies. Captured of responses: the CGI header; of what follows, records' headers where
/// the application writes them one by one, and the end.
const SHALLOW: Limits = [(32_768, 16_384), (8_192, 2_048)];
/// For parameters that this is too little for.
const DEEP: Limits = [(65_536, 65_536), (8_192, 2_048)];

/// Where a direction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Framing {
    /// The next byte begins a record.
    Aligned,
    /// So much of a record's content and padding is still to come.
    Inside {
        kind: Kind,
        id: u16,
        content: u64,
        padding: u64,
    },
    /// A record's header was not seen.
    Lost(Window),
}

impl Framing {
    fn inside(kind: Kind, id: u16, content: u64, padding: u64) -> Self {
        if content == 0 && padding == 0 {
            return Self::Aligned;
        }
        Self::Inside {
            kind,
            id,
            content,
            padding,
        }
    }
}

/// The session.
pub struct FastcgiSession {
    role: Role,
    framing: [Framing; 2],
    open: Vec<Open>,
    /// Memory of parameters that were read.
    spare: Vec<u8>,
    depth: Depth,
}

impl FastcgiSession {
    pub fn new(local: Side) -> Self {
        Self {
            role: local.role(),
            framing: [Framing::Aligned; 2],
            open: Vec::new(),
            spare: Vec::new(),
            depth: Depth::new(local, SHALLOW, DEEP),
        }
    }

    fn framing(&mut self, side: Side) -> &mut Framing {
        let [client, server] = &mut self.framing;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    fn find(&mut self, id: u16) -> Option<&mut Open> {
        self.open.iter_mut().find(|open| open.id == id)
    }

    /// Most bytes that one request may keep.
    fn room(&self) -> usize {
        MAX_KEPT.min(MAX_KEPT_IN_ALL / self.open.len().max(1))
    }

    fn take(&mut self, id: u16) -> Option<Open> {
        let at = self.open.iter().position(|open| open.id == id)?;
        Some(self.open.remove(at))
    }

    /// Drops every request that was told of, forgets the others.
    fn drop_all(&mut self, reason: Reason, out: &mut Output<'_>) {
        for open in self.open.drain(..) {
            if let Some(told) = open.told {
                out.drop_exchange(told.id, reason);
            }
        }
    }

    /// A request begins.
    fn begin(&mut self, id: u16, asked: Option<Asked>, mark: &Mark, out: &mut Output<'_>) {
        self.depth.shallow(out);
        // An id is given again once its request has ended: that passed unseen.
        if let Some(told) = self.take(id).and_then(|before| before.told) {
            out.drop_exchange(told.id, Reason::BytesLost);
        }
        if self.open.is_empty() && matches!(self.framing(Side::Server), Framing::Lost(_)) {
            *self.framing(Side::Server) = Framing::Aligned;
        }
        if self.open.len() >= MAX_OPEN {
            let started = out.begin(self.role, mark, None);
            out.drop_exchange(started.id, Reason::TooManyOpen);
            return;
        }
        let mut memory = std::mem::take(&mut self.spare);
        memory.clear();
        self.open
            .push(Open::new(id, *mark, asked == Some(Asked::FILTER), memory));
    }

    /// The end of a stream of the client: an empty record.
    fn stream_end(&mut self, kind: Kind, id: u16, stamp: Stamp, out: &mut Output<'_>) {
        let role = self.role;
        let Some(open) = self.find(id) else { return };
        match kind {
            Kind::PARAMS => {
                open.tell(role, out);
                if open.expected == 0 && !open.is_filter {
                    // Applications need not read the empty stream of content that follows.
                    open.request_end(stamp, out);
                }
                let memory = std::mem::take(&mut open.params);
                if memory.capacity() <= MAX_KEPT {
                    self.spare = memory;
                }
            }
            Kind::STDIN if !open.is_filter => open.request_end(stamp, out),
            Kind::DATA => open.request_end(stamp, out),
            _ => {}
        }
    }

    /// A request has ended.
    fn finish(&mut self, id: u16, status: u8, stamp: Stamp, out: &mut Output<'_>) {
        if let Some(open) = self.take(id) {
            let failure = (status != 0).then_some(Failure::Refused(status));
            open.end(failure, stamp, out);
        }
    }

    /// Counts bytes on the wire; those of the server have begun a response.
    fn count(&mut self, side: Side, id: u16, len: u64, stamp: Stamp, out: &mut Output<'_>) {
        let role = self.role;
        if let Some(open) = self.find(id) {
            let [requests, responses] = &mut open.bytes;
            let bytes = match side {
                Side::Client => requests,
                Side::Server => responses,
            };
            *bytes = bytes.saturating_add(len);
            if side == Side::Server {
                open.respond(stamp, role, out);
            }
        }
    }

    /// The record that begins here; returns the bytes consumed, `None` if more are needed.
    fn record(
        &mut self,
        side: Side,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> Option<usize> {
        let record = match header(side, rest) {
            Framed::Incomplete => return None,
            Framed::Invalid => {
                self.lose(side, out);
                return Some(0);
            }
            Framed::Record(record) => record,
        };
        let fixed = match record.kind {
            Kind::BEGIN_REQUEST | Kind::END_REQUEST => rest.get(HEADER..HEADER + HEADER)?,
            _ => &[],
        };
        let taken = HEADER + fixed.len();
        let first = marks.at(at);
        let last = *marks.stamp(at + taken - 1);
        self.begun(side, record, fixed, &first, last, out);
        Some(taken)
    }

    /// A record's header, with its content if that is of a fixed size (as much as is known of it).
    fn begun(
        &mut self,
        side: Side,
        record: Header,
        fixed: &[u8],
        first: &Mark,
        last: Stamp,
        out: &mut Output<'_>,
    ) {
        let Header {
            kind,
            id,
            content,
            padding,
        } = record;
        let left = u64::from(content).saturating_sub(fixed.len() as u64);
        *self.framing(side) = Framing::inside(kind, id, left, u64::from(padding));
        let len = (HEADER + fixed.len()) as u64;
        match kind {
            Kind::BEGIN_REQUEST => {
                self.begin(id, role(fixed), first, out);
                self.count(side, id, len, last, out);
            }
            Kind::END_REQUEST => {
                self.count(side, id, len, first.stamp, out);
                self.finish(id, protocol_status(fixed).unwrap_or(0), last, out);
            }
            Kind::ABORT_REQUEST => {
                self.count(side, id, len, last, out);
                if let Some(open) = self.find(id) {
                    open.is_aborted = true;
                }
            }
            _ => {
                self.count(side, id, len, first.stamp, out);
                if content == 0 && side == Side::Client {
                    self.stream_end(kind, id, last, out);
                }
            }
        }
    }

    /// Content and padding of the current record that are here; returns their number.
    fn content(
        &mut self,
        side: Side,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> usize {
        let Framing::Inside {
            kind,
            id,
            content,
            padding,
        } = *self.framing(side)
        else {
            return 0;
        };
        let here = |of: u64, from: usize| usize::try_from(of).unwrap_or(usize::MAX).min(rest.len() - from);
        let len = here(content, 0);
        let pad = here(padding, len);
        let taken = len + pad;
        *self.framing(side) = Framing::inside(kind, id, content - len as u64, padding - pad as u64);
        let stamp = *marks.stamp(at + taken.saturating_sub(1));
        let (bytes, _) = rest.split_at_checked(len).unwrap_or((rest, &[]));
        self.count(side, id, taken as u64, stamp, out);
        let room = self.room();
        let Some(open) = self.find(id) else {
            return taken;
        };
        match kind {
            Kind::PARAMS if open.told.is_none() && !open.cut => {
                let free = room.saturating_sub(open.params.len());
                open.cut = free < bytes.len();
                open.params.extend_from_slice(bytes.get(..free).unwrap_or(bytes));
            }
            Kind::STDIN | Kind::DATA => {
                open.count_content(0, len as u64);
                let whole = open.content[0].is_some_and(|content| content >= open.expected);
                if len > 0 && whole && open.expected > 0 && !open.is_filter {
                    let last = *marks.stamp(at + len - 1);
                    open.request_end(last, out);
                }
            }
            Kind::STDOUT => open.stdout(bytes, room),
            _ => {}
        }
        taken
    }

    /// Bytes of a direction whose framing was lost: until a record is found that tells where it stands. Returns those consumed.
    fn search(
        &mut self,
        side: Side,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> usize {
        let Framing::Lost(mut window) = *self.framing(side) else {
            return 0;
        };
        for (index, byte) in rest.iter().enumerate() {
            let Some((record, content)) = window.push(side, *byte) else {
                continue;
            };
            if side == Side::Server && self.find(record.id).is_none() {
                continue;
            }
            let taken = index + 1;
            let last = *marks.stamp(at + index);
            if record.kind == Kind::END_REQUEST {
                self.unseen(side, taken as u64, &last, out);
                *self.framing(side) = Framing::inside(record.kind, record.id, 0, u64::from(record.padding));
                self.finish(record.id, protocol_status(&content).unwrap_or(0), last, out);
            } else {
                const WHOLE: usize = HEADER + HEADER;
                self.unseen(side, taken.saturating_sub(WHOLE) as u64, &last, out);
                let mut first = marks.at(at + index);
                first.pos = first.pos.wrapping_sub(WHOLE as u32 - 1);
                self.begun(side, record, &content, &first, last, out);
            }
            return taken;
        }
        *self.framing(side) = Framing::Lost(window);
        if let Some(last) = rest.len().checked_sub(1) {
            self.unseen(side, rest.len() as u64, marks.stamp(at + last), out);
        }
        rest.len()
    }

    /// Bytes of nobody knows what: of the only request that is open, else they can't be told apart.
    fn unseen(&mut self, side: Side, len: u64, stamp: &Stamp, out: &mut Output<'_>) {
        let [open] = &self.open[..] else { return };
        if len > 0 {
            self.count(side, open.id, len, *stamp, out);
        }
    }

    /// A header of this side was not seen.
    fn lose(&mut self, side: Side, out: &mut Output<'_>) {
        *self.framing(side) = Framing::Lost(Window::default());
        match side {
            Side::Client => {
                // Of requests whose parameters were coming that much is known.
                let role = self.role;
                for open in &mut self.open {
                    if open.told.is_none() && !open.params.is_empty() {
                        open.tell(role, out);
                    }
                    open.content[0] = None;
                }
                self.open.retain(|open| open.told.is_some());
            }
            Side::Server if self.open.len() > 1 => self.drop_all(Reason::BytesLost, out),
            Side::Server => {
                for open in &mut self.open {
                    open.head_cut();
                    open.content[1] = None;
                }
            }
        }
    }
}

impl Session for FastcgiSession {
    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks<'_>, out: &mut Output<'_>) -> usize {
        let mut at = 0_usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let taken = match *self.framing(side) {
                Framing::Aligned => self.record(side, rest, at, marks, out),
                Framing::Inside { .. } => Some(self.content(side, rest, at, marks, out)),
                Framing::Lost(_) => Some(self.search(side, rest, at, marks, out)),
            };
            let Some(taken) = taken else { return at };
            at = at.saturating_add(taken);
        }
        at
    }

    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks<'_>, out: &mut Output<'_>) {
        let stamp = marks.now.stamp;
        let mut left = len;
        if let (false, Framed::Record(record)) = (partial.is_empty(), header(side, partial)) {
            // A record of a fixed content, some of which was captured.
            let fixed = partial.get(HEADER..).unwrap_or_default();
            self.begun(side, record, fixed, marks.first, stamp, out);
        } else if !partial.is_empty() {
            left = left.saturating_add(partial.len() as u64);
            self.lose(side, out);
        }
        if let Framing::Inside {
            kind,
            id,
            content,
            padding,
        } = *self.framing(side)
        {
            let of_content = content.min(left);
            let of_padding = padding.min(left - of_content);
            let taken = of_content + of_padding;
            left -= taken;
            *self.framing(side) = Framing::inside(kind, id, content - of_content, padding - of_padding);
            self.count(side, id, taken, stamp, out);
            let mut is_cut = false;
            if let Some(open) = self.find(id).filter(|_| of_content > 0) {
                match kind {
                    Kind::PARAMS => {
                        is_cut = !open.cut;
                        open.cut = true;
                    }
                    Kind::STDIN | Kind::DATA => open.count_content(0, of_content),
                    Kind::STDOUT if matches!(open.head, Head::Coming(..)) => open.head_cut(),
                    Kind::STDOUT => open.count_content(1, of_content),
                    _ => {}
                }
            }
            if is_cut {
                self.depth.deep(out);
            }
        }
        if left > 0 {
            self.lose(side, out);
            self.unseen(side, left, &stamp, out);
        }
    }

    fn lost(&mut self, side: Side, _mark: &Mark, out: &mut Output<'_>) {
        if side == Side::Server {
            self.drop_all(Reason::BytesLost, out);
        }
        self.lose(side, out);
    }

    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        let failure = match how {
            Close::Finished(_) => return,
            Close::Reset => Failure::Reset,
            Close::Closed => Failure::Closed,
            Close::Forgotten => return self.drop_all(Reason::Abandoned, out),
        };
        if matches!(self.framing(Side::Server), Framing::Lost(_)) {
            return self.drop_all(Reason::BytesLost, out);
        }
        for open in self.open.drain(..) {
            open.end(Some(failure), mark.stamp, out);
        }
    }
}
