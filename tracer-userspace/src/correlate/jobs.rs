//! Work that one exchange puts off and another takes later (a job in a queue): span links, from who took it, and from what that one
//! calls until it asks for the next, to who had put it off.
//!
//! A job is known by its number ([`Job`]), which is that of its bytes in their place. Each that was put is taken once; where several
//! that are alike wait, nobody knows which was taken, and nothing is linked. Who put it off may be a request's call, whose trace is
//! known only when that request has answered; spans that shall link to it wait until then, bounded by the hold of all spans.

use std::collections::VecDeque;

use hashbrown::HashMap;

use super::Correlator;
use super::arena::Key;
use super::unit::UnitId;
use crate::model::{ExchangeId, Job, Link, Nanos, SpanId, TraceId, Unit};

/// Reason of the links.
const REASON: &str = "job";
/// Jobs that are remembered while nobody takes them, and for how long.
const MAX_JOBS: usize = 65_536;
const MAX_AGE: Nanos = 3_600_000_000_000;
/// How long who took a job waits for who put it off to be told of: both lie on this host.
const LATE: Nanos = 50_000_000;
/// Jobs of one exchange that are linked.
const MAX_LINKS: usize = 16;

/// Who put a job off.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    by: Key,
    place: Option<(TraceId, SpanId)>,
}

struct Waiting {
    origin: Origin,
    since: Nanos,
    /// How many that are alike wait; once there were several, which is which is not known until all are taken.
    alike: u32,
    was_alike: bool,
}

/// All jobs that wait.
#[derive(Default)]
pub(super) struct Jobs {
    waiting: HashMap<u64, Waiting>,
    in_order: VecDeque<(Nanos, u64)>,
    /// Taken, and not known to have been put: by whom, and until when that may be told.
    early: HashMap<u64, (Key, bool)>,
    early_in_order: VecDeque<(Nanos, u64, Key)>,
}

/// What an exchange has to do with jobs.
#[derive(Default)]
pub(super) struct Errand {
    /// Jobs that it put, while they wait.
    put: Vec<u64>,
    /// Exchanges that link to it once its trace is known.
    takers: Vec<Key>,
    /// What it still has to learn before it is handed on.
    pub awaited: u32,
    /// It began while its unit worked off a job, and waits for that one's origin.
    works_for: Key,
}

/// What a unit does since it took a job.
#[derive(Clone, Debug)]
pub(super) struct Work {
    /// The exchange that took it.
    taken_by: Key,
    /// How many it took.
    jobs: u32,
    /// Who had put it off, if that is known.
    origin: Option<Origin>,
}

impl Correlator {
    pub(super) fn job(&mut self, id: ExchangeId, job: Job) {
        let Some(key) = self.by_id.find(id.0) else {
            return;
        };
        match job {
            Job::Asks => self.job_asked(key),
            Job::Puts(number) => self.job_put(key, number),
            Job::Takes(number) => self.job_taken(key, number, true),
            Job::Reads(number) => self.job_taken(key, number, false),
        }
    }

    fn errand(&mut self, key: Key) -> Option<&mut Errand> {
        let record = self.records.get_mut(key)?;
        Some(record.jobs.get_or_insert_default())
    }

    fn known_errand(&mut self, key: Key) -> Option<&mut Errand> {
        self.records.get_mut(key)?.jobs.as_deref_mut()
    }

    /// Where the exchange's span stands, once that is known.
    fn place(&self, key: Key) -> Option<(TraceId, SpanId)> {
        let record = self.records.get(key).filter(|record| record.service.selected)?;
        let trace = record.trace.and_then(|trace| self.traces.get(trace))?;
        Some((trace.id, record.span_id))
    }

    /// What the unit did for the job before is over; that it asks is no part of it.
    fn job_asked(&mut self, key: Key) {
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        record.links.retain(|link| link.reason != REASON);
        let works_for = record.jobs.take().map_or(Key::NONE, |errand| errand.works_for);
        if let Some(state) = self.units.units.get_mut(record.unit) {
            state.work = None;
            // The one that asks is out, too.
            state.mixes_jobs |= state.calls_out > 1;
        }
        if let Some(errand) = self.known_errand(works_for) {
            errand.takers.retain(|&taker| taker != key);
        }
    }

    fn job_put(&mut self, key: Key, number: u64) {
        let origin = Origin {
            by: key,
            place: self.place(key),
        };
        if let Some((taker, once)) = self.jobs.early.remove(&number) {
            self.awaits_less(taker);
            self.link_job(taker, origin);
            self.hand_on_if_ended(taker);
            if once {
                return;
            }
        }
        let now = self.now;
        let waiting = self.jobs.waiting.entry(number).or_insert(Waiting {
            origin,
            since: now,
            alike: 0,
            was_alike: false,
        });
        waiting.alike = waiting.alike.saturating_add(1);
        waiting.was_alike |= waiting.alike > 1;
        if waiting.alike == 1 {
            (waiting.origin, waiting.since) = (origin, now);
        }
        self.jobs.in_order.push_back((now, number));
        if self.jobs.in_order.len() > MAX_JOBS {
            self.forget_oldest_job();
        }
        if let Some(errand) = self.errand(key) {
            errand.put.push(number);
        }
    }

    fn forget_oldest_job(&mut self) {
        if let Some((since, number)) = self.jobs.in_order.pop_front()
            && self.jobs.waiting.get(&number).is_some_and(|w| w.since == since)
        {
            self.jobs.waiting.remove(&number);
        }
    }

    fn job_taken(&mut self, key: Key, number: u64, once: bool) {
        let unit = match self.records.get(key) {
            Some(record) => record.unit,
            None => return,
        };
        if let Some(state) = self.units.units.get_mut(unit) {
            state.last_seen = self.now;
            // Its own exchange is answered.
            state.mixes_jobs |= state.calls_out > 0;
            match &mut state.work {
                Some(work) if work.taken_by == key => work.jobs = work.jobs.saturating_add(1),
                work => {
                    *work = Some(Box::new(Work {
                        taken_by: key,
                        jobs: 1,
                        origin: None,
                    }));
                }
            }
        }
        match self.jobs.waiting.get_mut(&number) {
            None => {
                if self.jobs.early.try_insert(number, (key, once)).is_ok() {
                    let due = self.now.saturating_add(LATE);
                    self.jobs.early_in_order.push_back((due, number, key));
                    if let Some(errand) = self.errand(key) {
                        errand.awaited = errand.awaited.saturating_add(1);
                    }
                }
            }
            Some(waiting) if waiting.was_alike => {
                waiting.alike = waiting.alike.saturating_sub(1);
                if waiting.alike == 0 {
                    self.jobs.waiting.remove(&number);
                }
                self.counters.jobs_alike += 1;
            }
            Some(waiting) => {
                let origin = waiting.origin;
                if once {
                    self.jobs.waiting.remove(&number);
                }
                self.link_job(key, origin);
            }
        }
    }

    /// The exchange took what was put by `origin`.
    fn link_job(&mut self, key: Key, origin: Origin) {
        self.link_origin(key, origin);
        let unit = self.records.get(key).map_or(Key::NONE, |record| record.unit);
        if let Some(work) = self.units.units.get_mut(unit).and_then(|u| u.work.as_mut())
            && work.taken_by == key
        {
            work.origin = Some(origin);
        }
    }

    /// The exchange's span gets a link to the one that put the job off, now or once its place is known.
    fn link_origin(&mut self, key: Key, origin: Origin) {
        let place = origin.place.or_else(|| self.place(origin.by));
        if let Some((trace_id, span_id)) = place {
            self.add_job_link(key, trace_id, span_id);
            return;
        }
        if self.records.get(origin.by).is_none_or(|r| r.trace.is_some()) {
            return;
        }
        let Some(errand) = self.errand(origin.by) else {
            return;
        };
        errand.takers.push(key);
        if let Some(errand) = self.errand(key) {
            errand.awaited = errand.awaited.saturating_add(1);
            errand.works_for = origin.by;
        }
    }

    fn add_job_link(&mut self, key: Key, trace_id: TraceId, span_id: SpanId) {
        if let Some(record) = self.records.get_mut(key)
            && !record.emitted
            && record.links.len() < MAX_LINKS
        {
            self.counters.jobs += 1;
            record.links.push(Link {
                trace_id,
                span_id,
                reason: REASON,
            });
        }
    }

    /// The trace of one that put jobs off is known.
    pub(super) fn tell_takers(&mut self, key: Key) {
        let place = self.place(key);
        let Some(errand) = self.records.get_mut(key).and_then(|record| record.jobs.as_mut()) else {
            return;
        };
        let takers = std::mem::take(&mut errand.takers);
        for number in &errand.put {
            if let Some(waiting) = self.jobs.waiting.get_mut(number)
                && waiting.origin.by == key
            {
                waiting.origin.place = place;
            }
        }
        for taker in takers {
            if let Some((trace_id, span_id)) = place {
                self.add_job_link(taker, trace_id, span_id);
            }
            let unit = self.records.get(taker).map_or(Key::NONE, |record| record.unit);
            if let Some(work) = self.units.units.get_mut(unit).and_then(|u| u.work.as_mut())
                && let Some(origin) = work.origin.as_mut().filter(|origin| origin.by == key)
            {
                origin.place = place;
            }
            self.awaits_less(taker);
            self.hand_on_if_ended(taker);
        }
    }

    fn awaits_less(&mut self, key: Key) {
        if let Some(errand) = self.known_errand(key) {
            errand.awaited = errand.awaited.saturating_sub(1);
        }
    }

    fn hand_on_if_ended(&mut self, key: Key) {
        if self.records.get(key).is_some_and(|r| r.ended && !r.emitted) {
            self.hand_on(key);
        }
    }

    /// A call begins: is it a part of what its unit does for a job?
    pub(super) fn call_for_job(&mut self, key: Key, mover: &Unit) {
        let Some(unit) = self.records.get(key).map(|record| record.unit) else {
            return;
        };
        let mut origin = self.origin_of_work(unit);
        if origin.is_none() && mover.task().awaiters.first().is_some_and(|&task| task != 0) {
            origin = mover.tasks().find_map(|task| {
                let unit = self.units.find(UnitId::task(mover.tgid, task))?;
                self.origin_of_work(unit)
            });
        }
        if let Some(origin) = origin {
            self.link_origin(key, origin);
        }
    }

    /// Who put off what the unit does now, if it does one thing at a time.
    fn origin_of_work(&self, unit: Key) -> Option<Origin> {
        let state = self.units.units.get(unit)?;
        let work = state.work.as_ref()?;
        let alone = work.jobs == 1 && state.open == 0 && !state.is_loop && !state.mixes_jobs;
        work.origin.filter(|_| alone)
    }

    /// The command failed: it put nothing.
    pub(super) fn put_failed(&mut self, key: Key) {
        let Some(errand) = self.known_errand(key) else {
            return;
        };
        for number in std::mem::take(&mut errand.put) {
            if self
                .jobs
                .waiting
                .get(&number)
                .is_some_and(|w| w.origin.by == key && w.alike == 1)
            {
                self.jobs.waiting.remove(&number);
            }
        }
    }

    /// A record is about to be forgotten.
    pub(super) fn leave_jobs(&mut self, key: Key) {
        let is_placed = self.place(key).is_some();
        let Some(errand) = self.known_errand(key) else {
            return;
        };
        let (put, takers) = (
            std::mem::take(&mut errand.put),
            std::mem::take(&mut errand.takers),
        );
        for number in put {
            if !is_placed && self.jobs.waiting.get(&number).is_some_and(|w| w.origin.by == key) {
                self.jobs.waiting.remove(&number);
            }
        }
        for taker in takers {
            self.awaits_less(taker);
            self.hand_on_if_ended(taker);
        }
    }

    /// Time has come to `now`: jobs that nobody takes are forgotten, and those taken that nobody put are handed on.
    pub(super) fn give_up_jobs(&mut self, now: Nanos) {
        while let Some(&(_, number, key)) = self.jobs.early_in_order.front().filter(|(due, ..)| *due <= now) {
            self.jobs.early_in_order.pop_front();
            if self
                .jobs
                .early
                .get(&number)
                .is_some_and(|(taker, _)| *taker == key)
            {
                self.jobs.early.remove(&number);
                self.awaits_less(key);
                self.hand_on_if_ended(key);
            }
        }
        while self
            .jobs
            .in_order
            .front()
            .is_some_and(|(since, _)| now.saturating_sub(*since) > MAX_AGE)
        {
            self.forget_oldest_job();
        }
    }

    /// It was held long enough.
    pub(super) fn await_jobs_no_more(&mut self, key: Key) {
        let Some(errand) = self.known_errand(key) else {
            return;
        };
        errand.awaited = 0;
        self.hand_on_if_ended(key);
    }
}
