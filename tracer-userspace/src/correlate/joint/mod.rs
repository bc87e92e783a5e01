//! E8: who made which calls, from times alone, for a window of one service's requests and calls at once.
//!
//! Nothing here knows of processes, connections or spans: requests and calls are intervals with an endpoint or a kind. The steps:
//!
//! 1. [`first`]: candidates are the requests that enclose a call; how long after a request's start calls come is learned from
//!    all of them, weighted by how likely they are (expectation maximisation); then every call goes to its best candidate.
//! 2. [`template`]: from the plans so far it is learned which calls an endpoint makes together, and for each of them the moment
//!    that it follows (the request's start, another call's start or end) and the gap to it; and how a plan's gaps go together ([`copula`]).
//! 3. [`assign`]: parts of plans change hands, each time by solving an assignment problem, while that makes the window more
//!    likely.
//! 4. [`alike`]: so do parts of two plans at a time, while that makes neighbours' gaps more alike and keeps more calls in order. 2 to 4
//!    repeat; first under the assumption that the service is a single thread that takes one after the other, and if that does not
//!    fit, without.
//! 5. [`margin`]: how much likelier the result is than the best one in which a call is somebody else's.
//!
//! In all of them counts, beside times, whether a call names an id that the request named ([`shared`]), as far as calls of its kind do.

mod alike;
mod assign;
mod case;
mod copula;
mod density;
mod first;
mod margin;
mod shared;
mod template;
#[cfg(test)]
mod tests;

use crate::model::Nanos;
use alike::{Alike, FIRST_IN_FIRST_OUT};
use case::Case;
use first::Guess;
use template::Templates;

/// A request that the service received.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    /// When its first byte was read.
    pub start: Nanos,
    /// When its response was written.
    pub end: Nanos,
    /// Which endpoint it went to: requests to one endpoint are alike.
    pub endpoint: u16,
    /// How many requests of its trace the service had answered before it answered this one, as far as that is known: often the last of
    /// several does what all of them are for.
    pub nth: u8,
    /// When the others had been answered of which that was known at its end; 0: none.
    pub others_end: Nanos,
    /// What it names.
    pub ids: Ids,
}

/// Numbers of the things that a request names (a path's parameters, a query's values); 0: none.
pub type Ids = [u32; 4];

/// A call that the service made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Call {
    /// When its first byte was written.
    pub start: Nanos,
    /// When its response was read.
    pub end: Nanos,
    /// What was called: calls of one kind are alike.
    pub kind: u16,
    /// Whose call it is, by its place in the window, if that is known otherwise.
    pub known: Option<u32>,
    /// What it names.
    pub ids: Ids,
}

/// Who made a call.
#[derive(Clone, PartialEq, Debug)]
pub struct Answer {
    /// The request, by its place in the window.
    pub request: u32,
    /// How likely that is, of all the exchanges of calls that were considered.
    pub confidence: f32,
    /// Other requests that might have made it, the likeliest first, and how likely they are.
    pub others: Vec<(u32, f32)>,
}

/// Times that templates are learned and plans improved in turn.
const ROUNDS: usize = 3;

/// Says of every call who made it; `None` if it was nobody as far as can be seen. Both lists are in the order of their start.
#[must_use]
pub fn solve(requests: &[Request], calls: &[Call]) -> Vec<Option<Answer>> {
    let (requests, calls) = &shared::rare(requests, calls);
    let guess = Guess::new(requests, calls);
    let slots = guess.slots(requests, calls);
    let mut bare = Case::new(requests, &[], calls, slots.clone());
    let strays = guess.fill(&mut bare);
    let mut case = Case::new(requests, &strays, calls, slots);
    case.copy_plans(&bare, &strays);
    let first = case.clone();
    // First as if it were a single thread that works in order; if that does not fit, as it comes.
    let (mut templates, mut alike) = settle(&mut case, FIRST_IN_FIRST_OUT);
    if alike::order(&case, &templates) < FIRST_IN_FIRST_OUT {
        case = first;
        (templates, alike) = settle(&mut case, alike::IN_ORDER);
    }
    margin::answers(&case, &templates, &alike)
}

/// Learns and improves in turn.
fn settle(case: &mut Case, order: f32) -> (Templates, Alike) {
    let mut templates = Templates::learn(case);
    let mut alike = Alike::none(case, order);
    for _ in 0..ROUNDS {
        assign::improve(case, &templates);
        alike.refine(case, &templates);
        templates = Templates::learn(case);
        alike = Alike::learn(case, &templates);
        alike.order = if order >= FIRST_IN_FIRST_OUT {
            order
        } else {
            alike::order(case, &templates)
        };
    }
    assign::improve(case, &templates);
    alike.refine(case, &templates);
    (templates, alike)
}
