//! Zipkin's B3, in one field and in several (<https://github.com/openzipkin/b3-propagation>).

use super::{Ids, full_hex, hex};
use crate::model::{SpanId, TraceId};

/// `{trace id}-{span id}[-{sampling state}[-{parent span id}]]`. A sampling state alone names no trace.
pub fn parse_single(value: &[u8]) -> Option<Ids> {
    let mut parts = value.split(|b| *b == b'-');
    let trace = trace_id(parts.next()?)?;
    let span = SpanId(full_hex(parts.next()?)?);
    let sampled = match parts.next() {
        None => None,
        Some(state) => Some(sampling(state)?),
    };
    if let Some(parent) = parts.next() {
        full_hex::<8>(parent)?;
    }
    parts.next().is_none().then_some(Ids {
        trace,
        span: Some(span),
        sampled,
    })
}

/// `X-B3-TraceId`, `X-B3-SpanId`, `X-B3-Sampled`, `X-B3-Flags`.
pub fn parse_multi(
    trace: &[u8],
    span: Option<&[u8]>,
    sampled: Option<&[u8]>,
    flags: Option<&[u8]>,
) -> Option<Ids> {
    let span = match span {
        None => None,
        Some(span) => Some(SpanId(full_hex(span)?)),
    };
    let debug = flags == Some(b"1");
    Some(Ids {
        trace: trace_id(trace)?,
        span,
        sampled: if debug {
            Some(true)
        } else {
            sampled.and_then(sampling)
        },
    })
}

/// 64 or 128 bits; 64 bits are right-aligned.
fn trace_id(digits: &[u8]) -> Option<TraceId> {
    matches!(digits.len(), 16 | 32).then(|| hex(digits).map(TraceId))?
}

fn sampling(state: &[u8]) -> Option<bool> {
    match state {
        b"1" | b"d" | b"true" => Some(true),
        b"0" | b"false" => Some(false),
        _ => None,
    }
}
