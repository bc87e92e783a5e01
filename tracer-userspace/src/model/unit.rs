//! When, and by whom.

use tracer_common::MAX_AWAITERS;

/// CLOCK_MONOTONIC nanoseconds, as the kernel stamps events.
pub type Nanos = u64;

/// The execution unit that moved bytes: a thread, and the runtime's own task on it where that is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Unit {
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Runtime task (a goroutine's id), 0 if none is known.
    pub task: u64,
    /// Who created the outermost of `awaiters`, or `task` if there is none; 0 if not known.
    pub creator: u64,
    /// Tasks that wait for this one to do it, the nearest first: who asked a pooled client connection to write, who awaits a
    /// coroutine. 0 ends the list.
    pub awaiters: [u64; MAX_AWAITERS],
}

impl Unit {
    /// The task and those that wait for it, the nearest first. Empty if no task is known.
    pub fn tasks(&self) -> impl Iterator<Item = u64> {
        let own = Some(self.task).filter(|&task| task != 0);
        let awaiters = self.awaiters.into_iter().take_while(|&task| task != 0);
        own.into_iter().chain(awaiters)
    }

    /// Who created `task`, 0 if not known.
    #[must_use]
    pub fn task_creator(&self) -> u64 {
        if self.awaiters[0] == 0 { self.creator } else { 0 }
    }
}

/// A moment and the unit that made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
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
