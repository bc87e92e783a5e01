//! What is usual at each endpoint: how often it is asked, and how long the slowest hundredth of its requests take.

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{Nanos, Span};

/// Endpoints that are known; the usual of further ones is not.
const MAX_ENDPOINTS: usize = 4_096;
/// Requests before a percentile means something.
const ENOUGH: u32 = 200;
/// Requests after which all counts are halved, so that the past fades.
const FADE: u32 = 8_192;
/// Buckets for each doubling of a duration, 9% wide.
const FINE: u32 = 3;
const BUCKETS: usize = 40 << FINE;
/// How often the percentile is worked out.
const EVERY: u32 = 64;
const MINUTE: Nanos = 60_000_000_000;

struct Endpoint {
    counts: Box<[u16; BUCKETS]>,
    total: u32,
    since: u32,
    slow_from: usize,
    minute: Nanos,
    in_minute: u32,
}

/// All endpoints.
#[derive(Default)]
pub struct Endpoints {
    known: HashMap<(Box<str>, Arc<str>), Endpoint>,
}

/// How a request compares with others at its endpoint.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Usual {
    /// It took longer than 99% of them.
    pub is_slow: bool,
    /// How many there were in this minute before.
    pub before: u32,
}

impl Endpoints {
    /// Compares a request with those before it, and counts it.
    pub fn compare(&mut self, span: &Span, duration: Nanos, now: Nanos) -> Usual {
        let key = (span.service.name.clone(), Arc::clone(&span.exchange.name));
        if self.known.len() >= MAX_ENDPOINTS && !self.known.contains_key(&key) {
            // Endpoints that were not asked in the last minute make room.
            self.known
                .retain(|_, endpoint| endpoint.minute.saturating_add(MINUTE) > now);
            if self.known.len() >= MAX_ENDPOINTS {
                return Usual {
                    before: u32::MAX,
                    ..Usual::default()
                };
            }
        }
        let endpoint = self.known.entry(key).or_insert_with(|| Endpoint {
            counts: Box::new([0; BUCKETS]),
            total: 0,
            since: 0,
            slow_from: BUCKETS,
            minute: now,
            in_minute: 0,
        });
        endpoint.compare(duration, now)
    }
}

impl Endpoint {
    fn compare(&mut self, duration: Nanos, now: Nanos) -> Usual {
        if now >= self.minute.saturating_add(MINUTE) {
            (self.minute, self.in_minute) = (now, 0);
        }
        let bucket = bucket(duration);
        let usual = Usual {
            is_slow: bucket >= self.slow_from,
            before: self.in_minute,
        };
        self.in_minute = self.in_minute.saturating_add(1);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.total += 1;
        self.since += 1;
        if self.since >= EVERY {
            self.since = 0;
            self.slow_from = self.percentile();
        }
        if self.total >= FADE {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().map(|&count| u32::from(count)).sum();
        }
        usual
    }

    /// The first bucket that lies above 99% of the requests.
    fn percentile(&self) -> usize {
        if self.total < ENOUGH {
            return BUCKETS;
        }
        let mut above = 0;
        for (bucket, &count) in self.counts.iter().enumerate().rev() {
            above += u32::from(count);
            if above > self.total / 100 {
                return bucket + 1;
            }
        }
        BUCKETS
    }
}

/// The bucket of a duration: its number of binary digits, and the digits behind the first.
fn bucket(duration: Nanos) -> usize {
    let value = duration.max(1 << FINE);
    let exponent = 63 - value.leading_zeros();
    let fraction = (value >> (exponent - FINE)) & ((1 << FINE) - 1);
    ((((exponent - FINE) << FINE) as usize) + fraction as usize).min(BUCKETS - 1)
}
