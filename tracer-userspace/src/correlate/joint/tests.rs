//! On made-up services whose truth is known.

use super::*;

const US: Nanos = 1_000;

/// A window of a service with two endpoints: the first calls A, then B; the second calls C twice at once. Requests come every
/// `every` microseconds on average. Returns the true request of each call, too.
fn window(requests: u32, every: u64, seed: u64) -> (Vec<Request>, Vec<Call>, Vec<u32>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let (mut made, mut calls) = (Vec::new(), Vec::new());
    let mut now = 1_000_000 * US;
    for request in 0..requests {
        now += rng.u64(1..2 * every) * US;
        let endpoint = u16::from(rng.bool());
        let mut call = |start: Nanos, kind: u16, rng: &mut fastrand::Rng| {
            let end = start + rng.u64(800..4_000) * US;
            calls.push((
                Call {
                    start,
                    end,
                    kind,
                    known: None,
                    ids: [0; 4],
                },
                request,
            ));
            end
        };
        let end = if endpoint == 0 {
            let end = call(now + rng.u64(90..160) * US, 0, &mut rng);
            call(end + rng.u64(250..330) * US, 1, &mut rng)
        } else {
            let one = call(now + rng.u64(400..500) * US, 2, &mut rng);
            let other = call(now + rng.u64(510..560) * US, 2, &mut rng);
            one.max(other)
        };
        made.push(Request {
            start: now,
            end: end + rng.u64(40..80) * US,
            endpoint,
            nth: 0,
            others_end: 0,
            ids: [0; 4],
        });
    }
    calls.sort_by_key(|(call, _)| call.start);
    let (calls, truth) = calls.into_iter().unzip();
    (made, calls, truth)
}

fn right(answers: &[Option<Answer>], truth: &[u32]) -> usize {
    let pairs = answers.iter().zip(truth);
    pairs
        .filter(|(answer, truth)| answer.as_ref().is_some_and(|a| a.request == **truth))
        .count()
}

#[test]
fn learns_what_endpoints_do() {
    // Overlapping requests: 0.5, 3 and 6 at a time.
    for (every, floor) in [(10_000, 1.0), (1_500, 0.99), (800, 0.97)] {
        let (requests, calls, truth) = window(400, every, 7);
        let answers = solve(&requests, &calls);
        let right = right(&answers, &truth) as f64 / truth.len() as f64;
        assert!(right >= floor, "one request every {every} us: {right}");
    }
}

#[test]
fn is_as_sure_as_it_is_right() {
    let (mut sure, mut wrong) = (0, 0);
    for seed in 0..4 {
        let (requests, calls, truth) = window(300, 800, seed);
        for (answer, truth) in solve(&requests, &calls).iter().zip(&truth) {
            let Some(answer) = answer else {
                continue;
            };
            assert!(answer.others.iter().all(|(other, _)| *other != answer.request));
            if answer.confidence >= 0.99 {
                sure += 1;
                wrong += usize::from(answer.request != *truth);
            }
        }
    }
    assert!(sure > 1_000, "{sure}");
    assert!(wrong * 100 <= sure, "{wrong} of {sure}");
}

#[test]
fn a_call_that_no_request_encloses_is_nobodys() {
    let (requests, mut calls, _) = window(50, 10_000, 3);
    calls.insert(
        0,
        Call {
            start: 10 * US,
            end: 20 * US,
            kind: 0,
            known: None,
            ids: [0; 4],
        },
    );
    let answers = solve(&requests, &calls);
    assert!(answers[0].is_none());
    assert!(answers[1..].iter().all(Option::is_some));
    assert!(solve(&[], &calls).iter().all(Option::is_none));
    assert!(solve(&requests, &[]).is_empty());
}

/// Requests wait for one thread, which takes them in order; how long each takes is anybody's guess.
#[test]
fn a_single_thread_keeps_the_order() {
    let mut rng = fastrand::Rng::with_seed(5);
    let (mut requests, mut calls) = (Vec::new(), Vec::new());
    let (mut now, mut free) = (0, 0);
    for _ in 0..300 {
        now += rng.u64(10..2_000) * US;
        free = now.max(free) + rng.u64(10..1_500) * US;
        let call = Call {
            start: free,
            end: free + 5_000 * US,
            kind: 0,
            known: None,
            ids: [0; 4],
        };
        calls.push(call);
        requests.push(Request {
            start: now,
            end: call.end + rng.u64(10..300) * US,
            endpoint: 0,
            nth: 0,
            others_end: 0,
            ids: [0; 4],
        });
    }
    let answers = solve(&requests, &calls);
    let truth: Vec<u32> = (0..300).collect();
    assert_eq!(right(&answers, &truth), 300);
}

/// Requests of which many overlap, to one endpoint, that take as long as they like. `pass` tells which id a call of a request names.
fn named(pass: impl Fn(u32) -> u32) -> (usize, usize) {
    let mut rng = fastrand::Rng::with_seed(11);
    let (mut requests, mut calls, mut truth) = (Vec::new(), Vec::new(), Vec::new());
    for n in 0..300 {
        let start = u64::from(n) * 1_000 * US;
        let call = start + rng.u64(100..15_000) * US;
        let end = call + rng.u64(100..15_000) * US;
        let ids = |id: u32| [0, 0, id, u32::MAX];
        calls.push((call, end, ids(pass(n)), n));
        requests.push(Request {
            start,
            end: end + rng.u64(100..15_000) * US,
            endpoint: 0,
            nth: 0,
            others_end: 0,
            ids: ids(1_000 + n % 60),
        });
    }
    calls.sort_by_key(|(start, ..)| *start);
    let calls = calls.into_iter().map(|(start, end, ids, request)| {
        truth.push(request);
        Call {
            start,
            end,
            kind: 0,
            known: None,
            ids,
        }
    });
    let answers = solve(&requests, &calls.collect::<Vec<_>>());
    let sure = answers.iter().flatten().filter(|a| a.confidence > 0.9).count();
    (right(&answers, &truth), sure)
}

#[test]
fn ids_that_are_passed_on_tell_whose_call_it_is() {
    let (passed_on, sure) = named(|n| 1_000 + n % 60);
    assert!(passed_on >= 297, "{passed_on}");
    assert!(sure >= 280, "{sure}");
    // What all requests name, or what calls name that no request does, tells nothing.
    let (other, _) = named(|n| 5_000 + n);
    assert!(other < 150, "{other}");
    // Nor do ids of which chance makes some alike.
    let (by_chance, sure) = named(|n| 1_000 + n * 7 % 60);
    assert!(by_chance < 150 && sure < 60, "{by_chance} right, {sure} sure");
}
