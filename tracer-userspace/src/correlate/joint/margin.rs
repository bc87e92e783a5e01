//! How sure an answer is: what the cheapest exchanges would cost that give a call to another request.
//!
//! An exchange need not be between two: a call may go to a second request, whose call goes to a third, and that one's to the first. So
//! what a request's calls cost with every other request are the edges of a graph, and the cheapest exchange that gives a call to
//! another request is the shortest way back from there.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::Answer;
use super::alike::{Alike, Swap};
use super::assign::{Exchange, moves};
use super::case::{Case, NONE};
use super::template::Templates;

/// By how much costs are divided before they become confidence: gaps of one request go together more than is learned, so the model is
/// surer than it may be. Chosen on the sets hotel-100, media-25 and node-25 (`docs/accuracy.md`).
pub(super) const TEMPERATURE: f32 = 3.0;
/// Never quite sure.
const MOST: f32 = 0.9999;
/// Most other candidates that are told.
const MAX_OTHERS: usize = 4;
/// Exchanges that cost more do not matter: thousandths of a nat.
const FAR: u32 = 30_000;
/// Requests that are looked at on the way back.
const MAX_STEPS: usize = 256;

/// By who gets what another has: the other, and what it costs in thousandths of a nat. Nodes are holders where slots are exchanged together,
/// and the places of holders where single calls of a kind are.
type Graph = Vec<Vec<(usize, u32)>>;

/// Every call's request.
pub(super) fn answers(case: &Case, templates: &Templates, alike: &Alike) -> Vec<Option<Answer>> {
    let mut swap = Swap::new(case);
    // The cost of the cheapest exchange with each other request, by call.
    let mut costs: Vec<Vec<(u32, f32)>> = vec![Vec::new(); case.calls.len()];
    let width = case.slots.len();
    for mask in moves(&templates.order) {
        let exchange = Exchange::Slots(mask);
        let mut graph: Graph = vec![Vec::new(); case.holders.len()];
        for a in 0..case.holders.len() {
            for b in exchange.partners(case, a) {
                let losses = swap.losses(case, templates, alike, exchange, (a, b));
                add(&mut graph, (a, b), losses);
            }
        }
        for holder in 0..case.holders.len() {
            let moved = case.plan(holder).iter().enumerate();
            let moved = moved.filter(|(slot, call)| mask >> slot & 1 == 1 && **call != NONE);
            let moved: Vec<u32> = moved.map(|(_, &call)| call).collect();
            if !moved.is_empty() {
                for (other, cost) in cheapest(&graph, holder) {
                    note(case, &mut costs, &moved, other, cost);
                }
            }
        }
    }
    let mut graph: Graph = vec![Vec::new(); case.holders.len() * width];
    for (i, j) in (0..width).flat_map(|i| (0..width).map(move |j| (i, j))) {
        if case.slots[i] != case.slots[j] {
            continue;
        }
        let exchange = Exchange::Places(i, j);
        for a in 0..case.holders.len() {
            for b in exchange.partners(case, a) {
                let losses = swap.losses(case, templates, alike, exchange, (a, b));
                add(&mut graph, (a * width + i, b * width + j), losses);
            }
        }
    }
    for holder in 0..case.holders.len() {
        for (slot, &call) in case
            .plan(holder)
            .iter()
            .enumerate()
            .filter(|(_, call)| **call != NONE)
        {
            for (place, cost) in cheapest(&graph, holder * width + slot) {
                note(case, &mut costs, &[call], place / width, cost);
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

fn add(graph: &mut Graph, (a, b): (usize, usize), losses: [f32; 2]) {
    for (to, from, loss) in [(a, b, losses[0]), (b, a, losses[1])] {
        // Were it a gain, it would have been made, if nothing else spoke against it.
        let loss = (loss.max(0.0) * 1_000.0) as u32;
        if loss < FAR {
            graph[to].push((from, loss));
        }
    }
}

/// The cheapest exchanges in which what a node has goes to others, by who gets it (Dijkstra's algorithm, against the edges).
fn cheapest(graph: &Graph, node: usize) -> Vec<(usize, u32)> {
    let mut queue = BinaryHeap::from([Reverse((0, node))]);
    let mut back: BTreeMap<usize, u32> = BTreeMap::new();
    while let Some(Reverse((cost, at))) = queue.pop() {
        if back.contains_key(&at) {
            continue;
        }
        back.insert(at, cost);
        if back.len() > MAX_STEPS {
            break;
        }
        for &(next, loss) in &graph[at] {
            if cost + loss < FAR && !back.contains_key(&next) {
                queue.push(Reverse((cost + loss, next)));
            }
        }
    }
    let there = back.iter().filter(|(other, _)| **other != node);
    let there = there.filter_map(|(&other, cost)| {
        let edge = graph[other].iter().find(|(from, _)| *from == node)?;
        Some((other, cost + edge.1))
    });
    there.collect()
}

/// Notes that calls might be another holder's.
fn note(case: &Case, costs: &mut [Vec<(u32, f32)>], calls: &[u32], holder: usize, cost: u32) {
    let Some(request) = case.holders[holder].request else {
        return;
    };
    let cost = cost as f32 / 1_000.0;
    for &call in calls {
        let costs = &mut costs[call as usize];
        match costs.iter_mut().find(|(other, _)| *other == request) {
            Some((_, least)) => *least = least.min(cost),
            None => costs.push((request, cost)),
        }
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
