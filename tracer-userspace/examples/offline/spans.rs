//! Spans with known parents, and the questions that they pose.

use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context as _, Result};
use serde::Deserialize;

/// One line. Times are in microseconds.
#[derive(Deserialize)]
struct Line {
    trace: String,
    span: String,
    /// `null` for a root.
    parent: Option<String>,
    service: String,
    operation: String,
    /// `client`, `server` or `null`. Where no client spans but roots are told, a callee's span stands for the call.
    kind: Option<String>,
    start_us: u64,
    duration_us: u64,
}

/// One span. Times are in nanoseconds.
pub struct Span {
    pub start: u64,
    pub end: u64,
    pub trace: usize,
    pub service: usize,
    pub operation: usize,
    /// It is a request that its service received.
    pub enters: bool,
    /// Whether what it hangs under is told by the connection, not asked for: the server span of a client span.
    pub known_parent: Option<usize>,
}

/// A call whose request is asked for.
#[derive(Clone, Copy)]
pub struct Question {
    /// The span of the call.
    pub call: usize,
    /// The span of the request that made it.
    pub truth: usize,
    /// Whether the published figures are about it, too: they leave out calls within a service, and all of a service that several others call.
    pub is_published: bool,
}

/// A set.
pub struct Set {
    pub spans: Vec<Span>,
    pub traces: usize,
    /// By the service that calls.
    pub questions: BTreeMap<usize, Vec<Question>>,
}

#[derive(Default)]
struct Names<'a>(HashMap<&'a str, usize>);

impl<'a> Names<'a> {
    fn number(&mut self, name: &'a str) -> usize {
        let next = self.0.len();
        *self.0.entry(name).or_insert(next)
    }
}

/// Reads a set. Spans within a service that other spans of it hang under are no calls; what hangs under them hangs under their
/// request.
pub fn parse(text: &str) -> Result<Set> {
    let lines = text.lines().map(serde_json::from_str::<Line>);
    let mut lines: Vec<Line> = lines.collect::<Result<_, _>>().context("a span")?;
    lines.sort_by_key(|line| (line.start_us, line.start_us + line.duration_us));
    let index: HashMap<(&str, &str), usize> = lines
        .iter()
        .enumerate()
        .map(|(at, line)| ((line.trace.as_str(), line.span.as_str()), at))
        .collect();
    let parent_of = |line: &Line| {
        index
            .get(&(line.trace.as_str(), line.parent.as_deref()?))
            .copied()
    };
    let parents: Vec<Option<usize>> = lines.iter().map(parent_of).collect();
    let is_client = |line: &Line| line.kind.as_deref() == Some("client");
    let has_clients = lines.iter().any(|line| is_client(line) && line.parent.is_some());
    let enters: Vec<bool> = lines
        .iter()
        .zip(&parents)
        .map(|(line, parent)| match parent {
            _ if has_clients => !is_client(line),
            Some(parent) => lines[*parent].service != line.service,
            None => true,
        })
        .collect();
    let mut callers: HashMap<&str, HashSet<&str>> = HashMap::new();
    for (line, parent) in lines.iter().zip(&parents) {
        if let Some(parent) = *parent
            && lines[parent].service != line.service
        {
            callers
                .entry(&line.service)
                .or_default()
                .insert(&lines[parent].service);
        }
    }
    let has_one_caller = |service: &str| callers.get(service).is_none_or(|all| all.len() == 1);
    let inner: HashSet<usize> = parents.iter().flatten().copied().collect();
    let request_of = |mut at: usize| {
        while !enters[at]
            && let Some(parent) = parents[at]
        {
            at = parent;
        }
        at
    };
    let (mut traces, mut services, mut operations) = (Names::default(), Names::default(), Names::default());
    let mut questions: BTreeMap<usize, Vec<Question>> = BTreeMap::new();
    for (call, parent) in parents.iter().enumerate() {
        let Some(parent) = *parent else {
            continue;
        };
        let is_call = if has_clients {
            !enters[call]
        } else {
            enters[call] || !inner.contains(&call)
        };
        if is_call {
            let service = services.number(&lines[parent].service);
            let truth = request_of(parent);
            questions.entry(service).or_default().push(Question {
                call,
                truth,
                is_published: (has_clients || enters[call]) && has_one_caller(&lines[parent].service),
            });
        }
    }
    let spans = lines.iter().enumerate().map(|(at, line)| Span {
        start: line.start_us * 1_000,
        end: (line.start_us + line.duration_us) * 1_000,
        trace: traces.number(&line.trace),
        service: services.number(&line.service),
        operation: operations.number(&line.operation),
        enters: enters[at],
        known_parent: parents[at].filter(|_| has_clients && enters[at]),
    });
    let spans = spans.collect();
    Ok(Set {
        spans,
        traces: traces.0.len(),
        questions,
    })
}
