//! What happens at about the same time takes about as long: requests that wait for one thread, one lock or one CPU wait together,
//! and are served in order. How alike gaps are that began close to each other is learned for each slot; where it is much, an
//! exchange that makes one request quick and its neighbour slow is refused. On a single thread that amounts to first in, first out.

use super::assign::Exchange;
use super::case::{Case, MAX_SLOTS, NONE};
use super::template::{Gap, Templates};
use crate::model::Nanos;

/// Distances of gaps that are told apart, each four times as far as the one before; the first is a 16th of a millisecond.
const DISTANCES: usize = 8;
const NEAREST: u32 = 16;
/// How many of the gaps that began next a gap is compared with.
const NEIGHBOURS: usize = 3;
/// Pairs that are thought to have been seen which were not alike.
const DOUBT: f32 = 10.0;
const MOST: f32 = 0.95;
/// What a pair out of order costs on a single thread, in nats.
pub(super) const FIRST_IN_FIRST_OUT: f32 = 8.0;
/// What it costs at least elsewhere: on every service seen so far calls keep their order more often than chance would have it.
pub(super) const IN_ORDER: f32 = 1.0;
/// Passes over all exchanges.
const PASSES: usize = 4;

/// The correlation of gaps' ranks, by slot and by distance.
#[derive(Debug)]
pub(super) struct Alike {
    by_slot: Vec<[f32; DISTANCES]>,
    /// What one pair of calls out of order costs, in nats.
    pub order: f32,
}

fn distance(a: Nanos, b: Nanos) -> usize {
    let bits = u64::BITS - a.abs_diff(b).leading_zeros();
    (bits.saturating_sub(NEAREST) as usize / 2).min(DISTANCES - 1)
}

/// The logarithm of how much likelier two ranks are together than each by itself (a Gaussian copula).
fn together(correlation: f32, a: f32, b: f32) -> f32 {
    let square = correlation * correlation;
    let rest = 1.0 - square;
    -0.5 * rest.ln() - (square * (a * a + b * b) - 2.0 * correlation * a * b) / (2.0 * rest)
}

/// What a pair out of order costs: the logarithm of how much rarer such pairs are than they would be if gaps were independent, and
/// [`FIRST_IN_FIRST_OUT`] where there is none.
pub(super) fn order(case: &Case, templates: &Templates) -> f32 {
    let (mut pairs, mut expected, mut seen) = (0.0_f32, 0.0_f32, 0.0_f32);
    for slot in 0..case.slots.len() {
        for a in 0..case.holders.len() {
            for b in Exchange::Slots(1 << slot).partners(case, a) {
                if let Some((chance, overtaken)) = templates.overtaking(case, slot, (a, b)) {
                    pairs += 1.0;
                    expected += chance;
                    seen += f32::from(u8::from(overtaken));
                }
            }
        }
    }
    if seen == 0.0 {
        return FIRST_IN_FIRST_OUT;
    }
    let odds = |count: f32| (count + 0.5) / (pairs - count + 0.5);
    (odds(expected) / odds(seen))
        .ln()
        .clamp(IN_ORDER, FIRST_IN_FIRST_OUT)
}

impl Alike {
    /// Nothing is alike; a pair out of order costs so much.
    pub fn none(case: &Case, order: f32) -> Self {
        Self {
            by_slot: vec![[0.0; DISTANCES]; case.slots.len() + 2],
            order,
        }
    }

    /// Learns from plans as they are.
    pub fn learn(case: &Case, templates: &Templates) -> Self {
        let mut gaps: Vec<Vec<Gap>> = vec![Vec::new(); case.slots.len() + 2];
        for (at, holder) in case.holders.iter().enumerate() {
            templates.walk(case, holder, case.plan(at), |gap| {
                if let Some(list) = gaps.get_mut(gap.slot) {
                    list.push(gap);
                }
            });
        }
        let by_slot = gaps.into_iter().map(|mut list| {
            list.sort_by_key(|gap| gap.from);
            let mut sums = [(0.0_f32, 0.0_f32); DISTANCES];
            for (at, gap) in list.iter().enumerate() {
                for next in list.iter().skip(at + 1).take(NEIGHBOURS) {
                    if let Some((sum, count)) = sums.get_mut(distance(gap.from, next.from)) {
                        *sum += gap.rank * next.rank;
                        *count += 1.0;
                    }
                }
            }
            sums.map(|(sum, count)| (sum / (count + DOUBT)).clamp(0.0, MOST))
        });
        Self {
            by_slot: by_slot.collect(),
            order: 0.0,
        }
    }

    fn bonus(&self, a: &[Gap], b: &[Gap]) -> f32 {
        let mut sum = 0.0;
        for one in a {
            for other in b.iter().filter(|other| other.slot == one.slot) {
                let by_distance = self.by_slot.get(one.slot);
                let correlation = by_distance.and_then(|list| list.get(distance(one.from, other.from)));
                sum += together(correlation.copied().unwrap_or(0.0), one.rank, other.rank);
                if one.slot + 2 < self.by_slot.len() && one.overtakes(other) {
                    sum -= self.order;
                }
            }
        }
        sum
    }

    /// Makes every exchange between two requests that makes the window more likely.
    pub fn refine(&self, case: &mut Case, templates: &Templates) {
        let exchanges = Exchange::all(case, &templates.order);
        let mut swap = Swap::new(case);
        for _ in 0..PASSES {
            let mut changed = false;
            for &exchange in &exchanges {
                for holder in 0..case.holders.len() {
                    let others: Vec<usize> = exchange.partners(case, holder).collect();
                    for other in others {
                        if swap.gain(case, templates, self, exchange, (holder, other)) > 1e-3 {
                            swap.make(case, (holder, other));
                            changed = true;
                        }
                    }
                }
            }
            if !changed {
                break;
            }
        }
    }
}

/// Two requests that might exchange calls.
pub(super) struct Swap {
    width: usize,
    plans: [[u32; MAX_SLOTS]; 2],
    gaps: [Vec<Gap>; 2],
}

impl Swap {
    pub fn new(case: &Case) -> Self {
        Self {
            width: case.slots.len(),
            plans: [[NONE; MAX_SLOTS]; 2],
            gaps: [Vec::new(), Vec::new()],
        }
    }

    /// How much likelier the window is after the exchange.
    pub fn gain(
        &mut self,
        case: &Case,
        templates: &Templates,
        alike: &Alike,
        exchange: Exchange,
        pair: (usize, usize),
    ) -> f32 {
        -self
            .losses(case, templates, alike, exchange, pair)
            .iter()
            .sum::<f32>()
    }

    /// How much less likely each of the two is after the exchange; what concerns both is shared.
    pub fn losses(
        &mut self,
        case: &Case,
        templates: &Templates,
        alike: &Alike,
        exchange: Exchange,
        (a, b): (usize, usize),
    ) -> [f32; 2] {
        exchange.make(case, (a, b), &mut self.plans);
        let new = [&self.plans[0][..self.width], &self.plans[1][..self.width]];
        let gaps = &mut self.gaps;
        let mut score = |plans: [&[u32]; 2]| {
            let mut scores = [0.0; 2];
            let pairs = [a, b].into_iter().zip(plans).zip(gaps.iter_mut());
            for (((holder, plan), gaps), score) in pairs.zip(&mut scores) {
                gaps.clear();
                if let Some(holder) = case.holders.get(holder) {
                    *score = templates.walk(case, holder, plan, |gap| gaps.push(gap));
                }
            }
            let both = 0.5 * alike.bonus(&gaps[0], &gaps[1]);
            scores.map(|score| score + both)
        };
        let (new, old) = (score(new), score([case.plan(a), case.plan(b)]));
        [old[0] - new[0], old[1] - new[1]]
    }

    /// Makes the exchange whose gain was asked for last.
    fn make(&self, case: &mut Case, (a, b): (usize, usize)) {
        for (holder, plan) in [a, b].into_iter().zip(&self.plans) {
            case.plan_mut(holder).copy_from_slice(&plan[..self.width]);
        }
    }
}
