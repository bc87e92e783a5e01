//! What is received before that to which it is the answer is told. The kernel tells of bytes that were sent at the end of the system call (the
//! tracepoint `sock_send_length`): if the thread that sends is held up before that, another thread of the program may read the answer meanwhile
//! (Go's and Java's clients, tokio). Each chunk tells how far the other direction had come, so such a one shows; it waits until what was sent is
//! told, too, or has been lost.

use std::collections::VecDeque;

use hashbrown::HashMap;
use tracer_common::EventHeader;

use crate::model::{ConnId, Nanos};

/// So long a chunk waits.
const PATIENCE: Nanos = 50_000_000;
/// Most chunks of a connection that wait, most connections where some do, and most bytes in all of them.
const MAX_EVENTS: usize = 16;
const MAX_CONNECTIONS: usize = 1_024;
const MAX_BYTES: usize = 4 << 20;

/// The events that wait.
#[derive(Default)]
pub struct Overtaken {
    waiting: HashMap<ConnId, Vec<Event>>,
    /// Their bytes.
    bytes: usize,
    /// When the oldest of each connection has waited long enough.
    due: VecDeque<(Nanos, ConnId)>,
    /// Up to where what was sent is known to have been lost.
    lost: HashMap<ConnId, u32>,
}

/// An event and its bytes.
pub struct Event {
    pub header: EventHeader,
    pub head: Vec<u8>,
    pub tail: Vec<u8>,
}

impl Event {
    fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }
}

impl Overtaken {
    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the first event of the connection that waits was received.
    pub fn since(&self, id: ConnId) -> Option<Nanos> {
        self.waiting.get(&id)?.first().map(|event| event.header.ts)
    }

    /// Keeps the event; `false` if it is not to wait (any longer).
    pub fn hold(&mut self, header: &EventHeader, head: &[u8], tail: &[u8], now: Nanos) -> bool {
        let id = ConnId(header.cookie);
        let due = header.ts.saturating_add(PATIENCE);
        let is_lost = |lost: &u32| lost.wrapping_sub(header.peer_pos) <= u32::MAX / 2;
        if now >= due || self.lost.get(&id).is_some_and(is_lost) {
            return false;
        }
        let is_new = !self.waiting.contains_key(&id);
        let bytes = self.bytes + head.len() + tail.len();
        if is_new && self.waiting.len() >= MAX_CONNECTIONS || bytes > MAX_BYTES {
            return false;
        }
        let events = self.waiting.entry(id).or_default();
        if events.len() >= MAX_EVENTS {
            return false;
        }
        self.bytes = bytes;
        events.push(Event {
            header: *header,
            head: head.to_vec(),
            tail: tail.to_vec(),
        });
        if is_new {
            self.due.push_back((due, id));
        }
        true
    }

    /// The events of the connection that wait, oldest first.
    pub fn take(&mut self, id: ConnId) -> Vec<Event> {
        let events = self.waiting.remove(&id).unwrap_or_default();
        self.bytes -= events.iter().map(Event::len).sum::<usize>();
        events
    }

    /// The same, which wait no longer: what they wait for was lost.
    pub fn give_up(&mut self, id: ConnId) -> Vec<Event> {
        let events = self.take(id);
        if let Some(last) = events.last() {
            if self.lost.len() >= MAX_CONNECTIONS {
                self.lost.clear();
            }
            self.lost.insert(id, last.header.peer_pos);
        }
        events
    }

    /// A connection that has waited long enough.
    pub fn overdue(&mut self, now: Nanos) -> Option<ConnId> {
        while let Some(&(due, id)) = self.due.front().filter(|(due, _)| *due <= now) {
            self.due.pop_front();
            let Some(event) = self.waiting.get(&id).and_then(|events| events.first()) else {
                continue;
            };
            // What waits now may have come later than what was waited for then.
            let its_due = event.header.ts.saturating_add(PATIENCE);
            if its_due > due {
                self.due.push_back((its_due, id));
                continue;
            }
            return Some(id);
        }
        None
    }

    /// All connections where something waits.
    pub fn all(&self) -> Vec<ConnId> {
        self.waiting.keys().copied().collect()
    }

    /// The connection has ended.
    pub fn forget(&mut self, id: ConnId) {
        self.lost.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded() {
        let mut overtaken = Overtaken::default();
        let bytes = vec![0; MAX_BYTES / 8];
        let header = |cookie| EventHeader {
            cookie,
            ..EventHeader::EMPTY
        };
        for cookie in 0..8 {
            assert!(overtaken.hold(&header(cookie), &bytes, &[], 0));
        }
        assert!(!overtaken.hold(&header(9), &[0], &[], 0), "no room for its bytes");
        assert_eq!(overtaken.take(ConnId(3)).len(), 1);
        for _ in 0..MAX_EVENTS {
            assert!(overtaken.hold(&header(9), &[0], &[0], 0));
        }
        assert!(
            !overtaken.hold(&header(9), &[], &[], 0),
            "too many of one connection"
        );
        for cookie in overtaken.all() {
            overtaken.take(cookie);
        }
        assert_eq!(overtaken.bytes, 0);
    }
}
