//! `tracer explain FILE ID`: why spans have the parents that they have, from what the tracer has printed (`--format json --explain true`).

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use serde_json::Value;

/// Most spans that are explained at a time.
const MAX_SPANS: usize = 1_000;

/// Explains the spans of a file, one a line as JSON, whose own or trace's id begins with `id`.
///
/// # Errors
/// The file cannot be read, or has no such span.
pub fn explain(file: &Path, id: &str) -> Result<String, String> {
    let open = || {
        File::open(file)
            .map(BufReader::new)
            .map_err(|why| format!("{}: {why}", file.display()))
    };
    explain_lines(open()?, open()?, &id.to_ascii_lowercase())
}

/// The same, of lines that are read twice: what spans point to may come before them or after them.
fn explain_lines(first: impl BufRead, second: impl BufRead, id: &str) -> Result<String, String> {
    let is_it = |span: &Value| {
        ["span_id", "trace_id"]
            .iter()
            .any(|key| text(span, key).starts_with(id))
    };
    let mut wanted = Vec::new();
    each(first, |span| {
        if wanted.len() < MAX_SPANS && !id.is_empty() && is_it(&span) {
            wanted.push(span);
        }
    })?;
    if wanted.is_empty() {
        return Err(format!("there is no span {id:?}, and no trace"));
    }
    let mut names: HashMap<String, Option<String>> = HashMap::new();
    for span in &wanted {
        names.insert(text(span, "parent_span_id").to_owned(), None);
        names.extend(candidates(span).map(|id| (id.to_owned(), None)));
    }
    each(second, |span| {
        if let Some(name) = names.get_mut(text(&span, "span_id")) {
            *name = Some(title(&span));
        }
    })?;
    let name = |id: &str| match names.get(id) {
        Some(Some(name)) => format!("{id} {name}"),
        _ => format!("{id} (not in this file)"),
    };
    let mut out = String::new();
    for span in &wanted {
        tell(&mut out, span, &name).map_err(|why| why.to_string())?;
    }
    Ok(out)
}

fn tell(out: &mut String, span: &Value, name: &dyn Fn(&str) -> String) -> std::fmt::Result {
    let parent = text(span, "parent_span_id");
    writeln!(
        out,
        "{} {} of trace {}",
        text(span, "span_id"),
        title(span),
        text(span, "trace_id")
    )?;
    if parent.is_empty() {
        writeln!(out, "  parent: none")?;
    } else {
        let evidence = text(span, "evidence");
        writeln!(out, "  parent: {}", name(parent))?;
        writeln!(
            out,
            "  because: {} ({evidence}, {})",
            reason(evidence),
            text(span, "confidence")
        )?;
    }
    for link in span.get("links").and_then(Value::as_array).into_iter().flatten() {
        writeln!(
            out,
            "  linked: {} ({})",
            text(link, "span_id"),
            text(link, "reason")
        )?;
    }
    let others: Vec<&str> = candidates(span).filter(|id| *id != parent).collect();
    let count = attribute(span, "tracer.parent.candidates.count").and_then(Value::as_u64);
    match count {
        Some(count) => writeln!(
            out,
            "  requests of the process that were open when it began: {count}"
        )?,
        None if text(span, "kind") == "client" => {
            writeln!(
                out,
                "  other candidates: not told; run the tracer with --explain true"
            )?;
        }
        None => {}
    }
    for other in others {
        writeln!(out, "  not chosen: {}", name(other))?;
    }
    Ok(())
}

/// What a rule rests on (`correlate/evidence`).
fn reason(evidence: &str) -> &'static str {
    match evidence {
        "header" => "its request carries the parent's trace context",
        "message" => {
            "both ends of the connection were seen: the bytes that one sent are those that the other got"
        }
        "task" => "the task or thread for which it was made wrote the parent's response",
        "thread" => "the thread that made it had read the parent's request alone, and wrote its response",
        "loop" => "on the event loop its bytes followed those of the parent's request",
        "queue" => "two orders, first in first out, agree on it",
        "async_ids" => "the ids of the runtime's asynchronous resources lead to the parent's request",
        "acquirer" => {
            "who served the parent's request took its connection, handed it on, or was woken when it was over"
        }
        _ => "this version does not know that rule",
    }
}

fn each(mut lines: impl BufRead, mut take: impl FnMut(Value)) -> Result<(), String> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = lines
            .read_until(b'\n', &mut line)
            .map_err(|why| why.to_string())?;
        if read == 0 {
            return Ok(());
        }
        // What is no span (the last line of a run that was killed) explains nothing.
        if let Ok(span) = serde_json::from_slice::<Value>(&line) {
            take(span);
        }
    }
}

fn text<'a>(of: &'a Value, key: &str) -> &'a str {
    of.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn attribute<'a>(span: &'a Value, key: &str) -> Option<&'a Value> {
    span.get("attributes")?.get(key)
}

fn candidates(span: &Value) -> impl Iterator<Item = &str> {
    let told = attribute(span, "tracer.parent.candidates").and_then(Value::as_str);
    told.unwrap_or_default().split_ascii_whitespace()
}

fn title(span: &Value) -> String {
    format!(
        "{} ({}, {})",
        text(span, "name"),
        text(span, "service"),
        text(span, "kind")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPANS: &str = r#"
{"trace_id":"aa01","span_id":"b1","service":"shop","name":"GET /cart","kind":"server"}
{"trace_id":"aa02","span_id":"b2","service":"shop","name":"GET /pay","kind":"server"}
{"trace_id":"aa01","span_id":"b3","parent_span_id":"b1","evidence":"task","confidence":"certain","service":"shop","name":"GET /price","kind":"client","attributes":{"tracer.parent.candidates.count":3,"tracer.parent.candidates":"b2 b1 b9"}}
{"trace_id":"aa03","span_id":"b4","service":"shop","name":"GET /late","kind":"client","links":[{"trace_id":"aa01","span_id":"b1","reason":"after_response"}]}
{"trace_id":"aa03","span_"#;

    fn explained(id: &str) -> Result<String, String> {
        explain_lines(SPANS.as_bytes(), SPANS.as_bytes(), id)
    }

    #[test]
    fn a_parent_is_explained_with_what_was_not_chosen() {
        let expected = "\
b3 GET /price (shop, client) of trace aa01
  parent: b1 GET /cart (shop, server)
  because: the task or thread for which it was made wrote the parent's response (task, certain)
  requests of the process that were open when it began: 3
  not chosen: b2 GET /pay (shop, server)
  not chosen: b9 (not in this file)
";
        assert_eq!(explained("b3").as_deref(), Ok(expected));
        let trace = explained("aa01").unwrap();
        assert!(
            trace.starts_with("b1 GET /cart") && trace.ends_with(expected),
            "{trace}"
        );
    }

    #[test]
    fn what_has_no_parent_says_so() {
        let late = explained("b4").unwrap();
        assert!(late.contains("parent: none") && late.contains("linked: b1 (after_response)"));
        assert!(late.contains("--explain true"), "{late}");
        for id in ["b5", "", "zz"] {
            assert!(explained(id).is_err(), "{id}");
        }
    }

    #[test]
    fn every_rule_has_a_reason() {
        use crate::model::Evidence::{Acquirer, AsyncIds, Header, Loop, Message, Queue, Task, Thread};
        for rule in [Acquirer, AsyncIds, Header, Loop, Message, Queue, Task, Thread] {
            assert_ne!(reason(rule.as_str()), reason("no rule"), "{rule:?}");
        }
    }
}
