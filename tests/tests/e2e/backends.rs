//! The same traffic through each capture back end that this kernel has: every exchange once, whichever saw it.
//!
//! The other tests take the back end that the daemon chooses, or the one that `TRACER_TEST_CAPTURE` names.

use std::process::Command;

use tracer_tests::apps::{self, Setup};
use tracer_tests::judge::{assert_attribute, assert_served};
use tracer_tests::{Client, Host, Kind, Selection};

#[test]
fn http_over_every_family() {
    let Some(host) = Host::ready() else { return };
    for backend in host.backends() {
        let app = apps::nginx(Setup::named("served"));
        let selection = Selection::default()
            .pid(app.program.pid())
            .with("--capture", &backend);
        let tracer = host.trace(&selection);
        let mut records = Vec::new();
        for mut client in [
            Client::connect(app.port),
            Client::to(app.ipv6()),
            Client::unix(&app.program.dir.path().join("nginx.sock")),
        ] {
            for _ in 0..20 {
                records.push(client.get(&format!("/hello/{}", records.len())));
            }
        }
        let finished = tracer.finish();
        assert_served(&finished.spans, &app.service, &records);
        // TCP is what the convention takes for granted.
        let unix = finished.spans.with("network.transport", "unix");
        unix.assert_len(20, &format!("Unix sockets through {backend}"));
    }
}

#[test]
fn databases() {
    let Some(host) = Host::ready() else { return };
    for backend in host.backends() {
        let (redis, postgresql) = (apps::redis(Setup::default()), apps::postgresql(Setup::default()));
        let selection = Selection::of(&[&redis, &postgresql]).with("--capture", &backend);
        let tracer = host.trace(&selection);
        for key in ["one", "two", "three"] {
            run(Command::new("redis-cli")
                .args(["-p", &redis.port.to_string()])
                .args(["SET", key, "value"]));
        }
        let query = "SELECT name FROM users WHERE id = 2";
        for _ in 0..3 {
            run(Command::new("psql").args(["-X", "-q", "-c", query, &postgresql.postgresql_url()]));
        }
        let finished = tracer.finish();
        for kind in [Kind::Client, Kind::Server] {
            let spans = finished.spans.kind(kind);
            for (name, system) in [("SET", "redis"), ("SELECT users", "postgresql")] {
                let found = spans.filter(|span| span.name == name);
                found.assert_len(3, &format!("{name} {kind:?} through {backend}"));
                for span in &found {
                    assert_attribute(span, "db.system.name", system);
                }
            }
        }
    }
}

/// A connect that nobody answers as wished is a span of its own, as long as it took.
#[test]
fn failed_connects() {
    let Some(host) = Host::ready() else { return };
    for backend in host.backends() {
        let free = tracer_tests::free_port();
        let selection = Selection::default().port(free).with("--capture", &backend);
        let tracer = host.trace(&selection);
        for _ in 0..3 {
            let output = Command::new("curl")
                .arg(format!("http://127.0.0.1:{free}/"))
                .output();
            assert!(!output.expect("curl").status.success());
        }
        let finished = tracer.finish();
        finished
            .spans
            .assert_len(3, &format!("refused, through {backend}"));
        for span in &finished.spans {
            assert_eq!((span.name.as_str(), span.error), ("connect", true), "{span}");
            assert_attribute(span, "error.type", "ECONNREFUSED");
            assert_attribute(span, "server.port", i64::from(free));
            assert_eq!(span.service, "curl", "{span}");
        }
    }
}

/// A connect that nobody answers, and whose caller has a time-out of its own.
#[test]
fn connects_given_up() {
    const PORT: u16 = 7_531;
    // Packets to the neighbour go to the other end of a cable, where nobody listens.
    const SCRIPT: &str = "set -e
        ip link add near type veth peer name far
        ip address add 192.0.2.1/24 dev near
        ip link set near up; ip link set far up
        ip neighbour add 192.0.2.2 lladdr 02:00:00:00:00:02 dev near
        for _ in 1 2 3; do
            curl --silent --connect-timeout 0.3 http://192.0.2.2:7531/ && exit 1 || test $? = 28
        done";
    let Some(host) = Host::ready() else { return };
    for backend in host.backends() {
        let selection = Selection::default().port(PORT).with("--capture", &backend);
        let tracer = host.trace(&selection);
        run(Command::new("unshare").args(["--net", "sh", "-c", SCRIPT]));
        let finished = tracer.finish();
        finished
            .spans
            .assert_len(3, &format!("given up, through {backend}"));
        for span in &finished.spans {
            assert_eq!((span.name.as_str(), span.error), ("connect", true), "{span}");
            assert_attribute(span, "error.type", "given_up");
            assert_attribute(span, "server.address", "192.0.2.2");
            assert_attribute(span, "server.port", i64::from(PORT));
            assert_eq!(span.service, "curl", "{span}");
            assert!(
                span.end - span.start >= 200_000_000,
                "as long as curl waited: {span}"
            );
        }
    }
}

fn run(command: &mut Command) {
    let status = command.stdout(std::process::Stdio::null()).status();
    assert!(
        status
            .unwrap_or_else(|error| panic!("{command:?}: {error}"))
            .success(),
        "{command:?}"
    );
}
