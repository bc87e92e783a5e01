//! The daemon comes late, is killed, comes back; applications notice nothing.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use tracer_tests::apps::{self, Setup, Start};
use tracer_tests::client::drive;
use tracer_tests::judge::assert_served;
use tracer_tests::{Client, Host, Kind, Selection, Tracer, Transport};

/// The connection is in use before the daemon comes; every request from then on is told.
#[test]
fn joins_a_kept_connection() {
    let Some(host) = Host::ready() else { return };
    let servers: [Start; 3] = [apps::nginx, apps::go, apps::python_http];
    for start in servers {
        let app = start(Setup::named("served"));
        let mut client = Client::connect(app.port);
        for n in 0..10 {
            client.get(&format!("/hello/{n}"));
        }
        let tracer = host.trace(&Selection::of(&[&app]));
        let records: Vec<_> = (10..40).map(|n| client.get(&format!("/hello/{n}"))).collect();
        let finished = tracer.finish();
        assert_served(&finished.spans, &app.service, &records);
    }
}

/// The request was sent before the daemon came, its response after: that exchange can't be told truthfully, the next ones can.
#[test]
fn joins_in_the_middle_of_a_response() {
    let Some(host) = Host::ready() else { return };
    let app = apps::go(Setup::named("served"));
    let mut client = Client::connect(app.port);
    client.send(b"GET /slow/2500 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let tracer = host.trace(&Selection::of(&[&app]));
    let (status, _) = client.response("GET").expect("the late response");
    assert_eq!(status, 200);
    let records: Vec<_> = (0..30).map(|n| client.get(&format!("/hello/{n}"))).collect();
    let finished = tracer.finish_with_drops(&["joined_late"]);
    assert_served(&finished.spans, &app.service, &records);
}

/// SIGKILL under load, then a new daemon on the same connections: clients see no error, and the new daemon tells every request
/// that began after it was ready.
#[test]
fn killed_under_load_and_restarted() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let selection = Selection::of(&[&app]);
    let first = host.trace(&selection);
    let stop = AtomicBool::new(false);
    let second = std::thread::scope(|scope| {
        let load: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = Client::connect(app.port);
                    let mut served = 0_u64;
                    while !stop.load(SeqCst) {
                        // Panics if the connection breaks.
                        assert_eq!(client.get("/hello/1").status, 200);
                        served += 1;
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    (client, served)
                })
            })
            .collect();
        std::thread::sleep(Duration::from_millis(700));
        let collector = first.kill();
        assert!(
            !collector.spans().is_empty() || collector.requests() == 0,
            "the first daemon worked"
        );
        std::thread::sleep(Duration::from_millis(300));
        let second = Tracer::start(&selection, Transport::Grpc);
        std::thread::sleep(Duration::from_millis(500));
        stop.store(true, SeqCst);
        let mut clients: Vec<Client> = Vec::new();
        for thread in load {
            let (client, served) = thread.join().expect("a client saw an error");
            assert!(served > 0);
            clients.push(client);
        }
        let mut records = Vec::new();
        for (connection, client) in clients.iter_mut().enumerate() {
            for n in 0..50 {
                records.push(client.get(&format!("/hello/{}", 1000 + connection * 50 + n)));
            }
        }
        (second, records)
    });
    let (second, records) = second;
    let finished = second.finish_with_drops(&["joined_late"]);
    let after = finished
        .spans
        .filter(|span| span.marker().is_some_and(|n| n >= 1000));
    assert_served(&after, &app.service, &records);
    assert!(
        finished.spans.len() > records.len(),
        "it also told the load that it met"
    );
}

/// Several restarts leave nothing behind that would make the next daemon fail, and each is right.
#[test]
fn restarts() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    for round in 0..3_u64 {
        let tracer = host.trace(&Selection::of(&[&app]));
        let first = round * 100;
        let records = drive(app.port, 2, first..first + 20, |client, n| {
            client.get(&format!("/hello/{n}"))
        });
        let finished = tracer.finish();
        assert_served(&finished.spans, &app.service, &records);
        assert_eq!(finished.spans.kind(Kind::Server).len(), 20);
    }
}

/// SIGUSR1 prints the ledger and does not stop the daemon.
#[test]
fn ledger_on_demand() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::connect(app.port);
    client.get("/hello/1");
    tracer.signal(libc::SIGUSR1);
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !tracer.output().contains("ledger: seen=") {
        assert!(
            std::time::Instant::now() < deadline,
            "no ledger:\n{}",
            tracer.output()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    client.get("/hello/2");
    let finished = tracer.finish();
    assert_eq!(finished.spans.len(), 2, "{}", finished.spans);
}
