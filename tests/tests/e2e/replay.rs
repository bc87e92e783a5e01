//! A recorded run gives the same spans when it is replayed.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::host::daemon_binary;
use tracer_tests::process::TempDir;
use tracer_tests::{Host, Kind, Selection};

fn replay(file: &Path) -> String {
    let replayed = Command::new(daemon_binary())
        .arg("replay")
        .arg(file)
        .output()
        .expect("run the tracer");
    assert!(replayed.status.success(), "{replayed:?}");
    String::from_utf8(replayed.stdout).expect("text")
}

/// Service, kind, name, the same of the parent, and by which rule: how often.
type Decisions = BTreeMap<String, usize>;

#[test]
fn a_recorded_run_gives_the_same_spans() {
    let Some(host) = Host::ready() else { return };
    let next = apps::go(Setup::named("next"));
    let app = apps::go(Setup::named("app").calling(&next));
    let folder = TempDir::new("replay");
    let file = folder.path().join("run.jsonl");
    let path = file.to_str().expect("a path that is text");
    let tracer = host.trace(&Selection::of(&[&app, &next]).with("--record", path));
    drive(app.port, 8, 0..64, |client, n| client.get(&format!("/call/{n}")));
    let spans = tracer.finish().spans;

    let told = replay(&file);
    assert_eq!(told, replay(&file), "the same recording, the same lines");
    let lines: Vec<Value> = told
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &Value| line["service"] == "app" || line["service"] == "next")
        .collect();
    let by_number: BTreeMap<u64, &Value> = lines
        .iter()
        .map(|line| (line["exchange"].as_u64().expect("a number"), line))
        .collect();
    let text = |line: &Value, key: &str| line[key].as_str().unwrap_or_default().to_owned();
    let title = |line: &Value| {
        format!(
            "{} {} {}",
            text(line, "service"),
            text(line, "kind"),
            text(line, "name")
        )
    };
    let mut replayed = Decisions::new();
    for line in &lines {
        let parent = line["parent"].as_u64().map(|number| title(by_number[&number]));
        let decision = format!("{} < {parent:?} {}", title(line), text(line, "evidence"));
        *replayed.entry(decision).or_default() += 1;
    }

    let kind = |kind: Kind| if kind == Kind::Client { "client" } else { "server" };
    let mut live = Decisions::new();
    for span in &spans {
        let title = |span: &tracer_tests::Span| format!("{} {} {}", span.service, kind(span.kind), span.name);
        let parent = span.parent.as_ref().map(|id| {
            let parent = spans.iter().find(|other| other.span_id == *id);
            title(parent.expect("the parent is there"))
        });
        let evidence = span.text("tracer.parent.evidence");
        let decision = format!("{} < {parent:?} {evidence}", title(span));
        *live.entry(decision).or_default() += 1;
    }
    assert_eq!(replayed, live);
}
