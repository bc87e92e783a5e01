//! The usual case at once: a message that comes whole in one chunk, on a connection where nothing else is under way and whose heads
//! repeat. Everything else takes the way through [`super::session`], which would tell the same, piece by piece.

use super::body::Body;
use super::framing::Framing;
use super::session::{Http1Session, State};
use crate::model::{Chunk, Mark};
use crate::protocol::{Output, Side};

impl Http1Session {
    /// Takes a request that is its head alone. False, and nothing is changed, if the chunk is anything else.
    #[inline]
    pub(super) fn whole_request(&mut self, chunk: &Chunk<'_>, out: &mut Output<'_>) -> bool {
        let captured_whole = chunk.head.len() == chunk.len as usize;
        let quiet = self.open.is_empty() && !self.pipelined && self.unmatched.is_none();
        let between_messages = matches!(
            (&self.client.state, &self.server.state),
            (State::Head, State::Head)
        );
        if !captured_whole || !quiet || !between_messages {
            return false;
        }
        let Some(mut last) = self.last_request.take() else {
            return false;
        };
        let whole =
            last.recall(chunk.head) == Some(chunk.head.len()) && matches!(last.told.framing, Framing::None);
        if whole {
            self.pass_whole(Side::Client, &chunk.mark, chunk.len);
            self.sizing.head(Side::Client, self.client.run);
            self.begin(&last.told, &chunk.mark, out);
            if let Some(open) = self.open.back_mut() {
                open.count(Side::Client, u64::from(chunk.len), Some(0), &chunk.mark.stamp);
                open.request.done = true;
            }
        }
        self.last_request = Some(last);
        whole
    }

    /// Takes a response whose head is captured and whose body ends with the chunk, captured or not. False, and nothing is changed, if
    /// the chunk is anything else.
    #[inline]
    pub(super) fn whole_response(&mut self, chunk: &Chunk<'_>, out: &mut Output<'_>) -> bool {
        if !matches!(self.server.state, State::Head) || self.open.len() != 1 {
            return false;
        }
        let Some(open) = self
            .open
            .front_mut()
            .filter(|open| open.request.done && !open.answered)
        else {
            return false;
        };
        let Some(head) = self.last_response.recall(chunk.head) else {
            return false;
        };
        let told = &self.last_response.told;
        let content = match told.framing {
            _ if told.status < 200 || open.is_connect => return false,
            _ if open.is_head => 0,
            Framing::None => 0,
            Framing::Body(Body::Length(content)) => content,
            _ => return false,
        };
        if (head as u64).checked_add(content) != Some(u64::from(chunk.len)) {
            return false;
        }
        let stamp = &chunk.mark.stamp;
        if open.request_last.ts > stamp.ts {
            return false;
        }
        // The response's first byte and its last have one stamp, so its end tells all.
        open.answered = true;
        open.status = Some(told.status);
        open.exchange.first_byte = Some(*stamp);
        open.count(Side::Server, u64::from(chunk.len), Some(content), stamp);
        open.response.done = true;
        self.pass_whole(Side::Server, &chunk.mark, chunk.len);
        self.positions.server_bytes(&chunk.mark, u64::from(chunk.len));
        let before = self.server.run - u64::from(chunk.len);
        self.sizing.head(Side::Server, before + head as u64);
        self.finish(out);
        true
    }

    /// A chunk of `side` holds one whole message.
    fn pass_whole(&mut self, side: Side, mark: &Mark, len: u32) {
        self.note_run(side, mark);
        self.lane(side.peer()).fresh = true;
        let lane = self.lane(side);
        if lane.fresh {
            lane.run = 0;
        }
        lane.run += u64::from(len);
        lane.fresh = false;
        lane.searched = 0;
    }
}
