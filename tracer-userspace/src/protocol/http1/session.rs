//! One connection: two lanes of messages, and the queue of open exchanges between them.
//!
//! What is promised about truth: responses are matched to requests by order alone, so when bytes that may hold whole messages
//! are lost on a connection where more than one request was ever open at a time, nothing after that can be matched, and every
//! exchange from there on is dropped and counted. Without pipelining the next run is a new message, and matching goes on.

use std::collections::VecDeque;

use tracer_common::Direction;

use super::body::Body;
use super::exchange::{Failure, Open};
use super::last::Last;
use super::looks::{Looks, looks_like_known_request, looks_like_request, looks_like_response};
use super::positions::Positions;
use super::request::Request;
use super::responses::Response;
use super::sizing::Sizing;
use crate::model::{Chunk, Close, Mark, Role, Stamp};
use crate::protocol::{Marks, Output, Session, Side};
use crate::telemetry::Reason;

/// Most requests that wait for their responses on one connection. Clients that pipeline at all send a few tens.
pub(super) const MAX_OPEN: usize = 1_024;

/// Most bytes that are held back because they could be the beginning of a message's first line.
const MAX_FIRST_LINE: usize = 16 * 1024;

/// One direction.
pub(super) struct Lane {
    pub(super) state: State,
    /// Bytes of an unfinished head that were searched for its end.
    pub(super) searched: usize,
    /// The other side has sent since this one did: what comes next begins a run.
    pub(super) fresh: bool,
    /// Bytes since the beginning of the run.
    pub(super) run: u64,
    /// How far the other side had come at the last chunk.
    pub(super) peer_pos: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    /// At the beginning of a message, or in its head.
    Head,
    /// In a body.
    Body(Body),
    /// Somewhere: at the next run that begins like a message, or never.
    Lost,
    /// Behind the last message of HTTP/1 on this connection.
    Over,
}

impl Default for Lane {
    fn default() -> Self {
        Self {
            state: State::Head,
            searched: 0,
            fresh: true,
            run: 0,
            peer_pos: None,
        }
    }
}

impl Lane {
    pub(super) fn enter(&mut self, state: State) {
        self.state = state;
        self.searched = 0;
    }

    /// The current message goes on in a way that nobody knows; the next run may begin another.
    pub(super) fn stray(&mut self) {
        if !matches!(self.state, State::Over) {
            self.enter(State::Lost);
        }
        self.fresh = false;
    }

    /// Whether the end of the current message can be told from what follows it only.
    pub(super) const fn is_vague(&self) -> bool {
        matches!(self.state, State::Lost | State::Body(Body::Blind(_)))
    }
}

/// Follows one HTTP/1 connection.
pub struct Http1Session {
    pub(super) local: Side,
    pub(super) client: Lane,
    pub(super) server: Lane,
    /// Requests in the order in which they came. The first is the one being answered, the last may still be coming.
    pub(super) open: VecDeque<Open>,
    /// More than one was open at a time.
    pub(super) pipelined: bool,
    /// Requests can't be matched with responses any more.
    pub(super) unmatched: Option<Reason>,
    pub(super) sizing: Sizing,
    pub(super) positions: Positions,
    /// The last request head. It is taken out while it is used.
    pub(super) last_request: Option<Box<Last<Request>>>,
    /// The last response head.
    pub(super) last_response: Last<Response>,
}

impl Http1Session {
    /// A session at the beginning of messages in both directions.
    pub fn new(local: Side) -> Self {
        Self {
            local,
            client: Lane::default(),
            server: Lane::default(),
            open: VecDeque::new(),
            pipelined: false,
            unmatched: None,
            sizing: Sizing::default(),
            positions: Positions::default(),
            last_request: None,
            last_response: Last::default(),
        }
    }

    /// The part that the local end plays.
    pub(super) const fn role(&self) -> Role {
        self.local.role()
    }

    pub(super) fn lane(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The next piece of a message; returns the bytes taken, 0 to wait for more.
    fn advance(
        &mut self,
        side: Side,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> usize {
        match &self.lane(side).state {
            State::Over => rest.len(),
            State::Lost => self.look(side, rest, marks.stamp(at + rest.len() - 1)),
            State::Head => match rest.first() {
                Some(b'\r' | b'\n') => 1,
                _ => match side {
                    Side::Client => self.request_head(rest, at, marks, out),
                    Side::Server => self.response_head(rest, at, marks, out),
                },
            },
            State::Body(body) => {
                let body = *body;
                if self.lane(side).fresh && self.begins_anew(side, body, rest) != Looks::No {
                    return self.restart(side, body, rest, out);
                }
                self.body(side, rest, at, marks, out)
            }
        }
    }

    /// Looks for the beginning of a message after bytes were lost.
    fn look(&mut self, side: Side, rest: &[u8], stamp: &Stamp) -> usize {
        let looks = match (self.lane(side).fresh, side) {
            (false, _) => Looks::No,
            (true, Side::Client) => looks_like_request(rest),
            (true, Side::Server) => looks_like_response(rest),
        };
        match looks {
            Looks::Yes => {
                self.lane(side).enter(State::Head);
                // Nothing was taken, so go on at once.
                0
            }
            Looks::Maybe if rest.len() <= MAX_FIRST_LINE => 0,
            _ => {
                let unanswered = |open: &&mut Open| !open.answered;
                if side == Side::Server
                    && self.server.fresh
                    && let Some(open) = self.open.front_mut().filter(unanswered)
                {
                    // Where a response should begin, something else does.
                    open.answered = true;
                    open.failure = Some(Failure::Malformed);
                }
                self.count(side, rest.len() as u64, None, stamp);
                rest.len()
            }
        }
    }

    /// Whether a run that comes while a body is expected is rather the next message: a chunked body whose end passed unseen, or
    /// one that the client never sent because the server did not ask for it (RFC 9110 section 10.1.1).
    fn begins_anew(&self, side: Side, body: Body, rest: &[u8]) -> Looks {
        let looks = match (side, body) {
            (Side::Server, Body::Blind(_)) => looks_like_response(rest),
            (Side::Client, Body::Blind(_)) => looks_like_request(rest),
            (Side::Client, _) => match self.open.back() {
                Some(open)
                    if open.expects_continue && open.request.content == Some(0) && open.status.is_some() =>
                {
                    looks_like_known_request(rest)
                }
                _ => Looks::No,
            },
            _ => Looks::No,
        };
        match looks {
            Looks::Maybe if rest.len() > MAX_FIRST_LINE => Looks::No,
            looks => looks,
        }
    }

    fn restart(&mut self, side: Side, body: Body, rest: &[u8], out: &mut Output<'_>) -> usize {
        if self.begins_anew(side, body, rest) == Looks::Yes {
            self.lane(side).enter(State::Head);
            match side {
                Side::Client => {
                    if let Some(open) = self.open.back_mut() {
                        let stamp = open.request_last;
                        self.request_done(&stamp, out);
                    }
                }
                Side::Server => self.response_done(out),
            }
        }
        0
    }

    fn body(&mut self, side: Side, rest: &[u8], at: usize, marks: &Marks<'_>, out: &mut Output<'_>) -> usize {
        let State::Body(body) = &mut self.lane(side).state else {
            return 0;
        };
        let progress = body.take(rest);
        if progress.taken > 0 {
            let content = (!matches!(body, Body::Blind(_))).then_some(progress.content);
            let stamp = marks.stamp(at + progress.taken - 1);
            self.count(side, progress.taken as u64, content, stamp);
        }
        if progress.malformed {
            self.malformed(side, out);
            return rest.len();
        }
        if progress.done {
            let stamp = marks.stamp(at + progress.taken.saturating_sub(1));
            self.message_done(side, stamp, out);
        }
        progress.taken
    }

    /// A head of which only the beginning was captured.
    pub(super) fn cut_head(
        &mut self,
        side: Side,
        partial: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) {
        self.sizing.cut(side, partial.len());
        let first = marks.at(at);
        let last = marks.stamp(at + partial.len().saturating_sub(1));
        let told = match side {
            Side::Client => self.cut_request(partial, &first, last, out),
            Side::Server => self.cut_response(partial, &first.stamp, last, out),
        };
        self.lane(side).stray();
        match told {
            true => self.lose(side, Reason::BytesLost, out),
            false => self.unknown_messages(side, out),
        }
        self.tell_policy(out);
    }

    pub(super) fn message_done(&mut self, side: Side, stamp: &Stamp, out: &mut Output<'_>) {
        self.lane(side).enter(State::Head);
        match side {
            Side::Client => self.request_done(stamp, out),
            Side::Server => self.response_done(out),
        }
    }
}

impl Session for Http1Session {
    fn whole(&mut self, side: Side, chunk: &Chunk<'_>, out: &mut Output<'_>) -> bool {
        match side {
            Side::Client => self.whole_request(chunk, out),
            Side::Server => self.whole_response(chunk, out),
        }
    }

    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks<'_>, out: &mut Output<'_>) -> usize {
        self.lane(side.peer()).fresh = true;
        self.note_run(side, marks.now);
        if side == Side::Server {
            self.positions.server_bytes(marks.first, bytes.len() as u64);
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let lane = self.lane(side);
            let before = std::mem::discriminant(&lane.state);
            if lane.fresh {
                lane.run = 0;
            }
            let taken = self.advance(side, rest, at, marks, out);
            let lane = self.lane(side);
            if taken > 0 {
                lane.fresh = false;
                at += taken;
            } else if std::mem::discriminant(&lane.state) == before {
                break;
            }
            if matches!(self.client.state, State::Over) && matches!(self.server.state, State::Over) {
                break;
            }
        }
        at
    }

    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks<'_>, out: &mut Output<'_>) {
        self.lane(side.peer()).fresh = true;
        let stamp = &marks.now.stamp;
        let mut left = len;
        if side == Side::Server {
            self.positions.server_bytes(marks.now, len);
            if !matches!(self.server.state, State::Over) && self.answer_follows(marks.now, len) {
                // What passed unseen was the rest of earlier responses.
                self.server.enter(State::Head);
                self.server.fresh = true;
                return;
            }
        }
        if let State::Body(mut body) = self.lane(side).state {
            // What was held back did not begin a message after all.
            if !partial.is_empty() {
                let progress = body.take(partial);
                self.count(side, progress.taken as u64, Some(progress.content), stamp);
            }
            let skipped = body.skip(len);
            self.lane(side).state = State::Body(body);
            self.count(side, skipped.taken, skipped.content, stamp);
            left -= skipped.taken;
            if matches!(body, Body::Blind(_)) {
                self.lose(side, Reason::BytesLost, out);
            }
            if skipped.done {
                self.message_done(side, stamp, out);
            }
        } else if matches!(self.lane(side).state, State::Head) && !partial.is_empty() {
            self.cut_head(side, partial, 0, marks, out);
        }
        if left > 0 {
            match self.lane(side).state {
                State::Head => {
                    self.lane(side).stray();
                    self.unknown_messages(side, out);
                }
                State::Lost => self.count(side, left, None, stamp),
                _ => {}
            }
        }
        self.lane(side).fresh = false;
    }

    fn lost(&mut self, side: Side, mark: &Mark, out: &mut Output<'_>) {
        if matches!(self.lane(side).state, State::Over) {
            return;
        }
        match side {
            Side::Server => self.unknown_messages(side, out),
            Side::Client => {
                if let Some(open) = self.open.back_mut().filter(|open| !open.request.done) {
                    open.request.content = None;
                    open.request_last = mark.stamp;
                }
                self.unknown_messages(side, out);
            }
        }
        self.lane(side).stray();
        if self.open.front().is_some_and(|open| open.response.done) {
            self.finish(out);
        }
    }

    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        match how {
            Close::Finished(direction) => {
                let side = match direction {
                    Direction::Send => self.local,
                    Direction::Recv => self.local.peer(),
                };
                match side {
                    Side::Server => self.fail_all(Failure::Closed, mark, out),
                    Side::Client => {
                        self.client.enter(State::Over);
                        // A half-closed client still waits for its responses; its last request will not go on.
                        if let Some(open) = self.open.back().filter(|open| !open.request.done) {
                            let stamp = open.request_last;
                            self.request_done(&stamp, out);
                        }
                    }
                }
            }
            Close::Reset => self.fail_all(Failure::Reset, mark, out),
            Close::Closed => self.fail_all(Failure::Closed, mark, out),
            Close::Forgotten => {
                if self.server.is_vague() && self.open.front().is_some_and(|open| open.answered) {
                    self.response_done(out);
                }
                if self.open.front().is_some_and(|open| open.response.done) {
                    self.finish(out);
                }
                self.drop_all(Reason::Abandoned, out);
            }
        }
    }
}
