//! Formats of one vendor each: Jaeger, Google Cloud, AWS.

use super::{Ids, full_hex, hex};
use crate::model::{SpanId, TraceId};

/// Jaeger's `uber-trace-id`: `{trace}:{span}:{parent}:{flags}`, hexadecimal without leading zeros, the colons perhaps
/// percent-encoded (<https://www.jaegertracing.io/docs/1.76/client-libraries/#propagation-format>).
pub fn parse_uber(value: &[u8]) -> Option<Ids> {
    let (trace, rest) = split_colon(value)?;
    let (span, rest) = split_colon(rest)?;
    let (parent, flags) = split_colon(rest)?;
    if !parent.iter().chain(flags).all(u8::is_ascii_hexdigit) || !(1..=2).contains(&flags.len()) {
        return None;
    }
    let flags = (*flags.last()? as char).to_digit(16)?;
    Some(Ids {
        trace: TraceId(hex(trace)?),
        span: Some(SpanId(hex(span)?)),
        sampled: Some(flags & 1 == 1),
    })
}

fn split_colon(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = value.iter().position(|b| matches!(b, b':' | b'%'))?;
    let (before, rest) = value.split_at_checked(at)?;
    let after = match rest {
        [b':', after @ ..] | [b'%', b'3', b'A' | b'a', after @ ..] => after,
        _ => return None,
    };
    Some((before, after))
}

/// `X-Cloud-Trace-Context`: `{trace}[/{span, decimal}][;o={options}]`
/// (<https://cloud.google.com/trace/docs/trace-context#legacy-http-header>).
pub fn parse_cloud(value: &[u8]) -> Option<Ids> {
    let mut parts = value.splitn(2, |b| *b == b';');
    let (ids, options) = (parts.next()?, parts.next());
    let mut ids = ids.splitn(2, |b| *b == b'/');
    let trace = TraceId(full_hex(ids.next()?)?);
    let span = match ids.next() {
        None => None,
        Some(digits) if digits.iter().all(u8::is_ascii_digit) => {
            let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
            (number != 0).then(|| SpanId(number.to_be_bytes()))
        }
        Some(_) => return None,
    };
    let sampled = match options {
        Some(b"o=1") => Some(true),
        Some(b"o=0") => Some(false),
        _ => None,
    };
    Some(Ids { trace, span, sampled })
}

/// `X-Amzn-Trace-Id`: `Root=1-{8 digits}-{24 digits};Parent={16 digits};Sampled={0,1,?}`, in any order
/// (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>).
pub fn parse_amzn(value: &[u8]) -> Option<Ids> {
    let mut ids = Ids {
        trace: TraceId::default(),
        span: None,
        sampled: None,
    };
    for part in value.split(|b| *b == b';') {
        let part = part.trim_ascii();
        if let Some(root) = part.strip_prefix(b"Root=") {
            let digits = root.strip_prefix(b"1-")?;
            let (time, unique) = digits.split_at_checked(8)?;
            let unique = unique.strip_prefix(b"-")?;
            let mut bytes = [0; 16];
            let (first, last) = bytes.split_at_mut_checked(4)?;
            first.copy_from_slice(&full_hex::<4>(time)?);
            last.copy_from_slice(&full_hex::<12>(unique)?);
            ids.trace = TraceId(bytes);
        } else if let Some(parent) = part.strip_prefix(b"Parent=") {
            ids.span = Some(SpanId(full_hex(parent)?));
        } else if let Some(sampled) = part.strip_prefix(b"Sampled=") {
            ids.sampled = match sampled {
                b"1" => Some(true),
                b"0" => Some(false),
                _ => None,
            };
        }
    }
    (ids.trace != TraceId::default()).then_some(ids)
}
