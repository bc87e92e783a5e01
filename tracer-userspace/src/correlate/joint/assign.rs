//! Who made which call, jointly: parts of plans change hands among the requests of a window until no exchange makes the
//! whole more likely.
//!
//! One move takes a set of slots (one slot; a slot and all that follow it; all of them) and finds the best way to deal its
//! contents out among the requests: an assignment problem, solved exactly (Kuhn and Munkres) for each group of requests that
//! can exchange anything.

use pathfinding::kuhn_munkres::kuhn_munkres;
use pathfinding::matrix::Matrix;

use super::case::{Case, MAX_SLOTS, NONE};
use super::template::{IMPOSSIBLE, Templates};

/// Passes over all moves at most.
const PASSES: usize = 4;
/// Most requests of one assignment problem.
const MAX_GROUP: usize = 128;
/// Likelihoods become integers: a thousandth of a nat.
const UNIT: f32 = 1_000.0;

/// The sets of slots that change hands together.
pub(super) fn moves(order: &[usize]) -> Vec<u32> {
    let bits = |slots: &[usize]| slots.iter().fold(0, |bits, slot| bits | 1 << slot);
    let tails = (0..order.len()).filter_map(|from| order.get(from..));
    let mut moves: Vec<u32> = tails.map(bits).collect();
    moves.extend(order.iter().map(|slot| 1 << slot));
    moves.sort_unstable();
    moves.dedup();
    moves
}

/// Improves the plans.
pub(super) fn improve(case: &mut Case, templates: &Templates) {
    let moves = moves(&templates.order);
    for pass in 0..PASSES {
        let mut changed = false;
        for &mask in &moves {
            changed |= deal(case, templates, mask, pass);
        }
        if !changed {
            break;
        }
    }
}

/// Deals the slots of `mask` out anew. Returns whether anything changed.
fn deal(case: &mut Case, templates: &Templates, mask: u32, pass: usize) -> bool {
    let mut changed = false;
    for group in groups(case, mask) {
        // Where a group is too large the cuts move from pass to pass.
        let shift = if group.len() > MAX_GROUP {
            pass * MAX_GROUP / 2 % MAX_GROUP
        } else {
            0
        };
        let (head, rest) = group.split_at(shift);
        for part in std::iter::once(head).chain(rest.chunks(MAX_GROUP)) {
            if part.len() > 1 {
                changed |= deal_among(case, templates, mask, part);
            }
        }
    }
    changed
}

/// What two holders exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exchange {
    /// Their calls in the same slots.
    Slots(u32),
    /// The first one's call in one slot for the other's in another slot of the same kind.
    Places(usize, usize),
}

impl Exchange {
    /// All that are tried.
    pub fn all(case: &Case, order: &[usize]) -> Vec<Self> {
        let kind = |slot: usize| case.slots.get(slot);
        let places = (0..case.slots.len()).flat_map(|a| (0..case.slots.len()).map(move |b| (a, b)));
        let places = places.filter(|&(a, b)| a != b && kind(a) == kind(b));
        let slots = moves(order).into_iter().map(Self::Slots);
        slots.chain(places.map(|(a, b)| Self::Places(a, b))).collect()
    }

    /// The other holders that might make the exchange, of those that begin before this one.
    pub fn partners<'c>(self, case: &'c Case, holder: usize) -> impl Iterator<Item = usize> + 'c {
        let start = case.holders.get(holder).map_or(0, |h| h.start);
        case.open_at(start)
            .filter(move |&other| other < holder && self.is_possible(case, holder, other))
    }

    /// Whether one of them could take what the other has.
    fn is_possible(self, case: &Case, a: usize, b: usize) -> bool {
        match self {
            Self::Slots(mask) => can_exchange(case, mask, a, b),
            Self::Places(of_a, of_b) => {
                let fits = |holder: usize, other: usize, slot: usize| {
                    let call = case.plan(other).get(slot).and_then(|&call| case.call(call));
                    let holder = case.holders.get(holder);
                    call.zip(holder)
                        .is_some_and(|(call, holder)| holder.encloses(call))
                };
                fits(a, b, of_b) || fits(b, a, of_a)
            }
        }
    }

    /// The plans of both after it.
    pub fn make(self, case: &Case, (a, b): (usize, usize), plans: &mut [[u32; MAX_SLOTS]; 2]) {
        let (own, other) = (case.plan(a), case.plan(b));
        let [of_a, of_b] = plans;
        match self {
            Self::Slots(mask) => {
                case.blend(own, other, mask, of_a);
                case.blend(other, own, mask, of_b);
            }
            Self::Places(from, to) => {
                case.blend(own, own, 0, of_a);
                case.blend(other, other, 0, of_b);
                if let (Some(x), Some(y)) = (of_a.get_mut(from), of_b.get_mut(to)) {
                    std::mem::swap(x, y);
                }
                let width = case.slots.len();
                case.in_order(&mut of_a[..width]);
                case.in_order(&mut of_b[..width]);
            }
        }
    }
}

/// Whether one of two holders could take what the other has.
fn can_exchange(case: &Case, mask: u32, a: usize, b: usize) -> bool {
    let fits = |holder: usize, other: usize| {
        let Some(holder) = case.holders.get(holder) else {
            return false;
        };
        let mut any = false;
        for (slot, &call) in case.plan(other).iter().enumerate() {
            if mask >> slot & 1 == 1
                && let Some(call) = case.call(call)
            {
                any = true;
                if !holder.encloses(call) {
                    return false;
                }
            }
        }
        any
    };
    fits(a, b) || fits(b, a)
}

/// Holders that can exchange calls directly or through others.
fn groups(case: &Case, mask: u32) -> Vec<Vec<usize>> {
    let mut root: Vec<usize> = (0..case.holders.len()).collect();
    fn find(root: &mut [usize], mut at: usize) -> usize {
        while root[at] != at {
            root[at] = root[root[at]];
            at = root[at];
        }
        at
    }
    for holder in 0..case.holders.len() {
        for other in Exchange::Slots(mask).partners(case, holder) {
            let (a, b) = (find(&mut root, holder), find(&mut root, other));
            root[a.max(b)] = a.min(b);
        }
    }
    let mut groups: Vec<Vec<usize>> = vec![Vec::new(); root.len()];
    for holder in 0..root.len() {
        let top = find(&mut root, holder);
        groups[top].push(holder);
    }
    groups.retain(|group| group.len() > 1);
    groups
}

fn deal_among(case: &mut Case, templates: &Templates, mask: u32, group: &[usize]) -> bool {
    let width = case.slots.len();
    let mut plan = [NONE; MAX_SLOTS];
    let weight = |&(to, from): &(usize, usize), plan: &mut [u32; MAX_SLOTS]| {
        let Some(holder) = case.holders.get(to) else {
            return 0;
        };
        case.blend(case.plan(to), case.plan(from), mask, plan);
        let likelihood = templates.likelihood(case, holder, &plan[..width]);
        (likelihood.max(IMPOSSIBLE * 8.0) * UNIT) as i64
    };
    let pairs = group
        .iter()
        .flat_map(|&to| group.iter().map(move |&from| (to, from)));
    let weights: Vec<i64> = pairs.map(|pair| weight(&pair, &mut plan)).collect();
    let before: i64 = (0..group.len()).map(|i| weights[i * group.len() + i]).sum();
    let Ok(matrix) = Matrix::from_vec(group.len(), group.len(), weights) else {
        return false;
    };
    let (after, dealt) = kuhn_munkres(&matrix);
    if after <= before {
        return false;
    }
    let old: Vec<Vec<u32>> = group.iter().map(|&holder| case.plan(holder).to_vec()).collect();
    for (&to, (own, &from)) in group.iter().zip(old.iter().zip(&dealt)) {
        if let Some(other) = old.get(from) {
            case.blend(own, other, mask, &mut plan);
            case.plan_mut(to).copy_from_slice(&plan[..width]);
        }
    }
    true
}
