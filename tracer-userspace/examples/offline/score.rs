//! Asks the joint inference for every call's request, service by service, and compares.

use std::collections::{BTreeMap, HashMap, HashSet};

use tracer_userspace::correlate::joint::{self, Call, Request};

use crate::spans::{Question, Set};

/// How right the answers to a set, or to several, were.
#[derive(Default)]
pub struct Score {
    pub traces: usize,
    /// Traces of which every call's request is right.
    pub traces_right: usize,
    /// The same of the calls that the published figures are about, by the joint inference and first in, first out.
    pub published_right: usize,
    pub fifo_right: usize,
    pub calls: usize,
    pub calls_right: usize,
    /// Right and all, by what confidence was told.
    pub calibration: BTreeMap<usize, (u64, u64)>,
}

/// Upper ends of the buckets of confidence.
const BUCKETS: [f32; 7] = [0.5, 0.8, 0.9, 0.95, 0.99, 0.999, 1.0];

fn bucket(confidence: f32) -> usize {
    BUCKETS
        .partition_point(|end| *end <= confidence)
        .min(BUCKETS.len() - 1)
}

pub fn bucket_name(bucket: usize) -> String {
    let from = bucket.checked_sub(1).map_or(0.0, |before| BUCKETS[before]);
    format!("{from} to {}", BUCKETS[bucket])
}

impl Score {
    /// So many traces in per cent.
    pub fn share(&self, traces: usize) -> f64 {
        100.0 * traces as f64 / self.traces as f64
    }

    pub fn add(&mut self, other: &Self) {
        self.traces += other.traces;
        self.traces_right += other.traces_right;
        self.published_right += other.published_right;
        self.fifo_right += other.fifo_right;
        self.calls += other.calls;
        self.calls_right += other.calls_right;
        for (bucket, (right, count)) in &other.calibration {
            let sum = self.calibration.entry(*bucket).or_default();
            *sum = (sum.0 + right, sum.1 + count);
        }
    }
}

/// What is known of a request's trace from other services' answers.
#[derive(Clone, Copy, Default)]
struct Kin {
    nth: u8,
    others_end: u64,
}

/// The answers so far: the request of each call, and how sure that is.
type Answers = HashMap<usize, (usize, f32)>;

fn ask(set: &Set, service: usize, questions: &[Question], kin: &[Kin], answers: &mut Answers) {
    let spans = &set.spans;
    let requests: Vec<usize> = (0..spans.len())
        .filter(|&at| spans[at].enters && spans[at].service == service)
        .collect();
    let windows: Vec<Request> = requests
        .iter()
        .map(|&at| Request {
            start: spans[at].start,
            end: spans[at].end,
            endpoint: spans[at].operation as u16,
            nth: kin[at].nth,
            others_end: kin[at].others_end,
            ids: [0; 4],
        })
        .collect();
    let mut kinds = HashMap::new();
    let calls: Vec<Call> = questions
        .iter()
        .map(|question| {
            let span = &spans[question.call];
            let next = kinds.len() as u16;
            Call {
                start: span.start,
                end: span.end,
                kind: *kinds.entry((span.service, span.operation)).or_insert(next),
                known: None,
                ids: [0; 4],
            }
        })
        .collect();
    for (question, answer) in questions.iter().zip(joint::solve(&windows, &calls)) {
        match answer {
            Some(answer) => {
                let request = requests[answer.request as usize];
                answers.insert(question.call, (request, answer.confidence));
            }
            None => {
                answers.remove(&question.call);
            }
        }
    }
}

/// Requests of one trace, as the answers have it, to one service.
fn kin(set: &Set, answers: &Answers) -> Vec<Kin> {
    let root = |mut at: usize| {
        loop {
            let answer = || answers.get(&at).map(|(request, _)| *request);
            match set.spans[at].known_parent.or_else(answer) {
                Some(up) => at = up,
                None => return at,
            }
        }
    };
    let mut families: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
    for (at, span) in set.spans.iter().enumerate().filter(|(_, span)| span.enters) {
        families.entry((root(at), span.service)).or_default().push(at);
    }
    let mut kin = vec![Kin::default(); set.spans.len()];
    for mut family in families.into_values() {
        family.sort_by_key(|&at| set.spans[at].end);
        for (nth, pair) in (1..).zip(family.windows(2)) {
            kin[pair[1]] = Kin {
                nth,
                others_end: set.spans[pair[0]].end,
            };
        }
    }
    kin
}

/// Scores a set: all services, then once more those that a trace reached several times.
pub fn score(set: &Set) -> Score {
    let mut answers = Answers::new();
    let unknown = vec![Kin::default(); set.spans.len()];
    for (service, questions) in &set.questions {
        ask(set, *service, questions, &unknown, &mut answers);
    }
    let kin = kin(set, &answers);
    let several: HashSet<usize> = (0..kin.len())
        .filter(|&at| kin[at].nth > 0)
        .map(|at| set.spans[at].service)
        .collect();
    for (service, questions) in set
        .questions
        .iter()
        .filter(|(service, _)| several.contains(service))
    {
        ask(set, *service, questions, &kin, &mut answers);
    }
    let mut score = Score {
        traces: set.traces,
        ..Score::default()
    };
    let (mut wrong, mut wrong_published) = (HashSet::new(), HashSet::new());
    for question in set.questions.values().flatten() {
        score.calls += 1;
        let answer = answers.get(&question.call);
        let is_right = answer.is_some_and(|(request, _)| *request == question.truth);
        if is_right {
            score.calls_right += 1;
        } else {
            wrong.insert(set.spans[question.call].trace);
            if question.is_published {
                wrong_published.insert(set.spans[question.call].trace);
            }
        }
        if let Some((_, confidence)) = answer {
            let sum = score.calibration.entry(bucket(*confidence)).or_default();
            *sum = (sum.0 + u64::from(is_right), sum.1 + 1);
        }
    }
    score.traces_right = score.traces - wrong.len();
    score.published_right = score.traces - wrong_published.len();
    score.fifo_right = score.traces - wrong_first_in_first_out(set).len();
    score
}

/// The traces that the plainest rule gets wrong, of the published questions: of the requests that make calls of a kind, the one that began
/// first made the first. It tells whether these are the published questions: its figure is known.
fn wrong_first_in_first_out(set: &Set) -> HashSet<usize> {
    let mut wrong = HashSet::new();
    let by_start = |at: &usize| (set.spans[*at].start, set.spans[*at].end);
    for questions in set.questions.values() {
        let mut kinds: BTreeMap<(usize, usize), Vec<Question>> = BTreeMap::new();
        for question in questions.iter().filter(|question| question.is_published) {
            let call = &set.spans[question.call];
            let kind = (call.service, call.operation);
            kinds.entry(kind).or_default().push(*question);
        }
        for mut calls in kinds.into_values() {
            let mut requests: Vec<usize> = calls.iter().map(|question| question.truth).collect();
            requests.sort_by_key(by_start);
            calls.sort_by_key(|question| by_start(&question.call));
            for (call, request) in calls.iter().zip(requests) {
                if call.truth != request {
                    wrong.insert(set.spans[call.call].trace);
                }
            }
        }
    }
    wrong
}
