//! `tracer replay FILE`: a recorded run through the correlation stage once more.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::correlate::Correlator;
use crate::model::{Confidence, Service, Span, SpanId};
use crate::record::{Event, Recording};
use crate::telemetry::Ledger;

/// Tells the spans of a recorded run, one a line as JSON, in the order in which their exchanges were seen. Ids are random, so exchanges are
/// named by their numbers in that run: the same recording gives the same lines.
///
/// # Errors
/// The file can't be read, or `out` not written.
pub fn replay(file: &Path, out: impl Write) -> anyhow::Result<()> {
    let lines = File::open(file).with_context(|| file.display().to_string())?;
    replay_lines(BufReader::new(lines), out).with_context(|| file.display().to_string())
}

fn replay_lines(lines: impl BufRead, mut out: impl Write) -> anyhow::Result<()> {
    let mut recording = Recording::open(lines)?;
    let config = serde_json::from_value(recording.correlate.take()).context("the settings")?;
    let mut correlator = Correlator::new(config, Arc::new(Ledger::default()));
    let mut known: HashMap<u32, Arc<Service>> = HashMap::new();
    let mut spans = Vec::new();
    while let Some(event) = recording.next_event()? {
        match event {
            Event::Service(tgid, service) => _ = known.insert(tgid, service),
            Event::Signal(signal) => {
                correlator.signal(signal, &mut |tgid| known.get(&tgid).cloned().unwrap_or_default());
            }
            Event::Advance(to) => {
                correlator.advance(to, &mut spans);
                correlator.answer_all();
            }
        }
    }
    correlator.ask_all();
    correlator.answer_all();
    correlator.finish(&mut spans);
    let numbers: HashMap<SpanId, u64> = spans
        .iter()
        .map(|span| (span.span_id, span.exchange.id.0))
        .collect();
    // A trace is named by the first of its exchanges.
    let mut traces = HashMap::new();
    for span in &spans {
        let first = traces.entry(span.trace_id).or_insert(u64::MAX);
        *first = span.exchange.id.0.min(*first);
    }
    let told: BTreeMap<u64, Value> = spans
        .iter()
        .map(|span| {
            (
                span.exchange.id.0,
                tell(span, &numbers, traces.get(&span.trace_id)),
            )
        })
        .collect();
    for line in told.values() {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    Ok(())
}

fn tell(span: &Span, numbers: &HashMap<SpanId, u64>, trace: Option<&u64>) -> Value {
    let exchange = &span.exchange;
    let number = |id: &SpanId| numbers.get(id).map_or(json!("elsewhere"), |number| json!(number));
    let links: Vec<Value> = span
        .links
        .iter()
        .map(|link| json!({"to": number(&link.span_id), "reason": link.reason}))
        .collect();
    let (evidence, confidence) = span.evidence.unzip();
    json!({
        "exchange": exchange.id.0,
        "trace": trace,
        "parent": span.parent.as_ref().map(number),
        "evidence": evidence.map(|evidence| evidence.as_str()),
        "confidence": confidence.map(Confidence::as_str),
        "links": links,
        "service": &*span.service.name,
        "pid": span.service.tgid,
        "kind": exchange.role.as_str(),
        "name": &*exchange.name,
        "start": exchange.start.ts,
        "end": exchange.end.ts,
        "thread": exchange.start.unit.tid,
    })
}
