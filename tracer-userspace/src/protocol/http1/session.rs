//! One connection: two lanes of messages, and the queue of open exchanges between them.
//!
//! What is promised about truth: responses are matched to requests by order alone, so when bytes that may hold whole messages
//! are lost on a connection where more than one request was ever open at a time, nothing after that can be matched, and every
//! exchange from there on is dropped and counted. Without pipelining the next run is a new message, and matching goes on.

use std::collections::VecDeque;

use tracer_common::Direction;

use super::body::{Body, Chunked};
use super::exchange::{Failure, Open};
use super::head::{
    self, ContentLength, Fields, Looks, MAX_HEAD, Parsed, RequestLine, StatusLine, TransferEncoding,
    looks_like_known_request, looks_like_request, looks_like_response,
};
use super::sizing::Sizing;
use crate::model::{Close, Mark, Role, Stamp};
use crate::protocol::{Marks, Output, Session, Side, by_name};
use crate::telemetry::Reason;

/// Most requests that wait for their responses on one connection. Clients that pipeline at all send a few tens.
const MAX_OPEN: usize = 1_024;

/// Most bytes that are held back because they could be the beginning of a message's first line.
const MAX_FIRST_LINE: usize = 16 * 1024;

/// One direction.
struct Lane {
    state: State,
    /// Bytes of an unfinished head that were searched for its end.
    searched: usize,
    /// The other side has sent since this one did: what comes next begins a run.
    fresh: bool,
    /// Bytes since the beginning of the run.
    run: u64,
}

#[derive(Clone, Copy, Debug)]
enum State {
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
        }
    }
}

impl Lane {
    fn enter(&mut self, state: State) {
        self.state = state;
        self.searched = 0;
    }

    /// Whether the end of the current message can be told from what follows it only.
    const fn is_vague(&self) -> bool {
        matches!(self.state, State::Lost | State::Body(Body::Blind(_)))
    }
}

/// Follows one HTTP/1 connection.
pub struct Http1Session {
    local: Side,
    client: Lane,
    server: Lane,
    /// Requests in the order in which they came. The first is the one being answered, the last may still be coming.
    open: VecDeque<Open>,
    /// More than one was open at a time.
    pipelined: bool,
    /// Requests can't be matched with responses any more.
    unmatched: Option<Reason>,
    sizing: Sizing,
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
        }
    }

    fn lane(&mut self, side: Side) -> &mut Lane {
        match side {
            Side::Client => &mut self.client,
            Side::Server => &mut self.server,
        }
    }

    /// The next piece of a message; returns the bytes taken, 0 to wait for more.
    fn advance(&mut self, side: Side, rest: &[u8], at: usize, marks: &Marks, out: &mut Output<'_>) -> usize {
        match self.lane(side).state {
            State::Over => rest.len(),
            State::Lost => self.look(side, rest, marks.at(at + rest.len() - 1).stamp),
            State::Head => match rest.first() {
                Some(b'\r' | b'\n') => 1,
                _ => match side {
                    Side::Client => self.request_head(rest, at, marks, out),
                    Side::Server => self.response_head(rest, at, marks, out),
                },
            },
            State::Body(body) => {
                if self.lane(side).fresh && self.begins_anew(side, body, rest) != Looks::No {
                    return self.restart(side, body, rest, out);
                }
                self.body(side, body, rest, at, marks, out)
            }
        }
    }

    /// Looks for the beginning of a message after bytes were lost.
    fn look(&mut self, side: Side, rest: &[u8], stamp: Stamp) -> usize {
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
                        let stamp = open.request.last;
                        self.request_done(stamp, out);
                    }
                }
                Side::Server => self.response_done(out),
            }
        }
        0
    }

    fn body(
        &mut self,
        side: Side,
        mut body: Body,
        rest: &[u8],
        at: usize,
        marks: &Marks,
        out: &mut Output<'_>,
    ) -> usize {
        let progress = body.take(rest);
        if progress.taken > 0 {
            let stamp = marks.at(at + progress.taken - 1).stamp;
            let content = (!matches!(body, Body::Blind(_))).then_some(progress.content);
            self.count(side, progress.taken as u64, content, stamp);
        }
        self.lane(side).state = State::Body(body);
        if progress.malformed {
            self.malformed(side);
            return rest.len();
        }
        if progress.done {
            let stamp = marks.at(at + progress.taken.saturating_sub(1)).stamp;
            self.message_done(side, stamp, out);
        }
        progress.taken
    }

    fn message_done(&mut self, side: Side, stamp: Stamp, out: &mut Output<'_>) {
        self.lane(side).enter(State::Head);
        match side {
            Side::Client => self.request_done(stamp, out),
            Side::Server => self.response_done(out),
        }
    }

    fn request_head(&mut self, rest: &[u8], at: usize, marks: &Marks, out: &mut Output<'_>) -> usize {
        let ready = match self.client.searched {
            0 => Some(rest),
            searched => head::find_end(rest, searched).and_then(|end| rest.get(..end)),
        };
        let parsed = ready.map_or(Parsed::Incomplete, |ready| head::read(ready, RequestLine::parse));
        match parsed {
            Parsed::Whole((line, fields), len) => {
                let first = marks.at(at);
                let last = marks.at(at + len - 1).stamp;
                self.client.run += len as u64;
                self.sizing.head(Side::Client, self.client.run);
                let framing = request_framing(&line, &fields);
                self.begin(&line, &fields, &first, out);
                self.count_head(Side::Client, len as u64, last);
                match framing {
                    Framing::None => self.message_done(Side::Client, last, out),
                    Framing::Body(body) => self.client.enter(State::Body(body)),
                    Framing::Broken => self.malformed(Side::Client),
                }
                len
            }
            Parsed::Incomplete if rest.len() >= MAX_HEAD => {
                self.cut_head(Side::Client, rest, at, marks, out);
                rest.len()
            }
            Parsed::Incomplete => {
                self.client.searched = rest.len();
                0
            }
            Parsed::Bad => {
                self.client.enter(State::Lost);
                self.client.fresh = false;
                rest.len()
            }
        }
    }

    /// A request has begun.
    fn begin(&mut self, line: &RequestLine<'_>, fields: &Fields<'_>, first: &Mark, out: &mut Output<'_>) {
        if self.server.is_vague() && !self.pipelined && self.open.front().is_some_and(|open| open.answered) {
            // Without pipelining a request means that the response before it was over.
            self.response_done(out);
            self.server.enter(State::Lost);
        }
        if !self.open.is_empty() && !self.pipelined {
            self.pipelined = true;
            self.sizing.pipelined();
        }
        if self.open.len() >= MAX_OPEN {
            self.give_up_matching(Reason::TooManyOpen, out);
        }
        let role = match self.local {
            Side::Client => Role::Client,
            Side::Server => Role::Server,
        };
        let context = fields.trace.parse();
        let started = out.begin(role, super::NAME, first, context.clone());
        if let Some(reason) = self.unmatched {
            out.drop_exchange(started.id, reason);
            return;
        }
        self.open
            .push_back(Open::new(started, role, out.conn, line, fields, context));
    }

    fn response_head(&mut self, rest: &[u8], at: usize, marks: &Marks, out: &mut Output<'_>) -> usize {
        let ready = match self.server.searched {
            0 => Some(rest),
            searched => head::find_end(rest, searched).and_then(|end| rest.get(..end)),
        };
        let parsed = ready.map_or(Parsed::Incomplete, |ready| head::read(ready, StatusLine::parse));
        match parsed {
            Parsed::Whole((line, fields), len) => {
                self.server.run += len as u64;
                self.sizing.head(Side::Server, self.server.run);
                self.respond(line, &fields, len, at, marks, out);
                len
            }
            Parsed::Incomplete if rest.len() >= MAX_HEAD => {
                self.cut_head(Side::Server, rest, at, marks, out);
                rest.len()
            }
            Parsed::Incomplete => {
                self.server.searched = rest.len();
                0
            }
            Parsed::Bad => {
                if let Some(open) = self.open.front_mut().filter(|open| !open.response.done) {
                    open.answered = true;
                }
                self.malformed(Side::Server);
                self.count(
                    Side::Server,
                    rest.len() as u64,
                    None,
                    marks.at(at + rest.len() - 1).stamp,
                );
                rest.len()
            }
        }
    }

    /// A whole response head.
    fn respond(
        &mut self,
        line: StatusLine,
        fields: &Fields<'_>,
        len: usize,
        at: usize,
        marks: &Marks,
        out: &mut Output<'_>,
    ) {
        let last = marks.at(at + len - 1).stamp;
        let interim = (100..200).contains(&line.status) && line.status != 101;
        if !interim {
            self.next_response(out);
        }
        let Some(open) = self.open.front_mut() else {
            // Nobody asked, as far as we saw: its framing may depend on the request.
            self.server.enter(if self.unmatched.is_some() {
                State::Over
            } else {
                State::Lost
            });
            self.server.fresh = false;
            return;
        };
        if interim {
            open.expects_continue &= line.status != 100;
            self.count_head(Side::Server, len as u64, last);
            self.server.enter(State::Head);
            return;
        }
        let first = marks.at(at).stamp;
        open.answered = true;
        open.status = Some(line.status);
        open.first_byte = Some(first);
        let (is_head, is_connect) = (open.is_head, open.is_connect);
        out.respond(open.started.id, first);
        self.count_head(Side::Server, len as u64, last);
        if line.status == 101 || (is_connect && (200..300).contains(&line.status)) {
            let next = fields.upgrade.filter(|_| line.status == 101).and_then(upgraded);
            self.hand_over(next, out);
            return;
        }
        match response_framing(line.status, is_head, fields) {
            Framing::None => self.message_done(Side::Server, last, out),
            Framing::Body(body) => self.server.enter(State::Body(body)),
            Framing::Broken => self.malformed(Side::Server),
        }
    }

    /// A final response begins: the one before it is over, even if its end passed unseen or its request never ended.
    fn next_response(&mut self, out: &mut Output<'_>) {
        if let Some(open) = self.open.front_mut().filter(|open| open.answered) {
            open.response.done = true;
            self.finish(out);
        }
    }

    /// The connection goes on in another protocol.
    fn hand_over(&mut self, next: Option<&'static str>, out: &mut Output<'_>) {
        self.finish(out);
        self.drop_all(Reason::Abandoned, out);
        self.client.enter(State::Over);
        self.server.enter(State::Over);
        out.switch_to(next);
    }

    /// A head of which only the beginning was captured.
    fn cut_head(&mut self, side: Side, partial: &[u8], at: usize, marks: &Marks, out: &mut Output<'_>) {
        self.sizing.cut(side, partial.len());
        let last = marks.at(at + partial.len().saturating_sub(1)).stamp;
        match side {
            Side::Client => {
                let cut = head::read_cut(partial, RequestLine::parse)
                    .or_else(|| Some((RequestLine::parse_cut(partial)?, Fields::default())));
                if let Some((line, fields)) = cut {
                    self.begin(&line, &fields, &marks.at(at), out);
                    self.count_head(side, partial.len() as u64, last);
                    if let Some(open) = self.open.back_mut() {
                        open.request.content = None;
                    }
                } else {
                    self.unknown_messages(side, out);
                }
            }
            Side::Server => {
                let cut = head::read_cut(partial, StatusLine::parse)
                    .or_else(|| Some((StatusLine::parse(partial)?, Fields::default())));
                let cut = cut.map(|(line, _)| line).filter(|line| line.status >= 200);
                if cut.is_some() {
                    self.next_response(out);
                }
                match (cut, self.open.front_mut()) {
                    (Some(line), Some(open)) => {
                        let first = marks.at(at).stamp;
                        open.answered = true;
                        open.status = Some(line.status);
                        open.first_byte = Some(first);
                        open.response.content = None;
                        out.respond(open.started.id, first);
                        self.count_head(side, partial.len() as u64, last);
                    }
                    _ => self.unknown_messages(side, out),
                }
            }
        }
        let lane = self.lane(side);
        lane.enter(State::Lost);
        lane.fresh = false;
        self.tell_policy(out);
    }

    /// Bytes that may hold whole messages, or the beginnings of some, passed unseen.
    fn unknown_messages(&mut self, side: Side, out: &mut Output<'_>) {
        match side {
            Side::Server => {
                if self.open.front().is_some_and(|open| open.response.done) {
                    self.finish(out);
                }
                if !self.open.is_empty() {
                    let pipelined = self.pipelined;
                    self.drop_all(Reason::BytesLost, out);
                    if pipelined {
                        self.give_up_matching(Reason::BytesLost, out);
                    }
                }
            }
            Side::Client if self.pipelined => self.give_up_matching(Reason::BytesLost, out),
            Side::Client => {}
        }
    }

    fn give_up_matching(&mut self, reason: Reason, out: &mut Output<'_>) {
        self.drop_all(reason, out);
        self.unmatched.get_or_insert(reason);
        self.server.enter(State::Over);
    }

    fn drop_all(&mut self, reason: Reason, out: &mut Output<'_>) {
        for open in self.open.drain(..) {
            out.drop_exchange(open.started.id, reason);
        }
    }

    /// The current message of `side` broke the grammar: nothing more of it makes sense.
    fn malformed(&mut self, side: Side) {
        let open = match side {
            Side::Client => self.open.back_mut().filter(|open| !open.request.done),
            Side::Server => self.open.front_mut().filter(|open| !open.response.done),
        };
        if let Some(open) = open {
            open.failure = Some(Failure::Malformed);
            match side {
                Side::Client => open.request.content = None,
                Side::Server => open.response.content = None,
            }
        }
        let lane = self.lane(side);
        lane.enter(State::Lost);
        lane.fresh = false;
    }

    /// Bytes of the current message of `side`; `content` is `None` where it can't be told from framing.
    fn count(&mut self, side: Side, len: u64, content: Option<u64>, stamp: Stamp) {
        self.lane(side).run += len;
        self.count_part(side, len, content, stamp);
    }

    /// Bytes of a head, which the run has counted already.
    fn count_head(&mut self, side: Side, len: u64, stamp: Stamp) {
        self.count_part(side, len, Some(0), stamp);
    }

    fn count_part(&mut self, side: Side, len: u64, content: Option<u64>, stamp: Stamp) {
        let part = match side {
            Side::Client => self.open.back_mut().map(|open| &mut open.request),
            // What comes before its head, after a loss, is not the response to the first request.
            Side::Server if matches!(self.server.state, State::Lost) => self
                .open
                .front_mut()
                .filter(|open| open.answered)
                .map(|open| &mut open.response),
            Side::Server => self.open.front_mut().map(|open| &mut open.response),
        };
        if let Some(part) = part.filter(|part| !part.done) {
            part.bytes = part.bytes.saturating_add(len);
            part.content = part.content.zip(content).map(|(a, b)| a.saturating_add(b));
            part.last = stamp;
        }
    }

    fn request_done(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        let Some(open) = self.open.back_mut().filter(|open| !open.request.done) else {
            return;
        };
        open.request.done = true;
        out.request_end(open.started.id, stamp);
        if open.response.done && self.open.len() == 1 {
            self.finish(out);
        }
    }

    fn response_done(&mut self, out: &mut Output<'_>) {
        let vague = self.client.is_vague();
        let Some(open) = self.open.front_mut() else {
            return;
        };
        open.response.done = true;
        if !open.request.done && vague {
            // The end of the request passed unseen; its response says that it came.
            open.request.done = true;
            out.request_end(open.started.id, open.request.last);
        }
        if open.request.done {
            self.finish(out);
        }
    }

    /// Ends the first open exchange, at its last byte.
    fn finish(&mut self, out: &mut Output<'_>) {
        if let Some(open) = self.open.pop_front() {
            let (request, response) = (open.request.last, open.response.last);
            let end = if request.ts > response.ts {
                request
            } else {
                response
            };
            out.end(open.finish(out.conn, end));
        }
        self.tell_policy(out);
    }

    /// Ends every open exchange because the connection is over at `mark`.
    fn fail_all(&mut self, failure: Failure, mark: &Mark, out: &mut Output<'_>) {
        let until_close =
            failure == Failure::Closed && matches!(self.server.state, State::Body(Body::UntilClose));
        let told = self.server.is_vague() || until_close;
        if told && self.open.front().is_some_and(|open| open.answered) {
            self.response_done(out);
        }
        while let Some(mut open) = self.open.pop_front() {
            let end = if open.response.done {
                let (request, response) = (open.request.last, open.response.last);
                if request.ts > response.ts {
                    request
                } else {
                    response
                }
            } else {
                open.failure.get_or_insert(failure);
                mark.stamp
            };
            out.end(open.finish(out.conn, end));
        }
    }

    fn tell_policy(&mut self, out: &mut Output<'_>) {
        if let Some(policy) = self.sizing.policy(self.local) {
            out.capture(policy);
        }
    }
}

impl Session for Http1Session {
    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks, out: &mut Output<'_>) -> usize {
        self.lane(side.peer()).fresh = true;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let before = std::mem::discriminant(&self.lane(side).state);
            if self.lane(side).fresh {
                self.lane(side).run = 0;
            }
            let taken = self.advance(side, rest, at, marks, out);
            if taken > 0 {
                self.lane(side).fresh = false;
                at += taken;
            } else if std::mem::discriminant(&self.lane(side).state) == before {
                break;
            }
            if matches!(self.client.state, State::Over) && matches!(self.server.state, State::Over) {
                break;
            }
        }
        at
    }

    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks, out: &mut Output<'_>) {
        self.lane(side.peer()).fresh = true;
        let stamp = marks.now.stamp;
        let mut left = len;
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
            if skipped.done {
                self.message_done(side, stamp, out);
            }
        } else if matches!(self.lane(side).state, State::Head) && !partial.is_empty() {
            self.cut_head(side, partial, 0, marks, out);
        }
        if left > 0 {
            match self.lane(side).state {
                State::Head => {
                    self.unknown_messages(side, out);
                    if !matches!(self.lane(side).state, State::Over) {
                        self.lane(side).enter(State::Lost);
                    }
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
                    open.request.last = mark.stamp;
                }
                self.unknown_messages(side, out);
            }
        }
        if !matches!(self.lane(side).state, State::Over) {
            self.lane(side).enter(State::Lost);
        }
        self.lane(side).fresh = false;
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
                            let stamp = open.request.last;
                            self.request_done(stamp, out);
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

/// What follows a head.
enum Framing {
    /// Nothing.
    None,
    /// A body.
    Body(Body),
    /// Nobody can know.
    Broken,
}

/// RFC 9112 section 6.3 for requests.
fn request_framing(_line: &RequestLine<'_>, fields: &Fields<'_>) -> Framing {
    match (fields.transfer_encoding, fields.content_length) {
        _ if fields.ambiguous => Framing::Broken,
        (TransferEncoding::Chunked, _) => Framing::Body(Body::Chunked(Chunked::START)),
        (TransferEncoding::Other, _) | (_, ContentLength::Bad) => Framing::Broken,
        (_, ContentLength::Absent | ContentLength::Is(0)) => Framing::None,
        (_, ContentLength::Is(length)) => Framing::Body(Body::Length(length)),
    }
}

/// RFC 9112 section 6.3 for responses that are neither interim nor the beginning of a tunnel.
fn response_framing(status: u16, is_head: bool, fields: &Fields<'_>) -> Framing {
    if is_head || matches!(status, 204 | 304) {
        return Framing::None;
    }
    match (fields.transfer_encoding, fields.content_length) {
        _ if fields.ambiguous => Framing::Broken,
        (TransferEncoding::Chunked, _) => Framing::Body(Body::Chunked(Chunked::START)),
        (TransferEncoding::Other, _) | (_, ContentLength::Absent) => Framing::Body(Body::UntilClose),
        (_, ContentLength::Bad) => Framing::Broken,
        (_, ContentLength::Is(0)) => Framing::None,
        (_, ContentLength::Is(length)) => Framing::Body(Body::Length(length)),
    }
}

/// The registered protocol behind an `Upgrade` field's first protocol.
fn upgraded(field: &[u8]) -> Option<&'static str> {
    let first = field.split(|b| matches!(b, b',' | b'/')).next()?.trim_ascii();
    let name = if first.eq_ignore_ascii_case(b"websocket") {
        "websocket"
    } else if first.eq_ignore_ascii_case(b"h2c") {
        "http2"
    } else {
        return None;
    };
    by_name(name).map(|protocol| protocol.name())
}
