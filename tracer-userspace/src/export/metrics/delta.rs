//! Cumulative points -> what was added since the last export that the backend took.

use hashbrown::{HashMap, HashSet};

use crate::model::{Distribution, Exponential, Family, InstrumentKind, Nanos, Point, Reading};

/// A series of an instrument.
pub type Key = (&'static str, u64);

/// What the backend has taken of each series, and when.
#[derive(Default)]
pub struct Taken {
    values: HashMap<Key, (Reading, Nanos)>,
}

impl Taken {
    /// Makes deltas of what adds up. Series without anything new are left out.
    pub fn deltas(&self, families: &[Family]) -> Vec<Family> {
        let mut deltas = Vec::with_capacity(families.len());
        for family in families {
            if !is_delta(family) {
                deltas.push(family.clone());
                continue;
            }
            let points: Vec<Point> = family
                .points
                .iter()
                .filter_map(|point| self.delta(family.instrument.name, point))
                .collect();
            if !points.is_empty() {
                deltas.push(Family {
                    instrument: family.instrument,
                    points,
                });
            }
        }
        deltas
    }

    fn delta(&self, name: &'static str, point: &Point) -> Option<Point> {
        let before = self.values.get(&(name, point.series));
        let value = match (&point.value, before) {
            (Reading::Number(now), Some((Reading::Number(then), _))) => {
                Reading::Number(now.checked_sub(*then).filter(|&n| n > 0)?)
            }
            (Reading::Distribution(now), Some((Reading::Distribution(then), at))) => {
                Reading::Distribution(Box::new(subtract(now, then, *at)?))
            }
            (Reading::Number(0), None) => return None,
            (now, _) => now.clone(),
        };
        Some(Point {
            start: before.map_or(point.start, |(_, at)| point.start.max(*at)),
            value,
            ..point.clone()
        })
    }

    /// The backend has taken these series as they stood at `at`; series that are no more are forgotten.
    pub fn commit(&mut self, families: Vec<Family>, taken: &[Key], at: Nanos) {
        let taken: HashSet<&Key> = taken.iter().collect();
        let mut values = HashMap::with_capacity(self.values.len());
        for family in families.into_iter().filter(is_delta) {
            let name = family.instrument.name;
            for point in family.points {
                let key = (name, point.series);
                let entry = if taken.contains(&key) {
                    Some((point.value, at))
                } else {
                    self.values.remove(&key)
                };
                values.extend(entry.map(|entry| (key, entry)));
            }
        }
        self.values = values;
    }
}

/// Whether points of this kind are told as deltas: gauges and what goes up and down never are.
pub fn is_delta(family: &Family) -> bool {
    matches!(
        family.instrument.kind,
        InstrumentKind::Counter | InstrumentKind::Histogram
    )
}

fn subtract(now: &Distribution, then: &Distribution, at: Nanos) -> Option<Distribution> {
    let counts: Vec<u64> = now
        .counts
        .iter()
        .zip(&then.counts)
        .map(|(now, then)| now.saturating_sub(*then))
        .collect();
    if counts.iter().all(|&count| count == 0) {
        return None;
    }
    let exponential = match (&now.exponential, &then.exponential) {
        (Some(now), Some(then)) => Some(subtract_exponential(now, then)),
        (now, _) => now.clone(),
    };
    Some(Distribution {
        sum: now.sum.saturating_sub(then.sum),
        counts,
        exponential,
        exemplars: now
            .exemplars
            .iter()
            .filter(|exemplar| exemplar.ts > at)
            .copied()
            .collect(),
    })
}

/// `then` may be finer: its neighbours are merged until both have one scale.
fn subtract_exponential(now: &Exponential, then: &Exponential) -> Exponential {
    let mut left = now.clone();
    left.zero = now.zero.saturating_sub(then.zero);
    let coarser = u32::try_from(then.scale - now.scale).unwrap_or(0);
    for (at, &count) in then.counts.iter().enumerate() {
        let index = (then.offset + at as i32) >> coarser;
        let at = usize::try_from(index - left.offset).ok();
        if let Some(place) = at.and_then(|at| left.counts.get_mut(at)) {
            *place = place.saturating_sub(count);
        }
    }
    left
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::{Bounds, Exemplar, Instrument, SpanId, TraceId};

    static TEN: Bounds = Bounds::new(&[10]);

    const fn instrument(name: &'static str, kind: InstrumentKind) -> Instrument {
        Instrument {
            name,
            unit: "",
            description: "",
            kind,
            scale: 1,
            bounds: &TEN,
        }
    }
    static COUNTER: Instrument = instrument("counter", InstrumentKind::Counter);
    static GAUGE: Instrument = instrument("gauge", InstrumentKind::Gauge);
    static HISTOGRAM: Instrument = instrument("histogram", InstrumentKind::Histogram);

    fn family(instrument: &'static Instrument, series: u64, value: Reading) -> Family {
        Family {
            instrument,
            points: vec![Point {
                series,
                service: None,
                labels: Arc::new([]),
                start: 5,
                value,
            }],
        }
    }

    fn told(counts: [u64; 2], sum: u64, exponential: (i32, i32, &[u64]), exemplar: Nanos) -> Reading {
        let (scale, offset, buckets) = exponential;
        Reading::Distribution(Box::new(Distribution {
            sum,
            counts: counts.to_vec(),
            exponential: Some(Exponential {
                scale,
                zero: 0,
                offset,
                counts: buckets.to_vec(),
            }),
            exemplars: vec![Exemplar {
                trace_id: TraceId([1; 16]),
                span_id: SpanId([1; 8]),
                value: 1,
                ts: exemplar,
            }],
        }))
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut taken = Taken::default();
        let first = vec![
            family(&COUNTER, 1, Reading::Number(7)),
            family(&GAUGE, 1, Reading::Number(3)),
            family(&HISTOGRAM, 1, told([1, 1], 20, (2, 4, &[1, 0, 0, 1]), 50)),
        ];
        assert_eq!(taken.deltas(&first), first, "everything is new at first");
        // Not taken: the next delta has it all.
        assert_eq!(taken.deltas(&first), first);
        let all = [("counter", 1), ("gauge", 1), ("histogram", 1)];
        taken.commit(first.clone(), &all, 100);
        let deltas = taken.deltas(&first);
        assert_eq!(deltas, [first[1].clone()], "the gauge stays, nothing else is new");

        // The exponential buckets became coarser in between: 4..=7 at scale 2 are 2..=3 at scale 1.
        let second = vec![
            family(&COUNTER, 1, Reading::Number(9)),
            family(&HISTOGRAM, 1, told([1, 3], 70, (1, 2, &[1, 1, 0, 2]), 120)),
        ];
        let deltas = taken.deltas(&second);
        assert_eq!(deltas[0].points[0].value, Reading::Number(2));
        assert_eq!(deltas[0].points[0].start, 100);
        assert_eq!(
            deltas[1].points[0].value,
            told([0, 2], 50, (1, 2, &[0, 0, 0, 2]), 120)
        );

        // Only the histogram was taken: the counter's part is told again.
        taken.commit(second.clone(), &[("histogram", 1)], 200);
        let deltas = taken.deltas(&second);
        assert_eq!(deltas.len(), 1);
        assert_eq!(
            (deltas[0].points[0].start, &deltas[0].points[0].value),
            (100, &Reading::Number(2))
        );

        // The series expired and came back under another number.
        let third = vec![family(&COUNTER, 2, Reading::Number(1))];
        assert_eq!(taken.deltas(&third), third);
    }
}
