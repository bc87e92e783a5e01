//! The first guess: how many calls of each kind requests make, and who made which, by the gap from the request's start alone.

use std::collections::BTreeMap;

use super::case::{Case, Holder, MAX_SLOTS, NONE};
use super::density::{Density, gap};
use super::{Call, Request};

/// Rounds in which the gaps are learned from guesses weighted by how likely they are.
const ROUNDS: usize = 8;
/// Most calls of one kind that one request makes.
const MAX_OF_KIND: usize = 6;

/// A call and a request that may have made it.
struct Pair {
    call: u32,
    holder: usize,
    gap: i64,
    key: (u16, u16),
    /// What their ids tell, in nats.
    named: f32,
    weight: f32,
}

/// Who may have made which call, and how likely.
pub(super) struct Guess {
    pairs: Vec<Pair>,
    /// Calls per request, by endpoint and kind.
    rates: BTreeMap<(u16, u16), f32>,
}

impl Guess {
    pub fn new(requests: &[Request], calls: &[Call]) -> Self {
        let case = Case::new(requests, &[], calls, Vec::new());
        let mut pairs = pairs(&case);
        let rates = learn(&case, &mut pairs);
        pairs.sort_by(|a, b| b.weight.total_cmp(&a.weight));
        Self { pairs, rates }
    }

    /// The slots that the requests of the window need.
    pub fn slots(&self, requests: &[Request], calls: &[Call]) -> Vec<u16> {
        let mut counts = counts_alone(requests, calls);
        for ((_, kind), rate) in &self.rates {
            let count = counts.entry(*kind).or_default();
            *count = (*count).max((rate - 0.3).ceil() as usize);
        }
        for call in calls {
            counts.entry(call.kind).or_insert(1);
        }
        let slots = counts
            .into_iter()
            .flat_map(|(kind, count)| std::iter::repeat_n(kind, count.clamp(1, MAX_OF_KIND)));
        slots.take(MAX_SLOTS).collect()
    }

    /// Fills the slots of all requests, and returns the calls for which there was none.
    pub fn fill(&self, case: &mut Case) -> Vec<u32> {
        let mut done = vec![false; case.calls.len()];
        for pair in &self.pairs {
            let Some(done) = done.get_mut(pair.call as usize).filter(|done| !**done) else {
                continue;
            };
            let kind = pair.key.1;
            let first = case.slots.partition_point(|of| *of < kind);
            let count = case
                .slots
                .iter()
                .skip(first)
                .take_while(|of| **of == kind)
                .count();
            let free = case.plan_mut(pair.holder).iter_mut().skip(first).take(count);
            if let Some(place) = free.into_iter().find(|place| **place == NONE) {
                *place = pair.call;
                *done = true;
            }
        }
        for holder in 0..case.holders.len() {
            let mut plan = case.plan(holder).to_vec();
            case.in_order(&mut plan);
            case.plan_mut(holder).copy_from_slice(&plan);
        }
        (0..)
            .zip(done)
            .filter(|(_, done)| !done)
            .map(|(call, _)| call)
            .collect()
    }
}

/// How many calls of each kind requests make that overlap no other, nearly always at most.
fn counts_alone(requests: &[Request], calls: &[Call]) -> BTreeMap<u16, usize> {
    let mut counts: BTreeMap<u16, Vec<usize>> = BTreeMap::new();
    let (mut alone, mut before) = (0, 0);
    for (at, request) in requests.iter().enumerate() {
        let next = requests.get(at + 1).map_or(u64::MAX, |r| r.start);
        if before < request.start && request.end < next {
            alone += 1;
            let from = calls.partition_point(|c| c.start < request.start);
            let inside = calls.iter().skip(from).take_while(|c| c.start <= request.end);
            let mut here: BTreeMap<u16, usize> = BTreeMap::new();
            for call in inside {
                *here.entry(call.kind).or_default() += 1;
            }
            for (kind, count) in here {
                counts.entry(kind).or_default().push(count);
            }
        }
        before = before.max(request.end);
    }
    let high = |mut list: Vec<usize>| {
        list.sort_unstable();
        // Nine of ten that make such calls at all; one alone tells nothing.
        let at = list.len() * 9 / 10;
        list.get(at.min(list.len().saturating_sub(2)))
            .copied()
            .unwrap_or(0)
    };
    if alone < 10 {
        return BTreeMap::new();
    }
    counts
        .into_iter()
        .map(|(kind, list)| (kind, high(list)))
        .collect()
}

/// All requests that enclose each call. Those of one call are neighbours.
fn pairs(case: &Case) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for (index, call) in (0..).zip(case.calls) {
        let first = pairs.len();
        let candidates = case
            .open_at(call.start)
            .filter_map(|at| Some((at, case.holders.get(at)?)));
        let enclosing = candidates
            .filter(|(_, holder): &(usize, &Holder)| holder.encloses(call) && holder.request.is_some());
        pairs.extend(enclosing.map(|(at, holder)| Pair {
            call: index,
            holder: at,
            gap: gap(holder.start, call.start),
            key: (holder.endpoint, call.kind),
            named: case.sharing.at(&holder.ids, call),
            weight: 1.0,
        }));
        let count = pairs.len() - first;
        for pair in pairs.iter_mut().skip(first) {
            pair.weight = 1.0 / count as f32;
        }
    }
    pairs
}

/// Weights every pair by how likely it is among those of its call.
fn learn(case: &Case, pairs: &mut [Pair]) -> BTreeMap<(u16, u16), f32> {
    let mut requests: BTreeMap<u16, f32> = BTreeMap::new();
    for holder in case.holders.iter().filter(|h| h.request.is_some()) {
        *requests.entry(holder.endpoint).or_default() += 1.0;
    }
    let mut rates = BTreeMap::new();
    for _ in 0..ROUNDS {
        rates.clear();
        let mut samples: BTreeMap<(u16, u16), Vec<(i64, f32)>> = BTreeMap::new();
        for pair in pairs.iter() {
            samples.entry(pair.key).or_default().push((pair.gap, pair.weight));
        }
        let learned: BTreeMap<(u16, u16), (f32, Density)> = samples
            .into_iter()
            .map(|(key, list)| {
                let count: f32 = list.iter().map(|(_, weight)| weight).sum();
                let rate = count / requests.get(&key.0).copied().unwrap_or(1.0);
                rates.insert(key, rate);
                (key, (rate.max(1e-6).ln(), Density::learn(list.into_iter())))
            })
            .collect();
        for group in pairs.chunk_by_mut(|a, b| a.call == b.call) {
            for pair in group.iter_mut() {
                if let Some((rate, density)) = learned.get(&pair.key) {
                    pair.weight = rate + density.at(pair.gap) + pair.named;
                }
            }
            let most = group.iter().map(|p| p.weight).fold(f32::MIN, f32::max);
            let sum: f32 = group.iter().map(|p| (p.weight - most).exp()).sum();
            for pair in group {
                pair.weight = (pair.weight - most).exp() / sum;
            }
        }
    }
    rates
}
