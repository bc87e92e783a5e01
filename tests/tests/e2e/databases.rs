//! PostgreSQL and Redis, seen from both ends.

use std::process::Command;

use tracer_tests::apps::{self, App, Setup};
use tracer_tests::judge::assert_attribute;
use tracer_tests::{Client, Host, Kind, Selection, Span, Spans};

/// Runs a client program to its end.
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn psql(server: &App, script: &str) {
    let file = server.program.dir.write("script.sql", script);
    run(Command::new("psql")
        .args(["-X", "-q", "-f"])
        .arg(file)
        .arg(server.postgresql_url()));
}

/// The spans of one kind in the order in which they started.
fn in_order(spans: &Spans, kind: Kind) -> Vec<Span> {
    let mut list: Vec<Span> = spans.kind(kind).iter().cloned().collect();
    list.sort_by_key(|span| span.start);
    list
}

#[test]
fn postgresql_simple_queries() {
    let Some(host) = Host::ready() else { return };
    let server = apps::postgresql(Setup::default());
    let tracer = host.trace(&Selection::of(&[&server]));
    psql(
        &server,
        "SELECT name FROM users WHERE id = 2;\n\
         INSERT INTO users VALUES (4, 'barbara');\n\
         UPDATE users SET name = 'liskov' WHERE id = 4;\n\
         SELECT * FROM no_such_table;\n\
         SELECT id, name FROM users ORDER BY id;\n\
         COPY users FROM STDIN;\n5\tedgar\n6\tada\n\\.\n\
         DELETE FROM users WHERE name = 'liskov';\n",
    );
    let finished = tracer.finish();
    let spans = &finished.spans;
    // Name, rows returned, SQLSTATE, a part of the statement.
    let expected: [(&str, Option<i64>, Option<&str>, &str); 7] = [
        (
            "SELECT users",
            Some(1),
            None,
            "SELECT name FROM users WHERE id = ?",
        ),
        ("INSERT users", None, None, "INSERT INTO users VALUES (?, ?)"),
        (
            "UPDATE users",
            None,
            None,
            "UPDATE users SET name = ? WHERE id = ?",
        ),
        ("SELECT no_such_table", None, Some("42P01"), "no_such_table"),
        (
            "SELECT users",
            Some(5 - 1),
            None,
            "SELECT id, name FROM users ORDER BY id",
        ),
        ("COPY users", None, None, "COPY users FROM STDIN"),
        ("DELETE users", None, None, "DELETE FROM users WHERE name = ?"),
    ];
    for (kind, service) in [(Kind::Client, "psql"), (Kind::Server, server.service.as_str())] {
        let list = in_order(spans, kind);
        let names: Vec<_> = list.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, expected.map(|e| e.0), "{kind:?}\n{spans}");
        for (span, (_, rows, state, statement)) in list.iter().zip(expected) {
            assert_eq!(span.service, service);
            assert_attribute(span, "db.system.name", "postgresql");
            assert_attribute(span, "db.namespace", "postgres");
            assert!(
                span.text("db.query.text").contains(statement),
                "{:?}",
                span.attributes
            );
            if let Some(rows) = rows {
                assert_attribute(span, "db.response.returned_rows", rows);
            }
            assert_eq!(span.error, state.is_some(), "{span}");
            if let Some(state) = state {
                assert_attribute(span, "db.response.status_code", state);
                assert_attribute(span, "error.type", state);
            }
            let text = format!("{:?}", span.attributes);
            for secret in ["barbara", "liskov", "edgar"] {
                assert!(!text.contains(secret), "a literal is exported: {text}");
            }
        }
    }
    for (client, server) in in_order(spans, Kind::Client)
        .iter()
        .zip(in_order(spans, Kind::Server))
    {
        assert_eq!(
            server.parent.as_ref(),
            Some(&client.span_id),
            "{server} belongs to {client}"
        );
    }
}

/// psycopg speaks the extended protocol, with prepared statements once a statement was used five times.
#[test]
fn postgresql_extended_queries() {
    let Some(host) = Host::ready() else { return };
    let server = apps::postgresql(Setup::default());
    let redis = apps::redis(Setup::default());
    let flask = apps::flask_sync(
        Setup::named("app")
            .env("PG", &server.postgresql_url())
            .env("REDIS", &redis.redis_url()),
    );
    // A statement that is prepared before the tracer comes: only its name travels afterwards.
    for _ in 0..10 {
        assert_eq!(Client::connect(flask.port).get("/db/7").status, 200);
    }
    let tracer = host.trace(&Selection::of(&[&server]));
    for _ in 0..10 {
        assert_eq!(Client::connect(flask.port).get("/db/7").status, 200);
        assert_eq!(Client::connect(flask.port).get("/db/8").status, 200);
    }
    assert_eq!(Client::connect(flask.port).get("/dberror/9").status, 500);
    let finished = tracer.finish();
    let spans = &finished.spans;
    for (kind, service) in [(Kind::Client, "app"), (Kind::Server, server.service.as_str())] {
        let own = spans.service(service).kind(kind);
        let marked = |n: u64| own.filter(|s| s.text("db.query.text").contains(&format!("marker_{n} ")));
        marked(8).assert_len(10, "statements seen from their preparation on");
        for span in &marked(8) {
            assert_eq!(span.name, "SELECT users");
            assert_attribute(span, "db.response.returned_rows", 1);
        }
        let failed = own.filter(|s| s.error);
        let failed = failed.only("the failing query");
        assert_attribute(failed, "db.response.status_code", "42P01");
        // The statement prepared before we came has no text, but it is told.
        let unknown = own.filter(|s| !s.error && !s.text("db.query.text").contains("marker_8 "));
        unknown.assert_len(10, "statements prepared before the tracer came");
    }
}

#[test]
fn redis_commands() {
    let Some(host) = Host::ready() else { return };
    let server = apps::redis(Setup::default());
    let port = server.port.to_string();
    let cli = |arguments: &[&str]| run(Command::new("redis-cli").args(["-p", &port]).args(arguments));
    let tracer = host.trace(&Selection::of(&[&server]));
    cli(&["SET", "colour", "secret-red"]);
    cli(&["GET", "colour"]);
    cli(&["INCR", "colour"]);
    cli(&["-3", "GET", "colour"]);
    let finished = tracer.finish();
    let spans = &finished.spans;
    // redis-cli may ask for its own needs (HELLO with -3, COMMAND DOCS in interactive mode).
    let mine = spans.filter(|s| ["SET", "GET", "INCR"].contains(&s.text("db.operation.name")));
    for (kind, service) in [
        (Kind::Client, "redis-cli"),
        (Kind::Server, server.service.as_str()),
    ] {
        let list = in_order(&mine, kind);
        let names: Vec<_> = list.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["SET", "GET", "INCR", "GET"], "{kind:?}\n{spans}");
        for span in &list {
            assert_eq!(span.service, service);
            assert_attribute(span, "db.system.name", "redis");
            assert_eq!(span.error, span.name == "INCR", "{span}");
            assert!(
                !format!("{:?}", span.attributes).contains("secret"),
                "a value is exported"
            );
        }
        assert_attribute(&list[2], "db.response.status_code", "ERR");
    }
    for (client, server) in in_order(&mine, Kind::Client)
        .iter()
        .zip(in_order(&mine, Kind::Server))
    {
        assert_eq!(
            server.parent.as_ref(),
            Some(&client.span_id),
            "{server} belongs to {client}"
        );
    }
}

/// A pipeline of 500 commands on one connection, written at once.
#[test]
fn redis_pipeline() {
    let Some(host) = Host::ready() else { return };
    let server = apps::redis(Setup::default());
    let tracer = host.trace(&Selection::of(&[&server]));
    let mut client = Client::connect(server.port);
    let mut commands = String::new();
    for n in 0..500 {
        let key = format!("key-{n}");
        commands += &format!(
            "*2\r\n${}\r\n{}\r\n${}\r\n{key}\r\n",
            3,
            if n % 2 == 0 { "GET" } else { "DEL" },
            key.len()
        );
    }
    client.send(commands.as_bytes());
    for n in 0..500 {
        // "$-1" for a missing key, ":0" for nothing deleted.
        client.read(if n % 2 == 0 { 5 } else { 4 });
    }
    let finished = tracer.finish();
    let served = finished.spans.service(&server.service).kind(Kind::Server);
    served.filter(|s| s.name == "GET").assert_len(250, "GET");
    served.filter(|s| s.name == "DEL").assert_len(250, "DEL");
    served.assert_len(500, "nothing else");
}
