//! Many requests, big bodies, many connections.

use std::time::Duration;

use tracer_tests::apps::{self, Setup, Start};
use tracer_tests::client::{Client, drive, now};
use tracer_tests::judge::{assert_exchange, assert_served};
use tracer_tests::{Host, Record, Selection, host};

fn ten_thousand(start: Start) {
    let Some(host) = Host::ready() else { return };
    let app = start(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let records = drive(app.port, 50, 0..10_000, |client, n| {
        client.get(&format!("/hello/{n}"))
    });
    let finished = tracer.finish();
    assert_eq!(records.len(), 10_000);
    assert_served(&finished.spans, &app.service, &records);
}

#[test]
fn ten_thousand_requests_at_fifty_nginx() {
    ten_thousand(apps::nginx);
}

#[test]
fn ten_thousand_requests_at_fifty_go() {
    ten_thousand(apps::go);
}

const BIG: u64 = 200 << 20;
/// No socket buffer holds half of a big body, so the side that waits for the other to go on can't have finished before.
const PAUSE: Duration = Duration::from_millis(700);
/// What the daemon's memory may grow by while a big body passes.
const GROWTH: u64 = 16 << 20;

#[test]
fn big_download() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let path = app.program.dir.path().join("www").join("big");
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(BIG).expect("a file of holes");
    let tracer = host.trace(&Selection::of(&[&app]));
    Client::connect(app.port).get("/hello/1");
    let before = tracer.rss();

    let mut client = Client::connect(app.port);
    let started = now();
    client.send(b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n");
    client.head();
    client.read(BIG / 2);
    std::thread::sleep(PAUSE);
    client.read(BIG / 2);
    let record = Record {
        method: "GET".into(),
        target: "/big".into(),
        status: 200,
        sent: 0,
        received: BIG,
        started,
        ended: now(),
        port: 0,
    };

    let grown = tracer.rss().saturating_sub(before);
    assert!(grown < GROWTH, "memory grew by {} KiB", grown >> 10);
    let finished = tracer.finish();
    let span = finished.spans.with("url.path", "/big");
    let span = span.only("the download");
    assert_exchange(span, &record);
    assert!(span.duration() >= PAUSE.as_nanos() as u64, "{span}");
}

#[test]
fn big_upload() {
    let Some(host) = Host::ready() else { return };
    let app = apps::go(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::connect(app.port);
    client.get("/hello/1");
    let before = tracer.rss();

    let half = vec![b'x'; (BIG / 2) as usize];
    let started = now();
    client
        .send(format!("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: {BIG}\r\n\r\n").as_bytes());
    client.send(&half);
    std::thread::sleep(PAUSE);
    client.send(&half);
    let (status, received) = client.response("POST").expect("a response");
    let record = Record {
        method: "POST".into(),
        target: "/echo".into(),
        status,
        sent: BIG,
        received,
        started,
        ended: now(),
        port: 0,
    };

    let grown = tracer.rss().saturating_sub(before);
    assert!(grown < GROWTH, "memory grew by {} KiB", grown >> 10);
    let finished = tracer.finish();
    let span = finished.spans.with("url.path", "/echo");
    let span = span.only("the upload");
    assert_exchange(span, &record);
    assert!(span.duration() >= PAUSE.as_nanos() as u64, "{span}");
}

/// 20,000 connections that have each spoken once stay open: the daemon's memory is bounded, each request was told once, and
/// so are those that come later.
#[test]
fn idle_connections() {
    /// For each of two servers, so that no process needs more open files than usual limits allow.
    const CONNECTIONS: u64 = 10_000;
    /// What the daemon may keep for each end of a connection (its bookkeeping, not the bytes).
    const PER_CONNECTION: u64 = 4 << 10;
    let Some(host) = Host::ready() else { return };
    host::allow_open_files(16_384);
    let apps = [apps::nginx(Setup::default()), apps::nginx(Setup::default())];
    let tracer = host.trace(&Selection::of(&[&apps[0], &apps[1]]).with("--exclude-command", "hold.py"));
    let before = tracer.rss();
    let holders = apps.each_ref().map(|app| apps::idle_clients(app, CONNECTIONS));
    let grown = tracer.rss().saturating_sub(before);
    eprintln!("20,000 connections: memory grew by {} KiB", grown >> 10);
    assert!(
        grown < 2 * CONNECTIONS * PER_CONNECTION,
        "memory grew by {} KiB",
        grown >> 10
    );
    let records = drive(apps[0].port, 4, 100_000..100_200, |client, n| {
        client.get(&format!("/hello/{n}"))
    });
    // They stay open until the daemon has stopped: idleness is the subject, not 20,000 closes at once.
    let finished = tracer.finish();
    drop(holders);
    let late = finished
        .spans
        .filter(|span| span.marker().is_some_and(|n| n >= 100_000));
    assert_served(&late, &apps[0].service, &records);
    let mut markers: Vec<_> = finished
        .spans
        .iter()
        .filter_map(tracer_tests::Span::marker)
        .collect();
    markers.retain(|n| *n < 100_000);
    markers.sort_unstable();
    let expected: Vec<_> = (0..CONNECTIONS).flat_map(|n| [n, n]).collect();
    assert!(
        markers == expected,
        "{} spans, not one for each of 20,000 connections",
        markers.len()
    );
}
