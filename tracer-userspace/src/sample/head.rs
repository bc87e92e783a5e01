//! The standard samplers (OpenTelemetry specification, "Built-in samplers"), each for a whole trace.

use super::config::Kind;
use super::threshold::{self, Mark, Said, Threshold};
use super::verdict::Verdict;
use crate::model::Span;

/// A head sampler.
pub struct Head {
    kind: Kind,
    ratio: Option<Threshold>,
}

impl Head {
    pub fn new(kind: Kind, ratio: f64) -> Self {
        Self {
            kind,
            ratio: Threshold::of(ratio),
        }
    }

    /// Whether what the caller said matters (its decision, its threshold), which only the span that carries the context tells.
    pub fn waits(&self) -> bool {
        !matches!(self.kind, Kind::AlwaysOn | Kind::AlwaysOff)
    }

    fn asks_parent(&self) -> bool {
        matches!(
            self.kind,
            Kind::ParentBasedAlwaysOn | Kind::ParentBasedAlwaysOff | Kind::ParentBasedTraceIdRatio
        )
    }

    /// Decides for the trace of these spans.
    pub fn judge(&self, spans: &[Span]) -> Verdict {
        if self.asks_parent() {
            let told = spans.iter().find_map(|span| {
                let context = span.exchange.context.as_ref()?;
                context.sampled.filter(|_| context.trace_id == span.trace_id)
            });
            match told {
                // By which probability is for the caller to say.
                Some(true) => {
                    let said = said(spans);
                    return Verdict::Keep(said.threshold.map(|threshold| Mark {
                        threshold,
                        randomness: said.randomness,
                    }));
                }
                Some(false) => return Verdict::Leave,
                None => {}
            }
        }
        match self.kind {
            Kind::AlwaysOn | Kind::ParentBasedAlwaysOn => by_threshold(spans, Some(Threshold::ALL)),
            Kind::AlwaysOff | Kind::ParentBasedAlwaysOff => Verdict::Leave,
            Kind::TraceIdRatio | Kind::ParentBasedTraceIdRatio => by_threshold(spans, self.ratio),
        }
    }
}

/// Keeps the trace if its randomness allows. What it passed before it came here is not forgotten.
pub fn by_threshold(spans: &[Span], own: Option<Threshold>) -> Verdict {
    let (Some(first), Some(own)) = (spans.first(), own) else {
        return Verdict::Leave;
    };
    let said = said(spans);
    let threshold = said.threshold.map_or(own, |before| before.max(own));
    // Where everything is kept, a caller that broke the rules changes nothing.
    if own == Threshold::ALL || threshold.keeps(threshold::randomness(first.trace_id, said)) {
        Verdict::Keep(Some(Mark {
            threshold,
            randomness: said.randomness,
        }))
    } else {
        Verdict::Leave
    }
}

/// What the caller told of its sampling; one span of the trace carries it.
fn said(spans: &[Span]) -> Said {
    spans
        .iter()
        .filter(|span| !span.trace_state.is_empty())
        .map(|span| threshold::read(&span.trace_state))
        .find(|said| *said != Said::default())
        .unwrap_or_default()
}
