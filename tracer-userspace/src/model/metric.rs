//! Metrics: what the metrics stage measures and the exporters write.

use std::sync::Arc;

use super::{Key, Nanos, Service, SpanId, TraceId};

/// What the points of a family are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InstrumentKind {
    /// Only grows (while its series lives).
    Counter,
    /// Goes up and down, and adds up over series.
    UpDownCounter,
    /// A reading.
    Gauge,
    /// Counts by size.
    Histogram,
}

/// One metric by its name, unit and meaning. Names and units are those of the OpenTelemetry conventions, or begin with `tracer.`.
#[derive(PartialEq, Debug)]
pub struct Instrument {
    /// Name (`http.server.request.duration`).
    pub name: &'static str,
    /// Unit by UCUM (`s`, `By`, `{request}`).
    pub unit: &'static str,
    /// One sentence.
    pub description: &'static str,
    /// What its points are.
    pub kind: InstrumentKind,
    /// How many of the numbers kept are one unit: 10^9 for nanoseconds that are told in seconds, else 1.
    pub scale: u64,
    /// Histograms: upper bounds of the buckets, in the numbers kept; the last bucket has none.
    pub bounds: &'static Bounds,
}

/// Upper bounds of buckets, ascending, 254 at most.
#[derive(PartialEq, Debug)]
pub struct Bounds {
    bounds: &'static [u64],
    /// For values of each number of binary digits, the first bucket that may hold one.
    first: [u8; 65],
}

impl Bounds {
    /// These bounds.
    #[must_use]
    pub const fn new(bounds: &'static [u64]) -> Self {
        let mut first = [0; 65];
        let mut digits = 1;
        while digits < first.len() {
            let smallest = 1 << (digits - 1);
            let mut bucket = first[digits - 1];
            while (bucket as usize) < bounds.len() && bounds[bucket as usize] < smallest {
                bucket += 1;
            }
            first[digits] = bucket;
            digits += 1;
        }
        Self { bounds, first }
    }

    /// The bucket of a value: the first whose bound is not below it.
    #[inline]
    #[must_use]
    pub fn bucket(&self, value: u64) -> usize {
        let digits = u64::BITS - value.leading_zeros();
        let mut bucket = usize::from(self.first[digits as usize]);
        while self.bounds.get(bucket).is_some_and(|&bound| bound < value) {
            bucket += 1;
        }
        bucket
    }
}

impl std::ops::Deref for Bounds {
    type Target = [u64];

    fn deref(&self) -> &[u64] {
        self.bounds
    }
}

impl Instrument {
    /// A number that was kept, in the instrument's unit. Powers of ten are divided by, so that bounds come out as they are written.
    #[must_use]
    pub fn in_unit(&self, kept: u64) -> f64 {
        kept as f64 / self.scale as f64
    }
}

/// An attribute of a series.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Label {
    /// Text.
    Text(Box<str>),
    /// Text that lives as long as the program.
    Static(&'static str),
    /// Integer.
    Int(i64),
    /// Truth value.
    Bool(bool),
}

/// The attributes of a series, in a fixed order.
pub type Labels = Arc<[(Key, Label)]>;

/// A span that stands for others of its bucket.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Exemplar {
    /// Trace.
    pub trace_id: TraceId,
    /// Span.
    pub span_id: SpanId,
    /// What was measured, as kept.
    pub value: u64,
    /// When the exchange ended.
    pub ts: Nanos,
}

/// Buckets whose bounds are powers of `2^(2^-scale)`, of the value in its unit (OTLP `ExponentialHistogram`).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Exponential {
    /// Resolution.
    pub scale: i32,
    /// Values that are zero.
    pub zero: u64,
    /// Index of the first bucket.
    pub offset: i32,
    /// Counts; bucket `i` holds values in `(base^(offset+i), base^(offset+i+1)]`.
    pub counts: Vec<u64>,
}

/// A histogram at one moment.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Distribution {
    /// Sum of the values, as kept.
    pub sum: u64,
    /// Counts by the instrument's bounds, one more than there are bounds.
    pub counts: Vec<u64>,
    /// The same values in exponential buckets, if they are kept.
    pub exponential: Option<Exponential>,
    /// At most one for each of `counts`.
    pub exemplars: Vec<Exemplar>,
}

impl Distribution {
    /// Number of values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// The value of a series.
#[derive(Clone, PartialEq, Debug)]
pub enum Reading {
    /// Counters, and gauges that are whole numbers, as kept.
    Number(u64),
    /// Gauges.
    Real(f64),
    /// Histograms.
    Distribution(Box<Distribution>),
}

/// One series at one moment.
#[derive(Clone, PartialEq, Debug)]
pub struct Point {
    /// The series: no two of a family share it, and it is not used again after the series has gone.
    pub series: u64,
    /// Whose it is; `None` for the tracer's own.
    pub service: Option<Arc<Service>>,
    /// Attributes.
    pub labels: Labels,
    /// When the series began to count.
    pub start: Nanos,
    /// The value.
    pub value: Reading,
}

/// All series of one instrument.
#[derive(Clone, PartialEq, Debug)]
pub struct Family {
    /// The instrument.
    pub instrument: &'static Instrument,
    /// Its series.
    pub points: Vec<Point>,
}

/// Where exporters get their metrics from.
pub trait Gather: Send + Sync {
    /// Everything as it stands, at `now`. Families without series are left out.
    fn gather(&self, now: Nanos) -> Vec<Family>;
}
