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
        ("loops", include_str!("scenarios/loops.txt")),
        ("queues", include_str!("scenarios/queues.txt")),
        ("async_ids", include_str!("scenarios/async_ids.txt")),
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
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(played >= 30, "only {played} scenarios were found");
}
