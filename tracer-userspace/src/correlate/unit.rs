//! Execution units (threads, runtime tasks) and processes, as far as parents can be read from them.

use hashbrown::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use super::arena::{Arena, Key};
use super::evidence::connection::{Answers, Known};
use super::index::Index;
use super::record::Record;
use crate::model::{ConnId, Nanos, REUSED_TASK, Service, Unit};

/// What names a unit: a runtime task where one is known, else the thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UnitId {
    pub tgid: u32,
    pub is_task: bool,
    pub id: u64,
}

impl UnitId {
    /// In one word, which hardly two units share: thread ids and task ids are small numbers.
    fn number(&self) -> u64 {
        let tgid = u64::from(self.tgid) << 1 | u64::from(self.is_task);
        self.id ^ tgid.rotate_left(31)
    }

    /// Whether what had this name before may have been another task.
    pub fn may_be_another(&self) -> bool {
        self.is_task && self.id & REUSED_TASK != 0
    }

    /// The unit that moved bytes. `None` where the kernel had no task of the process in hand (interrupts).
    pub fn mover(unit: &Unit) -> Option<Self> {
        let task = unit.task().id;
        if task != 0 {
            Some(Self::task(unit.tgid, task))
        } else if unit.tid != 0 {
            Some(Self::thread(unit.tgid, unit.tid))
        } else {
            None
        }
    }

    pub fn thread(tgid: u32, tid: u32) -> Self {
        Self {
            tgid,
            is_task: false,
            id: u64::from(tid),
        }
    }

    pub fn task(tgid: u32, task: u64) -> Self {
        Self {
            tgid,
            is_task: true,
            id: task,
        }
    }
}

/// What a unit's last event was: who speaks after whom is all that an event loop shows.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Last {
    #[default]
    Nothing,
    /// Read (a part of) this request.
    ReadRequest(Key),
    /// Wrote (a part of) this call.
    WroteCall(Key),
    /// Read from the response of this call.
    ReadResponse(Key),
    /// Wrote from the response of this request.
    WroteResponse(Key),
}

/// A call that the unit might own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pending {
    pub call: Key,
    /// 0: the unit itself called, or waited for who did; else how many tasks lie between it and one that it created.
    pub hops: u8,
    /// With hops: when the oldest of the tasks between was first seen. Through [`Via::Task`]'s others: since when the unit waited
    /// for it, or had it.
    pub born: Nanos,
    pub via: Via,
}

impl Pending {
    /// The unit itself wrote the call, or waits for who did.
    pub fn of(call: Key) -> Self {
        Self {
            call,
            hops: 0,
            born: Nanos::MAX,
            via: Via::Task,
        }
    }

    /// The unit created the task that called, or one that did so; `born` as in [`Self::born`].
    pub fn made(call: Key, hops: u8, born: Nanos) -> Self {
        Self {
            hops,
            born,
            ..Self::of(call)
        }
    }

    /// The unit has had the task that wrote the call, or one that waits for it, since then.
    pub fn held(call: Key, since: Nanos) -> Self {
        Self {
            born: since,
            via: Via::Held,
            ..Self::of(call)
        }
    }

    /// The unit is the connection on which the work will be answered that the call is a part of, since then.
    pub fn answered(call: Key, since: Nanos, known: Known) -> Self {
        Self {
            born: since,
            via: Via::Answered(known),
            ..Self::of(call)
        }
    }

    /// The unit waits where the call's outcome is awaited, and did so then.
    pub fn at_place(call: Key, since: Nanos) -> Self {
        Self {
            born: since,
            via: Via::Place,
            ..Self::of(call)
        }
    }
}

/// What makes a unit the possible owner of a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Via {
    /// It wrote the call, or waits for the task that did, or made that one.
    Task,
    /// It took the connection.
    Took,
    /// It woke the thread that took the connection, or is the possible owner of the call whose response made that thread go on.
    Handed,
    /// Who called woke it when the call was over.
    Woken,
    /// It submitted the work that the call is a part of.
    Submitted,
    /// It had the task that made the call among its variables.
    Held,
    /// It made the thread that called, which has ended.
    Born,
    /// It waits at the place where the outcome of the call is awaited; or is that place.
    Place,
    /// It is the connection on which the work will be answered that the call is a part of.
    Answered(Known),
}

/// A thread or a runtime task.
pub(super) struct UnitState {
    pub id: UnitId,
    pub process: Key,
    /// Who created the task, 0 if not known.
    pub creator: u64,
    pub first_seen: Nanos,
    pub last_seen: Nanos,
    /// Requests read by this unit and not answered, and the first of them (its connection and its record).
    pub open: u32,
    pub open_conn: ConnId,
    pub open_request: Key,
    /// It has read requests; it has written responses.
    pub reads: bool,
    pub answers: bool,
    /// It was told for whom it works.
    pub works_for_others: bool,
    /// It had several connections' requests open at once: it is an event loop, what it writes is anybody's.
    pub is_loop: bool,
    /// Calls written since the last answer.
    pub since_answer: u16,
    /// Calls written by this unit and not answered.
    pub calls_out: u32,
    /// The request that it answered last, and when.
    pub last_answered: Key,
    pub last_answer: Nanos,
    /// Calls since then that it might own.
    pub pending: Vec<Pending>,
    /// The job that it works off.
    pub work: Option<Box<super::jobs::Work>>,
    /// It called somebody for one thing while it asked for another: what it calls for is not known.
    pub mixes_jobs: bool,
    /// The last call that it made for somebody else, as far as that is told by who took the connection or wrote the call.
    pub last_call: Key,
    pub last: Last,
    pub order: super::evidence::event_loop::Order,
    /// What it tells of its callbacks, if it is an event loop that does.
    pub ids: Option<Box<super::evidence::async_ids::Loop>>,
    /// Loops only.
    pub queue: Option<Box<super::evidence::queue::Queue>>,
}

impl UnitState {
    /// Whether it serves requests, as far as it has shown.
    pub fn serves(&self) -> bool {
        self.reads || self.answers
    }
}

/// A process.
#[derive(Default)]
pub(super) struct ProcessState {
    pub tgid: u32,
    /// Who it is, as told in the turn of that number.
    pub service: Option<(u64, Arc<Service>)>,
    /// Requests came in.
    pub serves: bool,
    /// Whether the hand-offs of its threads are followed.
    pub hand_offs: super::hand_offs::HandOffs,
    /// Its threads were seen to work for connections.
    pub answers: Option<Answers>,
    /// Its open requests, oldest first: a list through the records.
    pub first_open: Key,
    pub last_open: Key,
    /// Undecided calls in the order in which they began.
    pub undecided: VecDeque<Key>,
    /// Until when its threads are known to pass requests among each other, so that a thread proves nothing.
    pub migrates_until: Nanos,
    /// How often one of its workers had answered, had nothing to do for a while, and called nobody meanwhile.
    pub prompt_turns: u16,
    /// Most calls that one of its workers made between an answer and the next request, and until when that is remembered.
    pub late_calls: u16,
    pub late_until: Nanos,
    /// When one of its requests was last lost.
    pub lost: Nanos,
    pub last_seen: Nanos,
    /// One of its units is an event loop that is remembered; known only while units are looked through.
    has_loop: bool,
}

/// What an event loop has shown of the order in which it works takes it some requests to show again, of which the first have no parents: it
/// is remembered that many times as long as that of a thread or task, of which there are many more.
const LOOPS: Nanos = 20;

/// All units and processes.
#[derive(Default)]
pub(super) struct Units {
    pub units: Arena<UnitState>,
    pub processes: Arena<ProcessState>,
    unit_keys: Index,
    /// The unit that was asked for last.
    latest: Key,
    process_keys: HashMap<u32, Key>,
    pub max_units: usize,
    /// When units were last forgotten for want of room: looking for such is not cheap.
    swept: Nanos,
}

impl Units {
    pub fn process(&mut self, tgid: u32, now: Nanos) -> Key {
        if let Some(&key) = self.process_keys.get(&tgid) {
            if let Some(p) = self.processes.get_mut(key) {
                p.last_seen = now;
            }
            return key;
        }
        let key = self.processes.insert(ProcessState {
            tgid,
            last_seen: now,
            ..ProcessState::default()
        });
        self.process_keys.insert(tgid, key);
        key
    }

    pub fn find(&self, id: UnitId) -> Option<Key> {
        let is_it = |key: &Key| self.units.get(*key).is_some_and(|u| u.id == id);
        self.unit_keys.all(id.number()).find(is_it)
    }

    /// The unit that moved bytes, if it is known.
    pub fn find_mover(&self, moved: &Unit) -> Option<Key> {
        self.find(UnitId::mover(moved)?)
    }

    /// The unit that moved bytes, [`Key::NONE`] if the kernel had none in hand.
    pub fn mover(&mut self, moved: &Unit, now: Nanos) -> Key {
        match UnitId::mover(moved) {
            Some(id) => self.unit(id, moved.task().own_creator(), now),
            None => Key::NONE,
        }
    }

    /// The unit that moved bytes of an exchange: mostly the one that began it.
    #[inline]
    pub fn mover_of(&mut self, record: &Record, moved: &Unit, now: Nanos) -> Key {
        if record.begun_by(moved) {
            record.unit
        } else {
            self.mover(moved, now)
        }
    }

    /// The unit of that name; created if it is new.
    #[inline]
    pub fn unit(&mut self, id: UnitId, creator: u64, now: Nanos) -> Key {
        // Threads do several things in a row.
        if let Some(u) = self.units.get_mut(self.latest).filter(|u| u.id == id) {
            u.last_seen = now;
            if creator != 0 {
                u.creator = creator;
            }
            return self.latest;
        }
        self.latest = self.find_unit(id, creator, now);
        self.latest
    }

    fn find_unit(&mut self, id: UnitId, creator: u64, now: Nanos) -> Key {
        for key in self.unit_keys.all(id.number()) {
            if let Some(u) = self.units.get_mut(key).filter(|u| u.id == id) {
                u.last_seen = now;
                if creator != 0 {
                    u.creator = creator;
                }
                return key;
            }
        }
        self.new_unit(id, creator, now)
    }

    /// The process of the unit, or of that id.
    pub fn process_of(&mut self, unit: Key, tgid: u32, now: Nanos) -> Key {
        if let Some(unit) = self.units.get(unit)
            && let Some(process) = self.processes.get_mut(unit.process)
            && process.tgid == tgid
        {
            process.last_seen = now;
            return unit.process;
        }
        self.process(tgid, now)
    }

    #[cold]
    fn new_unit(&mut self, id: UnitId, creator: u64, now: Nanos) -> Key {
        if self.units.len() >= self.max_units && now.saturating_sub(self.swept) > 100_000_000 {
            self.swept = now;
            self.sweep(now, 0);
        }
        let process = self.process(id.tgid, now);
        let key = self.units.insert(UnitState {
            id,
            process,
            creator,
            first_seen: now,
            last_seen: now,
            open: 0,
            open_conn: ConnId::default(),
            open_request: Key::NONE,
            reads: false,
            answers: false,
            works_for_others: false,
            is_loop: false,
            since_answer: 0,
            calls_out: 0,
            last_answered: Key::NONE,
            last_answer: 0,
            pending: Vec::new(),
            work: None,
            mixes_jobs: false,
            last_call: Key::NONE,
            last: Last::Nothing,
            order: super::evidence::event_loop::Order::default(),
            ids: None,
            queue: None,
        });
        self.unit_keys.insert(id.number(), key);
        key
    }

    /// Forgets units and processes that were not seen for `idle` and have nothing open; event loops, and who works off a job, [`LOOPS`]
    /// times as late.
    pub fn sweep(&mut self, now: Nanos, idle: Nanos) {
        for key in self.units.keys() {
            let Some(u) = self.units.get(key) else {
                continue;
            };
            let idle = if u.is_loop || u.work.is_some() {
                idle.saturating_mul(LOOPS)
            } else {
                idle
            };
            if u.open == 0 && u.calls_out == 0 && now.saturating_sub(u.last_seen) >= idle {
                self.unit_keys.remove(u.id.number(), key);
                self.units.remove(key);
            } else if u.is_loop
                && let Some(process) = self.processes.get_mut(u.process)
            {
                process.has_loop = true;
            }
        }
        let processes = &mut self.processes;
        self.process_keys.retain(|_, key| {
            let keep = processes.get_mut(*key).is_some_and(|p| {
                p.first_open != Key::NONE
                    || !p.undecided.is_empty()
                    || std::mem::take(&mut p.has_loop)
                    || now.saturating_sub(p.last_seen) < idle
            });
            if !keep {
                processes.remove(*key);
            }
            keep
        });
    }
}
