//! From the kernel's clock to calendar time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use rustix::time::{ClockId, clock_gettime};

use crate::model::Nanos;

/// Tries of a measurement; the one that was interrupted least counts.
const TRIES: usize = 5;
/// Nanoseconds between two measurements.
const PERIOD: i64 = 10_000_000_000;

/// Turns CLOCK_MONOTONIC nanoseconds into UNIX nanoseconds. Copies share one offset, which is measured again now and
/// then: calendar time is stepped by operators and time daemons, and the monotonic clock stands still while the host sleeps.
///
/// Only a span's start goes through the clock; its end is the start plus the kernel clock's own difference, so a
/// correction never changes a duration.
#[derive(Clone, Debug)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    offset: AtomicI64,
    /// When to measure again, CLOCK_MONOTONIC; `i64::MAX` for a fixed clock.
    due: AtomicI64,
}

impl Clock {
    /// The host's clocks, measured now.
    #[must_use]
    pub fn system() -> Self {
        let clock = Self::with_offset(0);
        clock.measure();
        clock
            .shared
            .due
            .store(nanos(ClockId::Monotonic).saturating_add(PERIOD), Relaxed);
        clock
    }

    /// A clock that is `offset` nanoseconds ahead of CLOCK_MONOTONIC (for replays and tests).
    #[must_use]
    pub fn with_offset(offset: i64) -> Self {
        Self {
            shared: Arc::new(Shared {
                offset: AtomicI64::new(offset),
                due: AtomicI64::new(i64::MAX),
            }),
        }
    }

    /// UNIX nanoseconds at `ts`.
    #[must_use]
    pub fn unix(&self, ts: Nanos) -> u64 {
        ts.saturating_add_signed(self.shared.offset.load(Relaxed))
    }

    /// Measures the offset again if the last measurement is ten seconds old. Cheap enough for every batch.
    pub fn keep_true(&self) {
        let due = self.shared.due.load(Relaxed);
        if due == i64::MAX {
            return;
        }
        let now = nanos(ClockId::Monotonic);
        let next = now.saturating_add(PERIOD);
        if now >= due
            && self
                .shared
                .due
                .compare_exchange(due, next, Relaxed, Relaxed)
                .is_ok()
        {
            self.measure();
        }
    }

    fn measure(&self) {
        let best = (0..TRIES)
            .map(|_| {
                let before = nanos(ClockId::Monotonic);
                let calendar = nanos(ClockId::Realtime);
                let after = nanos(ClockId::Monotonic);
                let width = after.saturating_sub(before);
                (width, calendar.saturating_sub(before + width / 2))
            })
            .min_by_key(|&(width, _)| width);
        if let Some((_, offset)) = best {
            self.shared.offset.store(offset, Relaxed);
        }
    }
}

/// Now, on the clock of the events.
pub(super) fn now() -> Nanos {
    nanos(ClockId::Monotonic).unsigned_abs()
}

fn nanos(clock: ClockId) -> i64 {
    let time = clock_gettime(clock);
    time.tv_sec
        .saturating_mul(1_000_000_000)
        .saturating_add(time.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn the_clock_agrees_with_the_calendar() {
        let clock = Clock::system();
        // The calendar's reading lies between two readings of ours, whatever the machine does in between.
        let before = clock.unix(nanos(ClockId::Monotonic) as u64);
        let calendar = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
        let after = clock.unix(nanos(ClockId::Monotonic) as u64);
        let slack = 50_000_000;
        assert!(
            before <= calendar + slack && calendar <= after + slack,
            "{before} {calendar} {after}"
        );
    }

    #[test]
    fn copies_share_the_offset_and_nothing_overflows() {
        let clock = Clock::with_offset(-5);
        let copy = clock.clone();
        assert_eq!((clock.unix(7), copy.unix(3)), (2, 0));
        clock.measure();
        assert_eq!(clock.unix(10), copy.unix(10));
        assert_eq!(Clock::with_offset(i64::MAX).unix(u64::MAX), u64::MAX);
    }
}
