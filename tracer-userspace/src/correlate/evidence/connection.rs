//! E3 through the connection on which a thread's work will be answered: event loops read and write for a pool's threads, or for whoever
//! completes an asynchronous request, and the kernel side finds the connection in what such a thread works off (Java: Netty, servlets).
//!
//! The connection is a place ([`place`](super::place)): calls are noted with it, and belong to the request that is answered there next, if that
//! came in before the work began. Where several requests are open on one connection at a time (pipelining), it tells nothing of them.
//!
//! Work that goes on after the answer still leads to the connection, where the next request may have come in by then. The kernel side tells work that
//! was made before that request was read, and such as was made after it. Where it knows neither, the call has to have its response by the time of the answer, and
//! the process must have shown that no more than one call in sixteen is of work for earlier requests: made so, made while no request is
//! open there, or without a response when the next answer is written.
//!
//! An event loop that calls through a client with threads of its own hands a call on after it has read a request, mostly for that one's sake: the
//! kernel side looks for traces of other work that was left to the loop, and of such calls no more than one in 256 may be beyond.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::{Pending, UnitId, Via};
use crate::model::{BY_LOOP, CONNECTION_UNIT, ConnId, Nanos, PLACE_UNIT, STALE, UNSURE, Unit};

/// How the kernel side knows for which connection's sake a call is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::correlate) enum Known {
    /// By a job that was made for the request which was read there last.
    Certainly,
    /// By a job of which it is not known when it was made.
    ByJob,
    /// By the event loop that handed the call on, which had read there last.
    ByLoop,
}

/// Calls that were made for connections' sake in a process.
#[derive(Clone, Copy, Default)]
pub(in crate::correlate) struct Answers {
    by_job: Tally,
    by_loop: Tally,
}

#[derive(Clone, Copy, Default)]
struct Tally {
    /// Made and over while a request was open there; and not.
    within: u32,
    beyond: u32,
}

impl Answers {
    /// What must have been seen to be within before anything is believed.
    const ENOUGH: u32 = 16;
    /// Of so many calls that are within, one may be beyond.
    const DOUBT: u32 = 16;
    const DOUBT_OF_LOOPS: u32 = 256;
    /// After so many, older ones count for half.
    const MEMORY: u32 = 1_024;

    fn believes(self, known: Known) -> bool {
        let (tally, doubt) = match known {
            Known::Certainly => return true,
            Known::ByJob => (self.by_job, Self::DOUBT),
            Known::ByLoop => (self.by_loop, Self::DOUBT_OF_LOOPS),
        };
        tally.within >= Self::ENOUGH && tally.beyond.saturating_mul(doubt) <= tally.within
    }

    fn count(&mut self, known: Known, is_within: bool) {
        let tally = match known {
            Known::ByLoop => &mut self.by_loop,
            Known::Certainly | Known::ByJob => &mut self.by_job,
        };
        if is_within {
            tally.within += 1;
        } else {
            tally.beyond += 1;
        }
        if tally.within + tally.beyond > Self::MEMORY {
            (tally.within, tally.beyond) = (tally.within / 2, tally.beyond / 2);
        }
    }
}

impl Correlator {
    /// Notes the call with the connection on which the worker's work will be answered, and since when it was seen to work for that. One that reads
    /// requests itself has those of several connections about it, and tells nothing.
    pub(super) fn await_answer(&mut self, call: Key, worker: &Unit, (place, since): (u64, Nanos)) {
        let unit = self.units.find_mover(worker);
        let state = unit.and_then(|unit| self.units.units.get(unit));
        if state.is_some_and(|state| state.reads) {
            return;
        }
        if since & BY_LOOP == 0 {
            self.await_answer_at(call, worker.tgid, (place, since));
        }
    }

    /// Likewise, where an event loop has handed the call on.
    pub(super) fn await_loop_answer(&mut self, call: Key, tgid: u32, (place, since): (u64, Nanos)) {
        if since & BY_LOOP != 0 {
            self.await_answer_at(call, tgid, (place, since));
        }
    }

    fn await_answer_at(&mut self, call: Key, tgid: u32, (place, since): (u64, Nanos)) {
        let known = match (since & BY_LOOP != 0, since & UNSURE != 0) {
            (true, _) => Known::ByLoop,
            (_, true) => Known::ByJob,
            _ => Known::Certainly,
        };
        let Some(process) = self.records.get(call).map(|record| record.process) else {
            return;
        };
        let since = since & !(UNSURE | BY_LOOP);
        let key = self.units.unit(UnitId::task(tgid, place), 0, self.now);
        let last_answer = self.units.units.get(key).map_or(0, |state| state.last_answer);
        let is_beyond = last_answer != 0
            && since > last_answer
            && !self
                .open_requests(process)
                .any(|request| self.conn_of(request).is_some_and(|conn| place_of(conn) == place));
        if let Some(process) = self.units.processes.get_mut(process) {
            let answers = process.answers.get_or_insert_default();
            if since == STALE || is_beyond {
                answers.count(known, false);
            }
        }
        if since != STALE {
            self.await_unit(key, Pending::answered(call, since, known));
        }
    }

    /// The request's answer has begun (or, if it `ended`, is over): what was done for its connection was done for it.
    pub(in crate::correlate) fn claim_for_connection(&mut self, request: Key, ended: bool) {
        let Some(record) = self.records.get(request) else {
            return;
        };
        let (conn, tgid, process) = (record.begin.conn.id, record.begin.conn.tgid, record.process);
        let began = record.start();
        let tells = self
            .units
            .processes
            .get(process)
            .is_some_and(|process| process.answers.is_some());
        if !tells {
            return;
        }
        let Some(place) = self.units.find(UnitId::task(tgid, place_of(conn))) else {
            return;
        };
        let Some(state) = self.units.units.get_mut(place) else {
            return;
        };
        state.last_answer = self.now;
        let pending = std::mem::take(&mut state.pending);
        if pending.is_empty() {
            return;
        }
        let is_alone = !self
            .open_requests(process)
            .any(|other| other != request && self.conn_of(other) == Some(conn));
        for pending in pending {
            let Some(call) = self.records.get(pending.call).filter(|_| pending.born >= began) else {
                continue;
            };
            let Via::Answered(known) = pending.via else {
                continue;
            };
            let certain = known == Known::Certainly;
            let is_over = call.responded != 0;
            if !certain && !is_over && !ended {
                self.await_unit(place, pending);
                continue;
            }
            let Some(process) = self.units.processes.get_mut(process) else {
                continue;
            };
            let answers = process.answers.get_or_insert_default();
            answers.count(known, certain || is_over);
            if is_alone && (certain || is_over) && answers.believes(known) {
                self.claim_one(Case::of(pending, request, place, Claim::Wrote));
            }
        }
    }

    fn open_requests(&self, process: Key) -> impl Iterator<Item = Key> + '_ {
        let first = self
            .units
            .processes
            .get(process)
            .map(|process| process.first_open);
        std::iter::successors(first, |&request| Some(self.records.get(request)?.next_open))
            .take_while(|&request| request != Key::NONE)
    }

    fn conn_of(&self, request: Key) -> Option<ConnId> {
        Some(self.records.get(request)?.begin.conn.id)
    }
}

/// The connection as a place.
fn place_of(conn: ConnId) -> u64 {
    PLACE_UNIT | CONNECTION_UNIT | conn.0 & (CONNECTION_UNIT - 1)
}
