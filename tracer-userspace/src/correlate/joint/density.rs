//! How long gaps are: a smoothed histogram on a scale that is linear near zero and logarithmic farther out.

use crate::model::Nanos;

/// Where the scale turns from linear to logarithmic, in nanoseconds: below it, gaps are the noise of the scheduler.
const KNEE: f64 = 20_000.0;
/// The scale reaches to about three minutes on both sides.
const REACH: f64 = 17.0;
const BINS_PER_UNIT: f64 = 10.0;
const BINS: usize = (2.0 * REACH * BINS_PER_UNIT) as usize;
/// Share of gaps that are like nothing seen before.
const STRANGE: f64 = 1e-4;

/// The widest kernel, in units of the scale.
const WIDEST: f64 = 1.5;

/// A learned distribution of gaps. Gaps are in nanoseconds and have a sign.
#[derive(Clone)]
pub(super) struct Density {
    /// Logarithm of the density per unit of the scale, by bin.
    log: Box<[f32]>,
    /// By bin: where its gaps stand among all, as the quantile of a standard normal distribution.
    rank: Box<[f32]>,
    /// Gaps in nanoseconds that part the samples into equal shares.
    steps: [f32; STEPS],
}

const STEPS: usize = 12;

fn scale(gap: i64) -> f64 {
    (gap as f64 / KNEE).asinh()
}

fn bin(unit: f64) -> usize {
    (((unit + REACH) * BINS_PER_UNIT) as usize).min(BINS - 1)
}

/// The gap from one moment to another.
pub(super) fn gap(from: Nanos, to: Nanos) -> i64 {
    to.wrapping_sub(from).cast_signed()
}

impl Density {
    /// Nothing is known: every gap is as likely as any other on the scale.
    pub fn flat() -> Self {
        Self {
            log: vec![(0.5 / REACH).ln() as f32; BINS].into(),
            rank: vec![0.0; BINS].into(),
            steps: [0.0; STEPS],
        }
    }

    /// From samples with weights.
    pub fn learn(samples: impl Iterator<Item = (i64, f32)>) -> Self {
        let mut histogram = vec![0.0_f64; BINS];
        let (mut total, mut squares) = (0.0, 0.0);
        for (gap, weight) in samples {
            let weight = f64::from(weight);
            if let Some(count) = histogram.get_mut(bin(scale(gap))) {
                *count += weight;
                total += weight;
                squares += weight * weight;
            }
        }
        if total <= 0.0 {
            return Self::flat();
        }
        let width = bandwidth(&histogram, total, total * total / squares);
        let pilot = smooth(&histogram, total, |_| width);
        // Where samples are few they are spread wider, or each would explain itself best.
        let mean: f64 = histogram
            .iter()
            .zip(&pilot)
            .map(|(count, p)| count * p.ln())
            .sum::<f64>()
            / total;
        let mean = mean.exp();
        let density = smooth(&histogram, total, |at| {
            let local = pilot.get(at).copied().unwrap_or(mean);
            (width * (mean / local).sqrt()).clamp(width, WIDEST)
        });
        Self {
            log: density.iter().map(|p| p.ln() as f32).collect(),
            rank: ranks(&histogram, total),
            steps: steps(&histogram, total),
        }
    }

    /// How likely a gap of this kind is longer than one of the other kind by at least so many nanoseconds.
    pub fn longer_than(&self, other: &Self, by: i64) -> f32 {
        let longer = |gap: &f32| {
            other
                .steps
                .iter()
                .filter(|other| gap - **other > by as f32)
                .count()
        };
        let sum: usize = self.steps.iter().map(longer).sum();
        sum as f32 / (STEPS * STEPS) as f32
    }

    /// Where a gap stands among those learned from, as the quantile of a standard normal distribution.
    pub fn rank(&self, gap: i64) -> f32 {
        self.rank.get(bin(scale(gap))).copied().unwrap_or(0.0)
    }

    /// Logarithm of the density at a gap, per nanosecond.
    pub fn at(&self, gap: i64) -> f32 {
        let log = self.log.get(bin(scale(gap))).copied().unwrap_or(f32::MIN);
        log - 0.5 * ((gap as f32 * gap as f32) + (KNEE * KNEE) as f32).ln()
    }
}

/// Silverman's rule, from the quartiles where they are narrower than the spread.
fn bandwidth(histogram: &[f64], total: f64, effective: f64) -> f64 {
    let quantile = |share: f64| {
        let mut sum = 0.0;
        let found = histogram.iter().position(|count| {
            sum += count;
            sum >= share * total
        });
        found.unwrap_or(BINS) as f64 / BINS_PER_UNIT
    };
    let spread = (quantile(0.75) - quantile(0.25)) / 1.34;
    (1.06 * spread * effective.powf(-0.2)).clamp(0.08, 0.6)
}

/// Every bin's count spread by a normal distribution of the width given for that bin.
fn smooth(histogram: &[f64], total: f64, width: impl Fn(usize) -> f64) -> Vec<f64> {
    let mut density = vec![STRANGE * 0.5 / REACH; BINS];
    for (at, &count) in histogram.iter().enumerate().filter(|(_, count)| **count > 0.0) {
        let width = width(at) * BINS_PER_UNIT;
        let reach = (width * 4.0).ceil() as usize;
        let range = at.saturating_sub(reach)..(at + reach + 1).min(BINS);
        let kernel = |to: usize| (-0.5 * ((to as f64 - at as f64) / width).powi(2)).exp();
        let norm: f64 = range.clone().map(kernel).sum();
        let mass = (1.0 - STRANGE) * count / total * BINS_PER_UNIT / norm;
        for to in range {
            if let Some(p) = density.get_mut(to) {
                *p += mass * kernel(to);
            }
        }
    }
    density
}

/// The quantile of the middle of each bin.
fn ranks(histogram: &[f64], total: f64) -> Box<[f32]> {
    let mut below = 0.0;
    let of_bin = |count: &f64| {
        let share = ((below + 0.5 * count) / total).clamp(1e-3, 1.0 - 1e-3);
        below += count;
        // Tukey's lambda: within 0.01 of the normal quantile.
        (4.91 * (share.powf(0.14) - (1.0 - share).powf(0.14))) as f32
    };
    histogram.iter().map(of_bin).collect()
}

fn steps(histogram: &[f64], total: f64) -> [f32; STEPS] {
    std::array::from_fn(|step| {
        let share = (step as f64 + 0.5) / STEPS as f64 * total;
        let mut sum = 0.0;
        let found = histogram.iter().position(|count| {
            sum += count;
            sum >= share
        });
        let unit = (found.unwrap_or(BINS) as f64 + 0.5) / BINS_PER_UNIT - REACH;
        (unit.sinh() * KNEE) as f32
    })
}
