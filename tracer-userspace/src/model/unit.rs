//! When, and by whom.

use serde::{Deserialize, Serialize};

use tracer_common::MAX_AWAITERS;
pub use tracer_common::{
    BY_LOOP, CONNECTION_UNIT, PLACE_UNIT, REUSED_TASK, STALE, Submitters, THREAD_UNIT, Turn, UNSURE,
};

/// CLOCK_MONOTONIC nanoseconds, as the kernel stamps events.
pub type Nanos = u64;

/// The execution unit that moved bytes: a thread, and what runs on it where that is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Unit {
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// What the language's runtime runs on it.
    pub runs: Runs,
}

/// What a language's runtime runs on a thread.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Runs {
    /// Nothing that is known: the thread itself is the unit.
    #[default]
    Thread,
    /// A task, which may move to other threads.
    Task(Task),
    /// An event loop's callback: of whatever request comes next, so that the thread says nothing.
    Turn(#[serde(with = "turn")] Turn),
    /// What others have submitted: the thread may serve requests of its own as well.
    Work(#[serde(with = "submitters")] Submitters),
}

/// A task of a runtime, and those that wait for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub struct Task {
    /// Its identity (a goroutine's id); 0 if only who waits is known.
    pub id: u64,
    /// Who created the outermost of `awaiters`, or this task if there is none; 0 if not known.
    pub creator: u64,
    /// Tasks that wait for this one to do it, the nearest first: who asked a pooled client connection to write, who awaits a
    /// coroutine. 0 ends the list. With [`PLACE_UNIT`] it is the place where the one behind it waits, or where somebody will.
    pub awaiters: [u64; MAX_AWAITERS],
    /// 0 if all of them do. Else one of them was seen to have the one before it among its variables while it waited for something
    /// else: since when.
    #[serde(default)]
    pub held_since: Nanos,
}

/// As the words of an event's header.
macro_rules! as_words {
    ($name:ident, $kind:ty) => {
        mod $name {
            use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

            pub fn serialize<S: Serializer>(told: &$kind, to: S) -> Result<S::Ok, S::Error> {
                told.pack().serialize(to)
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<$kind, D::Error> {
                Ok(<$kind>::unpack(<_>::deserialize(from)?))
            }
        }
    };
}

/// Likewise.
mod turn {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};
    use tracer_common::MAX_AWAITERS;

    use super::Turn;

    pub fn serialize<S: Serializer>(turn: &Turn, to: S) -> Result<S::Ok, S::Error> {
        (turn.pack(), turn.task()).serialize(to)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Turn, D::Error> {
        let (words, task): ([u64; MAX_AWAITERS], u64) = <_>::deserialize(from)?;
        Ok(Turn::unpack(words, task))
    }
}

as_words!(submitters, super::Submitters);

impl Unit {
    /// The task and those that wait for it, the nearest first. Empty if no task is known.
    pub fn tasks(&self) -> impl Iterator<Item = u64> {
        let task = self.task();
        let own = Some(task.id).filter(|&task| task != 0);
        let awaiters = task.awaiters.into_iter().take_while(|&task| task != 0);
        own.into_iter().chain(awaiters)
    }

    /// Those of [`Self::tasks`] that are known to wait for the one before them, if for any.
    pub fn chain(&self) -> impl Iterator<Item = u64> {
        self.tasks().take_while(|task| task & PLACE_UNIT == 0)
    }

    /// The task that runs; empty if none is known.
    #[must_use]
    pub fn task(&self) -> Task {
        match self.runs {
            Runs::Task(task) => task,
            Runs::Thread | Runs::Turn(_) | Runs::Work(_) => Task::default(),
        }
    }

    /// Where the loop stands whose callback runs, if one does.
    #[must_use]
    pub fn turn(&self) -> Option<Turn> {
        match self.runs {
            Runs::Turn(turn) => Some(turn),
            Runs::Thread | Runs::Task(_) | Runs::Work(_) => None,
        }
    }

    /// Who submitted what the thread works off, if it works off something; the nearest first, and when.
    pub fn submitters(&self) -> impl Iterator<Item = (u64, Nanos)> {
        let by = self.work();
        [(by.by, by.at), (by.before, by.before_at)]
            .into_iter()
            .take_while(|(unit, _)| *unit != 0 && unit & PLACE_UNIT == 0)
    }

    /// The place where the outcome of what the thread works on will be taken, if nobody is known to wait for it yet, and since when it works on
    /// that (0: not known; of a connection, see [`UNSURE`] and [`STALE`]).
    pub fn place(&self) -> Option<(u64, Nanos)> {
        let work = self.work();
        (work.by & PLACE_UNIT != 0).then_some((work.by, work.at))
    }

    /// Places where the nearest of [`Self::submitters`] takes other outcomes.
    pub fn other_places(&self) -> impl Iterator<Item = u64> {
        let by = self.work();
        [by.before, by.before_at]
            .into_iter()
            .filter(|place| place & PLACE_UNIT != 0)
    }

    /// Who gave the thread its work; empty if that is not known.
    fn work(&self) -> Submitters {
        match self.runs {
            Runs::Work(by) => by,
            Runs::Thread | Runs::Task(_) | Runs::Turn(_) => Submitters::default(),
        }
    }
}

impl Task {
    /// Who created this task itself, 0 if not known.
    #[must_use]
    pub fn own_creator(&self) -> u64 {
        if self.awaiters[0] == 0 { self.creator } else { 0 }
    }
}

/// A moment and the unit that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Stamp {
    /// When.
    pub ts: Nanos,
    /// By whom.
    pub unit: Unit,
}

/// What is known about a place in a byte stream: the chunk that carried it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Mark {
    /// When the chunk was moved and by whom.
    pub stamp: Stamp,
    /// Stream position of this place in its own direction, modulo 2^32.
    pub pos: u32,
    /// Stream position of the other direction at that moment, modulo 2^32.
    pub peer_pos: u32,
    /// Whether the positions are real (TCP and Unix streams) or absent.
    pub has_position: bool,
    /// When the chunk's first byte arrived in the socket buffer, 0 if not known (always 0 for sends).
    pub arrival: Nanos,
}
