//! Counts by size: plain numbers, one bucket found and counted for each value.

use std::sync::OnceLock;

use crate::model::{Bounds, Distribution, Exemplar, Exponential, Instrument};

/// A histogram that is being filled.
pub struct Histogram {
    bounds: &'static Bounds,
    /// One for each bound, and one for what is above them all.
    counts: Box<[u64]>,
    sum: u64,
    exponential: Option<Box<Base2>>,
    exemplars: Box<[Option<Exemplar>]>,
}

impl Histogram {
    /// An empty one by the instrument's bounds; `exponential` keeps those buckets as well.
    pub fn new(instrument: &Instrument, exponential: bool) -> Self {
        let buckets = instrument.bounds.len() + 1;
        Self {
            bounds: instrument.bounds,
            counts: vec![0; buckets].into(),
            sum: 0,
            exponential: exponential.then(|| Box::new(Base2::new(instrument.scale))),
            exemplars: Box::default(),
        }
    }

    /// Counts a value and returns its bucket. Upper bounds belong to their bucket.
    #[inline]
    pub fn record(&mut self, value: u64) -> usize {
        let bucket = self.bounds.bucket(value);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum = self.sum.saturating_add(value);
        if let Some(exponential) = &mut self.exponential {
            exponential.record(value);
        }
        bucket
    }

    /// Lets a span stand for its bucket; the newest wins.
    #[inline]
    pub fn exemplify(&mut self, bucket: usize, exemplar: Exemplar) {
        match self.exemplars.get_mut(bucket) {
            Some(place) => *place = Some(exemplar),
            None => self.first_exemplar(bucket, exemplar),
        }
    }

    /// The bucket of a value.
    pub fn bucket(&self, value: u64) -> usize {
        self.bounds.bucket(value)
    }

    #[cold]
    fn first_exemplar(&mut self, bucket: usize, exemplar: Exemplar) {
        self.exemplars = vec![None; self.counts.len()].into();
        if let Some(place) = self.exemplars.get_mut(bucket) {
            *place = Some(exemplar);
        }
    }

    /// A copy of what was counted.
    pub fn distribution(&self) -> Distribution {
        Distribution {
            sum: self.sum,
            counts: self.counts.to_vec(),
            exponential: self.exponential.as_ref().map(|base2| base2.buckets()),
            exemplars: self.exemplars.iter().flatten().copied().collect(),
        }
    }
}

/// The finest scale: 64 buckets for each doubling, 1.1% wide.
const FINEST: u32 = 6;
/// Buckets at most; where values span more, neighbours are merged (the default of the OpenTelemetry SDKs).
const MAX_BUCKETS: usize = 160;
const MANTISSA: u32 = f64::MANTISSA_DIGITS - 1;

/// Exponential buckets, in an unbroken row that grows at both ends.
struct Base2 {
    /// Numbers kept that are one unit.
    unit: f64,
    /// How often neighbours were merged, from [`FINEST`].
    coarser: u32,
    zero: u64,
    offset: i32,
    counts: Vec<u64>,
}

impl Base2 {
    fn new(scale: u64) -> Self {
        Self {
            unit: scale as f64,
            coarser: 0,
            zero: 0,
            offset: 0,
            counts: Vec::new(),
        }
    }

    fn record(&mut self, value: u64) {
        if value == 0 {
            self.zero += 1;
            return;
        }
        let finest = index(value as f64 / self.unit);
        let at = (finest >> self.coarser).wrapping_sub(self.offset);
        if let Some(count) = usize::try_from(at).ok().and_then(|at| self.counts.get_mut(at)) {
            *count += 1;
        } else {
            self.widen(finest);
        }
    }

    /// Makes room for a bucket outside the row, and counts there.
    #[cold]
    fn widen(&mut self, finest: i32) {
        if self.counts.is_empty() {
            self.offset = finest >> self.coarser;
        }
        loop {
            let index = finest >> self.coarser;
            let first = index.min(self.offset);
            let last = index.max(self.offset + self.counts.len() as i32 - 1);
            if (last - first) < MAX_BUCKETS as i32 {
                let front = (self.offset - first) as usize;
                self.counts.splice(0..0, std::iter::repeat_n(0, front));
                self.offset = first;
                self.counts.resize((last - first) as usize + 1, 0);
                if let Some(count) = self.counts.get_mut((index - first) as usize) {
                    *count += 1;
                }
                return;
            }
            let offset = self.offset >> 1;
            for at in 0..self.counts.len() {
                let to = (((self.offset + at as i32) >> 1) - offset) as usize;
                let count = std::mem::take(&mut self.counts[at]);
                self.counts[to] += count;
            }
            let len = self.counts.len() as i32;
            let last = if len == 0 {
                0
            } else {
                ((self.offset + len - 1) >> 1) - offset + 1
            };
            self.counts.truncate(last as usize);
            self.offset = offset;
            self.coarser += 1;
        }
    }

    fn buckets(&self) -> Exponential {
        Exponential {
            scale: FINEST as i32 - self.coarser as i32,
            zero: self.zero,
            offset: self.offset,
            counts: self.counts.clone(),
        }
    }
}

/// The bucket of a positive value at [`FINEST`]: its exponent, and where its fraction lies among the powers of `2^(1/64)`.
fn index(value: f64) -> i32 {
    /// Fractions of the bounds within one doubling.
    static BOUNDS: OnceLock<[u64; 1 << FINEST]> = OnceLock::new();
    let bounds = BOUNDS.get_or_init(|| {
        std::array::from_fn(|at| {
            let bound = (at as f64 / f64::from(1 << FINEST)).exp2();
            bound.to_bits() & ((1 << MANTISSA) - 1)
        })
    });
    // Upper bounds belong to the bucket below, so the value is taken to lie just under itself.
    let bits = value.to_bits().saturating_sub(1);
    let exponent = (bits >> MANTISSA) as i32 - (f64::MAX_EXP - 1);
    let fraction = bits & ((1 << MANTISSA) - 1);
    // The row of powers lies under the straight line, by less than six buckets of 64.
    let mut at = (fraction >> (MANTISSA - FINEST)) as usize;
    while bounds.get(at + 1).is_some_and(|&bound| bound <= fraction) {
        at += 1;
    }
    (exponent << FINEST) + at as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::InstrumentKind;

    static SECONDS: Instrument = Instrument {
        name: "x",
        unit: "s",
        description: "",
        kind: InstrumentKind::Histogram,
        scale: 1_000_000_000,
        bounds: &Bounds::new(&[5_000_000, 10_000_000]),
    };

    #[test]
    fn bounds_belong_to_their_bucket() {
        let mut histogram = Histogram::new(&SECONDS, false);
        for (value, bucket) in [
            (0, 0),
            (5_000_000, 0),
            (5_000_001, 1),
            (10_000_000, 1),
            (u64::MAX, 2),
        ] {
            assert_eq!(histogram.record(value), bucket, "{value}");
        }
        let told = histogram.distribution();
        assert_eq!((told.counts, told.sum), (vec![2, 2, 1], u64::MAX));
    }

    #[test]
    fn buckets_are_found_as_by_search() {
        static BOUNDS: Bounds = Bounds::new(&[0, 1, 3, 4, 5, 7, 8, 1_000, 1_023, 1_024, u64::MAX - 1]);
        let around = BOUNDS
            .iter()
            .flat_map(|&bound| (0..5).map(move |n| bound.saturating_add(n).saturating_sub(2)));
        for value in around.chain([500, u64::MAX]) {
            assert_eq!(
                BOUNDS.bucket(value),
                BOUNDS.partition_point(|&bound| bound < value),
                "{value}"
            );
        }
    }

    /// The definition: `base^index < value <= base^(index+1)`, by logarithms.
    #[test]
    fn indices_are_those_of_the_definition() {
        let width = f64::from(1 << FINEST);
        let mut value = 1e-9_f64;
        while value < 1e6 {
            let exact = value.log2() * width;
            // On a bound itself the logarithm's rounding decides nothing.
            if (exact - exact.round()).abs() > 1e-6 {
                assert_eq!(index(value), exact.ceil() as i32 - 1, "{value}");
            }
            value *= 1.000_37;
        }
        for (power, expected) in [(1.0, -1), (2.0, 63), (4.0, 127), (0.5, -65)] {
            assert_eq!(index(power), expected, "{power}");
        }
    }

    #[test]
    fn wide_values_merge_neighbours_and_lose_nothing() {
        let mut histogram = Histogram::new(&SECONDS, true);
        let mut values = vec![0];
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..5_000 {
            values.push(10f64.powf(3.0 + rng.f64() * 8.0) as u64);
        }
        for &value in &values {
            histogram.record(value);
        }
        let told = histogram.distribution().exponential.unwrap();
        assert_eq!(told.zero, 1);
        assert_eq!(told.counts.iter().sum::<u64>(), 5_000);
        assert!(told.counts.len() <= MAX_BUCKETS);
        assert!(
            (2..=3).contains(&told.scale),
            "eight decades fit at scale {}",
            told.scale
        );
        // Every bucket holds exactly the values between its bounds.
        let base = (-f64::from(told.scale)).exp2().exp2();
        for (at, &count) in told.counts.iter().enumerate() {
            let lower = base.powi(told.offset + at as i32);
            let inside = |&&value: &&u64| {
                let value = value as f64 / 1e9;
                value > lower * (1.0 + 1e-12) && value <= lower * base * (1.0 + 1e-12)
            };
            assert_eq!(values.iter().filter(inside).count() as u64, count, "bucket {at}");
        }
    }

    #[test]
    fn one_value_stays_fine() {
        let mut histogram = Histogram::new(&SECONDS, true);
        histogram.record(1_000_000_000);
        let told = histogram.distribution().exponential.unwrap();
        assert_eq!(
            (told.scale, told.offset, told.counts),
            (FINEST as i32, -1, vec![1])
        );
    }
}
