//! The queue of open exchanges: what is counted to them, and how they end or are dropped.

use super::body::Body;
use super::exchange::Failure;
use super::session::{Http1Session, State};
use crate::model::{Mark, Stamp};
use crate::protocol::{Output, Side};
use crate::telemetry::Reason;

impl Http1Session {
    /// Bytes that may hold whole messages, or the beginnings of some, passed unseen.
    pub(super) fn unknown_messages(&mut self, side: Side, out: &mut Output<'_>) {
        match side {
            Side::Server => {
                if self.open.front().is_some_and(|open| open.response.done) {
                    self.finish(out);
                }
                if !self.open.is_empty() && self.pipelined {
                    self.give_up_matching(Reason::BytesLost, out);
                }
                self.drop_all(Reason::BytesLost, out);
            }
            Side::Client if self.pipelined => self.give_up_matching(Reason::BytesLost, out),
            Side::Client => {}
        }
    }

    /// From here on nobody can tell which response belongs to which request.
    pub(super) fn give_up_matching(&mut self, reason: Reason, out: &mut Output<'_>) {
        self.drop_all(reason, out);
        self.unmatched.get_or_insert(reason);
        self.server.enter(State::Over);
    }

    /// Drops every open exchange.
    pub(super) fn drop_all(&mut self, reason: Reason, out: &mut Output<'_>) {
        for open in self.open.drain(..) {
            out.drop_exchange(open.id(), reason);
        }
    }

    /// Nobody can tell where the current message of `side` ends. What follows it unseen could be matched wrongly wherever more
    /// than one request is open at a time.
    pub(super) fn lose(&mut self, side: Side, reason: Reason, out: &mut Output<'_>) {
        let ambiguous = match side {
            Side::Client => self.pipelined,
            Side::Server => self.open.len() > 1,
        };
        if ambiguous {
            self.give_up_matching(reason, out);
        }
    }

    /// The current message of `side` broke the grammar: nothing more of it makes sense.
    pub(super) fn malformed(&mut self, side: Side, out: &mut Output<'_>) {
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
        self.lane(side).stray();
        self.lose(side, Reason::Malformed, out);
    }

    /// Bytes of the current message of `side`; `content` is `None` where it can't be told from framing.
    pub(super) fn count(&mut self, side: Side, len: u64, content: Option<u64>, stamp: &Stamp) {
        self.lane(side).run += len;
        self.count_part(side, len, content, stamp);
    }

    /// Bytes of a head, which the run has counted already.
    #[inline]
    pub(super) fn count_head(&mut self, side: Side, len: u64, stamp: &Stamp) {
        self.count_part(side, len, Some(0), stamp);
    }

    /// Bytes of the current message of `side`, wherever they are counted already.
    #[inline]
    fn count_part(&mut self, side: Side, len: u64, content: Option<u64>, stamp: &Stamp) {
        let open = match side {
            Side::Client => self.open.back_mut(),
            // What comes before its head, after a loss, is not the response to the first request.
            Side::Server if matches!(self.server.state, State::Lost) => {
                self.open.front_mut().filter(|open| open.answered)
            }
            Side::Server => self.open.front_mut(),
        };
        if let Some(open) = open {
            open.count(side, len, content, stamp);
        }
    }

    /// Ends the first open exchange, at its last byte.
    pub(super) fn finish(&mut self, out: &mut Output<'_>) {
        if let Some(open) = self.open.pop_front() {
            out.end(open.finish(None));
        }
        self.tell_policy(out);
    }

    /// Ends every open exchange because the connection is over at `mark`.
    pub(super) fn fail_all(&mut self, failure: Failure, mark: &Mark, out: &mut Output<'_>) {
        let until_close =
            failure == Failure::Closed && matches!(self.server.state, State::Body(Body::UntilClose));
        let told = self.server.is_vague() || until_close;
        if told && self.open.front().is_some_and(|open| open.answered) {
            self.response_done(out);
        }
        while let Some(mut open) = self.open.pop_front() {
            let end = if open.response.done {
                None
            } else {
                open.failure.get_or_insert(failure);
                Some(&mark.stamp)
            };
            out.end(open.finish(end));
        }
    }

    /// Asks for another capture policy if heads have outgrown the last.
    pub(super) fn tell_policy(&mut self, out: &mut Output<'_>) {
        if let Some(policy) = self.sizing.policy(self.local) {
            out.capture(policy);
        }
    }
}
