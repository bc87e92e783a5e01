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
    for (name, text) in pools() {
        for scenario in script::scenarios(&text) {
            played += 1;
            if let Err(why) = script::check(&scenario) {
                failures.push(format!("pools: {name}: {why}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(played >= 30, "only {played} scenarios were found");
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
