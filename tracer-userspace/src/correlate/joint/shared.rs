//! What calls name: ids that a request and a call share (a path's parameters, a query's values), where those of a kind are passed on
//! as a rule.
//!
//! How often a call shares one with another's request is seen on the requests that do not enclose it, of which none can have made it.
//! What it shares with those that enclose it beyond that is its own request's.

use std::collections::BTreeMap;

use super::case::Case;
use super::margin::TEMPERATURE;
use super::{Call, Ids, Request};

/// An id in more than this share of the requests tells nothing of one of them.
const COMMON: usize = 8;
/// So many are common in a window however small.
const FEW: usize = 2;
/// Calls of a kind from which this is learned.
const ENOUGH: f32 = 20.0;
/// Nothing is always passed on, nor never alike by chance.
const MOST: f32 = 0.98;
const LEAST: f32 = 0.002;
/// How much more often than by chance calls share ids at least, to tell anything.
const TELLS: f32 = 3.0;

/// Whether they have an id in common.
fn share(a: &Ids, b: &Ids) -> bool {
    a.iter().any(|id| *id != 0 && b.contains(id))
}

/// Leaves out the ids of which there are too many.
pub(super) fn rare(requests: &[Request], calls: &[Call]) -> (Vec<Request>, Vec<Call>) {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for id in requests.iter().flat_map(|request| request.ids) {
        *counts.entry(id).or_default() += 1;
    }
    let most = (requests.len() / COMMON).max(FEW);
    // What no request has tells nothing either.
    let is_rare = |id: u32| counts.get(&id).is_some_and(|count| *count <= most);
    let rare = |ids: Ids| ids.map(|id| if is_rare(id) { id } else { 0 });
    let requests = requests.iter().map(|request| Request {
        ids: rare(request.ids),
        ..*request
    });
    let calls = calls.iter().map(|call| Call {
        ids: rare(call.ids),
        ..*call
    });
    (requests.collect(), calls.collect())
}

/// How much likelier it is that a request has made a call, by whether they share an id.
#[derive(Clone, Default)]
pub(super) struct Sharing {
    /// By kind, in nats as gaps count: they do not, they do.
    by_kind: BTreeMap<u16, [f32; 2]>,
}

/// What calls of a kind share.
#[derive(Default)]
struct Counts {
    calls: f32,
    /// With requests that enclose them, and how many these are.
    near: [f32; 2],
    /// With all others.
    far: [f32; 2],
}

impl Sharing {
    pub fn learn(case: &Case) -> Self {
        let mut by_id: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
        for (at, holder) in case.holders.iter().enumerate() {
            for id in holder.ids.into_iter().filter(|id| *id != 0) {
                by_id.entry(id).or_default().push(at);
            }
        }
        if by_id.is_empty() {
            return Self::default();
        }
        let mut counts: BTreeMap<u16, Counts> = BTreeMap::new();
        for call in case.calls {
            let encloses = |at: &usize| case.holders.get(*at).is_some_and(|h| h.encloses(call));
            let near = case.open_at(call.start).filter(encloses).count();
            if near == 0 {
                continue;
            }
            let named = call.ids.iter().filter_map(|id| by_id.get(id));
            let mut sharing: Vec<usize> = named.flatten().copied().collect();
            sharing.sort_unstable();
            sharing.dedup();
            let sharing_near = sharing.iter().filter(|at| encloses(at)).count();
            let counts = counts.entry(call.kind).or_default();
            counts.calls += 1.0;
            counts.near[0] += sharing_near as f32;
            counts.near[1] += near as f32;
            counts.far[0] += (sharing.len() - sharing_near) as f32;
            counts.far[1] += (case.holders.len() - near) as f32;
        }
        let tells = counts
            .into_iter()
            .filter_map(|(kind, counts)| Some((kind, counts.tell()?)));
        Self {
            by_kind: tells.collect(),
        }
    }

    /// In nats, as gaps count.
    pub fn at(&self, request: &Ids, call: &Call) -> f32 {
        let of_kind = self.by_kind.get(&call.kind);
        of_kind.map_or(0.0, |by| by[usize::from(share(request, &call.ids))])
    }
}

impl Counts {
    fn tell(self) -> Option<[f32; 2]> {
        if self.calls < ENOUGH {
            return None;
        }
        let other = ((self.far[0] + 0.5) / (self.far[1] + 1.0)).max(LEAST);
        let own = (self.near[0] - (self.near[1] - self.calls) * other) / self.calls;
        let own = own.min(MOST);
        // Others that are near may share more than those that are far: what belongs together comes together.
        // Gaps are worth less than they seem, ids are not.
        let worth = |rate: f32| TEMPERATURE * rate.ln();
        (own > TELLS * other).then(|| [worth((1.0 - own) / (1.0 - other)), worth(own / other)])
    }
}
