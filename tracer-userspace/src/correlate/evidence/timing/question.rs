//! One window's question, its answers, and how far answers have proved right.

use crate::correlate::arena::Key;
use crate::correlate::joint::{self, Answer, Call, Request};

/// Confidence from which an answer may be a parent.
pub(super) const PARENT: f32 = 0.999;
/// So many audited answers of that confidence make parents believable, if at most one in [`RIGHT`] of them is wrong.
const AUDITED: u64 = 1_000;
const RIGHT: u64 = 1_000;

/// How often nearly certain answers about known calls were right.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Audit {
    right: u64,
    all: u64,
}

impl Audit {
    pub fn add(&mut self, other: Self) {
        if self.all > 64 * AUDITED {
            self.right /= 2;
            self.all /= 2;
        }
        self.right += other.right;
        self.all += other.all;
    }

    pub fn is_passed(self) -> bool {
        self.all >= AUDITED && (self.all - self.right) * RIGHT <= self.all
    }
}

/// Who made the calls of a window?
#[derive(Debug)]
pub struct Question {
    pub(super) process: Key,
    pub(super) requests: Vec<Request>,
    pub(super) request_keys: Vec<Key>,
    pub(super) calls: Vec<Call>,
    pub(super) call_keys: Vec<Key>,
    /// Which calls wait for an answer.
    pub(super) wanted: Vec<bool>,
}

/// What times tell.
#[derive(Debug)]
pub struct Answers {
    pub(super) process: Key,
    /// The calls that waited; who made each, and how likely.
    pub(super) told: Vec<(Key, Option<(Key, f32)>)>,
    pub(super) audit: Audit,
}

impl Question {
    /// The calls that wait for an answer.
    pub(super) fn wanted_calls(&self) -> impl Iterator<Item = Key> {
        let calls = self.call_keys.iter().zip(&self.wanted);
        calls.filter(|(_, wanted)| **wanted).map(|(call, _)| *call)
    }

    /// Works it out: takes milliseconds.
    #[must_use]
    pub fn solve(self) -> Answers {
        let answers = joint::solve(&self.requests, &self.calls);
        let waiting = self.call_keys.iter().zip(answers).zip(&self.wanted);
        let told = waiting.filter(|(_, wanted)| **wanted).map(|((call, answer), _)| {
            let owner = |answer: Answer| {
                let request = self.request_keys.get(answer.request as usize)?;
                Some((*request, answer.confidence))
            };
            (*call, answer.and_then(owner))
        });
        Answers {
            process: self.process,
            told: told.collect(),
            audit: self.audit(),
        }
    }

    /// Asks about calls whose owners are known, as if they were not.
    fn audit(&self) -> Audit {
        let mut audit = Audit::default();
        if self.calls.iter().all(|call| call.known.is_none()) {
            return audit;
        }
        let asked = self.calls.iter().map(|call| Call { known: None, ..*call });
        let answers = joint::solve(&self.requests, &asked.collect::<Vec<_>>());
        for (call, answer) in self.calls.iter().zip(answers) {
            if let (Some(known), Some(answer)) = (call.known, answer)
                && answer.confidence >= PARENT
            {
                audit.all += 1;
                audit.right += u64::from(answer.request == known);
            }
        }
        audit
    }

    /// Nobody has time for it: the calls that waited are nobody's.
    #[must_use]
    pub fn give_up(self) -> Answers {
        Answers {
            process: self.process,
            told: self.wanted_calls().map(|call| (call, None)).collect(),
            audit: Audit::default(),
        }
    }
}
