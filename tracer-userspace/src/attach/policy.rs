//! What is captured of each connection.

use std::collections::HashMap as Numbers;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{Array, HashMap, Map, MapData, MapError},
};
use tracer_common::{ConnState, Limits, MAX_POLICIES, PolicyNumber, decision, owner};

use super::places::{Place, Places};
use crate::model::ConnId;

/// Most bytes captured in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Of one run.
    pub run: u32,
    /// Of one chunk; 0 also means no tail.
    pub chunk: u32,
}

/// [`ConnState`] as a map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct State(ConnState);

// SAFETY: `ConnState` is `repr(C)`, holds integers only and has no padding (its size is asserted).
unsafe impl Pod for State {}

/// [`Limits`] as a map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Entry(Limits);

// SAFETY: as above.
unsafe impl Pod for Entry {}

/// Handle on the connection tables of the programs. Clones share it.
#[derive(Clone)]
pub struct Policy(Arc<Tables>);

struct Tables {
    places: Places,
    others: Mutex<Others>,
}

struct Others {
    /// Connections without a place.
    more: HashMap<MapData, u64, State>,
    entries: Array<MapData, Entry>,
    numbers: Numbers<Limits, PolicyNumber>,
}

impl Policy {
    pub(super) fn new(places: Map, more: Map, entries: Map) -> anyhow::Result<Self> {
        let mut others = Others {
            more: HashMap::try_from(more).context("MORE_CONNS")?,
            entries: Array::try_from(entries).context("POLICIES")?,
            numbers: Numbers::new(),
        };
        others.put(PolicyNumber::UNDECIDED, Limits::UNDECIDED)?;
        Ok(Self(Arc::new(Tables {
            places: Places::new(&places).context("CONNS")?,
            others: Mutex::new(others),
        })))
    }

    /// From now on captures so much of the connection.
    pub fn set_policy(&self, conn: ConnId, send: Limit, recv: Limit) -> anyhow::Result<()> {
        let limits = Limits {
            run: [send.run, recv.run],
            chunk: [send.chunk, recv.chunk],
        };
        let number = self.others(|others| others.number(limits))?;
        self.decide(conn, number)
    }

    /// No events of this connection any more.
    pub fn ignore(&self, conn: ConnId) -> anyhow::Result<()> {
        self.decide(conn, PolicyNumber::IGNORE)
    }

    /// Forgets what was decided.
    pub fn forget(&self, conn: ConnId) -> anyhow::Result<()> {
        if self.0.places.of(conn.0).decide(conn.0, PolicyNumber::UNDECIDED) {
            return Ok(());
        }
        self.others(|others| match others.more.remove(&conn.0) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(error).context("forgetting a connection"),
        })
    }

    fn decide(&self, conn: ConnId, number: PolicyNumber) -> anyhow::Result<()> {
        if self.0.places.of(conn.0).decide(conn.0, number) {
            return Ok(());
        }
        self.others(|others| others.decide(conn.0, number))
    }

    fn others<T>(&self, work: impl FnOnce(&mut Others) -> anyhow::Result<T>) -> anyhow::Result<T> {
        work(&mut self.0.others.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Place<'_> {
    /// Decides about the connection, if the place is its own.
    fn decide(&self, conn: u64, number: PolicyNumber) -> bool {
        let change = |word| decision(word, conn).map(|_| owner(conn, number));
        let decided = self
            .owner
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, change)
            .is_ok();
        if decided {
            // What has passed was captured by other limits. If the place has changed hands meanwhile, this only captures more.
            self.run_bytes.store(0, Ordering::Relaxed);
        }
        decided
    }
}

/// Numbers that are given to limits as they are asked for; later ones get more than they ask for, so that there are few of them.
const EXACT: usize = MAX_POLICIES as usize / 2;

impl Others {
    fn decide(&mut self, conn: u64, number: PolicyNumber) -> anyhow::Result<()> {
        let mut state = match self.more.get(&conn, 0) {
            Ok(State(state)) => state,
            Err(MapError::KeyNotFound) => ConnState::new(conn, number),
            Err(error) => return Err(error).context("reading a connection's state"),
        };
        state.owner = owner(conn, number);
        // The kernel side may have moved on since the read. A stale count would cut the next capture short and a stale arrival would
        // be told as queueing that never was; zeros only capture more, and leave one queue time out.
        state.run_bytes = 0;
        state.arrival = 0;
        self.more
            .insert(conn, State(state), 0)
            .context("storing a connection's policy")
    }

    fn number(&mut self, limits: Limits) -> anyhow::Result<PolicyNumber> {
        let (limits, new) = number(&self.numbers, limits);
        if new {
            let next = usize::from(PolicyNumber::FIRST.0) + self.numbers.len();
            let number = PolicyNumber(u16::try_from(next).context("a table of policies without end")?);
            self.put(number, limits)?;
            self.numbers.insert(limits, number);
        }
        Ok(self
            .numbers
            .get(&limits)
            .copied()
            .unwrap_or(PolicyNumber::UNDECIDED))
    }

    fn put(&mut self, number: PolicyNumber, limits: Limits) -> anyhow::Result<()> {
        self.entries
            .set(u32::from(number.0), Entry(limits), 0)
            .context("storing a policy")
    }
}

/// The limits that stand for these, and whether they need a number that is new.
fn number(numbers: &Numbers<Limits, PolicyNumber>, limits: Limits) -> (Limits, bool) {
    if numbers.contains_key(&limits) {
        return (limits, false);
    }
    if numbers.len() < EXACT {
        return (limits, true);
    }
    let rounded = Limits {
        run: limits.run.map(round_up),
        chunk: limits.chunk.map(round_up),
    };
    let room = numbers.len() + usize::from(PolicyNumber::FIRST.0) < MAX_POLICIES as usize;
    (rounded, room && !numbers.contains_key(&rounded))
}

/// One of few: nothing, a power of 16, or all.
fn round_up(limit: u32) -> u32 {
    match limit {
        0 => 0,
        1..=0x100 => 0x100,
        0x101..=0x1000 => 0x1000,
        0x1001..=0x1_0000 => 0x1_0000,
        _ => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_never_run_out_of_numbers() {
        let mut numbers = Numbers::new();
        for n in 0..40_000_u32 {
            let wanted = Limits {
                run: [n * 32, n.reverse_bits()],
                chunk: [n, n << 3],
            };
            let (limits, new) = number(&numbers, wanted);
            let at_least = |given: [u32; 2], wanted: [u32; 2]| given.iter().zip(&wanted).all(|(g, w)| g >= w);
            assert!(at_least(limits.run, wanted.run) && at_least(limits.chunk, wanted.chunk));
            if new {
                numbers.insert(limits, PolicyNumber(3 + numbers.len() as u16));
            }
            assert!(numbers.contains_key(&limits), "{wanted:?}");
        }
        assert!(numbers.len() > EXACT && numbers.len() < EXACT + 625);
    }
}
