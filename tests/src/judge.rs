//! The judge: holds spans against what the client did, and parents against the markers.

use std::collections::BTreeMap;

use crate::client::Record;
use crate::span::{Kind, Span, Spans, Value};

/// Slack for the conversion between the kernel's clock and the wall clock, in nanoseconds; durations get none.
const CLOCK_SLACK: u64 = 2_000_000;
/// Slack for the end of a server's span, in nanoseconds: it is stamped when the send returns, and the server can lose its CPU to the
/// client that it has just woken. On a busy machine that lasts some time slices.
const SEND_SLACK: u64 = 50_000_000;

/// Asserts that `spans` are exactly the requests in `records`, seen from the server's end: none missing, none twice; method,
/// path, status, sizes, times.
///
/// # Panics
/// If not.
pub fn assert_served(spans: &Spans, service: &str, records: &[Record]) {
    assert_exchanges(spans, service, Kind::Server, records);
}

/// The same, seen from the client's end.
///
/// # Panics
/// If not.
pub fn assert_called(spans: &Spans, service: &str, records: &[Record]) {
    assert_exchanges(spans, service, Kind::Client, records);
}

fn assert_exchanges(spans: &Spans, service: &str, kind: Kind, records: &[Record]) {
    let mine = spans.service(service).kind(kind);
    let mut by_key: BTreeMap<(String, String), Vec<&Span>> = BTreeMap::new();
    for span in &mine {
        let key = (
            span.text("http.request.method").to_owned(),
            span.path().to_owned(),
        );
        by_key.entry(key).or_default().push(span);
    }
    for list in by_key.values_mut() {
        list.sort_by_key(|span| std::cmp::Reverse(span.start));
    }
    let mut ordered: Vec<&Record> = records.iter().collect();
    ordered.sort_by_key(|record| record.started);
    for record in ordered {
        let path = record.target.split('?').next().unwrap_or_default();
        let key = (record.method.clone(), path.to_owned());
        let span = by_key
            .get_mut(&key)
            .and_then(Vec::pop)
            .unwrap_or_else(|| panic!("no {kind:?} span of {service} for {record:?}; its spans:\n{mine}"));
        assert_exchange(span, record);
    }
    let extra: Vec<_> = by_key.values().flatten().map(|s| s.to_string()).collect();
    assert!(
        extra.is_empty(),
        "{} {kind:?} spans of {service} that no request explains: {:?}",
        extra.len(),
        &extra[..extra.len().min(10)]
    );
}

/// Asserts that one span tells one request.
///
/// # Panics
/// If not.
pub fn assert_exchange(span: &Span, record: &Record) {
    let context = || format!("{span}\n  {:?}\n  against {record:?}", span.attributes);
    assert_eq!(
        span.int("http.response.status_code"),
        Some(record.status.into()),
        "{}",
        context()
    );
    let fails_from = if span.kind == Kind::Server { 500 } else { 400 };
    assert_eq!(span.error, record.status >= fails_from, "status of {}", context());
    assert_eq!(
        span.get("error.type").is_some(),
        span.error,
        "error.type of {}",
        context()
    );
    assert!(
        span.name == record.method || span.name.starts_with(&format!("{} /", record.method)),
        "name of {}",
        context()
    );
    assert_eq!(span.scope, "tracer", "scope of {}", context());
    assert_eq!(span.text("network.protocol.version"), "1.1", "{}", context());
    if record.sent > 0 {
        assert_eq!(
            span.int("http.request.body.size"),
            Some(record.sent as i64),
            "{}",
            context()
        );
    }
    if record.received > 0 {
        assert_eq!(
            span.int("http.response.body.size"),
            Some(record.received as i64),
            "{}",
            context()
        );
    }
    if span.kind == Kind::Server && record.port != 0 {
        assert_eq!(
            span.int("network.peer.port"),
            Some(record.port.into()),
            "{}",
            context()
        );
    }
    let late = if span.kind == Kind::Server { SEND_SLACK } else { 0 };
    assert!(
        span.duration() <= record.ended - record.started + late,
        "the span lasts longer than the client waited ({} ns): {}",
        record.ended - record.started,
        context()
    );
    assert!(
        span.start + CLOCK_SLACK >= record.started && span.end <= record.ended + CLOCK_SLACK + late,
        "the span lies outside of the request ({} .. {} ns): {}",
        span.start as i64 - record.started as i64,
        span.end as i64 - record.ended as i64,
        context()
    );
}

/// How right the claimed parents are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Score {
    /// Parents that the markers confirm.
    pub right: usize,
    /// Parents that the markers contradict.
    pub wrong: usize,
    /// Spans that should have had a parent and have none.
    pub missing: usize,
}

impl Score {
    /// Right over claimed; 1 if nothing was claimed.
    #[must_use]
    pub fn precision(self) -> f64 {
        ratio(self.right, self.right + self.wrong)
    }

    /// Right over all.
    #[must_use]
    pub fn recall(self) -> f64 {
        ratio(self.right, self.right + self.wrong + self.missing)
    }
}

pub(crate) fn ratio(part: usize, whole: usize) -> f64 {
    if whole == 0 {
        1.0
    } else {
        part as f64 / whole as f64
    }
}

/// Scores the parents of `children`, each of which belongs to the span among `parents` with the same marker.
#[must_use]
pub fn score(children: &Spans, parents: &Spans) -> Score {
    let marker_of: BTreeMap<&[u8], Option<u64>> = parents
        .iter()
        .map(|p| (p.span_id.as_slice(), p.marker()))
        .collect();
    let trace_of: BTreeMap<&[u8], &[u8]> = parents
        .iter()
        .map(|p| (p.span_id.as_slice(), p.trace_id.as_slice()))
        .collect();
    let mut score = Score::default();
    for child in children {
        match &child.parent {
            None => score.missing += 1,
            Some(id)
                if marker_of.get(id.as_slice()) == Some(&child.marker())
                    && trace_of.get(id.as_slice()) == Some(&child.trace_id.as_slice()) =>
            {
                score.right += 1;
            }
            Some(_) => score.wrong += 1,
        }
    }
    score
}

/// Asserts that the attribute has that value.
///
/// # Panics
/// If it has another, or none.
pub fn assert_attribute(span: &Span, key: &str, value: impl Into<Value>) {
    let value = value.into();
    assert_eq!(
        span.get(key),
        Some(&value),
        "{key} of {span}: {:?}",
        span.attributes
    );
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;
    use crate::span::Attributes;

    const SECOND: u64 = 1_000_000_000;

    fn span(id: u8, parent: Option<u8>, kind: Kind, marker: u64) -> Span {
        let attributes: [(&str, Value); 5] = [
            ("http.request.method", "GET".into()),
            ("http.response.status_code", 200.into()),
            ("url.path", format!("/hello/{marker}").as_str().into()),
            ("network.protocol.version", "1.1".into()),
            ("network.peer.port", 4000.into()),
        ];
        Span {
            service: "app".into(),
            resource: Attributes::new(),
            scope: "tracer".into(),
            name: "GET /hello/{id}".into(),
            kind,
            trace_id: vec![9; 16],
            span_id: vec![id; 8],
            parent: parent.map(|id| vec![id; 8]),
            trace_state: String::new(),
            start: 10 * SECOND,
            end: 11 * SECOND,
            error: false,
            attributes: attributes.map(|(key, value)| (key.to_owned(), value)).into(),
            links: Vec::new(),
        }
    }

    fn record(marker: u64) -> Record {
        Record {
            method: "GET".into(),
            target: format!("/hello/{marker}?q"),
            status: 200,
            sent: 0,
            received: 0,
            started: 10 * SECOND - 1,
            ended: 11 * SECOND + 1,
            port: 4000,
        }
    }

    /// Whether the judge takes the spans for the records of markers 1 and 2.
    fn accepts(spans: Vec<Span>) -> bool {
        let records = [record(1), record(2)];
        let spans: Spans = spans.into_iter().collect();
        catch_unwind(|| assert_served(&spans, "app", &records)).is_ok()
    }

    #[test]
    fn every_request_once() {
        let (one, two) = (span(1, None, Kind::Server, 1), span(2, None, Kind::Server, 2));
        assert!(accepts(vec![one.clone(), two.clone()]));
        assert!(!accepts(vec![one.clone()]), "one is missing");
        assert!(
            !accepts(vec![one.clone(), two.clone(), two.clone()]),
            "one comes twice"
        );
        let wrong = |change: fn(&mut Span)| {
            let mut changed = two.clone();
            change(&mut changed);
            !accepts(vec![one.clone(), changed])
        };
        assert!(wrong(|s| s.error = true));
        assert!(wrong(|s| s.name = "POST /hello".into()));
        assert!(wrong(|s| s.end += SEND_SLACK + 5));
        assert!(wrong(|s| (s.start, s.end) = (s.start - SECOND, s.end - SECOND)));
        assert!(wrong(|s| s.scope.clear()));
        assert!(wrong(|s| _ = s
            .attributes
            .insert("http.response.status_code".into(), 201.into())));
        assert!(wrong(
            |s| _ = s.attributes.insert("network.peer.port".into(), 4001.into())
        ));
        assert!(wrong(|s| s.kind = Kind::Client));
    }

    #[test]
    fn parents_are_scored() {
        let parents: Spans = [span(1, None, Kind::Server, 1), span(2, None, Kind::Server, 2)]
            .into_iter()
            .collect();
        let children: Spans = [
            span(3, Some(1), Kind::Client, 1),
            span(4, Some(1), Kind::Client, 2),
            span(5, None, Kind::Client, 2),
            span(6, Some(77), Kind::Client, 2),
        ]
        .into_iter()
        .collect();
        let score = score(&children, &parents);
        assert_eq!(
            score,
            Score {
                right: 1,
                wrong: 2,
                missing: 1
            }
        );
        assert!((score.precision() - 1.0 / 3.0).abs() < 1e-9);
        assert!((score.recall() - 0.25).abs() < 1e-9);
    }
}
