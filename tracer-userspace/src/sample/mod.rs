//! Which traces are exported.
//!
//! A *head* sampler decides by the trace's id and by what the caller said. The *tail* sampler waits until a trace is known and keeps
//! those worth looking at: failed, slow, rare; of the rest as many as a budget allows, or a base rate. Either decides for whole traces, and
//! what is kept says with which probability it was (`ot=th:…` in `tracestate`), so that counts can be restored. Metrics are counted before.

mod config;
mod endpoints;
mod head;
mod shed;
mod tail;
mod threshold;
mod turns;
mod verdict;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use hashbrown::HashMap;

use crate::model::{Nanos, Span, TraceId};
use crate::telemetry::{Ledger, Reason};

pub use self::config::{Config, Kind, Tail, parse_ratio};
use self::head::Head;
pub use self::shed::{Shed, Shedder, Shedding, Window};
use self::tail::Judge;
pub use self::turns::{Step, TURN, Turns};
use self::verdict::Verdicts;

/// How long after its root a trace may still get spans before it is judged.
const SETTLE: Nanos = 200_000_000;

/// A trace that waits for its verdict.
struct Waiting {
    spans: Vec<Span>,
    due: Nanos,
}

/// The stage.
pub struct Sampler {
    head: Head,
    judge: Option<Judge>,
    ledger: Arc<Ledger>,
    waits: bool,
    wait: Nanos,
    max_spans: usize,
    waiting: HashMap<TraceId, Waiting>,
    /// When which trace is due; a trace that became due earlier stands here twice.
    order: std::collections::BTreeSet<(Nanos, TraceId)>,
    held: usize,
    verdicts: Verdicts,
}

impl Sampler {
    /// The stage that the configuration asks for; `None` if every trace is exported.
    #[must_use]
    pub fn new(config: &Config, ledger: Arc<Ledger>) -> Option<Self> {
        let head = Head::new(config.sampler.unwrap_or(Kind::ParentBasedAlwaysOn), config.ratio);
        let judge = config.tail.enabled.then(|| Judge::new(&config.tail));
        if config.sampler.is_none() && judge.is_none() {
            return None;
        }
        Some(Self {
            waits: judge.is_some() || head.waits(),
            head,
            judge,
            verdicts: Verdicts::new(Arc::clone(&ledger), Reason::NotSampled),
            ledger,
            wait: config.tail.decision_wait.as_nanos() as Nanos,
            max_spans: config.tail.max_spans.max(1),
            waiting: HashMap::new(),
            order: std::collections::BTreeSet::new(),
            held: 0,
        })
    }

    /// Takes finished spans; those of traces that are kept go to `kept`, now or later. Leaves `spans` empty.
    pub fn offer(&mut self, spans: &mut Vec<Span>, now: Nanos, kept: &mut Vec<Span>) {
        for span in spans.drain(..) {
            if !self.waits {
                let verdict = self.head.judge(std::slice::from_ref(&span));
                self.verdicts.carry_out(vec![span], verdict, kept);
            } else if let Some(verdict) = self.verdicts.of(span.trace_id) {
                self.verdicts.carry_out(vec![span], verdict, kept);
            } else {
                self.hold(span, now, kept);
            }
        }
        self.advance(now, kept);
    }

    /// Judges the traces whose time has come.
    pub fn advance(&mut self, now: Nanos, kept: &mut Vec<Span>) {
        while let Some(&(due, trace)) = self.order.first()
            && due <= now
        {
            self.order.pop_first();
            if self.waiting.get(&trace).is_some_and(|waiting| waiting.due <= now) {
                self.decide(trace, false, now, kept);
            }
        }
    }

    /// Judges everything that still waits.
    pub fn finish(&mut self, now: Nanos, kept: &mut Vec<Span>) {
        self.advance(Nanos::MAX, kept);
        let left: Vec<TraceId> = self.waiting.keys().copied().collect();
        for trace in left {
            self.decide(trace, false, now, kept);
        }
    }

    fn hold(&mut self, span: Span, now: Nanos, kept: &mut Vec<Span>) {
        let trace = span.trace_id;
        let is_root = span.parent.is_none();
        let last = now.saturating_add(self.wait);
        let waiting = self.waiting.entry(trace).or_insert_with(|| Waiting {
            spans: Vec::new(),
            due: Nanos::MAX,
        });
        let due = if is_root {
            now.saturating_add(SETTLE.min(self.wait))
        } else {
            last
        };
        if due < waiting.due {
            waiting.due = due;
            self.order.insert((due, trace));
        }
        waiting.spans.push(span);
        self.held += 1;
        // The trace that has waited longest goes as its head sampler says.
        while self.held > self.max_spans {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if self.waiting.contains_key(&oldest) {
                self.decide(oldest, true, now, kept);
            }
        }
    }

    fn decide(&mut self, trace: TraceId, overflows: bool, now: Nanos, kept: &mut Vec<Span>) {
        let Some(waiting) = self.waiting.remove(&trace) else {
            return;
        };
        self.held -= waiting.spans.len();
        let spans = waiting.spans;
        let verdict = match &mut self.judge {
            Some(judge) if !overflows => judge.judge(&spans, now),
            _ => self.head.judge(&spans),
        };
        if overflows {
            self.ledger.health().sampling_overflowed(1);
        }
        self.verdicts.decide(trace, spans, verdict, kept);
    }
}
