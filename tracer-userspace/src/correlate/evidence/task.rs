//! E3: the same runtime task, or one that it created.
//!
//! Task ids are not reused, so a call of the task that wrote the response is certain. A task that the owner created may
//! have outlived the request for which it was created: one that was seen before the request is a stranger, and one
//! that first shows itself now, although the owner has served before, is only likely its own.
//!
//! A task that another one had among its variables while it waited for something was most likely made by it (asyncio: several tasks, awaited
//! one after the other). It was made for the request that was open then, and may outlive it.

use super::owner::{Case, Claim};
use crate::correlate::Correlator;
use crate::model::Confidence;

impl Correlator {
    pub(super) fn judge_task(&self, case: &Case) -> Option<Confidence> {
        let request = self.records.get(case.request)?;
        if case.hops == 0 {
            return Some(match case.claim {
                Claim::Wrote => Confidence::Certain,
                Claim::Read => Confidence::Likely,
            });
        }
        let waits_another = self.records.get(case.call)?.several_wait;
        if case.born < request.start() || waits_another {
            return None;
        }
        let owner = self.units.units.get(case.unit)?;
        let first = owner.last_answer == 0;
        Some(if first && case.claim == Claim::Wrote {
            Confidence::Certain
        } else {
            Confidence::Likely
        })
    }

    pub(super) fn judge_held(&self, case: &Case) -> Option<Confidence> {
        let request = self.records.get(case.request)?;
        let is_its_own = case.claim == Claim::Wrote && case.born >= request.start();
        is_its_own.then_some(Confidence::Likely)
    }
}
