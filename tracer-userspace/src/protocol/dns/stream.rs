//! Messages in a stream (RFC 1035 section 4.2.2): each has its length before it, in two bytes.
//!
//! Lengths alone tell where messages are. After a loss the stream is followed again from the next bytes that begin with a whole
//! message's length. A transfer of a zone (RFC 5936) is told by its first message.

use std::sync::Arc;

use super::message::{Flaw, Message};
use super::session::{Arrived, Lookups};
use crate::model::{Close, Conn, Mark, Stamp};
use crate::protocol::{Detect, Marks, Output, Session, Side};

/// Bytes of the length.
const PREFIX: usize = 2;
/// A header and the shortest question: the root's.
const SHORTEST: usize = 12 + 1 + 4;

/// The length that stands first, and what there is of the message.
fn framed(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<PREFIX>()?;
    let length = usize::from(u16::from_be_bytes(*length));
    Some((length, rest.get(..length).unwrap_or(rest)))
}

/// Whether the bytes begin with a message.
pub fn detect(bytes: &[u8]) -> Detect {
    let Some((length, message)) = framed(bytes) else {
        return Detect::NeedMore;
    };
    if length < SHORTEST {
        return Detect::No;
    }
    match Message::looks(message) {
        Ok(found) if found.len <= length => Detect::Yes {
            sender: found.header.sender(),
        },
        Err(Flaw::Short) if message.len() < length => Detect::NeedMore,
        Ok(_) | Err(_) => Detect::No,
    }
}

/// One connection.
pub struct StreamSession {
    lookups: Lookups,
    /// What the client sent, and the server.
    streams: [Stream; 2],
}

/// Bytes of one side.
#[derive(Default)]
struct Stream {
    /// A message whose last bytes were not captured: what is known of it, and how many bytes are still to come.
    passing: Option<(Message, Mark, u64, u64)>,
    /// Where messages begin is not known.
    is_lost: bool,
}

impl StreamSession {
    /// A connection of which nothing is known yet.
    pub fn new(conn: &Arc<Conn>, local: Side) -> Self {
        // Joined late, a stream may begin in the middle of a message.
        let stream = || Stream {
            is_lost: conn.joined_late,
            ..Stream::default()
        };
        Self {
            lookups: Lookups::new(conn, local, "tcp"),
            streams: [stream(), stream()],
        }
    }

    fn stream(&mut self, side: Side) -> &mut Stream {
        let [client, server] = &mut self.streams;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    fn arrived(
        &mut self,
        side: Side,
        message: Message,
        first: &Mark,
        last: Stamp,
        bytes: u64,
        out: &mut Output<'_>,
    ) {
        let arrived = Arrived { first, last, bytes };
        self.lookups.message(side, message, arrived, out);
    }

    /// So many of the bytes belong to a message whose rest was not captured.
    fn pass(&mut self, side: Side, len: u64, last: Stamp, out: &mut Output<'_>) -> u64 {
        let Some((message, first, bytes, left)) = self.stream(side).passing.take() else {
            return 0;
        };
        if len < left {
            self.stream(side).passing = Some((message, first, bytes, left - len));
            return len;
        }
        self.arrived(side, message, &first, last, bytes, out);
        left
    }

    /// Where messages begin is not known any more.
    fn lose(&mut self, side: Side, out: &mut Output<'_>) {
        let stream = self.stream(side);
        (stream.is_lost, stream.passing) = (true, None);
        self.lookups.lost(out);
    }
}

impl Session for StreamSession {
    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks<'_>, out: &mut Output<'_>) -> usize {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if rest.is_empty() {
                return at;
            }
            if self.stream(side).passing.is_some() {
                let left = self.stream(side).passing.as_ref().map_or(0, |passing| passing.3);
                let here = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let last = marks.stamp(at.saturating_add(here).saturating_sub(1));
                self.pass(side, here as u64, *last, out);
                at = at.saturating_add(here);
                continue;
            }
            if self.stream(side).is_lost {
                match detect(rest) {
                    Detect::Yes { .. } => self.stream(side).is_lost = false,
                    Detect::NeedMore => return at,
                    // What is left over may be the end of a message that was not seen whole: the next one begins with a chunk.
                    Detect::No if at < marks.carried => {
                        at = marks.carried;
                        continue;
                    }
                    Detect::No => return bytes.len(),
                }
            }
            let Some((length, body)) = framed(rest).filter(|(length, body)| body.len() == *length) else {
                return at;
            };
            let whole = PREFIX.saturating_add(length);
            // What can't be read is passed over: its length is known.
            if let Ok(message) = Message::read(body) {
                let last = *marks.stamp(at.saturating_add(whole).saturating_sub(1));
                self.arrived(side, message, &marks.at(at), last, whole as u64, out);
            }
            at = at.saturating_add(whole);
        }
    }

    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks<'_>, out: &mut Output<'_>) {
        if self.stream(side).passing.is_none()
            && !self.stream(side).is_lost
            && let Some((length, body)) = framed(partial)
            && let Ok(message) = Message::read_datagram(body)
        {
            let whole = PREFIX.saturating_add(length) as u64;
            let left = whole.saturating_sub(partial.len() as u64);
            self.stream(side).passing = Some((message, *marks.first, whole, left));
        }
        // More than the rest of one message: where the next one begins was not seen.
        if self.pass(side, len, marks.now.stamp, out) < len {
            self.lose(side, out);
        }
    }

    fn lost(&mut self, side: Side, _mark: &Mark, out: &mut Output<'_>) {
        self.lose(side, out);
    }

    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>) {
        self.lookups.close(how, mark, out);
    }
}
