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

use super::super::buffer::{Buffer, Cursor};
use super::super::clock::Clock;
use super::super::shape::{Form, Item, Shape, duration};
use crate::model::{Key, Nanos, Outcome, Service, Span, Value};

/// A service and its fields of every line.
type Described = (Arc<Service>, Buffer);

/// Services that are remembered.
const SERVICES: usize = 61;

/// Writes lines.
pub(in super::super) struct Writer {
    clock: Clock,
    shape: Shape,
    with_resource: bool,
    /// `"service":…,"pid":…` of the services seen lately, by their address.
    services: Box<[Option<Described>]>,
}

impl Writer {
    pub fn new(clock: Clock, with_resource: bool) -> Self {
        Self {
            clock,
            shape: Shape::default(),
            with_resource,
            services: std::iter::repeat_with(|| None).take(SERVICES).collect(),
        }
    }

    /// Appends one line.
    pub fn span(&mut self, out: &mut Buffer, span: &Span) {
        let Self {
            clock,
            shape,
            with_resource,
            services,
        } = self;
        let at = (Arc::as_ptr(&span.service) as usize >> 4) % SERVICES;
        let Some(slot) = services.get_mut(at) else { return };
        let service = match slot {
            Some((known, text)) if Arc::ptr_eq(known, &span.service) => text,
            _ => {
                let mut text = Buffer::default();
                text.append(|out| describe(out, &span.service, *with_resource));
                &mut slot.insert((Arc::clone(&span.service), text)).1
            }
        };
        out.append(|out| line(out, span, clock, shape, service.as_slice()));
    }
}

#[inline(always)]
fn line(out: &mut Cursor<'_>, span: &Span, clock: &Clock, shape: &mut Shape, service: &[u8]) -> Option<()> {
    let exchange = &*span.exchange;
    out.put(b"{\"trace_id\":\"")?;
    hex(out, &span.trace_id.0)?;
    out.put(b"\",\"span_id\":\"")?;
    hex(out, &span.span_id.0)?;
    if let Some(parent) = &span.parent {
        out.put(b"\",\"parent_span_id\":\"")?;
        hex(out, &parent.0)?;
    }
    out.put(b"\"")?;
    if span.parent.is_some() && span.parent_is_remote {
        out.put(b",\"parent_is_remote\":true")?;
    }
    if let Some((evidence, confidence)) = span.evidence {
        plain(out, b",\"evidence\":\"", evidence.as_str())?;
        plain(out, b",\"confidence\":\"", confidence.as_str())?;
    }
    if !span.trace_state.is_empty() {
        out.put(b",\"trace_state\":")?;
        string(out, &span.trace_state)?;
    }
    out.copy(service)?;
    out.put(b",\"name\":")?;
    string(out, &exchange.name)?;
    plain(out, b",\"kind\":\"", exchange.role.as_str())?;
    let (start, duration) = (clock.unix(exchange.start.ts), duration(span));
    out.put(b",\"start_unix_nano\":")?;
    integer(out, start)?;
    out.put(b",\"end_unix_nano\":")?;
    integer(out, start.saturating_add(duration))?;
    out.put(b",\"duration_nano\":")?;
    integer(out, duration)?;
    match &exchange.outcome {
        Outcome::Unset => out.put(b",\"status\":\"unset\"")?,
        Outcome::Error { message, .. } => {
            out.put(b",\"status\":\"error\"")?;
            if !message.is_empty() {
                out.put(b",\"status_message\":")?;
                string(out, message)?;
            }
        }
    }
    out.put(b",\"attributes\":")?;
    // Every attribute begins with a comma; that of the first becomes the opening brace.
    out.replace_first(b'{', |out| shape.attributes(out, span, &mut Object))?;
    out.put(b"}")?;
    if !span.links.is_empty() {
        out.call(|out| links(out, span))?;
    }
    out.put(b"}\n")
}

#[inline(never)]
fn links(out: &mut Cursor<'_>, span: &Span) -> Option<()> {
    out.put(b",\"links\":")?;
    for (index, link) in span.links.iter().enumerate() {
        out.put(if index == 0 { b"[" } else { b"," })?;
        out.put(b"{\"trace_id\":\"")?;
        hex(out, &link.trace_id.0)?;
        out.put(b"\",\"span_id\":\"")?;
        hex(out, &link.span_id.0)?;
        out.put(b"\",\"reason\":")?;
        string(out, link.reason)?;
        out.put(b"}")?;
    }
    out.put(b"]")
}

/// The service's fields.
fn describe(out: &mut Cursor<'_>, service: &Service, with_resource: bool) -> Option<()> {
    out.put(b",\"service\":")?;
    string(out, &service.name)?;
    out.put(b",\"pid\":")?;
    integer(out, service.tgid)?;
    if !with_resource {
        return Some(());
    }
    out.put(b",\"resource\":")?;
    let mut before: &[u8; 1] = b"{";
    let mut key = |out: &mut Cursor<'_>, key: &str| {
        out.put(std::mem::replace(&mut before, b","))?;
        string(out, key)?;
        out.put(b":")
    };
    for (name, value) in &service.resource.text {
        key(out, name)?;
        string(out, value)?;
    }
    for (name, value) in &service.resource.ints {
        key(out, name)?;
        integer(out, *value)?;
    }
    for (name, values) in &service.resource.lists {
        key(out, name)?;
        out.put(b"[")?;
        for (index, value) in values.iter().enumerate() {
            if index > 0 {
                out.put(b",")?;
            }
            string(out, value)?;
        }
        out.put(b"]")?;
    }
    if before == b"{" {
        out.put(b"{")?;
    }
    out.put(b"}")
}

/// `,"key":value`
struct Object;

impl Form for Object {
    #[inline(always)]
    fn write(&mut self, out: &mut Cursor<'_>, key: Key, item: Item<'_>) -> Option<()> {
        // Keys are constants of ours, without anything to escape.
        out.put(b",\"")?;
        out.copy(key.as_bytes())?;
        out.put(b"\":")?;
        match item {
            Item::Plain(Value::Str(value)) => string(out, value),
            Item::Plain(Value::Int(value)) => integer(out, value),
            Item::Plain(Value::Double(value)) => out.call(|out| double(out, value)),
            Item::Plain(Value::Bool(true)) => out.put(b"true"),
            Item::Plain(Value::Bool(false)) => out.put(b"false"),
            Item::Millis(nanos) => out.call(|out| millis(out, nanos)),
        }
    }
}

/// Text without anything to escape; `before` ends with the opening quote.
#[inline(always)]
fn plain<const N: usize>(out: &mut Cursor<'_>, before: &[u8; N], text: &str) -> Option<()> {
    out.put(before)?;
    out.copy(text.as_bytes())?;
    out.put(b"\"")
}

#[inline(always)]
pub(in crate::export) fn hex<const N: usize>(out: &mut Cursor<'_>, bytes: &[u8; N]) -> Option<()> {
    let (pairs, _) = out.room(2 * N)?.as_chunks_mut::<2>();
    for (to, &byte) in pairs.iter_mut().zip(bytes) {
        *to = DIGITS[usize::from(byte)];
    }
    Some(())
}

/// Both digits of every byte.
const DIGITS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

#[inline(always)]
pub(in crate::export) fn integer(out: &mut Cursor<'_>, value: impl itoa::Integer) -> Option<()> {
    out.copy(itoa::Buffer::new().format(value).as_bytes())
}

/// Nanoseconds as milliseconds, exactly.
#[inline(never)]
pub(in crate::export) fn millis(out: &mut Cursor<'_>, nanos: Nanos) -> Option<()> {
    integer(out, nanos / 1_000_000)?;
    let mut rest = (nanos % 1_000_000) as u32;
    if rest == 0 {
        return Some(());
    }
    let mut digits = *b".000000";
    for digit in digits.iter_mut().skip(1).rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    let zeros = digits.iter().rev().take_while(|&&digit| digit == b'0').count();
    out.copy(digits.get(..digits.len() - zeros)?)
}

#[cold]
fn double(out: &mut Cursor<'_>, value: f64) -> Option<()> {
    if value.is_finite() {
        out.copy(value.to_string().as_bytes())
    } else {
        // JSON has no other word for it.
        out.put(b"null")
    }
}

/// A JSON string (RFC 8259 section 7).
#[inline(always)]
pub(in crate::export) fn string(out: &mut Cursor<'_>, text: &str) -> Option<()> {
    if !is_clean(text.as_bytes()) {
        return out.call(|out| escape(out, text.as_bytes()));
    }
    out.put(b"\"")?;
    out.copy(text.as_bytes())?;
    out.put(b"\"")
}

/// Whether nothing has to be escaped. Eight bytes at a time: a byte below 0x20, a quote or a backslash sets the high bit of its
/// lane; bytes of 0x80 and above are part of UTF-8 sequences and pass.
#[inline(always)]
fn is_clean(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::MAX / 255;
    const HIGH: u64 = ONES << 7;
    #[inline(always)]
    fn special(word: u64) -> u64 {
        let zero_lanes = |x: u64| x.wrapping_sub(ONES) & !x;
        let quote = zero_lanes(word ^ (ONES * b'"' as u64));
        let backslash = zero_lanes(word ^ (ONES * b'\\' as u64));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        quote | backslash | control
    }
    let found = if let Some(last) = bytes.last_chunk::<8>() {
        // The last eight bytes may overlap the word before.
        let (words, _) = bytes.as_chunks::<8>();
        words
            .iter()
            .fold(special(u64::from_le_bytes(*last)), |found, word| {
                found | special(u64::from_le_bytes(*word))
            })
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        special(u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32)
    } else {
        // Spaces fill up the word.
        let blank = u64::from_le_bytes(*b"        ");
        special(
            bytes
                .iter()
                .fold(blank, |word, &byte| word << 8 | u64::from(byte)),
        )
    };
    found & HIGH == 0
}

#[cold]
#[inline(never)]
fn escape(out: &mut Cursor<'_>, bytes: &[u8]) -> Option<()> {
    out.put(b"\"")?;
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => out.put(&[b'\\', byte])?,
            b'\n' => out.put(b"\\n")?,
            b'\r' => out.put(b"\\r")?,
            b'\t' => out.put(b"\\t")?,
            0..0x20 => {
                out.put(b"\\u00")?;
                hex(out, &[byte])?;
            }
            _ => out.put(&[byte])?,
        }
    }
    out.put(b"\"")
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
            let mut out = Buffer::default();
            out.append(|out| string(out, &text));
            assert_eq!(serde_json::from_slice::<String>(out.as_slice()).unwrap(), text);
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
            let mut out = Buffer::default();
            out.append(|out| millis(out, nanos));
            assert_eq!(std::str::from_utf8(out.as_slice()).unwrap(), expected);
        }
    }
}
