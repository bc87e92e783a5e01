//! The causality judge's meshes: an entry service that fans out to two others (`apps/mesh/README.md`), the requests that it
//! must make for each request that it gets, and the score of the parents that the tracer claims.

use std::collections::{BTreeMap, HashMap};

use sha2::{Digest as _, Sha256};

use crate::judge::{Score, ratio};
use crate::span::{Kind, Span, Spans, Value};

/// Known to the judge and to the services, never to the tracer.
pub const KEY: &str = "known to the judge";

/// The marker of a request: 16 hexadecimal digits.
pub type Marker = String;

fn marker(text: &str) -> Marker {
    let digest = Sha256::digest(text);
    digest[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The marker of the `n`th request that the load generator makes.
#[must_use]
pub fn first(n: u64) -> Marker {
    marker(&format!("request {n}"))
}

/// The marker of call `call` of the request with that marker.
#[must_use]
pub fn child(parent: &str, call: usize) -> Marker {
    marker(&format!("{KEY}/{parent}/{call}"))
}

/// What an entry service does for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Makes that many calls, the even ones to leaves, the odd ones to branches (each calls a leaf).
    Calls(usize),
    /// As many calls, and one more to a leaf once the answer is out: "a finished request parents nothing".
    Late(usize),
    /// As many calls, a query (PostgreSQL; its column has the marker as its name) and a look-up in a cache (Redis).
    Stores(usize),
    /// As many calls, each of which names the order that the request names.
    Named(usize),
    /// Passes the request on to a leaf as it is.
    Proxy,
}

/// A request that must have been made: who asked whom with which marker, and which request it serves.
struct Expected {
    /// Index of the request that caused it; its own index for the first.
    cause: usize,
    marker: Marker,
    /// A look-up in the cache. Spans quote no keys: the marker decides how many there are and how long they are.
    is_look_up: bool,
    /// Made when the request that caused it was answered: nobody's child.
    late: bool,
}

/// The requests of one trace, the first one first. Each but the first is seen at both ends.
fn requests(first: &str, shape: Shape) -> Vec<Expected> {
    let mut all = vec![Expected {
        cause: 0,
        marker: first.to_owned(),
        is_look_up: false,
        late: false,
    }];
    let mut add = |cause, marker, is_look_up| {
        all.push(Expected {
            cause,
            marker,
            is_look_up,
            late: false,
        });
        all.len() - 1
    };
    match shape {
        Shape::Proxy => {
            add(0, first.to_owned(), false);
        }
        Shape::Calls(calls) | Shape::Late(calls) | Shape::Stores(calls) | Shape::Named(calls) => {
            for call in 0..calls {
                let marker = child(first, call);
                let made = add(0, marker.clone(), false);
                if call % 2 == 1 {
                    add(made, child(&marker, 0), false);
                }
            }
            if let Shape::Stores(_) = shape {
                add(0, child(first, calls), false);
                add(0, child(first, calls + 1), true);
            }
        }
    }
    if let Shape::Late(calls) = shape {
        all.push(Expected {
            cause: 0,
            marker: child(first, calls),
            is_look_up: false,
            late: true,
        });
    }
    all
}

/// How right the claimed parents of one run are.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tally {
    /// The calls of the entry service.
    pub calls: Score,
    /// Links between the two ends of a call: right, and all.
    pub across: (usize, usize),
    /// Traces with all their spans, all parents right and no stranger; and all.
    pub whole: (usize, usize),
    /// The entry service's parents by `tracer.parent.evidence` and confidence: right, and all.
    pub by_evidence: BTreeMap<String, (usize, usize)>,
    /// The requests that times alone name (`--infer`), as parents or links, by how likely they are said to be: right, and all.
    pub by_probability: BTreeMap<&'static str, (usize, usize)>,
}

/// Upper ends of the classes of probability, and their names.
const PROBABILITIES: [(f64, &str); 5] = [
    (0.8, "0.5 to 0.8"),
    (0.9, "0.8 to 0.9"),
    (0.99, "0.9 to 0.99"),
    (0.999, "0.99 to 0.999"),
    (f64::INFINITY, "above 0.999"),
];

impl Tally {
    /// Whole traces over all.
    #[must_use]
    pub fn whole_traces(&self) -> f64 {
        ratio(self.whole.0, self.whole.1)
    }
}

/// The marker in a span's path: its last segment. In a query it is the name of a column.
fn marker_of(span: &Span) -> &str {
    match span.text("db.system.name") {
        "postgresql" => span.text("db.query.text").rsplit("m_").next().unwrap_or_default(),
        _ => span.path().rsplit('/').next().unwrap_or_default(),
    }
}

/// What clients of stores say first on a connection, which one request makes and all use.
fn begins_connection(span: &Span) -> bool {
    span.get("db.system.name").is_some()
        && span.text("db.operation.name") != "MGET"
        && !span.text("db.query.text").contains("AS m_")
}

/// How many keys are looked up, and the bytes of that command: `MGET <marker, and up to 4,095 times x> k k k`.
fn look_up(marker: &str) -> (usize, i64) {
    let digits = |range: std::ops::Range<usize>| usize::from_str_radix(&marker[range], 16).expect("digits");
    let keys = 1 + digits(0..1);
    let bulk = |len: usize| format!("${len}\r\n").len() + len + 2;
    let array = format!("*{}\r\n", 1 + keys).len();
    let bytes = array + bulk(4) + bulk(marker.len() + digits(1..4)) + (keys - 1) * bulk(1);
    (keys, i64::try_from(bytes).expect("a few thousand"))
}

/// Spans by kind and marker. A proxy's call and the request that it passes on share the marker, not the service.
struct Known<'a> {
    spans: HashMap<(&'a str, bool), Vec<&'a Span>>,
}

impl<'a> Known<'a> {
    fn new(spans: &'a Spans) -> Self {
        let mut known: HashMap<_, Vec<_>> = HashMap::new();
        for span in spans {
            known
                .entry((marker_of(span), span.kind == Kind::Client))
                .or_default()
                .push(span);
        }
        Self { spans: known }
    }

    fn find(&self, marker: &str, kind: Kind, at_entry: bool, entry: &str) -> &'a Span {
        let found = self.spans.get(&(marker, kind == Kind::Client));
        let mut of_service = found
            .into_iter()
            .flatten()
            .filter(|span| (span.service == entry) == at_entry);
        match (of_service.next(), of_service.next()) {
            (Some(span), None) => span,
            (None, _) => panic!("no {kind:?} span of request {marker}"),
            (Some(one), Some(other)) => panic!("two spans of one request: {one} and {other}"),
        }
    }
}

impl<'a> Known<'a> {
    /// The call that a service made for the request with the span `cause`.
    fn call(&self, request: &Expected, at_entry: bool, entry: &str, cause: &Span) -> &'a Span {
        if !request.is_look_up {
            return self.find(&request.marker, Kind::Client, at_entry, entry);
        }
        // The path of its spans is empty, and so is the marker in it.
        let (keys, bytes) = look_up(&request.marker);
        let all = self.spans.get(&("", true));
        let like = all.into_iter().flatten().filter(|span| {
            span.service == entry
                && span.text("db.query.text").matches('?').count() == keys
                && cause.start < span.end
                && span.start < cause.end
        });
        // Of 65,536 look-ups two are rarely alike at the same time. Bytes that the tracer has not seen, as it may be at its start,
        // are not always counted.
        let unlike = |span: &Span| span.int("tracer.request.bytes") != Some(bytes);
        like.min_by_key(|span| (unlike(span), !is_child(span, cause)))
            .unwrap_or_else(|| panic!("no span of a look-up of {keys} keys and {bytes} bytes"))
    }
}

impl Known<'_> {
    /// How many spans of the same request lie before that one, in a server that passed it on; `None` if something else does.
    fn before(&self, span: &Span) -> Option<usize> {
        let Some(parent) = &span.parent else {
            return Some(0);
        };
        let same = |kind: Kind| self.spans.get(&(marker_of(span), kind == Kind::Client));
        let parent = [Kind::Client, Kind::Server]
            .into_iter()
            .filter_map(same)
            .flatten()
            .find(|other| other.span_id == *parent)?;
        Some(1 + self.before(parent)?)
    }
}

/// Scores what the tracer said of the requests `markers`, each of that shape, to the service `entry`. Only requests to services
/// under test are counted as its calls; what happens behind them counts for whole traces.
///
/// # Panics
/// If a request has no span at one of its ends, or more than one: that is no question of parents.
#[must_use]
pub fn tally(spans: &Spans, entry: &str, shape: Shape, markers: impl Iterator<Item = Marker>) -> Tally {
    let known = Known::new(spans);
    let mut of_trace: HashMap<&[u8], usize> = HashMap::new();
    for span in spans.iter().filter(|span| !begins_connection(span)) {
        *of_trace.entry(&span.trace_id).or_default() += 1;
    }
    let mut tally = Tally::default();
    for marker in markers {
        let requests = requests(&marker, shape);
        let mut servers: Vec<&Span> = Vec::with_capacity(requests.len());
        let root = known.find(&marker, Kind::Server, true, entry);
        let inside = requests.iter().filter(|request| !request.late).count();
        let look_ups = requests.iter().filter(|request| request.is_look_up).count();
        let before = known.before(root);
        let mut is_whole = before
            .is_some_and(|before| of_trace[root.trace_id.as_slice()] == before + inside * 2 - 1 - look_ups);
        servers.push(root);
        for request in &requests[1..] {
            let is_own = request.cause == 0;
            let client = known.call(request, is_own, entry, servers[request.cause]);
            if request.is_look_up {
                // The cache itself is not traced.
                let is_right = is_child(client, root);
                is_whole &= is_right;
                tally.count(client, is_right);
                continue;
            }
            let server = known.find(&request.marker, Kind::Server, false, entry);
            let is_right = if request.late {
                client.parent.is_none()
            } else {
                is_child(client, servers[request.cause])
            };
            let crosses = is_child(server, client);
            is_whole &= is_right && crosses;
            tally.across.0 += usize::from(crosses);
            tally.across.1 += 1;
            if is_own && !(request.late && is_right) {
                tally.count(client, is_right);
            }
            if is_own {
                tally.count_probability(client, root, request.late);
            }
            servers.push(server);
        }
        tally.whole.0 += usize::from(is_whole);
        tally.whole.1 += 1;
    }
    tally
}

fn is_child(span: &Span, parent: &Span) -> bool {
    span.parent.as_ref() == Some(&parent.span_id) && span.trace_id == parent.trace_id
}

impl Tally {
    /// What times alone said of the call, if they did.
    fn count_probability(&mut self, call: &Span, root: &Span, late: bool) {
        let Some(Value::Double(probability)) = call.get("tracer.parent.probability") else {
            return;
        };
        let (_, name) = PROBABILITIES[PROBABILITIES.partition_point(|(end, _)| end <= probability)];
        let linked = call.links.iter().any(|(_, span)| *span == root.span_id);
        let is_right = !late && (linked || is_child(call, root));
        let of_class = self.by_probability.entry(name).or_default();
        of_class.0 += usize::from(is_right);
        of_class.1 += 1;
    }

    fn count(&mut self, call: &Span, is_right: bool) {
        if call.parent.is_none() {
            self.calls.missing += 1;
            return;
        }
        if is_right {
            self.calls.right += 1;
        } else {
            self.calls.wrong += 1;
        }
        let confidence = match call.text("tracer.parent.confidence") {
            "" => "certain",
            less => less,
        };
        let evidence = format!("{} {confidence}", call.text("tracer.parent.evidence"));
        let of_evidence = self.by_evidence.entry(evidence).or_default();
        of_evidence.0 += usize::from(is_right);
        of_evidence.1 += 1;
    }
}

/// The requests to the service `entry` and the calls that it made for them, with their real parents, as lines of a set of spans
/// (`tests/data/spans/README.md`).
#[must_use]
pub fn spans_with_parents(
    spans: &Spans,
    entry: &str,
    shape: Shape,
    markers: impl Iterator<Item = Marker>,
) -> Vec<serde_json::Value> {
    let known = Known::new(spans);
    let line = |trace: &str, number: usize, span: &Span| {
        let segments = span.path().split('/').collect::<Vec<_>>();
        serde_json::json!({
            "trace": trace,
            "span": number.to_string(),
            "parent": (number > 0).then_some("0"),
            "service": entry,
            "operation": segments[..segments.len() - 1].join("/"),
            "kind": if number > 0 { "client" } else { "server" },
            "start_us": span.start / 1_000,
            "duration_us": (span.end - span.start) / 1_000,
        })
    };
    let mut lines = Vec::new();
    for marker in markers {
        let root = known.find(&marker, Kind::Server, true, entry);
        lines.push(line(&marker, 0, root));
        let calls = requests(&marker, shape);
        let own = calls.iter().skip(1).filter(|call| call.cause == 0 && !call.late);
        for (number, call) in own.enumerate() {
            let span = known.call(call, true, entry, root);
            lines.push(line(&marker, number + 1, span));
        }
    }
    lines
}

/// The plain rule of other tracers, as a measure: a call belongs to the request that its thread has read last. Right and all,
/// over the same calls; it claims a parent for every call whose thread has read a request.
///
/// Needs `thread.id` on the spans (`--explain`).
#[must_use]
pub fn thread_rule(spans: &Spans, entry: &str, shape: Shape, markers: impl Iterator<Item = Marker>) -> Score {
    let known = Known::new(spans);
    let mut reads: HashMap<i64, BTreeMap<u64, &Span>> = HashMap::new();
    for span in spans
        .iter()
        .filter(|span| span.service == entry && span.kind == Kind::Server)
    {
        reads
            .entry(span.int("thread.id").unwrap_or_default())
            .or_default()
            .insert(span.start, span);
    }
    let mut score = Score::default();
    for marker in markers {
        let root = known.find(&marker, Kind::Server, true, entry);
        for request in requests(&marker, shape)
            .iter()
            .skip(1)
            .filter(|r| r.cause == 0 && !r.late)
        {
            let call = known.call(request, true, entry, root);
            let read = call
                .int("thread.id")
                .and_then(|thread| reads.get(&thread)?.range(..=call.start).next_back());
            match read {
                None => score.missing += 1,
                Some((_, read)) if read.span_id == root.span_id => score.right += 1,
                Some(_) => score.wrong += 1,
            }
        }
    }
    score
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::span::Attributes;

    /// Spans of one request that makes two calls, as the tracer should tell them.
    fn whole(first: &str, id: u8) -> Vec<Span> {
        let one = child(first, 0);
        let two = child(first, 1);
        let three = child(&two, 0);
        let span = |n: u8, parent: Option<u8>, kind, service: &str, marker: &str| Span {
            service: service.into(),
            resource: Attributes::new(),
            scope: "tracer".into(),
            name: "GET".into(),
            kind,
            trace_id: vec![id; 16],
            span_id: vec![id, n],
            parent: parent.map(|parent| vec![id, parent]),
            trace_state: String::new(),
            start: u64::from(n),
            end: 100,
            error: false,
            attributes: [
                ("url.path".to_owned(), format!("/x/{marker}").as_str().into()),
                ("thread.id".to_owned(), 7.into()),
            ]
            .into(),
            links: Vec::new(),
        };
        vec![
            span(0, None, Kind::Server, "entry", first),
            span(1, Some(0), Kind::Client, "entry", &one),
            span(2, Some(1), Kind::Server, "a", &one),
            span(3, Some(0), Kind::Client, "entry", &two),
            span(4, Some(3), Kind::Server, "b", &two),
            span(5, Some(4), Kind::Client, "b", &three),
            span(6, Some(5), Kind::Server, "a", &three),
        ]
    }

    fn judged(change: impl Fn(&mut Vec<Span>)) -> Tally {
        let (one, two) = (first(1), first(2));
        let mut spans = whole(&one, 1);
        spans.extend(whole(&two, 2));
        change(&mut spans);
        let spans: Spans = spans.into_iter().collect();
        tally(&spans, "entry", Shape::Calls(2), [one, two].into_iter())
    }

    #[test]
    fn parents_are_scored() {
        let right = judged(|_| ());
        assert_eq!(
            (right.calls.right, right.calls.wrong, right.calls.missing),
            (4, 0, 0)
        );
        assert_eq!((right.across, right.whole), ((6, 6), (2, 2)));

        let stranger = judged(|spans| {
            (spans[1].parent, spans[1].trace_id) = (spans[7].span_id.clone().into(), vec![2; 16]);
        });
        assert_eq!(
            (stranger.calls.right, stranger.calls.wrong, stranger.calls.missing),
            (3, 1, 0)
        );
        assert_eq!(stranger.whole, (0, 2), "the other trace has a stranger");

        let orphan = judged(|spans| spans[1].parent = None);
        assert_eq!(
            (orphan.calls.right, orphan.calls.wrong, orphan.calls.missing),
            (3, 0, 1)
        );
        assert_eq!(orphan.whole, (1, 2));

        let behind = judged(|spans| spans[5].parent = None);
        assert_eq!(
            (behind.calls.right, behind.whole),
            (4, (1, 2)),
            "not the entry's call"
        );
    }

    #[test]
    fn a_late_call_is_nobodys_child() {
        let one = first(1);
        let mut spans = whole(&one, 1);
        let late = child(&one, 2);
        let like = |n: u8, of: &Span| Span {
            span_id: vec![1, n],
            trace_id: vec![3; 16],
            attributes: [("url.path".to_owned(), format!("/x/{late}").as_str().into())].into(),
            ..of.clone()
        };
        let (mut call, mut served) = (like(8, &spans[1]), like(9, &spans[2]));
        call.parent = None;
        served.parent = Some(call.span_id.clone());
        spans.extend([call, served]);
        let judged = |spans: &[Span]| {
            let spans: Spans = spans.iter().cloned().collect();
            tally(&spans, "entry", Shape::Late(2), [one.clone()].into_iter())
        };
        let right = judged(&spans);
        assert_eq!(
            (right.calls.right, right.calls.wrong, right.calls.missing),
            (2, 0, 0)
        );
        assert_eq!(right.whole, (1, 1));
        spans[7].parent = Some(spans[0].span_id.clone());
        let wrong = judged(&spans);
        assert_eq!(
            (wrong.calls.right, wrong.calls.wrong, wrong.whole),
            (2, 1, (0, 1))
        );
    }

    #[test]
    fn the_thread_rule_is_scored() {
        let (one, two) = (first(1), first(2));
        let mut spans = whole(&one, 1);
        // Read before the other's first call.
        spans.extend(whole(&two, 2).into_iter().map(|span| Span {
            start: span.start + 2,
            ..span
        }));
        let spans: Spans = spans.into_iter().collect();
        let score = thread_rule(&spans, "entry", Shape::Calls(2), [one, two].into_iter());
        assert_eq!((score.right, score.wrong), (3, 1));
    }

    #[test]
    #[should_panic = "no Client span"]
    fn a_span_that_is_missing_is_no_score() {
        _ = judged(|spans| _ = spans.remove(1));
    }
}
