//! What stream positions tell after losses. Every chunk says how far the other direction had come, so a request shows
//! whether the response to the one before it had been read, and where its own response begins, even if events were lost.
//! This holds without pipelining only, where a request follows the whole response before it.

use super::session::{Http1Session, State};
use crate::model::Mark;
use crate::protocol::{Output, Side};
use crate::telemetry::Reason;

/// A distance beyond this is none: positions are modulo 2^32.
const AHEAD: u32 = 1 << 30;

/// Positions that are known on one connection.
#[derive(Default)]
pub(super) struct Positions {
    /// Behind the last byte of the server that was told or skipped.
    server_end: Option<u32>,
    /// Where the response to the open request begins.
    answer_at: Option<u32>,
}

impl Positions {
    /// Bytes of the server, `len` of them from `mark` on, were told or skipped.
    pub(super) fn server_bytes(&mut self, mark: &Mark, len: u64) {
        self.server_end = mark.has_position.then(|| mark.pos.wrapping_add(len as u32));
    }
}

impl Http1Session {
    /// Whether the chunk begins a run: the other side has moved since this side's last chunk, seen or unseen.
    pub(super) fn note_run(&mut self, side: Side, now: &Mark) {
        if now.has_position {
            let lane = self.lane(side);
            if lane.peer_pos.replace(now.peer_pos) != Some(now.peer_pos) {
                lane.fresh = true;
            }
        }
    }

    /// A request begins at `first` while another is open. If the server has sent bytes since that nobody saw, they were the
    /// response to the open one: it was lost, and this is no pipelining.
    pub(super) fn notice_lost_response(&mut self, first: &Mark, out: &mut Output<'_>) {
        let unseen = match (first.has_position, self.positions.server_end) {
            (true, Some(end)) => first.peer_pos.wrapping_sub(end),
            _ => 0,
        };
        if self.pipelined || unseen == 0 || unseen > AHEAD {
            return;
        }
        self.drop_all(Reason::BytesLost, out);
        self.server.enter(State::Lost);
    }

    /// Remembers where the response to the request that begins at `first` begins.
    pub(super) fn expect_answer(&mut self, first: &Mark) {
        self.positions.answer_at = (first.has_position && !self.pipelined).then_some(first.peer_pos);
    }

    /// Whether bytes of the server that were skipped end exactly where the response to the only open request begins.
    pub(super) fn answer_follows(&self, mark: &Mark, len: u64) -> bool {
        let end = mark.pos.wrapping_add(len as u32);
        mark.has_position
            && self.positions.answer_at == Some(end)
            && self.open.len() == 1
            && self.open.front().is_some_and(|open| !open.answered)
    }
}
