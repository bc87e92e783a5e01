//! In which processes it is worth while to follow who wakes whom: programs that have nothing but threads, where some call that serve nobody, and nothing
//! tells for whom. The kernel side is asked to follow them then (E6, *woken*), and to stop if that does not tell either.

use super::Correlator;
use super::arena::Key;
use super::record::Parent;
use crate::model::{Evidence, Language};

/// How it stands with a process.
#[derive(Default)]
pub(super) struct HandOffs {
    stage: Stage,
    /// Calls of threads that serve nobody since then: those whose parent a wake has told, and others.
    told: u16,
    untold: u16,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Stage {
    #[default]
    Unasked,
    Followed,
    /// It was of no use.
    GivenUp,
}

/// So many calls without a parent make it worth while.
const ENOUGH: u16 = 16;
/// After so many calls it must have told one parent in [`LEAST`].
const TRIAL: u16 = 4_096;
const LEAST: u16 = 8;

impl HandOffs {
    /// One more call, whose parent was told or not: whether to follow the process from now on, or not any more.
    fn count(&mut self, is_told: bool) -> Option<bool> {
        let counter = if is_told { &mut self.told } else { &mut self.untold };
        *counter = counter.saturating_add(1);
        match self.stage {
            Stage::Unasked if self.untold >= ENOUGH => {
                self.stage = Stage::Followed;
                (self.told, self.untold) = (0, 0);
                Some(true)
            }
            Stage::Followed if self.told.saturating_add(self.untold) >= TRIAL => {
                let is_useful = self.told >= TRIAL / LEAST;
                (self.told, self.untold) = (0, 0);
                if !is_useful {
                    self.stage = Stage::GivenUp;
                }
                (!is_useful).then_some(false)
            }
            Stage::Unasked | Stage::Followed | Stage::GivenUp => None,
        }
    }
}

impl Correlator {
    /// The call's parent is decided.
    pub(super) fn count_for_hand_offs(&mut self, call: Key) {
        let Some(record) = self.records.get(call).filter(|r| r.amid_requests) else {
            return;
        };
        let is_told = match (record.parent, record.evidence) {
            (Parent::Local(_), Some((Evidence::Acquirer, _))) => true,
            (Parent::Local(_), Some((Evidence::Timing, _))) => false,
            (Parent::Local(_) | Parent::Context | Parent::Undecided, _) => return,
            (Parent::Root | Parent::Linked(..), _) => false,
        };
        let service = &record.service;
        let has_only_threads =
            matches!(service.language, Language::Rust | Language::Cpp) && !service.tasks_move;
        let caller = self.units.units.get(record.unit);
        if !has_only_threads || !caller.is_some_and(|unit| !unit.serves() && !unit.is_loop) {
            return;
        }
        if let Some(process) = self.units.processes.get_mut(record.process)
            && let Some(follow) = process.hand_offs.count(is_told)
        {
            self.follow.push((process.tgid, follow));
        }
    }

    /// Processes whose hand-offs are to be followed from now on, or not any more.
    pub fn take_followed(&mut self) -> Vec<(u32, bool)> {
        std::mem::take(&mut self.follow)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_followed_once_it_is_worth_while_and_while_it_helps() {
        let mut process = HandOffs::default();
        for _ in 1..ENOUGH {
            assert_eq!(process.count(false), None);
        }
        assert_eq!(process.count(false), Some(true));
        for call in 1..=TRIAL {
            assert_eq!(process.count(call % LEAST == 0), None);
        }
        for call in 1..TRIAL {
            assert_eq!(process.count(call % (2 * LEAST) == 0), None);
        }
        assert_eq!(process.count(false), Some(false));
        for _ in 0..2 * TRIAL {
            assert_eq!(process.count(false), None);
        }
    }
}
