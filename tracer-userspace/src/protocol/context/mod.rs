//! Trace context that requests carry (evidence E1), in the header formats in use.

mod b3;
mod vendor;
mod w3c;

use std::sync::Arc;

use crate::model::{SpanId, TraceContext, TraceId};

/// Header fields of one message that could carry trace context, as they come.
#[derive(Clone, Default, Debug)]
pub struct Carrier<'a> {
    any: bool,
    traceparent: Field<'a>,
    tracestate: w3c::State<'a>,
    elastic: Field<'a>,
    b3: Field<'a>,
    b3_trace: Field<'a>,
    b3_span: Field<'a>,
    b3_sampled: Field<'a>,
    b3_flags: Field<'a>,
    uber: Field<'a>,
    cloud: Field<'a>,
    amzn: Field<'a>,
}

/// A field that must not be repeated with different values: which one would be true?
#[derive(Clone, Copy, Default, Debug)]
enum Field<'a> {
    #[default]
    Absent,
    Once(&'a [u8]),
    Contradicting,
}

impl<'a> Field<'a> {
    fn add(&mut self, value: &'a [u8]) {
        *self = match *self {
            Self::Absent => Self::Once(value),
            Self::Once(before) if before == value => return,
            _ => Self::Contradicting,
        };
    }

    const fn get(self) -> Option<&'a [u8]> {
        match self {
            Self::Once(value) => Some(value),
            _ => None,
        }
    }
}

impl<'a> Carrier<'a> {
    /// Takes one header field, if its name (any case) is one of ours. `value` has no white space around it.
    pub fn offer(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |wanted: &[u8]| name.eq_ignore_ascii_case(wanted);
        let field = match name.len() {
            2 if is(b"b3") => &mut self.b3,
            10 if is(b"tracestate") => {
                self.tracestate.add(value);
                return;
            }
            10 if is(b"x-b3-flags") => &mut self.b3_flags,
            11 if is(b"traceparent") => &mut self.traceparent,
            11 if is(b"x-b3-spanid") => &mut self.b3_span,
            12 if is(b"x-b3-traceid") => &mut self.b3_trace,
            12 if is(b"x-b3-sampled") => &mut self.b3_sampled,
            13 if is(b"uber-trace-id") => &mut self.uber,
            15 if is(b"x-amzn-trace-id") => &mut self.amzn,
            21 if is(b"x-cloud-trace-context") => &mut self.cloud,
            23 if is(b"elastic-apm-traceparent") => &mut self.elastic,
            _ => return,
        };
        field.add(value);
        self.any = true;
    }

    /// The context, from the first of the formats that is present and well-formed. W3C and its kin name the caller's own span;
    /// what load balancers and clouds add on the way comes last.
    #[must_use]
    pub fn parse(&self) -> Option<Arc<TraceContext>> {
        if !self.any {
            return None;
        }
        let traceparent = self.traceparent.get().and_then(w3c::parse);
        if let Some(ids) = traceparent {
            return Some(ids.named("traceparent", self.tracestate.join()));
        }
        let elastic = || {
            Some((
                self.elastic.get().and_then(w3c::parse)?,
                "elastic-apm-traceparent",
            ))
        };
        let single = || Some((b3::parse_single(self.b3.get()?)?, "b3"));
        let multi = || {
            let (span, sampled) = (self.b3_span.get(), self.b3_sampled.get());
            let ids = b3::parse_multi(self.b3_trace.get()?, span, sampled, self.b3_flags.get())?;
            Some((ids, "x-b3"))
        };
        let uber = || Some((vendor::parse_uber(self.uber.get()?)?, "uber-trace-id"));
        let cloud = || Some((vendor::parse_cloud(self.cloud.get()?)?, "x-cloud-trace-context"));
        let amzn = || Some((vendor::parse_amzn(self.amzn.get()?)?, "x-amzn-trace-id"));
        let (ids, format) = elastic()
            .or_else(single)
            .or_else(multi)
            .or_else(uber)
            .or_else(cloud)
            .or_else(amzn)?;
        Some(ids.named(format, Box::default()))
    }
}

/// What any format tells.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Ids {
    trace: TraceId,
    span: Option<SpanId>,
    sampled: Option<bool>,
}

impl Ids {
    fn named(self, format: &'static str, trace_state: Box<str>) -> Arc<TraceContext> {
        Arc::new(TraceContext {
            trace_id: self.trace,
            span_id: self.span,
            sampled: self.sampled,
            trace_state,
            format,
        })
    }
}

/// A hexadecimal number of 1 to `2 * N` digits, in any case, right-aligned; not zero.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.is_empty() || digits.len() > 2 * N {
        return None;
    }
    let mut bytes = [0u8; N];
    let mut wrong = 0;
    for (byte, pair) in bytes.iter_mut().rev().zip(digits.rchunks(2)) {
        let (high, low) = match *pair {
            [high, low] => (nibble(high), nibble(low)),
            [low] => (0, nibble(low)),
            _ => return None,
        };
        wrong |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (wrong <= 0xf && bytes != [0; N]).then_some(bytes)
}

/// Exactly `2 * N` hexadecimal digits; not zero.
fn full_hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0u8; N];
    let mut wrong = 0;
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks().0) {
        let (high, low) = (nibble(*high), nibble(*low));
        wrong |= high | low;
        *byte = high << 4 | low & 0xf;
    }
    (wrong <= 0xf && bytes != [0; N]).then_some(bytes)
}

/// The value of a hexadecimal digit, above 15 if it is none.
fn nibble(digit: u8) -> u8 {
    const VALUES: [u8; 256] = {
        let mut values = [0xff; 256];
        let mut value = 0;
        while value < 16 {
            values[b"0123456789abcdef"[value] as usize] = value as u8;
            values[b"0123456789ABCDEF"[value] as usize] = value as u8;
            value += 1;
        }
        values
    };
    VALUES[usize::from(digit)]
}

#[cfg(test)]
mod tests;
