//! Trace and span ids: random, seeded by the operating system, never zero.

use std::hash::{BuildHasher, Hasher, RandomState};

use crate::model::{SpanId, TraceId};

/// Two generators with seeds of their own: hosts that share one 64-bit seed by chance still don't share trace ids.
pub(super) struct Ids {
    high: fastrand::Rng,
    low: fastrand::Rng,
}

impl Ids {
    pub fn new() -> Self {
        // `RandomState` takes its keys from the operating system.
        let seed = || RandomState::new().build_hasher().finish();
        Self {
            high: fastrand::Rng::with_seed(seed()),
            low: fastrand::Rng::with_seed(seed()),
        }
    }

    pub fn span(&mut self) -> SpanId {
        SpanId(non_zero(&mut self.low).to_be_bytes())
    }

    pub fn trace(&mut self) -> TraceId {
        let (high, low) = (self.high.u64(..), non_zero(&mut self.low));
        TraceId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }
}

fn non_zero(rng: &mut fastrand::Rng) -> u64 {
    rng.u64(1..)
}
