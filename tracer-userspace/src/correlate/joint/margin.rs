//! How sure an answer is: what the best exchanges would cost that give a call to another request.

use super::Answer;
use super::alike::{Alike, Swap};
use super::assign::{moves, partners};
use super::case::{Case, NONE};
use super::template::Templates;

/// By how much costs are divided before they become confidence: gaps of one request go together more than is learned, so the model is
/// surer than it may be. Chosen on the sets hotel-100, media-25 and node-25 (`docs/accuracy.md`).
const TEMPERATURE: f32 = 3.0;
/// Never quite sure.
const MOST: f32 = 0.9999;
/// Most other candidates that are told.
const MAX_OTHERS: usize = 4;

/// Every call's request.
pub(super) fn answers(case: &Case, templates: &Templates, alike: &Alike) -> Vec<Option<Answer>> {
    let mut swap = Swap::new(case);
    // The cost of the cheapest exchange with each other request, by call.
    let mut costs: Vec<Vec<(u32, f32)>> = vec![Vec::new(); case.calls.len()];
    for mask in moves(&templates.order) {
        for a in 0..case.holders.len() {
            for b in partners(case, mask, a) {
                let cost = -swap.gain(case, templates, alike, mask, (a, b));
                for (holder, other) in [(a, b), (b, a)] {
                    let Some(request) = case.holders[other].request else {
                        continue;
                    };
                    let moved = case.plan(holder).iter().enumerate();
                    let moved = moved.filter(|(slot, call)| mask >> slot & 1 == 1 && **call != NONE);
                    for (_, &call) in moved {
                        note(&mut costs[call as usize], request, cost);
                    }
                }
            }
        }
    }
    let mut answers = vec![None; case.calls.len()];
    for (at, holder) in case.holders.iter().enumerate() {
        let Some(request) = holder.request else {
            continue;
        };
        for &call in case.plan(at).iter().filter(|call| **call != NONE) {
            let costs = &mut costs[call as usize];
            costs.retain(|(other, _)| *other != request);
            answers[call as usize] = Some(answer(request, costs));
        }
    }
    answers
}

fn note(costs: &mut Vec<(u32, f32)>, request: u32, cost: f32) {
    match costs.iter_mut().find(|(other, _)| *other == request) {
        Some((_, least)) => *least = least.min(cost),
        None => costs.push((request, cost)),
    }
}

/// The exchanges as rivals of what was chosen.
fn answer(request: u32, costs: &mut [(u32, f32)]) -> Answer {
    costs.sort_by(|a, b| a.1.total_cmp(&b.1));
    let share = |cost: f32| (-cost.max(0.0) / TEMPERATURE).exp();
    let total = 1.0 + costs.iter().map(|(_, cost)| share(*cost)).sum::<f32>();
    let others = costs.iter().take(MAX_OTHERS);
    Answer {
        request,
        confidence: (1.0 / total).min(MOST),
        others: others
            .map(|&(other, cost)| (other, share(cost) / total))
            .collect(),
    }
}
