//! Holds the daemon's spans (JSON lines) against what a case moved: each exchange once at each end, with its sizes.

use serde_json::Value;

use super::{Case, Shape};

/// What is wrong with the spans of a case, if anything. `spans` are all spans of the daemon.
pub fn judge(case: &Case, spans: &[Value]) -> Result<(), String> {
    if case.shape == Shape::Refused {
        return refused(case, spans);
    }
    for kind in ["server", "client"] {
        for number in 0..case.requests {
            let path = format!("/{}/{number}", case.name);
            let found: Vec<_> = spans
                .iter()
                .filter(|span| text(span, "/kind") == kind && path_of(span) == path)
                .collect();
            if found.len() != case.connections as usize {
                return Err(format!(
                    "{} {kind} spans of {path}, expected {}",
                    found.len(),
                    case.connections
                ));
            }
            found.into_iter().try_for_each(|span| exchange(case, span))?;
        }
    }
    let all = spans
        .iter()
        .filter(|span| path_of(span).starts_with(&format!("/{}/", case.name)))
        .count();
    let expected = 2 * case.exchanges() as usize;
    if all == expected {
        Ok(())
    } else {
        Err(format!("{all} spans, expected {expected}"))
    }
}

fn exchange(case: &Case, span: &Value) -> Result<(), String> {
    let method = if case.request_body > 0 { "POST" } else { "GET" };
    let wanted = [
        ("http.response.status_code", Value::from(200)),
        ("http.request.method", Value::from(method)),
        ("http.response.body.size", Value::from(case.response_body)),
    ];
    let body = (case.request_body > 0).then(|| ("http.request.body.size", Value::from(case.request_body)));
    for (key, value) in wanted.into_iter().chain(body) {
        let found = span.get("attributes").and_then(|attributes| attributes.get(key));
        if found != Some(&value) {
            return Err(format!("{key} is {found:?}, expected {value}: {span}"));
        }
    }
    if text(span, "/status") == "unset" {
        Ok(())
    } else {
        Err(format!("failed: {span}"))
    }
}

fn refused(case: &Case, spans: &[Value]) -> Result<(), String> {
    let count = spans
        .iter()
        .filter(|span| {
            text(span, "/name") == "connect"
                && text(span, "/kind") == "client"
                && text(span, "/attributes/error.type") == "ECONNREFUSED"
        })
        .count();
    if count == case.connections as usize {
        Ok(())
    } else {
        Err(format!("{count} refused connects, expected {}", case.connections))
    }
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// `url.path`, or the path of `url.full`.
fn path_of(span: &Value) -> &str {
    let path = text(span, "/attributes/url.path");
    if !path.is_empty() {
        return path;
    }
    let full = text(span, "/attributes/url.full");
    let behind = full.split_once("://").map_or(full, |(_, rest)| rest);
    behind
        .find('/')
        .and_then(|at| behind.get(at..))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::{CASES, named};
    use super::*;
    use serde_json::json;

    fn span(kind: &str, path: &str, size: usize) -> Value {
        let (key, path) = match kind {
            "client" => ("url.full", format!("http://case:1{path}")),
            _ => ("url.path", path.to_owned()),
        };
        json!({"kind": kind, "name": "GET", "status": "unset", "attributes": {key: path, "http.request.method": "GET",
               "http.response.status_code": 200, "http.response.body.size": size}})
    }

    fn whole(case: &Case) -> Vec<Value> {
        (0..case.requests)
            .flat_map(|n| ["server", "client"].map(|kind| (n, kind)))
            .map(|(n, kind)| span(kind, &format!("/{}/{n}", case.name), case.response_body))
            .collect()
    }

    #[test]
    fn every_span_counts() {
        let case = named("keep-alive").expect("the case");
        let spans = whole(case);
        assert_eq!(judge(case, &spans), Ok(()));
        for missing in 0..spans.len() {
            let mut less = spans.clone();
            less.remove(missing);
            judge(case, &less).expect_err("one is missing");
        }
        let mut more = spans.clone();
        more.push(spans[0].clone());
        judge(case, &more).expect_err("one is there twice");
        let mut stranger = spans.clone();
        stranger.push(span("server", "/keep-alive/77", case.response_body));
        judge(case, &stranger).expect_err("nobody asked for it");
        let mut wrong = spans;
        wrong[0] = span("server", "/keep-alive/0", 999);
        judge(case, &wrong).expect_err("a wrong size");
    }

    #[test]
    fn names_are_unique() {
        for case in CASES {
            let same = CASES.iter().filter(|other| other.name == case.name);
            assert_eq!(same.count(), 1, "{}", case.name);
        }
    }
}
