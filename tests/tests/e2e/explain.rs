//! `tracer explain`: why spans have their parents, from what the daemon has printed.

use std::fs;
use std::process::Command;

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::host::daemon_binary;
use tracer_tests::process::TempDir;
use tracer_tests::{Host, Kind, Selection};

fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Several requests are open whenever a call begins: the parent is told with its evidence, the others as what was not chosen.
#[test]
fn says_why_and_what_else_there_was() {
    let Some(host) = Host::ready() else { return };
    let next = apps::go(Setup::named("next"));
    let app = apps::go(Setup::named("app").calling(&next));
    let options = Selection::of(&[&app, &next])
        .with("--explain", "true")
        .with("--format", "json");
    let tracer = host.trace(&options);
    drive(app.port, 8, 0..64, |client, n| client.get(&format!("/call/{n}")));
    let finished = tracer.finish();
    let folder = TempDir::new("explain");
    let file = folder.path().join("spans.jsonl");
    fs::write(&file, &finished.output).expect("write the spans");

    let calls = finished.spans.service("app").kind(Kind::Client);
    let mut not_chosen = 0;
    for call in calls.iter().filter(|call| call.parent.is_some()) {
        let explained = Command::new(daemon_binary())
            .arg("explain")
            .arg(&file)
            .arg(hex(&call.span_id))
            .output()
            .expect("run the tracer");
        let text = String::from_utf8_lossy(&explained.stdout).into_owned();
        assert!(explained.status.success(), "{explained:?}");
        let parent = hex(call.parent.as_ref().expect("a parent"));
        assert!(text.contains(&format!("parent: {parent} GET")), "{text}");
        assert!(text.contains("(task, "), "{text}");
        assert!(!text.contains(&format!("not chosen: {parent}")), "{text}");
        not_chosen += text.matches("not chosen: ").count();
    }
    assert!(
        not_chosen > 0,
        "eight clients at a time leave others to choose from"
    );
}
