//! Gathers spans into traces, and says when a trace is fit to be printed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::accounts::{Share, TicketId};
use super::super::shape::duration;
use super::waterfall;
use crate::model::{Confidence, Nanos, Outcome, Role, Span, SpanId, TraceId, Value};

/// What one row of the waterfall needs of a span.
pub(super) struct Node {
    pub id: SpanId,
    pub parent: Option<SpanId>,
    pub confidence: Option<Confidence>,
    pub start: Nanos,
    pub duration: Nanos,
    pub role: Role,
    pub name: Arc<str>,
    /// The status code, or what went wrong.
    pub status: Box<str>,
    pub is_error: bool,
    /// The span in the books; its service.
    pub share: Share,
}

/// Spans of one trace.
pub(super) struct Trace {
    pub id: TraceId,
    pub nodes: Vec<Node>,
    first: Instant,
    last: Instant,
    /// The root and every parent are there (as of `nodes.len()` when it was looked at).
    whole: Option<(usize, bool)>,
}

impl Trace {
    fn is_whole(&mut self) -> bool {
        if let Some((seen, whole)) = self.whole
            && seen == self.nodes.len()
        {
            return whole;
        }
        let ids: std::collections::HashSet<_> = self.nodes.iter().map(|node| node.id).collect();
        let whole = self
            .nodes
            .iter()
            .all(|node| node.parent.is_none_or(|parent| ids.contains(&parent)));
        self.whole = Some((self.nodes.len(), whole));
        whole
    }
}

/// When traces are printed, and how many.
pub(super) struct Limits {
    /// Quiet time of a whole trace.
    pub settle: Duration,
    /// Quiet time of a trace with spans missing; ten times that is the longest any trace waits.
    pub patience: Duration,
    /// Spans beyond which the oldest traces are printed as they are.
    pub max_spans: usize,
    /// Lines a second; `None` for all.
    pub lines_per_second: Option<u32>,
}

/// Traces that are not printed yet.
pub(super) struct Traces {
    limits: Limits,
    open: HashMap<TraceId, Trace>,
    spans: usize,
    /// Lines that may be printed now, refilled by time.
    lines: f64,
    refilled: Option<Instant>,
    left_out: (u64, u64),
    noticed: Option<Instant>,
}

impl Traces {
    pub fn new(limits: Limits) -> Self {
        let lines = limits.lines_per_second.unwrap_or_default().into();
        Self {
            limits,
            open: HashMap::new(),
            spans: 0,
            lines,
            refilled: None,
            left_out: (0, 0),
            noticed: None,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_empty() && self.left_out == (0, 0)
    }

    /// Takes a span.
    pub fn add(&mut self, ticket: TicketId, span: &Span, now: Instant) {
        let exchange = &*span.exchange;
        let (status, is_error) = match &exchange.outcome {
            Outcome::Error { kind, .. } => (kind.clone(), true),
            Outcome::Unset => (code(span), false),
        };
        let node = Node {
            id: span.span_id,
            parent: span.parent,
            confidence: span.evidence.map(|(_, confidence)| confidence),
            start: exchange.start.ts,
            duration: duration(span),
            role: exchange.role,
            name: exchange.name.clone(),
            status,
            is_error,
            share: Share {
                ticket,
                service: Arc::clone(&span.service),
                spans: 1,
            },
        };
        let trace = self.open.entry(span.trace_id).or_insert_with(|| Trace {
            id: span.trace_id,
            nodes: Vec::new(),
            first: now,
            last: now,
            whole: None,
        });
        trace.last = now;
        trace.nodes.push(node);
        self.spans += 1;
    }

    /// Notes spans that never got here.
    pub fn left_out(&mut self, traces: u64, spans: u64) {
        self.left_out.0 += traces;
        self.left_out.1 += spans;
    }

    /// The traces to print now, by start, each with whether there is room for it. With `all`, nothing waits any longer.
    pub fn ready(&mut self, now: Instant, all: bool) -> Vec<(Trace, bool)> {
        let Limits {
            settle,
            patience,
            max_spans,
            lines_per_second,
        } = self.limits;
        let is_crowded = self.spans > max_spans;
        let due = |trace: &mut Trace| {
            let quiet = now.saturating_duration_since(trace.last);
            let age = now.saturating_duration_since(trace.first);
            all || is_crowded
                || quiet >= patience
                || age >= patience.saturating_mul(10)
                || (quiet >= settle && trace.is_whole())
        };
        let mut ready: Vec<_> = self
            .open
            .extract_if(|_, trace| due(trace))
            .map(|(_, trace)| trace)
            .collect();
        ready.sort_by_key(|trace| (trace.nodes.iter().map(|node| node.start).min(), trace.id.0));
        self.spans -= ready.iter().map(|trace| trace.nodes.len()).sum::<usize>();
        let Some(rate) = lines_per_second.map(f64::from) else {
            return ready.into_iter().map(|trace| (trace, true)).collect();
        };
        let elapsed = self
            .refilled
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.refilled = Some(now);
        self.lines = (self.lines + elapsed.as_secs_f64() * rate).min(rate);
        let mut fit = |trace: Trace| {
            let lines = waterfall::lines(trace.nodes.len()) as f64;
            // A trace that is longer than a second's worth is printed when nothing else was.
            let is_shown = self.lines >= lines.min(rate);
            if is_shown {
                self.lines -= lines;
            } else {
                self.left_out.0 += 1;
                self.left_out.1 += trace.nodes.len() as u64;
            }
            (trace, is_shown)
        };
        ready.into_iter().map(&mut fit).collect()
    }

    /// Traces and spans left out since the last notice, once a second at most.
    pub fn take_left_out(&mut self, now: Instant, all: bool) -> Option<(u64, u64)> {
        let is_due = self
            .noticed
            .is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(1));
        if self.left_out == (0, 0) || !(is_due || all) {
            return None;
        }
        self.noticed = Some(now);
        Some(std::mem::take(&mut self.left_out))
    }
}

/// The status code that the protocol knows.
fn code(span: &Span) -> Box<str> {
    use opentelemetry_semantic_conventions::attribute as semconv;
    let attributes = &span.exchange.attributes;
    let code = [
        semconv::HTTP_RESPONSE_STATUS_CODE,
        semconv::RPC_RESPONSE_STATUS_CODE,
    ]
    .into_iter()
    .find_map(|key| attributes.get(key));
    match code {
        Some(Value::Int(code)) => code.to_string().into(),
        Some(Value::Str(code)) => code.into(),
        _ => Box::default(),
    }
}
