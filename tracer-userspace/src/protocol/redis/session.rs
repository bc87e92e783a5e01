//! Follows one connection: commands in order, replies in the same order.

use std::collections::VecDeque;
use std::sync::Arc;

use super::exchange::{Effect, Open};
use super::resp::Frame;
use crate::model::{Close, Conn, Mark, Outcome, Role, Stamp};
use crate::protocol::depth::{Depth, Limits};
use crate::protocol::{Marks, Output, Session, Side};
use crate::telemetry::Reason;

/// Most commands that wait for their replies; more are dropped, and their replies skipped in order.
const MAX_OPEN: usize = 16_384;
/// Captured of commands and of replies: the usual pipeline and array whole.
const SHALLOW: Limits = [(65_536, 16_384), (16_384, 16_384)];
/// For connections with pipelines or arrays that this is too little for.
const DEEP: Limits = [(1 << 20, 65_536), (1 << 20, 65_536)];

/// Where the client's direction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Request {
    /// The next byte begins a command.
    Aligned,
    /// So many arguments have not begun; so many bytes of the current one are still to come.
    Arguments { left: u64, skip: u64 },
    /// An argument's header was not seen. `quiet`: all that was known is answered since.
    Lost { quiet: bool },
}

/// Where the server's direction stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Response {
    /// The next byte begins a reply.
    Aligned,
    /// Inside a reply, or what came in place of one.
    Inside(Whose),
    /// A header was not seen. `complete`: the bytes so far end as a reply may end.
    Lost { complete: bool, last: Stamp },
}

/// What the current value from the server is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Whose {
    /// The reply to the oldest command.
    Reply,
    /// One of the confirmations that the oldest command gets.
    Confirmation,
    /// Nothing that was asked for.
    Push,
}

/// Whether commands get replies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Replies {
    /// They do.
    On,
    /// None, until told otherwise.
    Off,
    /// The next command gets none.
    Skip,
}

/// The session.
pub struct RedisSession {
    pub role: Role,
    pub request: Request,
    pub response: Response,
    pub frame: Frame,
    pub queue: VecDeque<Open>,
    /// Commands behind those in the queue, of which nothing but their number is known.
    pub overflow: u64,
    /// A command that gets no reply, while its arguments come.
    pub silent: Option<Open>,
    /// The newest command's arguments are still coming.
    pub request_open: bool,
    pub replies: Replies,
    pub subscribed: bool,
    /// More than one command was in flight at once.
    pub pipelined: bool,
    /// The selected database, if known.
    pub database: Option<u64>,
    /// Outcome and text of the current reply.
    pub outcome: Outcome,
    pub succeeded: bool,
    depth: Depth,
}

impl RedisSession {
    pub fn new(conn: &Arc<Conn>, local: Side) -> Self {
        Self {
            role: local.role(),
            request: Request::Aligned,
            response: Response::Aligned,
            frame: Frame::default(),
            queue: VecDeque::new(),
            overflow: 0,
            silent: None,
            request_open: false,
            replies: Replies::On,
            subscribed: false,
            pipelined: false,
            // Connections begin with database 0.
            database: (!conn.joined_late).then_some(0),
            outcome: Outcome::Unset,
            succeeded: false,
            depth: Depth::new(local, SHALLOW, DEEP),
        }
    }

    /// A command that waits for its reply.
    pub fn push(&mut self, open: Open, out: &mut Output<'_>) {
        self.depth.shallow(out);
        if self.overflow > 0 || self.queue.len() >= MAX_OPEN {
            self.overflow = self.overflow.saturating_add(1);
            out.drop_exchange(open.started.id, Reason::TooManyOpen);
            self.request_open = false;
            return;
        }
        self.pipelined |= !self.queue.is_empty();
        self.queue.push_back(open);
        self.request_open = true;
    }

    /// The newest command.
    pub fn newest(&mut self) -> Option<&mut Open> {
        if !self.request_open {
            return None;
        }
        match &mut self.silent {
            Some(open) => Some(open),
            None => self.queue.back_mut(),
        }
    }

    /// The last byte of the newest command came.
    pub fn end_request(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        if let Some(open) = self.newest()
            && !open.ghost
        {
            let id = open.started.id;
            out.request_end(id, stamp);
            if let Some(jobs) = &mut open.jobs {
                jobs.asked(id, out);
            }
        }
        self.request_open = false;
        if let Some(open) = self.silent.take() {
            open.end(Outcome::Unset, self.role, self.database, stamp, out);
        }
    }

    /// A header of the client was not seen: how many commands there were is unknown.
    pub fn lose_request(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        self.end_request(stamp, out);
        self.request = Request::Lost { quiet: false };
    }

    /// A header of the server was not seen.
    pub fn lose_response(&mut self, stamp: Stamp) {
        self.response = Response::Lost {
            complete: false,
            last: stamp,
        };
    }

    /// A new command begins while the server's direction is lost: what was asked before is answered, if the client waits
    /// for its answers.
    pub fn settle(&mut self, out: &mut Output<'_>) {
        let Response::Lost { complete, last } = self.response else {
            return;
        };
        let answered = self.queue.front().is_some_and(|open| open.first_byte.is_some());
        if self.queue.len() == 1 && self.overflow == 0 && complete && answered && !self.pipelined {
            if let Some(open) = self.queue.pop_front() {
                let outcome = std::mem::take(&mut self.outcome);
                open.end(outcome, self.role, self.database, last, out);
            }
        } else {
            self.drop_all(Reason::BytesLost, out);
        }
        self.response = Response::Aligned;
    }

    /// Drops every open exchange.
    pub fn drop_all(&mut self, reason: Reason, out: &mut Output<'_>) {
        for open in self.queue.drain(..).chain(self.silent.take()) {
            if !open.ghost {
                out.drop_exchange(open.started.id, reason);
            }
        }
        self.overflow = 0;
        self.request_open = false;
    }

    /// Counts bytes of the server for the command that they answer.
    pub fn count_response(&mut self, bytes: u64, stamp: Stamp, out: &mut Output<'_>) {
        if let Some(open) = self.queue.front_mut() {
            open.respond(stamp, out);
            open.response_bytes = open.response_bytes.saturating_add(bytes);
        }
    }
}

impl Session for RedisSession {
    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks<'_>, out: &mut Output<'_>) -> usize {
        let mut at = 0_usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let mark = marks.at(at);
            let consumed = match side {
                Side::Client => self.client(rest, &mark, out),
                Side::Server => self.server(rest, &mark, marks.now.stamp, out),
            };
            let Some(n) = consumed else { return at };
            at = at.saturating_add(n);
            if out.switch.is_some() {
                return at;
            }
        }
        at
    }

    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks<'_>, out: &mut Output<'_>) {
        let stamp = marks.now.stamp;
        let all = len.saturating_add(partial.len() as u64);
        match side {
            Side::Client => self.client_unseen(all, stamp, out),
            Side::Server => {
                if self.server_unseen(all, stamp, out) {
                    self.depth.deep(out);
                }
            }
        }
        if side == Side::Client && matches!(self.request, Request::Lost { .. }) {
            self.depth.deep(out);
        }
    }

    fn lost(&mut self, side: Side, mark: &Mark, out: &mut Output<'_>) {
        match side {
            Side::Client => {
                if let Some(open) = self.newest()
                    && !open.ghost
                {
                    open.ghost = true;
                    let id = open.started.id;
                    out.drop_exchange(id, Reason::BytesLost);
                }
                self.silent = None;
                self.lose_request(mark.stamp, out);
            }
            Side::Server => {
                self.drop_all(Reason::BytesLost, out);
                self.lose_response(mark.stamp);
            }
        }
    }

    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        let kind = match how {
            Close::Finished(_) => return,
            Close::Reset => "connection_reset",
            Close::Closed => "connection_closed",
            Close::Forgotten => return self.drop_all(Reason::Abandoned, out),
        };
        self.settle(out);
        for open in self.queue.drain(..).chain(self.silent.take()) {
            let outcome = if open.effect == Effect::Shutdown {
                Outcome::Unset
            } else {
                Outcome::Error {
                    kind: kind.into(),
                    message: "".into(),
                }
            };
            open.end(outcome, self.role, self.database, mark.stamp, out);
        }
    }
}
