//! What a session may say.

use std::sync::Arc;

use super::Side;
use crate::model::{
    Attributes, Begin, Conn, Exchange, ExchangeId, Job, Mark, MessageIdentity, Nanos, Outcome, Role, Signal,
    SignalKind, Stamp, Taken, TraceContext,
};
use crate::telemetry::{Ledger, Reason};

/// How much of a connection the kernel should capture from now on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CapturePolicy {
    /// Nothing: the connection is of no interest any more.
    Ignore,
    /// Most bytes of one run and of one chunk: of what the local process sends, and of what it receives. The rest is counted
    /// (and each chunk's last [`tracer_common::TAIL_BYTES`] bytes are kept).
    Limit {
        /// Run and chunk limit of sent bytes.
        send: (u32, u32),
        /// Run and chunk limit of received bytes.
        recv: (u32, u32),
    },
}

impl CapturePolicy {
    /// Run and chunk limits of requests and of responses, at the end that plays the part `local`.
    #[must_use]
    pub const fn by_side(local: Side, requests: (u32, u32), responses: (u32, u32)) -> Self {
        match local {
            Side::Client => Self::Limit {
                send: requests,
                recv: responses,
            },
            Side::Server => Self::Limit {
                send: responses,
                recv: requests,
            },
        }
    }
}

/// The beginning of an exchange, as its session remembers it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Started {
    /// The exchange.
    pub id: ExchangeId,
    /// First byte of the request.
    pub start: Stamp,
    /// How long it waited in the socket buffer, if known.
    pub queue_time: Option<Nanos>,
}

impl Started {
    /// The exchange as far as its beginning tells: without a response, and over at once.
    #[must_use]
    pub fn exchange(self, conn: &Arc<Conn>, protocol: &'static str, role: Role, name: Arc<str>) -> Exchange {
        Exchange {
            id: self.id,
            conn: Arc::clone(conn),
            protocol,
            role,
            start: self.start,
            first_byte: None,
            end: self.start,
            queue_time: self.queue_time,
            request_bytes: 0,
            response_bytes: 0,
            name,
            outcome: Outcome::Unset,
            attributes: Attributes::default(),
            context: None,
        }
    }
}

/// Collects what sessions say during one call. Created by the caller of the session for each chunk.
pub struct Output<'a> {
    /// The connection.
    pub conn: &'a Arc<Conn>,
    /// When the current chunk was moved: the time of every signal said now.
    pub now: Nanos,
    /// Where signals go.
    pub signals: &'a mut Vec<Signal>,
    /// The last exchange id given out by this worker.
    pub last_id: &'a mut u64,
    /// The ledger.
    pub ledger: &'a Ledger,
    /// What the session wants captured, if it said so.
    pub policy: &'a mut Option<CapturePolicy>,
    /// Who took the connection for the next request that is sent on it, if that was told.
    pub taken: Option<Taken>,
    /// Set when the connection is to be followed by another protocol from here on (Upgrade), or by none (`""`).
    pub switch: &'a mut Option<&'static str>,
    /// Why exchanges go no further that are open when the connection is given up.
    pub given_up: Reason,
}

impl Output<'_> {
    /// An exchange has begun with the byte at `mark`. Counts it as seen.
    pub fn begin(&mut self, role: Role, mark: &Mark, context: Option<Arc<TraceContext>>) -> Started {
        *self.last_id += 1;
        let id = ExchangeId(*self.last_id);
        self.ledger.seen(1);
        let identity = mark.has_position.then_some(MessageIdentity {
            pos: mark.pos,
            peer_pos: mark.peer_pos,
        });
        let taken = self.taken.take().filter(|_| !role.is_inbound());
        self.say(SignalKind::Begin(Begin {
            id,
            conn: Arc::clone(self.conn),
            role,
            start: mark.stamp,
            identity,
            context,
            taken: taken.map(Box::new),
        }));
        let queue_time = (mark.arrival != 0).then(|| mark.stamp.ts.saturating_sub(mark.arrival));
        Started {
            id,
            start: mark.stamp,
            queue_time,
        }
    }

    /// The request's last byte was moved.
    pub fn request_end(&mut self, id: ExchangeId, stamp: Stamp) {
        let begun_so =
            |last: &Signal| matches!(&last.kind, SignalKind::Begin(b) if b.id == id && b.start == stamp);
        if !self.signals.last().is_some_and(begun_so) {
            self.say(SignalKind::RequestEnd(id, stamp));
        }
    }

    /// The first byte of the response was moved.
    pub fn respond(&mut self, id: ExchangeId, stamp: Stamp) {
        self.say(SignalKind::Respond(id, stamp));
    }

    /// The exchange puts work off, or takes some.
    pub fn job(&mut self, id: ExchangeId, job: Job) {
        self.say(SignalKind::Job(id, job));
    }

    /// The exchange is over.
    pub fn end(&mut self, exchange: impl Into<Box<Exchange>>) {
        let exchange = exchange.into();
        let ts = self.now;
        if let Some(last) = self.signals.last_mut()
            && matches!(last.kind, SignalKind::Respond(id, stamp)
                if id == exchange.id && exchange.first_byte == Some(stamp) && exchange.end == stamp)
        {
            *last = Signal {
                ts,
                kind: SignalKind::End(exchange),
            };
            return;
        }
        self.say(SignalKind::End(exchange));
    }

    /// The exchange is over and can't be told truthfully. Counts it as dropped.
    pub fn drop_exchange(&mut self, id: ExchangeId, reason: Reason) {
        let reason = match reason {
            Reason::Abandoned => self.given_up,
            reason => reason,
        };
        self.ledger.dropped(None, reason, 1);
        self.say(SignalKind::Drop(id, reason));
    }

    /// Sets how much of the connection is captured from now on.
    pub fn capture(&mut self, policy: CapturePolicy) {
        *self.policy = Some(policy);
    }

    /// From the next byte on, in both directions, the connection speaks another protocol; `None`: one we don't follow.
    pub fn switch_to(&mut self, protocol: Option<&'static str>) {
        *self.switch = Some(protocol.unwrap_or(""));
    }

    fn say(&mut self, kind: SignalKind) {
        self.signals.push(Signal { ts: self.now, kind });
    }
}
