//! How much of a connection the kernel should capture: as much as its heads need.

use crate::protocol::{CapturePolicy, Side};

/// Least that is asked for: a head grows by a cookie.
const LEAST: u32 = 96;

/// Most of one chunk that is asked for.
const MOST: u32 =
    (tracer_common::SIZE_CLASSES[tracer_common::SIZE_CLASSES.len() - 1] - tracer_common::TAIL_BYTES) as u32;

/// Limits per side, as the heads seen so far ask for.
#[derive(Default)]
pub struct Sizing {
    limits: [u32; 2],
    pipelined: bool,
    told: bool,
}

impl Sizing {
    /// A head ended `len` bytes after the beginning of its run.
    pub fn head(&mut self, side: Side, len: u64) {
        let len = u32::try_from(len).unwrap_or(MOST).min(MOST);
        // An eighth of head-room is enough to stay, a quarter is asked for, so that the policy seldom changes.
        if len + len / 8 > *self.limit(side) {
            self.ask(side, (len + len / 4 + 32).next_multiple_of(32).clamp(LEAST, MOST));
        }
    }

    /// A head was cut after `len` bytes.
    pub fn cut(&mut self, side: Side, len: usize) {
        let wanted = u32::try_from(len.saturating_mul(4)).unwrap_or(MOST);
        self.ask(side, wanted.clamp(4 * LEAST, MOST));
    }

    /// Requests are pipelined: heads lie anywhere in a run.
    pub fn pipelined(&mut self) {
        self.told &= self.pipelined;
        self.pipelined = true;
    }

    fn limit(&mut self, side: Side) -> &mut u32 {
        let [client, server] = &mut self.limits;
        match side {
            Side::Client => client,
            Side::Server => server,
        }
    }

    fn ask(&mut self, side: Side, wanted: u32) {
        let limit = self.limit(side);
        if wanted > *limit {
            *limit = wanted;
            self.told = false;
        }
    }

    /// The policy, if it has changed since the last call and both sides' heads are known.
    pub fn policy(&mut self, local: Side) -> Option<CapturePolicy> {
        let [client, server] = self.limits;
        if self.told || client == 0 || server == 0 {
            return None;
        }
        self.told = true;
        let limit = |head: u32| match self.pipelined {
            true => (u32::MAX, MOST),
            false => (head, head),
        };
        let (send, recv) = match local {
            Side::Client => (limit(client), limit(server)),
            Side::Server => (limit(server), limit(client)),
        };
        Some(CapturePolicy::Limit { send, recv })
    }
}
