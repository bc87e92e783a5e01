//! Verdicts on whole traces.
//!
//! What decides that a trace is kept for itself (it failed, is slow, or rare) does not look at its randomness, and what is left is kept
//! by a probability that does not either. So each trace's weight is the inverse of its own probability, and sums over weights are true.

use super::config::Tail;
use super::endpoints::Endpoints;
use super::head::by_threshold;
use super::threshold::Threshold;
use super::verdict::Verdict;
use crate::model::{Nanos, Outcome, Span};

const SECOND: Nanos = 1_000_000_000;

/// Judges traces.
pub struct Judge {
    config: Tail,
    endpoints: Endpoints,
    budget: Budget,
}

impl Judge {
    pub fn new(config: &Tail) -> Self {
        Self {
            config: config.clone(),
            endpoints: Endpoints::default(),
            budget: Budget::default(),
        }
    }

    /// Decides for the trace of these spans.
    pub fn judge(&mut self, spans: &[Span], now: Nanos) -> Verdict {
        let failed = self.config.errors && spans.iter().any(|span| span.exchange.outcome != Outcome::Unset);
        let mut slow = false;
        let mut rare = false;
        // Requests are judged where they were served, and calls where nobody's request caused them.
        for span in spans {
            if !span.exchange.role.is_inbound() && span.parent.is_some() {
                continue;
            }
            let duration = span.exchange.end.ts.saturating_sub(span.exchange.start.ts);
            let usual = self.endpoints.compare(span, duration, now);
            slow |= self.config.slow_p99 && usual.is_slow;
            slow |= self
                .config
                .slow
                .is_some_and(|limit| u128::from(duration) > limit.as_nanos());
            rare |= usual.before < self.config.rare_per_minute;
        }
        if failed || slow || rare {
            return by_threshold(spans, Some(Threshold::ALL));
        }
        let probability = self.budget.probability(self.config.traces_per_second, now);
        by_threshold(spans, Threshold::of(probability.max(self.config.base_ratio)))
    }
}

/// As many traces a second as fit, by a probability that follows the load.
#[derive(Default)]
struct Budget {
    second: Nanos,
    seen: u64,
    /// Traces in the last second that was whole.
    last: u64,
}

impl Budget {
    /// The probability for the next trace. It depends on how many there are, never on which.
    fn probability(&mut self, budget: f64, now: Nanos) -> f64 {
        let second = now / SECOND;
        if second != self.second {
            // Seconds without a trace lie between, or not.
            self.last = if second == self.second + 1 { self.seen } else { 0 };
            (self.second, self.seen) = (second, 0);
        }
        self.seen += 1;
        // A burst counts at once, not a second later.
        let rate = self.last.max(self.seen) as f64;
        (budget / rate).min(1.0)
    }
}
