//! Streams of signals and what must come of them: `scenarios/` by hand, `mesh` at random with the truth known.

mod chaos;
mod explain;
mod mesh;
mod play;
mod script;

/// Every scenario of the files, each with its own correlator.
#[test]
fn scenarios() {
    let files = [
        ("threads", include_str!("scenarios/threads.txt")),
        ("messages", include_str!("scenarios/messages.txt")),
        ("headers", include_str!("scenarios/headers.txt")),
        ("tasks", include_str!("scenarios/tasks.txt")),
        ("places", include_str!("scenarios/places.txt")),
        ("connections", include_str!("scenarios/connections.txt")),
        ("asyncio", include_str!("scenarios/asyncio.txt")),
        ("submitted", include_str!("scenarios/submitted.txt")),
        ("loops", include_str!("scenarios/loops.txt")),
        ("queues", include_str!("scenarios/queues.txt")),
        ("async_ids", include_str!("scenarios/async_ids.txt")),
        ("acquirers", include_str!("scenarios/acquirers.txt")),
        ("jobs", include_str!("scenarios/jobs.txt")),
        ("bounds", include_str!("scenarios/bounds.txt")),
    ];
    let (mut played, mut failures) = (0, Vec::new());
    for (file, text) in files {
        for scenario in script::scenarios(text) {
            played += 1;
            if let Err(why) = script::check(&scenario) {
                failures.push(format!("{file}: {}: {why}", scenario.name));
            }
        }
    }
    for (kind, made) in [
        ("pools", pools()),
        ("unsure jobs", unsure_jobs()),
        ("loops that hand on", loops_that_hand_on()),
        ("loops when the daemon stops", loops_at_the_stop()),
    ] {
        for (name, text) in made {
            for scenario in script::scenarios(&text) {
                played += 1;
                if let Err(why) = script::check(&scenario) {
                    failures.push(format!("{kind}: {name}: {why}"));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(played >= 30, "only {played} scenarios were found");
}

/// Lines of a scenario, so many milliseconds after that one, in the order of their times.
fn in_time<const N: usize>(at: usize, mut lines: [(usize, String); N]) -> String {
    lines.sort();
    lines
        .iter()
        .map(|(ms, line)| format!("{}  {line}\n", at + ms))
        .collect()
}

/// Jobs of which it is not known whether they were made for the request that is open on their connection: 24, of which all or
/// nearly all are over by its answer.
fn unsure_jobs() -> Vec<(&'static str, String)> {
    let jobs = |late: &[usize]| {
        let mut text = String::from("== unsure jobs\nprocess 10 java\n");
        for n in 0..24 {
            let at = 10 * n;
            text += &format!("{}  10.9  recv A{n}  c1\n", at + 1);
            text += &format!("{}  10.5+c1:{}?  call B{n}  c2\n", at + 2, at + 2);
            let (done, answered) = if late.contains(&n) { (5, 4) } else { (3, 4) };
            text += &in_time(
                at,
                [
                    (done, format!("10.5  done B{n}")),
                    (answered, format!("10.9  done A{n}")),
                ],
            );
        }
        text
    };
    vec![
        (
            "all are over by the answer",
            jobs(&[]) + "expect B23 < A23 task likely\n",
        ),
        ("one is not", jobs(&[3]) + "expect B23 < A23 task likely\n"),
        ("two are not", jobs(&[3, 4]) + "expect B23 root\n"),
    ]
}

/// A loop with two connections, in 24 rounds, hands calls on to a client's threads: after it has read the second one's request the one for the
/// first, as the kernel side says. All or nearly all are over by the answer.
fn loops_that_hand_on() -> Vec<(&'static str, String)> {
    let rounds = |late: &[usize]| {
        let mut text = String::from("== loops that hand on\nprocess 10 java\n");
        for n in 0..24 {
            let at = 10 * n;
            text += &format!("{}  10.9  recv A{n}  c1\n", at + 1);
            text += &format!("{}  10.9  recv X{n}  c2\n", at + 1);
            text += &format!(
                "{}  10.70 call B{n}  c3 took=10.71:{} client handed=10.9:{} waiter=c1~\n",
                at + 3,
                at + 2,
                at + 2
            );
            let (done, answered) = if late.contains(&n) { (7, 6) } else { (6, 7) };
            text += &in_time(
                at,
                [
                    (done, format!("10.70  done B{n}")),
                    (answered, format!("10.9  done A{n}")),
                    (8, format!("10.9  done X{n}")),
                ],
            );
        }
        text
    };
    vec![
        (
            "all are over by the answer",
            rounds(&[]) + "expect B23 < A23 task likely\nexpect B2 root\n",
        ),
        ("one is not", rounds(&[3]) + "expect B23 root\n"),
    ]
}

/// A proxy with two connections, which has served both for so many rounds when the daemon stops: what it shows in ten is enough.
fn loops_at_the_stop() -> Vec<(&'static str, String)> {
    let rounds = |count: usize| {
        let mut text = String::from("== loops when the daemon stops\n");
        for n in 0..count {
            let at = 8 * n + 1;
            for (event, what) in [
                format!("recv A{n} c1"),
                format!("call B{n} c3"),
                format!("recv C{n} c2"),
                format!("call D{n} c4"),
                format!("done B{n}"),
                format!("done A{n}"),
                format!("done D{n}"),
                format!("done C{n}"),
            ]
            .iter()
            .enumerate()
            {
                text += &format!("{} 10.1 {what}\n", at + event);
            }
        }
        text + &format!("{} stop\n", 8 * count + 1)
    };
    vec![
        ("after ten", rounds(10) + "expect B0 < A0 loop certain\n"),
        ("after two", rounds(2) + "expect B0 root\n"),
    ]
}

/// A reader queues requests for a worker, which has nothing to do between them for forty turns; then one waits for it.
fn pools() -> Vec<(&'static str, String)> {
    let turns = || {
        let mut text = String::from("== a pool\n");
        for n in 0..40 {
            let at = 10 * n;
            text += &format!("{}  10.9  recv A{n}  c1\n", at + 1);
            text += &format!("{}  10.1  call B{n}  c2\n", at + 2);
            text += &format!("{}  10.1  done B{n}\n", at + 3);
            text += &format!("{}  10.1  done A{n}\n", at + 4);
        }
        text += "401  10.9  recv A  c1\n402  10.9  recv B  c3\n403  10.1  call C  c2\n404  10.1  done C\n405  10.1  done A\n";
        text += "406  10.1  call E  c2\n407  10.1  done E\n408  10.1  call F  c2\n409  10.1  done F\n410  10.1  done B\n";
        text += "expect C < A thread likely\n";
        text
    };
    let prompt = turns() + "expect E < B thread likely\nexpect F < B thread likely\n";
    // The worker was seen to call once after an answer: that may be E, and is not F.
    let late = turns().replace("391  10.9", "385  10.1  call L  c2\n386  10.1  done L\n391  10.9")
        + "expect L root\nexpect E link A ambiguous\nexpect F < B thread likely\n";
    vec![
        ("done with its answers", prompt),
        ("calls after its answers", late),
    ]
}
