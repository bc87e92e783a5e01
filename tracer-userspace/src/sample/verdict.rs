//! What becomes of traces.

use std::sync::Arc;

use hashbrown::HashMap;

use super::threshold::{self, Mark};
use crate::model::{Span, TraceId};
use crate::telemetry::{Ledger, Reason};

/// Traces whose verdict is remembered for spans that come late.
const MAX_DECIDED: usize = 65_536;

/// What becomes of a trace.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Verdict {
    /// It is exported. What is known of the probability is told.
    Keep(Option<Mark>),
    /// It is not.
    Leave,
}

/// The verdicts of one stage, remembered and carried out.
pub struct Verdicts {
    ledger: Arc<Ledger>,
    /// Why spans are left out.
    reason: Reason,
    /// Two generations: the older is forgotten when the younger is full.
    decided: [HashMap<TraceId, Verdict>; 2],
}

impl Verdicts {
    pub fn new(ledger: Arc<Ledger>, reason: Reason) -> Self {
        Self {
            ledger,
            reason,
            decided: Default::default(),
        }
    }

    /// What was decided of the trace.
    pub fn of(&self, trace: TraceId) -> Option<Verdict> {
        self.decided
            .iter()
            .find_map(|verdicts| verdicts.get(&trace).copied())
    }

    /// Remembers the verdict and carries it out.
    pub fn decide(&mut self, trace: TraceId, spans: Vec<Span>, verdict: Verdict, kept: &mut Vec<Span>) {
        if self.decided[0].len() >= MAX_DECIDED / 2 {
            self.decided.swap(0, 1);
            self.decided[0].clear();
        }
        self.decided[0].insert(trace, verdict);
        self.carry_out(spans, verdict, kept);
    }

    /// Hands on what is kept and counts what is not.
    pub fn carry_out(&self, spans: Vec<Span>, verdict: Verdict, kept: &mut Vec<Span>) {
        match verdict {
            Verdict::Leave => {
                for span in &spans {
                    self.ledger.dropped(Some(&span.service.name), self.reason, 1);
                }
            }
            Verdict::Keep(mark) => kept.extend(spans.into_iter().map(|mut span| {
                if let Some(mark) = mark {
                    span.trace_state = threshold::write(&span.trace_state, mark);
                }
                span
            })),
        }
    }
}
