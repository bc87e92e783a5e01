//! What the server says.

use super::exchange::{Effect, failure};
use super::jobs::Jobs;
use super::resp::{MAX_TEXT, Progress, Value, value};
use super::session::{RedisSession, Request, Response, Whose};
use crate::model::{Mark, Outcome, Stamp};
use crate::protocol::Output;

/// Longest word that names a push.
const MAX_PUSH: u64 = 16;

impl RedisSession {
    /// Consumes something of the server's bytes; `None` if more are needed.
    pub fn server(&mut self, bytes: &[u8], mark: &Mark, now: Stamp, out: &mut Output<'_>) -> Option<usize> {
        match self.response {
            Response::Lost { .. } => {
                self.count_response(bytes.len() as u64, now, out);
                self.response = Response::Lost {
                    complete: bytes.ends_with(b"\n"),
                    last: now,
                };
                Some(bytes.len())
            }
            Response::Aligned => {
                let whose = self.beginning(bytes)?;
                if whose != Whose::Push
                    && let Some(open) = self.queue.front_mut()
                {
                    open.respond(mark.stamp, out);
                }
                self.frame.begin();
                self.response = Response::Inside(whose);
                Some(0)
            }
            Response::Inside(whose) => {
                let (used, done) = match self.frame.follow(bytes) {
                    Progress::More(n) => (n, false),
                    Progress::Done(n) => (n, true),
                    Progress::Invalid => {
                        self.lose_response(now);
                        return Some(0);
                    }
                };
                if let (Whose::Reply, Some(jobs)) = (whose, self.jobs()) {
                    jobs.reply(bytes.get(..used).unwrap_or_default());
                }
                self.used(whose, used as u64, now, done, out);
                (used > 0 || done).then_some(used)
            }
        }
    }

    /// `len` bytes of the server were not captured. True if that broke the framing.
    pub fn server_unseen(&mut self, len: u64, stamp: Stamp, out: &mut Output<'_>) -> bool {
        if let Response::Inside(whose) = self.response
            && self.frame.unseen(len)
        {
            let done = self.frame.is_done();
            if let (Whose::Reply, Some(jobs)) = (whose, self.jobs()) {
                jobs.unseen(len);
            }
            self.used(whose, len, stamp, done, out);
            return false;
        }
        self.count_response(len, stamp, out);
        self.lose_response(stamp);
        true
    }

    /// What the oldest command does with jobs.
    fn jobs(&mut self) -> Option<&mut Jobs> {
        self.queue.front_mut()?.jobs.as_deref_mut()
    }

    fn used(&mut self, whose: Whose, bytes: u64, stamp: Stamp, done: bool, out: &mut Output<'_>) {
        if whose != Whose::Push {
            self.count_response(bytes, stamp, out);
        }
        if done {
            self.response = Response::Aligned;
            self.done(whose, stamp, out);
        }
    }

    /// What the value that begins here is; looks at its text. `None` if more bytes are needed to tell.
    fn beginning(&mut self, bytes: &[u8]) -> Option<Whose> {
        let (first, len) = value(bytes);
        self.outcome = Outcome::Unset;
        self.succeeded = false;
        match (bytes.first(), first) {
            (_, Value::Incomplete) => return None,
            (Some(b'-'), Value::Line(text)) => self.outcome = failure(text),
            (Some(b'-'), Value::LongLine) => {
                self.outcome = failure(bytes.get(1..MAX_TEXT).unwrap_or_default());
            }
            (Some(b'!'), Value::Bulk(n)) => {
                let text = bytes.get(len..).unwrap_or_default();
                let wanted = n.saturating_sub(2).min(MAX_TEXT as u64) as usize;
                self.outcome = failure(text.get(..wanted)?);
            }
            (Some(b'+'), Value::Line(b"OK" | b"RESET")) => self.succeeded = true,
            // An attribute belongs to the value behind it, and both are followed as one.
            (Some(kind @ (b'>' | b'*')), Value::Aggregate(n)) if n > 0 => {
                return self.announced(*kind, bytes.get(len..).unwrap_or_default());
            }
            _ => {}
        }
        Some(Whose::Reply)
    }

    /// Whether an array or a push is a reply, a confirmation, or came by itself: its first word tells.
    fn announced(&self, kind: u8, body: &[u8]) -> Option<Whose> {
        let subscribing = self
            .queue
            .front()
            .is_some_and(|open| matches!(open.effect, Effect::Subscribe(_) | Effect::Unsubscribe(_)));
        if kind == b'*' && !subscribing && !self.subscribed {
            return Some(Whose::Reply);
        }
        let (first, len) = value(body);
        let word = match first {
            Value::Incomplete => return None,
            Value::Line(text) => text,
            Value::Bulk(n) if n <= MAX_PUSH + 2 => body.get(len..)?.get(..n.saturating_sub(2) as usize)?,
            _ => b"",
        };
        let confirms = matches!(
            word,
            b"subscribe" | b"psubscribe" | b"ssubscribe" | b"unsubscribe" | b"punsubscribe" | b"sunsubscribe"
        );
        Some(match (confirms, kind) {
            (true, _) if subscribing => Whose::Confirmation,
            (true, _) | (false, b'>') => Whose::Push,
            (false, _) if matches!(word, b"message" | b"pmessage" | b"smessage") => Whose::Push,
            (false, _) => Whose::Reply,
        })
    }

    /// The last byte of a value came.
    fn done(&mut self, whose: Whose, stamp: Stamp, out: &mut Output<'_>) {
        match whose {
            Whose::Push => return,
            Whose::Confirmation => {
                let last = match self.queue.front_mut().map(|open| &mut open.effect) {
                    Some(Effect::Subscribe(left)) => {
                        self.subscribed = true;
                        *left = left.saturating_sub(1);
                        *left == 0
                    }
                    Some(Effect::Unsubscribe(left)) => {
                        *left = left.saturating_sub(1);
                        *left == 0
                    }
                    _ => true,
                };
                if !last {
                    return;
                }
            }
            Whose::Reply => {}
        }
        match self.queue.pop_front() {
            Some(mut open) => {
                let effect = open.effect;
                if let Some(jobs) = open.jobs.take_if(|_| !open.ghost) {
                    jobs.answered(open.started.id, out);
                }
                let outcome = std::mem::take(&mut self.outcome);
                let failed = outcome != Outcome::Unset;
                open.end(outcome, self.role, self.database, stamp, out);
                self.apply(effect, failed, out);
            }
            None => self.overflow = self.overflow.saturating_sub(1),
        }
        if self.queue.is_empty() && self.overflow == 0 && matches!(self.request, Request::Lost { .. }) {
            self.request = Request::Lost { quiet: true };
        }
    }

    fn apply(&mut self, effect: Effect, failed: bool, out: &mut Output<'_>) {
        match effect {
            Effect::Select(index) if self.succeeded => self.database = Some(index),
            Effect::Reset if self.succeeded => {
                self.database = Some(0);
                self.subscribed = false;
            }
            Effect::Takeover if !failed => {
                self.drop_all(crate::telemetry::Reason::Abandoned, out);
                out.switch_to(None);
            }
            _ => {}
        }
    }
}
