//! What is learned of a service: which calls a request to an endpoint makes, and when.

use std::collections::BTreeMap;

use super::case::{Case, Holder, MAX_SLOTS, NONE};
use super::copula::Copula;
use super::density::{Density, gap};
use crate::model::Nanos;

/// Of a plan that cannot be: a call outside of its request.
pub(super) const IMPOSSIBLE: f32 = -1e5;
/// Of a call that no request made, when the endpoints are known to make such calls.
const STRAY: f32 = -40.0;
/// An anchor must explain gaps better than the simplest one by this much, in nats.
const BETTER: f32 = 0.05;

/// From which moment the gap before a call is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Anchor {
    /// The request's start.
    Request,
    /// The latest end of another call of the request, or its start.
    Latest,
    /// The start of the call in a slot.
    Start(usize),
    /// Its end.
    End(usize),
    /// When the other requests of the trace to this service had been answered.
    Others,
}

/// One gap of a plan.
#[derive(Clone, Copy)]
pub(super) struct Gap {
    /// The slot whose call it precedes; one more than the last: the answer after calls; two more: the answer without any.
    pub slot: usize,
    /// When it began.
    pub from: Nanos,
    /// When it ended.
    pub to: Nanos,
    /// Its length, as a quantile of the standard normal distribution.
    pub rank: f32,
}

impl Gap {
    /// Whether of two gaps the one that began first ended last.
    pub fn overtakes(&self, other: &Self) -> bool {
        (self.from < other.from && other.to < self.to) || (other.from < self.from && self.to < other.to)
    }
}

/// One slot of one endpoint.
#[derive(Clone)]
struct Slot {
    anchor: Anchor,
    gaps: Density,
    /// Where the anchor is absent: from [`Anchor::Latest`].
    otherwise: Density,
}

/// What requests to one endpoint do.
#[derive(Clone)]
struct Endpoint {
    slots: Vec<Slot>,
    /// Logarithm of the share of requests that fill just these slots, by the requests' [`super::Request::nth`].
    patterns: BTreeMap<(u8, u32), f32>,
    /// Of all other patterns together.
    strange: BTreeMap<u8, f32>,
    /// From the last call's end to the answer, and from the request's start without calls.
    tail: Density,
    idle: Density,
    /// How the gaps of a plan go together, by its pattern.
    copulas: BTreeMap<u32, Copula>,
}

/// All endpoints of a service.
#[derive(Clone)]
pub(super) struct Templates {
    endpoints: BTreeMap<u16, Endpoint>,
    /// Slots in the order in which they are filled as a rule.
    pub order: Vec<usize>,
}

/// The slots that a plan fills.
fn pattern(plan: &[u32]) -> u32 {
    let filled = plan.iter().zip(0..).filter(|(call, _)| **call != NONE);
    filled.fold(0, |bits, (_, slot): (_, u32)| bits | 1 << slot)
}

/// The moment from which the gap before the call in a slot is counted.
fn moment(
    case: &Case,
    holder: &Holder,
    plan: &[u32],
    slot: usize,
    start: Nanos,
    anchor: Anchor,
) -> Option<Nanos> {
    let other = |at: usize| case.call(plan.get(at).copied()?);
    match anchor {
        Anchor::Request => Some(holder.start),
        Anchor::Start(at) => other(at).map(|c| c.start),
        Anchor::End(at) => other(at).map(|c| c.end),
        Anchor::Others => (holder.others_end != 0).then_some(holder.others_end),
        Anchor::Latest => {
            let others = (0..plan.len()).filter(|at| *at != slot).filter_map(other);
            let ends = others.map(|c| c.end).filter(|end| *end <= start);
            Some(ends.max().unwrap_or(0).max(holder.start))
        }
    }
}

/// The end of the last call.
fn last_end(case: &Case, plan: &[u32]) -> Option<Nanos> {
    plan.iter()
        .filter_map(|&call| case.call(call))
        .map(|c| c.end)
        .max()
}

impl Templates {
    /// The logarithm of how likely a holder's plan is, apart from what happens to others.
    pub fn likelihood(&self, case: &Case, holder: &Holder, plan: &[u32]) -> f32 {
        self.walk(case, holder, plan, |_| ())
    }

    /// The same, telling every gap.
    pub fn walk(&self, case: &Case, holder: &Holder, plan: &[u32], mut tell: impl FnMut(Gap)) -> f32 {
        let pattern = pattern(plan);
        if holder.request.is_none() {
            return STRAY * pattern.count_ones() as f32;
        }
        let Some(endpoint) = self.endpoints.get(&holder.endpoint) else {
            return IMPOSSIBLE * pattern.count_ones() as f32;
        };
        let mut sum = endpoint
            .patterns
            .get(&(holder.nth, pattern))
            .or_else(|| endpoint.strange.get(&holder.nth))
            .copied()
            .unwrap_or(0.0);
        let (mut ranks, mut count) = ([0.0; MAX_SLOTS + 1], 0);
        let mut add = |slot: usize, from: Nanos, to: Nanos, density: &Density| {
            let gap = gap(from, to);
            let rank = density.rank(gap);
            tell(Gap { slot, from, to, rank });
            if let Some(place) = ranks.get_mut(count) {
                *place = rank;
                count += 1;
            }
            density.at(gap)
        };
        for ((slot, learned), &call) in (0..).zip(&endpoint.slots).zip(plan) {
            let Some(call) = case.call(call) else {
                continue;
            };
            if !holder.encloses(call) {
                sum += IMPOSSIBLE;
                continue;
            }
            sum += case.sharing.at(&holder.ids, call);
            sum += match moment(case, holder, plan, slot, call.start, learned.anchor) {
                Some(from) => add(slot, from, call.start, &learned.gaps),
                None => {
                    let from = moment(case, holder, plan, slot, call.start, Anchor::Latest);
                    add(slot, from.unwrap_or(holder.start), call.start, &learned.otherwise)
                }
            };
        }
        sum += match last_end(case, plan) {
            Some(end) => add(plan.len(), end, holder.end, &endpoint.tail),
            None => add(plan.len() + 1, holder.start, holder.end, &endpoint.idle),
        };
        let ranks = ranks.get(..count).unwrap_or_default();
        let copula = endpoint.copulas.get(&pattern);
        sum + copula.map_or(0.0, |copula| copula.at(ranks))
    }

    /// Of two requests that could each have made the other's call in the slot: how likely the calls are not in the order of what they
    /// followed, if they were independent, and whether they are not.
    pub fn overtaking(&self, case: &Case, slot: usize, (a, b): (usize, usize)) -> Option<(f32, bool)> {
        let of = |at: usize| {
            let (holder, plan) = (case.holders.get(at)?, case.plan(at));
            let call = case.call(plan.get(slot).copied()?)?;
            let learned = self.endpoints.get(&holder.endpoint)?.slots.get(slot)?;
            let from = moment(case, holder, plan, slot, call.start, learned.anchor)?;
            Some((holder, call, from, learned))
        };
        let (first, second) = (of(a)?, of(b)?);
        if !first.0.encloses(second.1) || !second.0.encloses(first.1) {
            return None;
        }
        let (first, second) = if first.2 <= second.2 {
            (first, second)
        } else {
            (second, first)
        };
        let chance = first.3.gaps.longer_than(&second.3.gaps, gap(first.2, second.2));
        Some((chance, second.1.start < first.1.start))
    }

    /// Learns from the plans as they are.
    pub fn learn(case: &Case) -> Self {
        let mut by_endpoint: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
        for (index, holder) in case.holders.iter().enumerate() {
            if holder.request.is_some() {
                by_endpoint.entry(holder.endpoint).or_default().push(index);
            }
        }
        let endpoints = by_endpoint
            .into_iter()
            .map(|(id, holders)| (id, Endpoint::learn(case, &holders)));
        let mut templates = Self {
            endpoints: endpoints.collect(),
            order: by_offset(case, &(0..case.holders.len()).collect::<Vec<_>>()),
        };
        templates.learn_copulas(case);
        templates
    }

    /// Learns how gaps go together, when each by itself is known.
    fn learn_copulas(&mut self, case: &Case) {
        let mut by_pattern: BTreeMap<(u16, u32), Vec<Vec<f32>>> = BTreeMap::new();
        for (at, holder) in case.holders.iter().enumerate() {
            let plan = case.plan(at);
            let mut ranks = Vec::new();
            self.walk(case, holder, plan, |gap| ranks.push(gap.rank));
            if ranks.len() > 1 {
                let key = (holder.endpoint, pattern(plan));
                by_pattern.entry(key).or_default().push(ranks);
            }
        }
        for ((id, pattern), plans) in by_pattern {
            // Of a plan that cannot be not all gaps are told.
            let gaps = plans.iter().map(Vec::len).max().unwrap_or(0);
            let whole = plans
                .iter()
                .map(Vec::as_slice)
                .filter(|ranks| ranks.len() == gaps);
            if let Some(endpoint) = self.endpoints.get_mut(&id)
                && let Some(copula) = Copula::learn(gaps, whole)
            {
                endpoint.copulas.insert(pattern, copula);
            }
        }
    }
}

/// Slots by the mean of the gap from their request's start.
fn by_offset(case: &Case, holders: &[usize]) -> Vec<usize> {
    let mean = |slot: usize| {
        let (mut sum, mut count) = (0.0, 0.0_f64);
        for &at in holders {
            if let Some(holder) = case.holders.get(at).filter(|h| h.request.is_some())
                && let Some(call) = case.plan(at).get(slot).and_then(|&call| case.call(call))
            {
                sum += gap(holder.start, call.start) as f64;
                count += 1.0;
            }
        }
        if count > 0.0 { sum / count } else { f64::MAX }
    };
    let mut order: Vec<(f64, usize)> = (0..case.slots.len()).map(|slot| (mean(slot), slot)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    order.into_iter().map(|(_, slot)| slot).collect()
}

impl Endpoint {
    fn learn(case: &Case, holders: &[usize]) -> Self {
        let order = by_offset(case, holders);
        let mut slots: Vec<Option<Slot>> = vec![None; case.slots.len()];
        for (rank, &slot) in order.iter().enumerate() {
            let earlier = order.get(..rank).unwrap_or_default();
            if let Some(place) = slots.get_mut(slot) {
                *place = Some(Slot::learn(case, holders, slot, earlier));
            }
        }
        let mut counts: BTreeMap<(u8, u32), f32> = BTreeMap::new();
        let mut totals: BTreeMap<u8, f32> = BTreeMap::new();
        for &at in holders {
            let nth = case.holders.get(at).map_or(0, |h| h.nth);
            *counts.entry((nth, pattern(case.plan(at)))).or_default() += 1.0;
            *totals.entry(nth).or_insert(1.0) += 1.0;
        }
        let patterns = counts.into_iter().map(|(key, count)| {
            let total = totals.get(&key.0).copied().unwrap_or(count);
            (key, (count / total).ln())
        });
        let filled = |at: usize| case.holders.get(at).map(|h| (h, last_end(case, case.plan(at))));
        let tails = holders.iter().filter_map(|&at| {
            let (holder, end) = filled(at)?;
            Some((gap(end?, holder.end), 1.0))
        });
        let idle = holders.iter().filter_map(|&at| {
            let (holder, end) = filled(at)?;
            end.is_none().then_some((gap(holder.start, holder.end), 1.0))
        });
        Self {
            slots: slots.into_iter().flatten().collect(),
            patterns: patterns.collect(),
            strange: totals
                .iter()
                .map(|(nth, total)| (*nth, (0.5 / total).ln()))
                .collect(),
            tail: Density::learn(tails),
            idle: Density::learn(idle),
            copulas: BTreeMap::new(),
        }
    }
}

impl Slot {
    fn learn(case: &Case, holders: &[usize], slot: usize, earlier: &[usize]) -> Self {
        let gaps = |anchor: Anchor| {
            let gap_of = move |&at: &usize| {
                let (holder, plan) = (case.holders.get(at)?, case.plan(at));
                let call = case.call(plan.get(slot).copied()?)?;
                let from = moment(case, holder, plan, slot, call.start, anchor)?;
                Some(gap(from, call.start))
            };
            holders.iter().filter_map(gap_of).collect::<Vec<i64>>()
        };
        let density = |samples: &[i64]| Density::learn(samples.iter().map(|&gap| (gap, 1.0)));
        let mut best = (f32::MIN, Anchor::Request, Density::flat());
        let mut otherwise = Density::flat();
        let after = |&at: &usize| [Anchor::Start(at), Anchor::End(at)];
        let others = earlier.iter().flat_map(after);
        let all = gaps(Anchor::Request).len();
        for anchor in [Anchor::Request, Anchor::Latest, Anchor::Others]
            .into_iter()
            .chain(others)
        {
            let samples = gaps(anchor);
            // An anchor that is often absent explains nothing.
            if samples.is_empty() || samples.len() * 10 < all * 9 {
                continue;
            }
            let density = density(&samples);
            let score = samples.iter().map(|&gap| density.at(gap)).sum::<f32>() / samples.len() as f32;
            if anchor == Anchor::Latest {
                otherwise = density.clone();
            }
            if score > best.0 + BETTER {
                best = (score, anchor, density);
            }
        }
        Self {
            anchor: best.1,
            gaps: best.2,
            otherwise,
        }
    }
}
