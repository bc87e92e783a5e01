//! Every server program, seen from its own end: one span for each request, none missing, none twice.

use std::collections::BTreeSet;

use tracer_tests::apps::{self, Setup, Start};
use tracer_tests::client::drive;
use tracer_tests::judge::{assert_attribute, assert_served};
use tracer_tests::{Client, Host, Kind, Selection, Value};

struct Case {
    start: Start,
    /// `telemetry.sdk.language`.
    language: &'static str,
    /// Whether it has code that reads a body.
    reads_bodies: bool,
}

fn check(case: &Case) {
    let Some(host) = Host::ready() else { return };
    let app = (case.start)(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut records = drive(app.port, 3, 0..60, |client, n| client.get(&format!("/hello/{n}")));
    let mut client = Client::connect(app.port);
    records.push(client.get("/hello/60?colour=red&token=secret"));
    records.push(client.get("/status/404"));
    records.push(client.get("/status/503"));
    records.push(client.request("HEAD", "/hello/61", &[], &[]));
    if case.reads_bodies {
        records.push(client.post("/echo", &[b'x'; 100]));
        records.push(client.post("/echo", &vec![b'y'; 300_000]));
    }
    let finished = tracer.finish();
    let spans = &finished.spans;

    assert_served(spans, &app.service, &records);
    spans.assert_len(records.len(), "nothing but the requests");
    let mut names = BTreeSet::new();
    for span in spans {
        assert_eq!(span.parent, None, "nobody called: {span}");
        assert_attribute(span, "url.scheme", "http");
        assert_attribute(span, "network.peer.address", "127.0.0.1");
        assert_attribute(span, "client.address", "127.0.0.1");
        assert_attribute(span, "server.port", i64::from(app.port));
        assert_attribute(span, "server.address", "localhost");
        assert_attribute(span, "user_agent.original", "tracer-tests");
        match span.resource.get("telemetry.sdk.language") {
            Some(Value::Str(language)) => assert_eq!(language, case.language),
            other => panic!("language {other:?}, not {}", case.language),
        }
        assert_eq!(span.resource.get("telemetry.distro.name"), Some(&"tracer".into()));
        if span.path().starts_with("/hello/") && span.text("http.request.method") == "GET" {
            names.insert(span.name.clone());
        }
    }
    assert_eq!(names.len(), 1, "one low-cardinality name: {names:?}");
    let query = spans.marked(60);
    let query = query.only("the request with a query");
    assert!(
        query.text("url.query").contains("colour=red"),
        "{:?}",
        query.attributes
    );
    assert!(
        !query.text("url.query").contains("secret"),
        "{:?}",
        query.attributes
    );
    assert_eq!(spans.kind(Kind::Server).len(), spans.len());
}

macro_rules! servers {
    ($($name:ident, $language:literal, $reads_bodies:literal;)+) => {
        $(#[test] fn $name() {
            check(&Case { start: apps::$name, language: $language, reads_bodies: $reads_bodies });
        })+
    };
}

servers! {
    nginx, "cpp", false;
    apache, "cpp", false;
    go, "go", true;
    node, "nodejs", true;
    python_http, "python", true;
    flask, "python", true;
    flask_sync, "python", true;
    java, "java", true;
    ruby, "ruby", true;
}

/// What the tracer calls a service whose process does not say its name.
#[test]
fn names_are_found() {
    let Some(host) = Host::ready() else { return };
    let all: [(&str, Start); 6] = [
        ("nginx", apps::nginx),
        ("go-http", apps::go),
        ("server", apps::node),
        ("server", apps::python_http),
        ("Server", apps::java),
        ("server", apps::ruby),
    ];
    for (service, start) in all {
        let app = start(Setup::found_as(service));
        let tracer = host.trace(&Selection::of(&[&app]));
        let record = Client::connect(app.port).get("/hello/1");
        let finished = tracer.finish();
        let span = finished.spans.only(service);
        assert_eq!(span.marker(), Some(1), "{record:?}");
        let name = span.service.to_lowercase();
        // The folder may be part of the name (`node-http`), never the interpreter's own name.
        let own = service.to_lowercase();
        let folder = [
            "node-http",
            "python-http",
            "java-http",
            "ruby-webrick",
            "nginx",
            "go-http",
        ];
        assert!(
            name.contains(&own) || folder.iter().any(|folder| name.contains(folder)),
            "{} for {}",
            span.service,
            app.program.name()
        );
    }
}
