//! Trace and span ids: random, seeded by the operating system, never zero.
//!
//! The first 32 bits of a trace id are the UNIX time in seconds, as AWS X-Ray wants it
//! (<https://docs.aws.amazon.com/xray/latest/devguide/xray-api-sendingdata.html#xray-api-traceids>); the other 96 are random, more
//! than the 56 at the right that the W3C's rules for random trace ids ask for.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{SystemTime, UNIX_EPOCH};

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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let high = now.as_secs() << 32 | u64::from(self.high.u32(..));
        let low = non_zero(&mut self.low);
        TraceId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }
}

fn non_zero(rng: &mut fastrand::Rng) -> u64 {
    rng.u64(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trace_ids_begin_with_the_time_and_differ() {
        let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut ids = Ids::new();
        let before = now();
        let traces: Vec<_> = (0..1000).map(|_| ids.trace().0).collect();
        let after = now();
        for trace in &traces {
            let time = u64::from(u32::from_be_bytes(*trace.first_chunk().unwrap()));
            assert!((before..=after).contains(&time), "{time}");
        }
        for part in [4..8, 8..16] {
            let mut parts: Vec<_> = traces.iter().map(|trace| &trace[part.clone()]).collect();
            parts.sort();
            parts.dedup();
            assert!(parts.len() > 990, "{part:?} is random");
        }
    }
}
