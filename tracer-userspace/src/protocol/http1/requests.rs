//! The client's lane: request heads, and the exchanges that begin with them.

use super::exchange::Open;
use super::framing::Framing;
use super::head::{self, Fields, MAX_HEAD, Parsed};
use super::last::Last;
use super::line::RequestLine;
use super::request::Request;
use super::session::{Http1Session, MAX_OPEN, State};
use crate::model::{Mark, Stamp};
use crate::protocol::{Marks, Output, Side};
use crate::telemetry::Reason;

impl Http1Session {
    /// The next piece of a request head; returns the bytes taken, 0 to wait for more.
    pub(super) fn request_head(
        &mut self,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> usize {
        let mut last = self.last_request.take().unwrap_or_default();
        let taken = match last.recall(rest) {
            Some(len) => {
                self.request(&last.told, len, at, marks, out);
                len
            }
            None => self.new_request_head(&mut last, rest, at, marks, out),
        };
        self.last_request = Some(last);
        taken
    }

    /// The same for a head that is not the last one again.
    fn new_request_head(
        &mut self,
        last: &mut Last<Request>,
        rest: &[u8],
        at: usize,
        marks: &Marks<'_>,
        out: &mut Output<'_>,
    ) -> usize {
        match head::read_on::<RequestLine<'_>>(rest, self.client.searched) {
            Parsed::Whole((line, fields), len) => {
                last.told.read(self.role(), out.conn, &line, &fields);
                last.keep(rest.get(..len).unwrap_or_default(), 0..0);
                self.request(&last.told, len, at, marks, out);
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
                self.client.stray();
                self.lose(Side::Client, Reason::Malformed, out);
                rest.len()
            }
        }
    }

    /// A whole request head of `len` bytes.
    fn request(&mut self, told: &Request, len: usize, at: usize, marks: &Marks<'_>, out: &mut Output<'_>) {
        let last = marks.stamp(at + len - 1);
        self.client.run += len as u64;
        self.sizing.head(Side::Client, self.client.run);
        self.begin(told, &marks.at(at), out);
        self.count_head(Side::Client, len as u64, last);
        match told.framing {
            Framing::None => self.message_done(Side::Client, last, out),
            Framing::Body(body) => self.client.enter(State::Body(body)),
            Framing::Broken => self.malformed(Side::Client, out),
        }
    }

    /// A request has begun.
    pub(super) fn begin(&mut self, told: &Request, first: &Mark, out: &mut Output<'_>) {
        if self.server.is_vague() && !self.pipelined && self.open.front().is_some_and(|open| open.answered) {
            // Without pipelining a request means that the response before it was over.
            self.response_done(out);
            self.server.enter(State::Lost);
        }
        if !self.open.is_empty() {
            self.notice_lost_response(first, out);
        }
        if !self.open.is_empty() && !self.pipelined {
            self.pipelined = true;
            self.sizing.pipelined();
        }
        if self.open.len() >= MAX_OPEN {
            self.give_up_matching(Reason::TooManyOpen, out);
        }
        let role = self.role();
        let started = out.begin(role, first, told.context.clone());
        if let Some(reason) = self.unmatched {
            out.drop_exchange(started.id, reason);
            return;
        }
        self.expect_answer(first);
        self.open.push_back(Open::new(started, role, out.conn, told));
    }

    /// The last request ended with the byte at `stamp`.
    pub(super) fn request_done(&mut self, stamp: &Stamp, out: &mut Output<'_>) {
        let Some(open) = self.open.back_mut().filter(|open| !open.request.done) else {
            return;
        };
        open.request.done = true;
        out.request_end(open.id(), *stamp);
        if open.response.done && self.open.len() == 1 {
            self.finish(out);
        }
    }

    /// A request head of which only the beginning was captured. False if not even its line can be told.
    pub(super) fn cut_request(
        &mut self,
        partial: &[u8],
        first: &Mark,
        last: &Stamp,
        out: &mut Output<'_>,
    ) -> bool {
        let cut = head::read_cut::<RequestLine<'_>>(partial)
            .or_else(|| Some((RequestLine::parse_cut(partial)?, Fields::default())));
        let Some((line, fields)) = cut else {
            return false;
        };
        let mut told = Request::default();
        told.read(self.role(), out.conn, &line, &fields);
        self.begin(&told, first, out);
        self.count_head(Side::Client, partial.len() as u64, last);
        if let Some(open) = self.open.back_mut() {
            open.request.content = None;
        }
        true
    }
}
