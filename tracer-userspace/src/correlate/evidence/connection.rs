//! E3 through the connection on which a thread's work will be answered: event loops read and write for a pool's threads, or for whoever
//! completes an asynchronous request, and the kernel side finds the connection in what such a thread works off (Java: Netty, servlets).
//!
//! The connection is a place ([`place`](super::place)): calls are noted with it, and belong to the request that is answered there next, if that
//! came in before the work began. Where several requests are open on one connection at a time (pipelining), it tells nothing of them.

use super::owner::Claim;
use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::unit::UnitId;
use crate::model::{CONNECTION_UNIT, ConnId, PLACE_UNIT, Unit};

impl Correlator {
    /// Whether what the worker does will be answered on the connection that it was seen to work for. One that reads requests itself has those of
    /// several connections about it.
    pub(super) fn may_answer_through(&mut self, call: Key, worker: &Unit) -> bool {
        let unit = UnitId::mover(worker).and_then(|id| self.units.find(id));
        let reads = unit
            .and_then(|unit| self.units.units.get(unit))
            .is_some_and(|unit| unit.reads);
        if reads {
            return false;
        }
        let process = self.records.get(call).map(|record| record.process);
        if let Some(process) = process.and_then(|process| self.units.processes.get_mut(process)) {
            process.tells_connections = true;
        }
        true
    }

    /// The request is answered: what was done for its connection was done for it.
    pub(in crate::correlate) fn claim_for_connection(&mut self, request: Key) {
        let Some(record) = self.records.get(request) else {
            return;
        };
        let (conn, tgid) = (record.begin.conn.id, record.begin.conn.tgid);
        let Some(process) = self.units.processes.get(record.process) else {
            return;
        };
        if !process.tells_connections {
            return;
        }
        let Some(place) = self.units.find(UnitId::task(tgid, place_of(conn))) else {
            return;
        };
        let mut open = process.first_open;
        while let Some(other) = self.records.get(open) {
            if open != request && other.begin.conn.id == conn {
                return self.forget_place(place);
            }
            open = other.next_open;
        }
        self.claim(place, request, Claim::Wrote);
    }

    fn forget_place(&mut self, place: Key) {
        if let Some(state) = self.units.units.get_mut(place) {
            state.pending.clear();
        }
    }
}

/// The connection as a place.
fn place_of(conn: ConnId) -> u64 {
    PLACE_UNIT | CONNECTION_UNIT | conn.0 & (CONNECTION_UNIT - 1)
}
