//! Probabilities as thresholds on 56 random bits (OpenTelemetry specification, "TraceState: Probability Sampling"; the bits are those that
//! W3C Trace Context Level 2 asks to be random: the last seven bytes of the trace's id).

use std::fmt::Write as _;

use crate::model::TraceId;

const BITS: u32 = 56;
/// One more than the largest random value.
const RANGE: u64 = 1 << BITS;
/// Hexadecimal digits of a threshold.
const DIGITS: usize = 14;

/// A trace is kept if its randomness is not below this; 0 keeps all.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Threshold(u64);

impl Threshold {
    /// Keeps all.
    pub const ALL: Self = Self(0);

    /// The threshold of a probability; `None` keeps nothing. Probabilities below 2^-56 keep nothing.
    pub fn of(probability: f64) -> Option<Self> {
        let rejected = (1.0 - probability.clamp(0.0, 1.0)) * RANGE as f64;
        let rejected = rejected.round() as u64;
        (rejected < RANGE).then_some(Self(rejected))
    }

    /// Whether a trace with that randomness is kept.
    pub const fn keeps(self, randomness: u64) -> bool {
        randomness >= self.0
    }

    /// The probability.
    #[cfg(test)]
    pub fn probability(self) -> f64 {
        1.0 - self.0 as f64 / RANGE as f64
    }

    fn parse(text: &str) -> Option<Self> {
        hex(text).map(|(value, digits)| Self(value << (4 * (DIGITS - digits))))
    }

    fn write(self, out: &mut String) {
        let digits = format!("{:014x}", self.0);
        let short = digits.trim_end_matches('0');
        out.push_str(if short.is_empty() { "0" } else { short });
    }
}

/// Up to 14 lower-case digits.
fn hex(text: &str) -> Option<(u64, usize)> {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    if text.is_empty() || text.len() > DIGITS || !text.bytes().all(is_digit) {
        return None;
    }
    Some((u64::from_str_radix(text, 16).ok()?, text.len()))
}

/// What the spans of a trace that is kept tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// By which it was kept.
    pub threshold: Threshold,
    /// Randomness that is not the id's.
    pub randomness: Option<u64>,
}

/// What `tracestate` says under `ot`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Said {
    /// The threshold that the trace passed before it came here.
    pub threshold: Option<Threshold>,
    /// Randomness that is not the id's.
    pub randomness: Option<u64>,
}

/// Reads the `ot` member.
pub fn read(trace_state: &str) -> Said {
    let mut said = Said::default();
    for (key, value) in members(trace_state)
        .filter(|(key, _)| *key == "ot")
        .flat_map(|(_, v)| fields(v))
    {
        match key {
            "th" => said.threshold = Threshold::parse(value),
            "rv" => {
                said.randomness = hex(value)
                    .filter(|(_, digits)| *digits == DIGITS)
                    .map(|(value, _)| value)
            }
            _ => {}
        }
    }
    said
}

/// The random bits of a trace.
pub fn randomness(trace: TraceId, said: Said) -> u64 {
    said.randomness.unwrap_or_else(|| {
        let [.., a, b, c, d, e, f, g] = trace.0;
        u64::from_be_bytes([0, a, b, c, d, e, f, g])
    })
}

/// The same `tracestate` with this mark; the member that was changed comes first (W3C Trace Context section 3.3.1).
pub fn write(trace_state: &str, mark: Mark) -> Box<str> {
    let mut out = String::with_capacity(trace_state.len() + 24);
    out.push_str("ot=th:");
    mark.threshold.write(&mut out);
    if let Some(randomness) = mark.randomness {
        // Writing to a string cannot fail.
        let _ = write!(out, ";rv:{randomness:014x}");
    }
    let own = members(trace_state)
        .filter(|(key, _)| *key == "ot")
        .flat_map(|(_, value)| fields(value));
    for (key, value) in own.filter(|(key, _)| !matches!(*key, "th" | "rv")) {
        out.push(';');
        out.push_str(key);
        out.push(':');
        out.push_str(value);
    }
    for (key, value) in members(trace_state).filter(|(key, _)| *key != "ot") {
        out.push(',');
        out.push_str(key);
        out.push('=');
        out.push_str(value);
    }
    out.into()
}

fn members(trace_state: &str) -> impl Iterator<Item = (&str, &str)> {
    trace_state
        .split(',')
        .filter_map(|member| member.trim().split_once('='))
}

fn fields(value: &str) -> impl Iterator<Item = (&str, &str)> {
    value.split(';').filter_map(|field| field.split_once(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_those_of_the_specification() {
        for (probability, text) in [
            (1.0, "0"),
            (0.5, "8"),
            (0.25, "c"),
            (0.1, "e6666666666666"),
            (0.01, "fd70a3d70a3d71"),
            (1.0 / 3.0, "aaaaaaaaaaaaac"),
        ] {
            let threshold = Threshold::of(probability).unwrap();
            let mut told = String::new();
            threshold.write(&mut told);
            // The last digit is a matter of rounding in floating point.
            assert_eq!(
                told.get(..told.len().min(12)),
                text.get(..text.len().min(12)),
                "{probability}"
            );
            assert_eq!(Threshold::parse(&told), Some(threshold));
            assert!((threshold.probability() - probability).abs() < 1e-12);
        }
        assert_eq!(Threshold::of(0.0), None);
        for broken in ["", "x", "C", "123456789abcdef", "-1"] {
            assert_eq!(Threshold::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn tracestate_keeps_what_others_said() {
        let half = Threshold::of(0.5).unwrap();
        for (before, after) in [
            ("", "ot=th:8"),
            ("a=b", "ot=th:8,a=b"),
            (
                "a=b,ot=rv:0123456789abcd;th:c,c=d:e;f",
                "ot=th:8;rv:0123456789abcd,a=b,c=d:e;f",
            ),
            ("ot=", "ot=th:8"),
            (",,=", "ot=th:8,="),
        ] {
            let mark = Mark {
                threshold: half,
                randomness: read(before).randomness,
            };
            assert_eq!(&*write(before, mark), after, "{before}");
        }
        let said = read("a=b,ot=rv:0123456789abcd;th:c");
        assert_eq!(said.threshold, Threshold::of(0.25));
        assert_eq!(randomness(TraceId([0xff; 16]), said), 0x01_2345_6789_abcd);
        assert_eq!(randomness(TraceId([0xff; 16]), read("ot=rv:12")), RANGE - 1);
    }
}
