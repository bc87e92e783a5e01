//! What backends tell, in one form, and how it differs from what was sent.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;

use serde_json::Value;
use tracer_tests::metrics::{Point, Totals};

use crate::{Row, Texts};

/// One span as a backend tells it.
#[derive(Clone, Debug, Default)]
pub struct Told {
    trace: String,
    parent: String,
    name: String,
    /// Number of OTLP's `SpanKind`.
    kind: u64,
    service: String,
    /// UNIX nanoseconds.
    start: u64,
    end: u64,
    error: bool,
    attributes: Texts,
    resource: Texts,
}

/// Spans by their id.
pub type Spans = BTreeMap<String, Told>;

/// What a backend gave back.
pub struct Found {
    pub spans: Spans,
    /// Whether it is Zipkin's form, which has microseconds, lower-case names and one list of tags.
    is_zipkin: bool,
    pub complaints: Vec<String>,
}

impl Found {
    pub fn of(spans: Spans) -> Self {
        Self {
            spans,
            is_zipkin: false,
            complaints: Vec::new(),
        }
    }
}

/// The body of `GET` on loopback; empty where there is none.
pub fn get(port: u16, path: &str) -> String {
    let read = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n"
        )?;
        let mut answer = Vec::new();
        // Not every server closes the connection when it is asked to.
        while !is_whole(&answer) {
            let mut part = [0; 16 << 10];
            let n = stream.read(&mut part)?;
            if n == 0 {
                break;
            }
            answer.extend_from_slice(&part[..n]);
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let answer = read().unwrap_or_default();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    if head.split_whitespace().nth(1) == Some("200") {
        body.to_owned()
    } else {
        String::new()
    }
}

/// Whether an answer has as many bytes as it says that it has.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer);
    let Some((head, _)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let lower = head.to_lowercase();
    let length = lower
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let length = length.and_then(|length| length.trim().parse::<usize>().ok());
    length.is_some_and(|length| answer.len() >= head.len() + 4 + length)
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// 64-bit numbers are text in this encoding; some writers give numbers.
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .or_else(|| value.as_str()?.parse().ok())
        .unwrap_or_default()
}

fn any(value: &Value) -> String {
    if let Some(text) = value["stringValue"].as_str() {
        return text.to_owned();
    }
    for kind in ["intValue", "doubleValue", "boolValue"] {
        match &value[kind] {
            Value::Null => {}
            Value::String(text) => return text.clone(),
            other => return other.to_string(),
        }
    }
    let items: Vec<String> = list(&value["arrayValue"]["values"]).iter().map(any).collect();
    serde_json::to_string(&items).expect("texts")
}

fn attributes(values: &Value) -> Texts {
    let pairs = list(values).iter();
    pairs
        .map(|pair| (text(&pair["key"]), any(&pair["value"])))
        .collect()
}

/// Adds the spans of one OTLP document in JSON.
fn otlp(document: &Value, into: &mut Spans) {
    for group in list(&document["resourceSpans"]) {
        let resource = attributes(&group["resource"]["attributes"]);
        for span in list(&group["scopeSpans"])
            .iter()
            .flat_map(|scope| list(&scope["spans"]))
        {
            let told = Told {
                trace: text(&span["traceId"]),
                parent: text(&span["parentSpanId"]),
                name: text(&span["name"]),
                kind: number(&span["kind"]),
                service: resource.get("service.name").cloned().unwrap_or_default(),
                start: number(&span["startTimeUnixNano"]),
                end: number(&span["endTimeUnixNano"]),
                error: number(&span["status"]["code"]) == 2,
                attributes: attributes(&span["attributes"]),
                resource: resource.clone(),
            };
            into.insert(text(&span["spanId"]), told);
        }
    }
}

/// OTLP in JSON, one request a line.
pub fn otlp_lines(text: &str) -> Spans {
    let mut spans = Spans::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        // The last line of a file that is being written may be cut off.
        if let Ok(document) = serde_json::from_str(line) {
            otlp(&document, &mut spans);
        }
    }
    spans
}

pub fn otlp_file(path: &Path) -> Spans {
    otlp_lines(&std::fs::read_to_string(path).unwrap_or_default())
}

/// The histograms in a file of the Collector's.
pub fn points(path: &Path) -> Vec<Point> {
    let lines = std::fs::read_to_string(path).unwrap_or_default();
    let documents = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let mut points = Vec::new();
    for document in documents {
        for group in list(&document["resourceMetrics"]) {
            let resource = attributes(&group["resource"]["attributes"]);
            let scopes = list(&group["scopeMetrics"]).iter();
            for metric in scopes.flat_map(|scope| list(&scope["metrics"])) {
                for form in ["histogram", "exponentialHistogram"] {
                    let is_delta = metric[form]["aggregationTemporality"] == 1;
                    let told = list(&metric[form]["dataPoints"]).iter();
                    points.extend(told.map(|point| Point {
                        service: resource.get("service.name").cloned().unwrap_or_default(),
                        metric: text(&metric["name"]),
                        series: format!("{resource:?} {:?}", attributes(&point["attributes"])),
                        time: number(&point["timeUnixNano"]),
                        count: number(&point["count"]),
                        sum: point["sum"].as_f64().unwrap_or(f64::NAN),
                        in_buckets: in_buckets(point),
                        is_exponential: form != "histogram",
                        is_delta,
                    }));
                }
            }
        }
    }
    points
}

fn in_buckets(point: &Value) -> u64 {
    let sum = |buckets: &Value| list(&buckets["bucketCounts"]).iter().map(number).sum::<u64>();
    sum(point) + sum(&point["positive"]) + sum(&point["negative"]) + number(&point["zeroCount"])
}

/// What the spans make one expect of the metrics that are made of durations.
pub fn durations(sent: &Spans) -> Totals {
    const SERVER: u64 = 2;
    let mut totals = Totals::new();
    for span in sent.values() {
        let has = |key: &str| span.attributes.contains_key(key);
        let metric = match span.kind {
            SERVER if has("http.request.method") => "http.server.request.duration",
            SERVER => continue,
            _ if has("http.request.method") => "http.client.request.duration",
            _ if has("db.system.name") => "db.client.operation.duration",
            _ => continue,
        };
        let total = totals.entry((span.service.clone(), metric.to_owned()));
        let (count, sum) = total.or_default();
        *count += 1;
        *sum += (span.end - span.start) as f64 / 1e9;
    }
    totals
}

fn traces(sent: &Spans) -> BTreeSet<&str> {
    sent.values().map(|span| span.trace.as_str()).collect()
}

/// Every trace by its id, through Jaeger's own API, which answers in OTLP.
pub fn jaeger(port: u16, sent: &Spans) -> Spans {
    let mut spans = Spans::new();
    for trace in traces(sent) {
        let answer = get(port, &format!("/api/v3/traces/{trace}"));
        let Ok(document) = serde_json::from_str::<Value>(&answer) else {
            continue;
        };
        otlp(&document["result"], &mut spans);
    }
    spans
}

/// Every trace by its id, through Zipkin's own API.
pub fn zipkin(port: u16, sent: &Spans) -> Found {
    let mut spans = Spans::new();
    for trace in traces(sent) {
        let answer: Value =
            serde_json::from_str(&get(port, &format!("/api/v2/trace/{trace}"))).unwrap_or_default();
        for span in list(&answer) {
            let kinds = ["", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
            let kind = kinds
                .iter()
                .position(|kind| span["kind"] == **kind)
                .unwrap_or_default();
            let tags = span["tags"].as_object().cloned().unwrap_or_default();
            let start = number(&span["timestamp"]) * 1000;
            let told = Told {
                trace: text(&span["traceId"]),
                parent: text(&span["parentId"]),
                name: text(&span["name"]),
                kind: kind as u64,
                service: text(&span["localEndpoint"]["serviceName"]),
                start,
                end: start + number(&span["duration"]) * 1000,
                error: tags.contains_key("error"),
                attributes: tags
                    .iter()
                    .map(|(key, value)| (key.clone(), text(value)))
                    .collect(),
                resource: Texts::new(),
            };
            spans.insert(text(&span["id"]), told);
        }
    }
    Found {
        is_zipkin: true,
        ..Found::of(spans)
    }
}

/// Edges of the dependency graph, with the number of calls: from a caller's service to that of the span that it caused. Zipkin
/// counts the server's end of a call where it has both.
pub fn dependencies(port: u16, sent: &Spans) -> Row {
    const SERVER: u64 = 2;
    let mut expected: BTreeMap<(String, String), u64> = BTreeMap::new();
    for span in sent.values().filter(|span| span.kind == SERVER) {
        if let Some(caller) = sent.get(&span.parent) {
            *expected
                .entry((caller.service.to_lowercase(), span.service.to_lowercase()))
                .or_default() += 1;
        }
    }
    let newest = sent
        .values()
        .map(|span| span.end / 1_000_000)
        .max()
        .unwrap_or_default()
        + 60_000;
    let answer = get(
        port,
        &format!("/api/v2/dependencies?endTs={newest}&lookback=86400000"),
    );
    let answer: Value = serde_json::from_str(&answer).unwrap_or_default();
    let found: BTreeMap<_, _> = list(&answer)
        .iter()
        .map(|link| {
            (
                (text(&link["parent"]), text(&link["child"])),
                number(&link["callCount"]),
            )
        })
        .collect();
    let mut problems: Vec<String> = expected
        .iter()
        .filter(|(edge, calls)| found.get(edge) != Some(calls))
        .map(|(edge, calls)| format!("{edge:?}: {calls} calls sent, {:?} found", found.get(edge)))
        .collect();
    problems.extend(
        found
            .keys()
            .filter(|edge| !expected.contains_key(edge))
            .map(|edge| format!("{edge:?} was not sent")),
    );
    if expected.is_empty() {
        problems.push("no service calls another".to_owned());
    }
    Row {
        sent: expected.values().sum::<u64>() as usize,
        found: found.values().sum::<u64>() as usize,
        problems,
        ..Row::default()
    }
}

/// What differs, one text for each span that is missing, strange or wrong.
pub fn differences(sent: &Spans, found: &Found) -> Vec<String> {
    let mut problems = found.complaints.clone();
    for (id, span) in sent {
        match found.spans.get(id) {
            None => problems.push(format!("span {id} is missing")),
            Some(told) => {
                let wrong = if found.is_zipkin {
                    compare_zipkin(span, told)
                } else {
                    compare(span, told)
                };
                problems.extend(wrong.map(|what| format!("span {id}: {what}: {span:?} became {told:?}")));
            }
        }
    }
    problems.extend(
        found
            .spans
            .keys()
            .filter(|id| !sent.contains_key(*id))
            .map(|id| format!("span {id} was not sent")),
    );
    problems
}

fn compare(sent: &Told, told: &Told) -> Option<&'static str> {
    [
        (sent.trace == told.trace && sent.parent == told.parent, "ids"),
        (sent.name == told.name && sent.kind == told.kind, "name or kind"),
        (sent.service == told.service, "service"),
        (sent.start == told.start && sent.end == told.end, "times"),
        (sent.error == told.error, "status"),
        // Some backends get more (older names, the project), none less.
        (has_all(&told.attributes, &sent.attributes), "attributes"),
        (has_all(&told.resource, &sent.resource), "resource"),
    ]
    .into_iter()
    .find_map(|(is_same, what)| (!is_same).then_some(what))
}

/// Zipkin keeps microseconds and writes names of services and spans in lower case.
fn compare_zipkin(sent: &Told, told: &Told) -> Option<&'static str> {
    let micros = |span: &Told| ((span.end - span.start) / 1000).max(1);
    let mut resource = sent.resource.clone();
    resource.remove("service.name");
    [
        (sent.trace == told.trace && sent.parent == told.parent, "ids"),
        (
            sent.name.to_lowercase() == told.name && sent.kind == told.kind,
            "name or kind",
        ),
        (sent.service.to_lowercase() == told.service, "service"),
        (
            sent.start / 1000 == told.start / 1000 && micros(sent) == micros(told),
            "times",
        ),
        (sent.error == told.error, "status"),
        (has_all(&told.attributes, &sent.attributes), "attributes"),
        (has_all(&told.attributes, &resource), "resource"),
    ]
    .into_iter()
    .find_map(|(is_same, what)| (!is_same).then_some(what))
}

/// Whether each of `these` is in `all`; numbers may be written in another way.
fn has_all(all: &Texts, these: &Texts) -> bool {
    let same =
        |a: &str, b: &str| a == b || matches!((a.parse::<f64>(), b.parse::<f64>()), (Ok(a), Ok(b)) if a == b);
    these
        .iter()
        .all(|(key, value)| all.get(key).is_some_and(|there| same(there, value)))
}
