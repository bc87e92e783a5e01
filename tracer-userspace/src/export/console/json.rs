//! One span a line, as JSON:
//!
//! | field | value |
//! |---|---|
//! | `trace_id`, `span_id` | lower-case hexadecimal |
//! | `parent_span_id` | the same; absent on a root |
//! | `parent_is_remote` | `true` where the parent lies in another process; absent otherwise |
//! | `evidence`, `confidence` | the rule that chose the parent, and `certain`, `likely` or `inferred`; absent without one |
//! | `trace_state` | W3C `tracestate`; absent if empty |
//! | `service`, `pid` | `service.name` and the process |
//! | `name`, `kind` | span name; `server`, `client`, `producer` or `consumer` |
//! | `start_unix_nano`, `end_unix_nano`, `duration_nano` | nanoseconds (numbers above 2^53: read them as integers) |
//! | `status` | `unset` or `error`; `status_message` where there is one |
//! | `attributes` | an object, the same attributes as over OTLP |
//! | `links` | `[{"trace_id", "span_id", "reason"}]`; absent if there are none |
//! | `resource` | an object, all resource attributes; only if `console.resource` is set |
//!
//! Written by hand into a buffer that is used again: this format carries every span of a busy host.

use std::sync::Arc;

use super::super::clock::Clock;
use super::super::shape::{Addresses, Item, attributes, confidence_name, duration, kind_name};
use crate::model::{Nanos, Outcome, Service, Span, Value};

/// Writes lines.
pub(in super::super) struct Writer {
    clock: Clock,
    addresses: Addresses,
    with_resource: bool,
    /// `"service":…,"pid":…` of the service before.
    service: Option<(Arc<Service>, Vec<u8>)>,
}

impl Writer {
    pub fn new(clock: Clock, with_resource: bool) -> Self {
        Self {
            clock,
            addresses: Addresses::default(),
            with_resource,
            service: None,
        }
    }

    /// Appends one line.
    pub fn span(&mut self, out: &mut Vec<u8>, span: &Span) {
        let exchange = &*span.exchange;
        out.reserve(2048);
        out.extend_from_slice(b"{\"trace_id\":\"");
        hex(out, &span.trace_id.0);
        out.extend_from_slice(b"\",\"span_id\":\"");
        hex(out, &span.span_id.0);
        if let Some(parent) = &span.parent {
            out.extend_from_slice(b"\",\"parent_span_id\":\"");
            hex(out, &parent.0);
        }
        out.push(b'"');
        if span.parent.is_some() && span.parent_is_remote {
            out.extend_from_slice(b",\"parent_is_remote\":true");
        }
        if let Some((evidence, confidence)) = span.evidence {
            plain(out, b",\"evidence\":\"", evidence.as_str());
            plain(
                out,
                b",\"confidence\":\"",
                confidence_name(confidence).unwrap_or("certain"),
            );
        }
        if !span.trace_state.is_empty() {
            out.extend_from_slice(b",\"trace_state\":");
            string(out, &span.trace_state);
        }
        self.write_service(out, &span.service);
        out.extend_from_slice(b",\"name\":");
        string(out, &exchange.name);
        plain(out, b",\"kind\":\"", kind_name(exchange.role));
        let (start, duration) = (self.clock.unix(exchange.start.ts), duration(span));
        out.extend_from_slice(b",\"start_unix_nano\":");
        integer(out, start);
        out.extend_from_slice(b",\"end_unix_nano\":");
        integer(out, start.saturating_add(duration));
        out.extend_from_slice(b",\"duration_nano\":");
        integer(out, duration);
        match &exchange.outcome {
            Outcome::Unset => out.extend_from_slice(b",\"status\":\"unset\""),
            Outcome::Error { message, .. } => {
                out.extend_from_slice(b",\"status\":\"error\"");
                if !message.is_empty() {
                    out.extend_from_slice(b",\"status_message\":");
                    string(out, message);
                }
            }
        }
        out.extend_from_slice(b",\"attributes\":{");
        let before = out.len();
        attributes(span, &mut self.addresses, |key, item| {
            if out.len() > before {
                out.push(b',');
            }
            // Keys are constants of ours, without anything to escape.
            out.push(b'"');
            out.extend_from_slice(key.as_bytes());
            out.extend_from_slice(b"\":");
            match item {
                Item::Plain(Value::Str(value)) => string(out, value),
                Item::Plain(Value::Int(value)) => integer(out, value),
                Item::Plain(Value::Double(value)) => double(out, value),
                Item::Plain(Value::Bool(value)) => {
                    out.extend_from_slice(if value { b"true" } else { b"false" });
                }
                Item::Millis(nanos) => millis(out, nanos),
            }
        });
        out.push(b'}');
        for (index, link) in span.links.iter().enumerate() {
            out.extend_from_slice(if index == 0 {
                b",\"links\":[{\"trace_id\":\""
            } else {
                b",{\"trace_id\":\""
            });
            hex(out, &link.trace_id.0);
            out.extend_from_slice(b"\",\"span_id\":\"");
            hex(out, &link.span_id.0);
            out.extend_from_slice(b"\",\"reason\":");
            string(out, link.reason);
            out.push(b'}');
        }
        if !span.links.is_empty() {
            out.push(b']');
        }
        out.extend_from_slice(b"}\n");
    }

    fn write_service(&mut self, out: &mut Vec<u8>, service: &Arc<Service>) {
        match &self.service {
            Some((known, text)) if Arc::ptr_eq(known, service) => out.extend_from_slice(text),
            _ => {
                let mut text = Vec::new();
                text.extend_from_slice(b",\"service\":");
                string(&mut text, &service.name);
                text.extend_from_slice(b",\"pid\":");
                integer(&mut text, service.tgid);
                if self.with_resource {
                    resource(&mut text, service);
                }
                out.extend_from_slice(&text);
                self.service = Some((Arc::clone(service), text));
            }
        }
    }
}

fn resource(out: &mut Vec<u8>, service: &Service) {
    out.extend_from_slice(b",\"resource\":{");
    let before = out.len();
    let key = |out: &mut Vec<u8>, key: &str| {
        if out.len() > before {
            out.push(b',');
        }
        string(out, key);
        out.push(b':');
    };
    for (name, value) in &service.resource.text {
        key(out, name);
        string(out, value);
    }
    for (name, value) in &service.resource.ints {
        key(out, name);
        integer(out, *value);
    }
    for (name, values) in &service.resource.lists {
        key(out, name);
        out.push(b'[');
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            string(out, value);
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// Text without anything to escape; `before` ends with the opening quote.
#[inline]
fn plain(out: &mut Vec<u8>, before: &[u8], text: &str) {
    out.extend_from_slice(before);
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

#[inline]
fn hex(out: &mut Vec<u8>, bytes: &[u8]) {
    /// Both digits of every byte.
    const DIGITS: [[u8; 2]; 256] = {
        let mut table = [[0; 2]; 256];
        let mut byte = 0;
        while byte < 256 {
            table[byte] = [b"0123456789abcdef"[byte >> 4], b"0123456789abcdef"[byte & 15]];
            byte += 1;
        }
        table
    };
    for &byte in bytes {
        out.extend_from_slice(&DIGITS[usize::from(byte)]);
    }
}

#[inline]
fn integer(out: &mut Vec<u8>, value: impl itoa::Integer) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// Nanoseconds as milliseconds, exactly.
fn millis(out: &mut Vec<u8>, nanos: Nanos) {
    integer(out, nanos / 1_000_000);
    let mut rest = (nanos % 1_000_000) as u32;
    if rest == 0 {
        return;
    }
    let mut digits = *b".000000";
    for digit in digits.iter_mut().skip(1).rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    out.extend_from_slice(&digits);
    while out.last() == Some(&b'0') {
        out.pop();
    }
}

fn double(out: &mut Vec<u8>, value: f64) {
    use std::io::Write;
    if value.is_finite() {
        // Writing to memory cannot fail.
        let _ = write!(out, "{value}");
    } else {
        // JSON has no other word for it.
        out.extend_from_slice(b"null");
    }
}

/// A JSON string (RFC 8259 section 7).
#[inline]
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if is_clean(text.as_bytes()) {
        out.extend_from_slice(text.as_bytes());
    } else {
        escape(out, text.as_bytes());
    }
    out.push(b'"');
}

/// Whether nothing has to be escaped. Eight bytes at a time: a byte below 0x20, a quote or a backslash sets the high bit of its
/// lane; bytes of 0x80 and above are part of UTF-8 sequences and pass.
#[inline]
fn is_clean(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    let special = |word: u64| {
        let zero_lanes = |x: u64| x.wrapping_sub(ONES) & !x;
        let quote = zero_lanes(word ^ (ONES * b'"' as u64));
        let backslash = zero_lanes(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        (quote | backslash | control) & HIGH
    };
    let (words, rest) = bytes.as_chunks::<8>();
    let found = words
        .iter()
        .fold(0, |found, word| found | special(u64::from_le_bytes(*word)));
    // Spaces fill up the last word.
    let mut last = [b' '; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    found | special(u64::from_le_bytes(last)) == 0
}

#[cold]
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..0x20 => {
                out.extend_from_slice(b"\\u00");
                hex(out, &[byte]);
            }
            _ => out.push(byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_read_back() {
        let mut texts: Vec<String> = (0..=0x2ff)
            .filter_map(char::from_u32)
            .map(|c| format!("ab{c}"))
            .collect();
        texts.extend(
            [
                "",
                "plain",
                "twelve bytes",
                "ümläut→",
                "\"quoted\"",
                "a\\b",
                "long text with a \u{1}",
            ]
            .map(Into::into),
        );
        for at in 0..20 {
            texts.push(format!("{}\"{}", "x".repeat(at), "y".repeat(20 - at)));
            texts.push(format!("{}é{}", "x".repeat(at), "y".repeat(20 - at)));
        }
        for text in texts {
            let mut out = Vec::new();
            string(&mut out, &text);
            assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
            let needs = text.bytes().any(|b| b < 0x20 || b == b'"' || b == b'\\');
            assert!(!needs || !is_clean(text.as_bytes()), "{text:?}");
        }
    }

    #[test]
    fn millis_are_exact() {
        for (nanos, expected) in [
            (0, "0"),
            (1, "0.000001"),
            (1_000_000, "1"),
            (1_500_000, "1.5"),
            (12_345_678, "12.345678"),
            (u64::MAX, "18446744073709.551615"),
        ] {
            let mut out = Vec::new();
            millis(&mut out, nanos);
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }
}
