//! One window of one service: requests, calls, and which call stands in which slot of which request.
//!
//! A slot is the nth call of a kind that one request makes. What a request calls, slot by slot, is its plan.

use super::shared::Sharing;
use super::{Call, Ids, Request};
use crate::model::Nanos;

/// No call stands in the slot.
pub(super) const NONE: u32 = u32::MAX;
/// Most slots of a service: a plan's pattern is a word of bits.
pub(super) const MAX_SLOTS: usize = 24;
/// How much later than its request a call may end: ends are told by whoever reads them, in no sure order.
const SLACK: Nanos = 500_000;

/// Who holds calls: a request, or nobody for a call that no request can have made.
#[derive(Clone, Copy)]
pub(super) struct Holder {
    pub start: Nanos,
    pub end: Nanos,
    pub endpoint: u16,
    pub nth: u8,
    pub others_end: Nanos,
    pub ids: Ids,
    /// Which request of the window; `None` for a stray.
    pub request: Option<u32>,
}

impl Holder {
    /// Whether the call lies within it, and is not known to be another's.
    pub fn encloses(&self, call: &Call) -> bool {
        (call.known.is_none() || call.known == self.request)
            && self.start <= call.start
            && call.start <= self.end
            && call.end <= self.end.saturating_add(SLACK)
    }
}

/// One window of one service.
#[derive(Clone)]
pub(super) struct Case<'a> {
    /// In the order of their start.
    pub holders: Vec<Holder>,
    pub calls: &'a [Call],
    /// The kind of each slot; slots of a kind are neighbours.
    pub slots: Vec<u16>,
    /// The latest end of this holder and those before it, to stop looking for overlaps.
    pub latest: Vec<Nanos>,
    /// What calls name, against what holders do.
    pub sharing: Sharing,
    /// Holder by holder, [`Case::slots`] entries each.
    plans: Vec<u32>,
}

impl<'a> Case<'a> {
    /// All slots empty.
    pub fn new(requests: &[Request], strays: &[u32], calls: &'a [Call], slots: Vec<u16>) -> Self {
        let real = requests.iter().zip(0..).map(|(request, index)| Holder {
            start: request.start,
            end: request.end,
            endpoint: request.endpoint,
            nth: request.nth,
            others_end: request.others_end,
            ids: request.ids,
            request: Some(index),
        });
        let strays = strays.iter().filter_map(|&call| calls.get(call as usize));
        let strays = strays.map(|call| Holder {
            start: call.start,
            end: call.end,
            endpoint: u16::MAX,
            nth: 0,
            others_end: 0,
            ids: [0; 4],
            request: None,
        });
        let mut holders: Vec<Holder> = real.chain(strays).collect();
        holders.sort_by_key(|h| (h.start, h.end));
        let mut latest = Vec::with_capacity(holders.len());
        let mut end = 0;
        for holder in &holders {
            end = end.max(holder.end);
            latest.push(end);
        }
        let plans = vec![NONE; holders.len() * slots.len()];
        let mut case = Self {
            holders,
            calls,
            slots,
            latest,
            sharing: Sharing::default(),
            plans,
        };
        case.sharing = Sharing::learn(&case);
        case
    }

    /// Takes the plans of a case without strays; each stray gets its call.
    pub fn copy_plans(&mut self, bare: &Case, strays: &[u32]) {
        let width = self.slots.len();
        let mut strays = strays.iter();
        let mut next = 0;
        for holder in 0..self.holders.len() {
            let real = self.holders.get(holder).is_some_and(|h| h.request.is_some());
            if real {
                let plan = bare.plan(next).to_vec();
                self.plan_mut(holder).copy_from_slice(&plan);
                next += 1;
            } else if let Some(&call) = strays.next() {
                let kind = self.call(call).map(|c| c.kind);
                let slot = (0..width).find(|&slot| self.slots.get(slot).copied() == kind);
                if let Some(slot) = slot
                    && let Some(place) = self.plan_mut(holder).get_mut(slot)
                {
                    *place = call;
                }
            }
        }
    }

    pub fn plan(&self, holder: usize) -> &[u32] {
        let width = self.slots.len();
        self.plans
            .get(holder * width..(holder + 1) * width)
            .unwrap_or_default()
    }

    pub fn plan_mut(&mut self, holder: usize) -> &mut [u32] {
        let width = self.slots.len();
        self.plans
            .get_mut(holder * width..(holder + 1) * width)
            .unwrap_or_default()
    }

    pub fn call(&self, index: u32) -> Option<&'a Call> {
        self.calls.get(index as usize)
    }

    /// The holders that may be open at a moment, latest first.
    pub fn open_at(&self, moment: Nanos) -> impl Iterator<Item = usize> + '_ {
        let begun = self.holders.partition_point(|h| h.start <= moment);
        (0..begun)
            .rev()
            .take_while(move |&at| self.latest.get(at).is_some_and(|end| *end >= moment))
            .filter(move |&at| self.holders.get(at).is_some_and(|h| h.end >= moment))
    }

    /// The plan of one holder with the slots of `mask` taken from another's, calls of one kind in their order.
    pub fn blend(&self, own: &[u32], other: &[u32], mask: u32, into: &mut [u32; MAX_SLOTS]) {
        for (slot, place) in into.iter_mut().enumerate().take(self.slots.len()) {
            let from = if mask >> slot & 1 == 1 { other } else { own };
            *place = from.get(slot).copied().unwrap_or(NONE);
        }
        let width = self.slots.len();
        self.in_order(into.get_mut(..width).unwrap_or_default());
    }

    /// Puts calls of one kind in the order of their start, empty slots last.
    pub fn in_order(&self, plan: &mut [u32]) {
        let mut first = 0;
        for group in self.slots.chunk_by(|a, b| a == b) {
            let end = first + group.len();
            if group.len() > 1
                && let Some(part) = plan.get_mut(first..end)
            {
                part.sort_by_key(|&call| (self.call(call).map_or(Nanos::MAX, |c| c.start), call));
            }
            first = end;
        }
    }
}
