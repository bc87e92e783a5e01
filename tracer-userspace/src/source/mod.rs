//! Ring buffers -> events in one time order.
//!
//! Programs write to one ring per CPU without waking anybody; this side empties the rings on a timer and merges
//! them. Callers see slices of ring memory: nothing is copied, and once its list has grown nothing is allocated.

mod epoll;
mod ring;
#[cfg(test)]
mod tests;

use std::{io, os::fd::OwnedFd, time::Duration};

use tracer_common::EventHeader;

use epoll::Epoll;
use ring::{Ring, Slot};

/// Events younger than this wait for the next turn: a program takes an event's time before it reserves its place, so
/// another ring may still get an older one.
const REORDER_NANOS: u64 = 1_000_000;

/// Most events of one ring that one turn takes up.
const MAX_PER_RING: usize = 8_192;

/// Pauses between turns: the shortest and the longest while events come, and when none has come for a turn or some.
const BUSY: [Duration; 2] = [Duration::from_millis(2), Duration::from_millis(8)];
const QUIET: Duration = Duration::from_millis(4);

/// Pauses get longer while the fullest ring is not fuller than this part of it, and shorter where it is twice as full. A turn costs a
/// sleep, a wake-up and the exporters' hand-over, however few events it finds; and a ring that is half full wakes the reader.
const FULL_ENOUGH: usize = 16;

/// The pause when nothing has come for [`QUIET_TURNS`] turns. The next event ends it.
const ASLEEP: Duration = Duration::from_millis(200);
const QUIET_TURNS: u32 = 3;

/// Tells the programs that the reader sleeps: from now on the next event wakes it.
pub type Alarm = Box<dyn FnMut() -> io::Result<()> + Send>;

/// What one turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Drained {
    /// Events delivered.
    pub events: usize,
    /// Records that could not be decoded.
    pub malformed: usize,
    /// Every event up to this time (CLOCK_MONOTONIC nanoseconds) has been delivered.
    pub watermark: u64,
    /// How long to wait before the next turn ([`Source::wait`]); zero if there is more already.
    pub pause: Duration,
}

/// All rings of one capture.
pub struct Source {
    rings: Vec<Lane>,
    epoll: Epoll,
    batch: Vec<Found>,
    watermark: u64,
    /// Turns in a row that found nothing.
    quiet: u32,
    /// The pause while events come.
    busy: Duration,
    alarm: Alarm,
}

struct Lane {
    ring: Ring,
    /// Nothing older than this can still appear in this ring.
    settled: u64,
    /// Position after the last event that this turn delivers.
    next: usize,
}

/// A record that this turn may deliver.
#[derive(Clone, Copy)]
struct Found {
    ts: u64,
    lane: u32,
    len: u32,
    start: usize,
    next: usize,
}

impl Source {
    /// Reads the given rings: (descriptor, capacity in bytes).
    pub fn new(rings: Vec<(OwnedFd, usize)>, alarm: Alarm) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let rings = rings
            .into_iter()
            .map(|(fd, capacity)| {
                let ring = Ring::new(fd, capacity)?;
                epoll.add(ring.fd())?;
                Ok(Lane {
                    next: ring.position(),
                    ring,
                    settled: 0,
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            rings,
            epoll,
            batch: Vec::with_capacity(1024),
            watermark: 0,
            quiet: 0,
            busy: BUSY[0],
            alarm,
        })
    }

    /// Bytes that wait in all rings, and bytes that these hold.
    #[must_use]
    pub fn fill(&self) -> (u64, u64) {
        self.rings.iter().fold((0, 0), |(used, size), lane| {
            let waits = lane.ring.end().wrapping_sub(lane.ring.position());
            (used + waits as u64, size + lane.ring.capacity() as u64)
        })
    }

    /// Delivers what has come, oldest first: header, bytes from the chunk's start, bytes from its end.
    pub fn drain(&mut self, deliver: impl FnMut(&EventHeader, &[u8], &[u8])) -> Drained {
        let now = monotonic();
        self.drain_until(now, now.saturating_sub(REORDER_NANOS), deliver)
    }

    /// Delivers everything that is complete, however young. For the end, when the programs are detached.
    pub fn drain_all(&mut self, deliver: impl FnMut(&EventHeader, &[u8], &[u8])) -> Drained {
        self.drain_until(monotonic(), u64::MAX, deliver)
    }

    fn drain_until(
        &mut self,
        now: u64,
        horizon: u64,
        mut deliver: impl FnMut(&EventHeader, &[u8], &[u8]),
    ) -> Drained {
        self.batch.clear();
        let mut horizon = horizon;
        let mut more = false;
        for (index, lane) in self.rings.iter_mut().enumerate() {
            let taken = lane.collect(index, now, horizon, &mut self.batch);
            more |= taken.more;
            horizon = horizon.min(taken.settled);
        }
        // A ring that comes later may have lowered the horizon: what is younger stays, and so does all that follows it
        // in its ring, because a ring is given back in order.
        let mut blocked = 0u64;
        let rings = &mut self.rings;
        self.batch.retain(|found| {
            let bit = 1u64 << (found.lane & 63);
            if found.ts > horizon {
                blocked |= bit;
            }
            if blocked & bit != 0 {
                return false;
            }
            if let Some(lane) = rings.get_mut(found.lane as usize) {
                lane.next = found.next;
            }
            true
        });
        // Each ring is nearly in order, which this sort makes use of; equal times stay in the order of rings and places.
        self.batch.sort_by_key(|found| found.ts);
        let mut malformed = 0;
        for found in &self.batch {
            let Some(lane) = self.rings.get(found.lane as usize) else {
                continue;
            };
            match EventHeader::decode(lane.ring.bytes(found.start, found.len as usize)) {
                Some((header, head, tail)) => deliver(&header, head, tail),
                None => malformed += 1,
            }
        }
        let mut fullness = None;
        for lane in &mut self.rings {
            let taken = lane.next.wrapping_sub(lane.ring.position());
            if taken != 0 {
                fullness = fullness.max(Some(taken * FULL_ENOUGH / lane.ring.capacity()));
                lane.ring.release(lane.next);
            }
        }
        let [shortest, longest] = BUSY;
        self.busy = match fullness {
            // What comes after a pause may be a process that lives for some milliseconds only: it has a name while it lives.
            None => shortest,
            Some(1) => self.busy,
            Some(0) => (self.busy * 2).min(longest),
            Some(_) => (self.busy / 2).max(shortest),
        };
        self.watermark = self.watermark.max(horizon.min(now));
        let events = self.batch.len() - malformed;
        self.quiet = if self.is_empty() && events == 0 {
            self.quiet.saturating_add(1)
        } else {
            0
        };
        let pause = match self.quiet {
            _ if more => Duration::ZERO,
            0 => self.busy,
            turns if turns < QUIET_TURNS => QUIET,
            _ => ASLEEP,
        };
        Drained {
            events,
            malformed,
            watermark: self.watermark,
            pause,
        }
    }

    /// Sleeps until the next turn is due, or until a program wakes the reader.
    pub fn wait(&mut self, pause: Duration) -> io::Result<()> {
        if pause.is_zero() {
            return Ok(());
        }
        if pause > QUIET {
            (self.alarm)()?;
            // An event may have come before the alarm was set.
            if !self.is_empty() {
                return Ok(());
            }
        }
        self.epoll.wait(pause)
    }

    fn is_empty(&self) -> bool {
        self.rings
            .iter()
            .all(|lane| lane.ring.position() == lane.ring.end())
    }
}

struct Taken {
    /// Nothing older than this can still appear in the ring.
    settled: u64,
    /// The bound on one turn's work was reached.
    more: bool,
}

impl Lane {
    fn collect(&mut self, index: usize, now: u64, horizon: u64, batch: &mut Vec<Found>) -> Taken {
        let end = self.ring.end();
        let mut at = self.next;
        let mut taken = 0;
        loop {
            match self.ring.look(at, end) {
                Slot::Record { start, len, next } => {
                    let ts = self
                        .ring
                        .bytes(start, len)
                        .first_chunk()
                        .map_or(0, |ts| u64::from_ne_bytes(*ts));
                    if ts > horizon {
                        return Taken {
                            settled: u64::MAX,
                            more: false,
                        };
                    }
                    if taken == MAX_PER_RING {
                        return Taken {
                            settled: self.settled,
                            more: true,
                        };
                    }
                    batch.push(Found {
                        ts,
                        lane: index as u32,
                        len: len as u32,
                        start,
                        next,
                    });
                    self.settled = self.settled.max(ts);
                    taken += 1;
                    at = next;
                }
                Slot::Discarded { next } => {
                    if at == self.next {
                        self.next = next;
                    }
                    at = next;
                }
                // Its time is unknown, but not before what this ring held when it was last seen.
                Slot::Busy => {
                    return Taken {
                        settled: self.settled,
                        more: false,
                    };
                }
                Slot::Empty => {
                    self.settled = self.settled.max(now.saturating_sub(REORDER_NANOS));
                    return Taken {
                        settled: u64::MAX,
                        more: false,
                    };
                }
            }
        }
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of `bpf_ktime_get_ns`.
#[must_use]
pub fn monotonic() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists and the struct is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    (time.tv_sec as u64)
        .wrapping_mul(1_000_000_000)
        .wrapping_add(time.tv_nsec as u64)
}
