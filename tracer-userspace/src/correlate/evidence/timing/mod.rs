//! E8: calls that no rule gave an owner, by times alone ([`crate::correlate::joint`]).
//!
//! The last requests of a process, and the calls that it made meanwhile, are a window. A call that nobody is known to own waits
//! in it until all requests that enclose it have ended; then the window is a [`Question`], which whoever drives the correlator
//! has answered elsewhere, since that takes milliseconds. An answer of which more than half is certain becomes a link.
//!
//! It becomes a parent where that is asked for ([`Infer::Parents`]) and what the inference calls nearly certain is known to be
//! so in this very process: calls that rules gave an owner are asked about, too, as if they were not known (an audit).

mod ids;
mod question;

use std::collections::VecDeque;
use std::hash::Hash;
use std::sync::Arc;

use hashbrown::HashMap;

use crate::correlate::arena::Key;
use crate::correlate::joint::{Call, Ids, Request};
use crate::correlate::record::Parent;
use crate::correlate::{Correlator, Infer};
use crate::model::{Confidence, Endpoint, Evidence, Nanos};
pub use question::{Answers, Question};
use question::{Audit, PARENT};

/// How often a process's window becomes a question, if not before because [`MANY`] calls wait in it.
const PERIOD: Nanos = 500_000_000;
const MANY: usize = 128;
/// Most requests of a window, most calls, and most calls that wait in it.
const MAX_REQUESTS: usize = 384;
const MAX_CALLS: usize = 4 * MAX_REQUESTS;
const MAX_WAITING: usize = 512;
/// Where more requests than that enclose a call on average, times hardly tell them apart, and to ask takes long.
const MOST_OPEN: usize = 24;
/// Most questions that nobody has taken yet, and most that are not answered yet.
const MAX_QUESTIONS: usize = 4;
/// Confidence from which an answer is a link.
const LINK: f32 = 0.5;
/// How long records outlive their spans, so that answers find them.
pub(in crate::correlate) const LINGER: Nanos = 3_000_000_000;
/// On calls with a parent or a link that times decided: how likely it is.
const PROBABILITY: &str = "tracer.parent.probability";

/// How a call stands with its process's window.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::correlate) enum Standing {
    /// It is in none.
    #[default]
    Apart,
    /// It will wait in one once it has ended.
    Due,
    /// In it.
    Kept,
    /// It waits for an answer.
    Waits,
    /// It is asked about.
    Asked,
    /// The answer came.
    Told,
}

/// A request that ended.
struct Asked {
    key: Key,
    start: Nanos,
    end: Nanos,
    name: Arc<str>,
    ids: Ids,
}

/// A call that ended.
struct Made {
    key: Key,
    start: Nanos,
    end: Nanos,
    to: Endpoint,
    name: Arc<str>,
    ids: Ids,
}

/// The last of one process.
#[derive(Default)]
struct Window {
    requests: VecDeque<Asked>,
    calls: VecDeque<Made>,
    waiting: usize,
    /// The end of the last request that was forgotten.
    forgotten: Nanos,
    /// When it was asked about last.
    asked: Nanos,
    audit: Audit,
}

/// All windows.
#[derive(Default)]
pub(in crate::correlate) struct Windows {
    by_process: HashMap<Key, Window>,
    next: Nanos,
    questions: VecDeque<Question>,
    /// Questions that were taken and not answered.
    pending: usize,
}

/// Small numbers for names.
fn number<T: Eq + Hash>(names: &mut HashMap<T, u16>, name: T) -> u16 {
    let next = u16::try_from(names.len()).unwrap_or(u16::MAX - 1);
    *names.entry(name).or_insert(next)
}

impl Correlator {
    /// An exchange has ended, and its process serves.
    pub(in crate::correlate) fn enter_window(&mut self, key: Key) {
        if self.config.infer == Infer::Off {
            return;
        }
        let Some(record) = self.records.get_mut(key) else {
            return;
        };
        let Some(exchange) = &record.exchange else {
            return;
        };
        if record.is_outbound() && !matches!(record.parent, Parent::Undecided | Parent::Local(_)) {
            return;
        }
        let (start, end, name) = (record.start(), record.ended_at, Arc::clone(&exchange.name));
        let ids = ids::named(&exchange.attributes);
        let window = self.windows.by_process.entry(record.process).or_default();
        if record.is_outbound() {
            if window.calls.len() >= MAX_CALLS {
                window.calls.pop_front();
            }
            let is_due = record.standing == Standing::Due;
            record.standing = Standing::Kept;
            let to = record.begin.conn.remote;
            window.calls.push_back(Made {
                key,
                start,
                end,
                to,
                name,
                ids,
            });
            if is_due {
                self.decide_unowned(key);
            }
        } else {
            if window.requests.len() >= MAX_REQUESTS
                && let Some(forgotten) = window.requests.pop_front()
            {
                window.forgotten = window.forgotten.max(forgotten.end);
            }
            window.requests.push_back(Asked {
                key,
                start,
                end,
                name,
                ids,
            });
        }
    }

    /// No rule gives the call an owner. Returns whether times may yet.
    pub(in crate::correlate) fn await_window(&mut self, call: Key) -> bool {
        if self.config.infer == Infer::Off {
            return false;
        }
        let Some(record) = self.records.get(call) else {
            return false;
        };
        let is_open = self
            .open_since(record.process)
            .is_some_and(|oldest| oldest <= record.start());
        let Some(record) = self.records.get_mut(call) else {
            return false;
        };
        if record.is_decided() || record.expired || record.begin.context.is_some() {
            return false;
        }
        match record.standing {
            Standing::Apart if !record.ended => {
                record.standing = Standing::Due;
                return true;
            }
            Standing::Apart | Standing::Told => return false,
            Standing::Due | Standing::Waits | Standing::Asked => return true,
            Standing::Kept => {}
        }
        let (start, end) = (record.start(), record.ended_at);
        let Some(window) = self.windows.by_process.get_mut(&record.process) else {
            return false;
        };
        if !is_open && !window.requests.iter().any(|r| r.start <= start && end <= r.end) {
            return false;
        }
        if window.waiting >= MAX_WAITING || end <= window.forgotten {
            // It is somebody's, whose others' calls must not be taken for it.
            record.standing = Standing::Told;
            self.counters.unsolved += 1;
            return false;
        }
        record.standing = Standing::Waits;
        window.waiting += 1;
        if window.waiting >= MANY {
            self.windows.next = self.now;
        }
        true
    }

    /// Makes questions of the windows in which calls wait, when it is time, or in any case.
    pub(in crate::correlate) fn ask_windows(&mut self, is_last: bool) {
        if self.config.infer == Infer::Off || (self.now < self.windows.next && !is_last) {
            return;
        }
        self.windows.next = self.now.saturating_add(PERIOD);
        let processes = &self.units.processes;
        let windows = &mut self.windows.by_process;
        windows.retain(|process, _| processes.get(*process).is_some());
        let waiting = windows.iter().filter(|(_, window)| window.waiting > 0);
        let waiting: Vec<Key> = waiting.map(|(process, _)| *process).collect();
        for process in waiting {
            if !is_last && self.windows.questions.len() + self.windows.pending >= MAX_QUESTIONS {
                break;
            }
            if let Some(question) = self.question(process, is_last) {
                self.windows.questions.push_back(question);
            }
        }
    }

    fn question(&mut self, process: Key, is_last: bool) -> Option<Question> {
        // What began later may have been made by a request that has not ended.
        let open_since = self.open_since(process).unwrap_or(Nanos::MAX);
        let window = self.windows.by_process.get_mut(&process)?;
        let records = &mut self.records;
        let mut requests: Vec<&Asked> = window.requests.iter().collect();
        requests.retain(|request| records.get(request.key).is_some());
        requests.sort_by_key(|request| (request.start, request.end));
        let mut calls: Vec<&Made> = window.calls.iter().collect();
        calls.sort_by_key(|call| (call.start, call.end));
        let places: HashMap<Key, u32> = requests.iter().map(|r| r.key).zip(0..).collect();
        let (mut endpoints, mut kinds) = (HashMap::new(), HashMap::new());
        let mut question = Question {
            process,
            requests: Vec::with_capacity(requests.len()),
            request_keys: requests.iter().map(|r| r.key).collect(),
            calls: Vec::with_capacity(calls.len()),
            call_keys: Vec::with_capacity(calls.len()),
            wanted: Vec::with_capacity(calls.len()),
        };
        for request in &requests {
            question.requests.push(Request {
                start: request.start,
                end: request.end,
                endpoint: number(&mut endpoints, &*request.name),
                nth: 0,
                others_end: 0,
                ids: request.ids,
            });
        }
        let (mut wanted_calls, mut candidates) = (0, 0);
        for call in calls {
            let Some(record) = records.get(call.key) else {
                continue;
            };
            let known = match (record.standing, record.parent) {
                (Standing::Kept, Parent::Local(owner)) => match places.get(&owner) {
                    Some(place) => Some(*place),
                    None => continue,
                },
                // Its owner may not have ended; or it is known to have none here.
                (Standing::Kept | Standing::Apart | Standing::Due, _) => continue,
                (Standing::Waits | Standing::Asked | Standing::Told, _) => None,
            };
            let begun = requests.partition_point(|r| r.start <= call.start);
            let enclosing = requests.iter().take(begun).filter(|r| call.start <= r.end);
            let ended = enclosing.clone().all(|r| r.end <= open_since);
            let wanted = record.standing == Standing::Waits && (ended || is_last);
            if wanted {
                wanted_calls += 1;
                candidates += enclosing.count();
            }
            question.calls.push(Call {
                start: call.start,
                end: call.end,
                kind: number(&mut kinds, (call.to, &*call.name)),
                known,
                ids: call.ids,
            });
            question.call_keys.push(call.key);
            question.wanted.push(wanted);
        }
        drop((endpoints, kinds));
        let is_soon = self.now < window.asked.saturating_add(PERIOD);
        if wanted_calls == 0 || (wanted_calls < MANY / 2 && is_soon && !is_last) {
            return None;
        }
        window.asked = self.now;
        window.waiting -= wanted_calls;
        for call in question.wanted_calls() {
            if let Some(record) = records.get_mut(call) {
                record.standing = Standing::Asked;
            }
        }
        if candidates > MOST_OPEN * wanted_calls {
            self.counters.unsolved += wanted_calls as u64;
            self.believe_answers(question.give_up());
            return None;
        }
        Some(question)
    }

    /// The next question, to be answered by [`Correlator::answer`].
    pub fn take_question(&mut self) -> Option<Question> {
        let question = self.windows.questions.pop_front()?;
        self.windows.pending += 1;
        Some(question)
    }

    /// Nothing comes any more: whoever waits is asked about now.
    pub fn ask_all(&mut self) {
        self.ask_windows(true);
    }

    /// Whether questions were taken that are not answered yet.
    #[must_use]
    pub fn awaits_answers(&self) -> bool {
        self.windows.pending > 0
    }

    /// Answers all questions here and now, for who has nothing else to do.
    pub fn answer_all(&mut self) {
        while let Some(question) = self.take_question() {
            self.answer(question.solve());
        }
    }

    /// Takes answers.
    pub fn answer(&mut self, answers: Answers) {
        self.windows.pending = self.windows.pending.saturating_sub(1);
        self.believe_answers(answers);
    }

    fn believe_answers(&mut self, answers: Answers) {
        let mut is_believed = false;
        if let Some(window) = self.windows.by_process.get_mut(&answers.process) {
            window.audit.add(answers.audit);
            is_believed = self.config.infer == Infer::Parents && window.audit.is_passed();
        }
        for (call, owner) in answers.told {
            self.believe_times(call, owner, is_believed);
        }
    }

    fn believe_times(&mut self, call: Key, owner: Option<(Key, f32)>, is_believed: bool) {
        let owner = owner.filter(|(owner, confidence)| {
            *confidence >= LINK && self.records.get(*owner).is_some() && self.contexts_agree(call, *owner)
        });
        let Some(record) = self.records.get_mut(call).filter(|r| !r.is_decided()) else {
            return;
        };
        record.standing = Standing::Told;
        let Some((owner, confidence)) = owner else {
            self.decide_unowned(call);
            return;
        };
        if let Some(exchange) = &mut record.exchange {
            exchange
                .attributes
                .push_double(PROBABILITY, f64::from(confidence));
        }
        let evidence = Some((Evidence::Timing, Confidence::Inferred));
        let parent = if confidence >= PARENT && is_believed {
            Parent::Local(owner)
        } else {
            Parent::Linked(owner, "inferred")
        };
        self.decide(call, parent, evidence);
    }
}
