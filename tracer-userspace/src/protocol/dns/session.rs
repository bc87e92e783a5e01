//! Lookups of one socket, several at a time: a response belongs to the query with its id and its question. And datagrams that hold them.

use std::sync::Arc;

use super::message::{Message, Question};
use super::{NAME, records};
use crate::model::{Chunk, Close, Conn, Exchange, Mark, Nanos, Outcome, Role, Stamp};
use crate::protocol::semconv::dns;
use crate::protocol::{CapturePolicy, Marks, Output, Session, Side, Started};
use crate::telemetry::Reason;

/// Lookups that wait for their response on one socket. Ids have 16 bits; resolvers ask some at a time.
const MAX_OPEN: usize = 256;
/// A lookup that nobody has answered for so long has failed: resolvers ask again, or give up, after 5 s (resolv.conf(5)).
const TIMEOUT: Nanos = 10_000_000_000;

/// One socket's lookups.
pub struct Lookups {
    conn: Arc<Conn>,
    local: Side,
    /// Value of `network.transport`.
    transport: &'static str,
    open: Vec<Lookup>,
}

/// Where a message stands.
pub struct Arrived<'a> {
    /// Its first byte.
    pub first: &'a Mark,
    /// Its last one.
    pub last: Stamp,
    /// Bytes on the wire.
    pub bytes: u64,
}

struct Lookup {
    started: Started,
    id: u16,
    question: Question,
    request_bytes: u64,
}

impl Lookups {
    /// A socket of which nothing is known yet.
    pub fn new(conn: &Arc<Conn>, local: Side, transport: &'static str) -> Self {
        Self {
            conn: Arc::clone(conn),
            local,
            transport,
            open: Vec::new(),
        }
    }

    /// The next message of that side.
    pub fn message(&mut self, side: Side, message: Message, arrived: Arrived<'_>, out: &mut Output<'_>) {
        if self.local == Side::Server {
            // A span is the asker's; at a server's socket there are many of them.
            return out.capture(CapturePolicy::Ignore);
        }
        self.expire(arrived.first.stamp.ts, out);
        match (side, message.header.is_response()) {
            (Side::Client, false) => self.query(message, &arrived, out),
            (Side::Server, true) => self.response(&message, &arrived, out),
            _ => {}
        }
    }

    fn query(&mut self, message: Message, arrived: &Arrived<'_>, out: &mut Output<'_>) {
        let Some(question) = message.question.filter(|_| message.header.opcode() == 0) else {
            return;
        };
        let id = message.header.id;
        let asked = self
            .open
            .iter_mut()
            .find(|lookup| lookup.id == id && lookup.question == question);
        if let Some(again) = asked {
            again.request_bytes += arrived.bytes; // the same one, sent again
            return;
        }
        if self.open.len() >= MAX_OPEN {
            let oldest = self.open.remove(0);
            out.drop_exchange(oldest.started.id, Reason::TooManyOpen);
        }
        let started = out.begin(Role::Client, arrived.first, None);
        out.request_end(started.id, arrived.last);
        self.open.push(Lookup {
            started,
            id,
            question,
            request_bytes: arrived.bytes,
        });
    }

    fn response(&mut self, message: &Message, arrived: &Arrived<'_>, out: &mut Output<'_>) {
        // One without a question (RFC 9619) answers what has its id; with another question it answers nothing that was asked here.
        let is_answered = |lookup: &Lookup| {
            lookup.id == message.header.id
                && message
                    .question
                    .as_ref()
                    .is_none_or(|question| same(question, &lookup.question))
        };
        let Some(at) = self.open.iter().position(is_answered) else {
            return;
        };
        let lookup = self.open.remove(at);
        let outcome = match message.code {
            0 => Outcome::Unset,
            code => Outcome::Error {
                kind: records::code(code),
                message: Box::default(),
            },
        };
        let mut exchange = self.exchange(lookup, arrived.last, outcome);
        exchange.first_byte = Some(arrived.first.stamp);
        exchange.response_bytes = arrived.bytes;
        let attributes = &mut exchange.attributes;
        attributes.push_str(dns::RESPONSE_CODE, &records::code(message.code));
        attributes.push_int(dns::ANSWERS_COUNT, i64::from(message.header.answers()));
        if message.header.is_truncated() {
            attributes.push_bool(dns::TRUNCATED, true);
        }
        out.end(exchange);
    }

    fn exchange(&self, lookup: Lookup, end: Stamp, outcome: Outcome) -> Exchange {
        let Question { name, kind, .. } = &lookup.question;
        let kind = records::kind(*kind);
        let title = format!("{kind} {name}").into();
        let mut exchange = Exchange {
            end,
            request_bytes: lookup.request_bytes,
            outcome,
            ..lookup.started.exchange(&self.conn, NAME, Role::Client, title)
        };
        exchange.attributes.push_str(dns::QUESTION_NAME, name);
        exchange.attributes.push_str(dns::QUESTION_TYPE, &kind);
        exchange
            .attributes
            .push_static(dns::NETWORK_TRANSPORT, self.transport);
        exchange
    }

    /// Ends what has waited for too long.
    fn expire(&mut self, now: Nanos, out: &mut Output<'_>) {
        while let Some(oldest) = self.open.first()
            && now.saturating_sub(oldest.started.start.ts) >= TIMEOUT
        {
            let lookup = self.open.remove(0);
            let start = lookup.started.start;
            let end = Stamp {
                ts: start.ts.saturating_add(TIMEOUT),
                ..start
            };
            let outcome = Outcome::Error {
                kind: "timeout".into(),
                message: "no response in 10 s".into(),
            };
            out.end(self.exchange(lookup, end, outcome));
        }
    }

    fn drop_all(&mut self, reason: Reason, out: &mut Output<'_>) {
        for lookup in self.open.drain(..) {
            out.drop_exchange(lookup.started.id, reason);
        }
    }
}

impl Lookups {
    /// A response may be what was lost.
    pub fn lost(&mut self, out: &mut Output<'_>) {
        self.drop_all(Reason::BytesLost, out);
    }

    /// The socket is gone.
    pub fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        if let Close::Finished(_) = how {
            return;
        }
        self.expire(mark.stamp.ts, out);
        let kind = match how {
            Close::Reset => "connection_reset",
            Close::Closed if self.transport == "tcp" => "connection_closed",
            Close::Closed | Close::Forgotten | Close::Finished(_) => {
                return self.drop_all(Reason::Abandoned, out);
            }
        };
        for lookup in std::mem::take(&mut self.open) {
            let outcome = Outcome::Error {
                kind: kind.into(),
                message: Box::default(),
            };
            out.end(self.exchange(lookup, mark.stamp, outcome));
        }
    }
}

/// Servers may repeat a name in other letters (RFC 4343), though most keep them.
fn same(a: &Question, b: &Question) -> bool {
    (a.kind, a.class) == (b.kind, b.class) && a.name.eq_ignore_ascii_case(&b.name)
}

/// A socket that sends datagrams.
pub struct DatagramSession(Lookups);

impl DatagramSession {
    /// A socket of which nothing is known yet.
    pub fn new(conn: &Arc<Conn>, local: Side) -> Self {
        Self(Lookups::new(conn, local, "udp"))
    }
}

impl Session for DatagramSession {
    /// A datagram is one message, captured whole or not; what is no message stands for itself alone.
    fn whole(&mut self, side: Side, chunk: &Chunk<'_>, out: &mut Output<'_>) -> bool {
        if let Ok(message) = Message::read_datagram(chunk.head) {
            let arrived = Arrived {
                first: &chunk.mark,
                last: chunk.mark.stamp,
                bytes: u64::from(chunk.len),
            };
            self.0.message(side, message, arrived, out);
        }
        true
    }

    /// Nothing comes in pieces.
    fn bytes(&mut self, _side: Side, bytes: &[u8], _marks: &Marks<'_>, _out: &mut Output<'_>) -> usize {
        bytes.len()
    }

    fn skipped(
        &mut self,
        _side: Side,
        _partial: &[u8],
        _len: u64,
        _marks: &Marks<'_>,
        _out: &mut Output<'_>,
    ) {
    }

    fn lost(&mut self, _side: Side, _mark: &Mark, out: &mut Output<'_>) {
        self.0.lost(out);
    }

    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        self.0.close(how, mark, out);
    }
}
