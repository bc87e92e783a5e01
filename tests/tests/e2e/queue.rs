//! The disk queue of the real daemon: what a collector that is away did not take arrives after a restart, once.

use std::time::{Duration, Instant};

use tracer_tests::apps::{self, App, Setup};
use tracer_tests::client::drive;
use tracer_tests::judge::assert_served;
use tracer_tests::process::TempDir;
use tracer_tests::{Collector, Fault, Host, Ledger, Record, Selection, Tracer, Transport};

fn serve(app: &App, range: std::ops::Range<u64>) -> Vec<Record> {
    drive(app.port, 4, range, |client, n| {
        // Slow enough that the rings never are full.
        std::thread::sleep(Duration::from_micros(400));
        client.get(&format!("/hello/{n}"))
    })
}

/// Asks the daemon for its ledger until `holds` does.
fn wait_for_ledger(tracer: &Tracer, what: &str, holds: impl Fn(&Ledger) -> bool) -> Ledger {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        tracer.signal(libc::SIGUSR1);
        std::thread::sleep(Duration::from_millis(100));
        match Ledger::last_in(&tracer.output()) {
            Some(ledger) if holds(&ledger) => return ledger,
            ledger => assert!(Instant::now() < deadline, "{what} never came: {ledger:?}"),
        }
    }
}

/// Twice the collector is away and the daemon is restarted, the second time by SIGKILL; then the collector is back.
#[test]
fn across_restarts() {
    let Some(host) = Host::ready() else { return };
    for transport in [Transport::Grpc, Transport::Http] {
        let app = apps::nginx(Setup::named("served"));
        let folder = TempDir::new("queue");
        let selection = Selection::of(&[&app]).with("--queue-dir", &folder.path().display().to_string());

        let away = Collector::start();
        away.set_fault(Fault::Unavailable);
        let tracer = Tracer::start_with(&selection, away, transport);
        let mut records = serve(&app, 0..300);
        let finished = tracer.finish();
        assert_eq!(
            (finished.spans.len(), finished.ledger.spilled),
            (0, 300),
            "{:?}",
            finished.ledger
        );
        assert_eq!(finished.ledger.of_exporter("otlp", "stored"), 300);

        let away = Collector::start();
        away.set_fault(Fault::Unavailable);
        let tracer = Tracer::start_with(&selection, away, transport);
        records.extend(serve(&app, 300..500));
        let ledger = wait_for_ledger(&tracer, "200 spans on the disk", |ledger| ledger.spilled == 200);
        assert_eq!(ledger.of_exporter("otlp", "stored"), 500);
        let away = tracer.kill();
        assert_eq!(away.spans().len(), 0);

        let tracer = Tracer::start_with(&selection, Collector::start(), transport);
        records.extend(serve(&app, 500..600));
        wait_for_ledger(&tracer, "an empty disk", |ledger| {
            ledger.of_exporter("otlp", "restored") == 500
        });
        let finished = tracer.finish();
        assert_eq!((finished.ledger.exported, finished.ledger.spilled), (100, 0));
        assert_eq!(finished.ledger.of_exporter("otlp", "found"), 500);
        assert_served(&finished.spans, &app.service, &records);
    }
    drop(host);
}

/// The daemon stops while requests wait for a collector that takes its time: what is on the wire is waited for, the rest is kept.
#[test]
fn stopped_while_requests_wait() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let folder = TempDir::new("queue");
    let config = folder.path().join("tracer.yaml");
    std::fs::write(&config, "export: {queue: {batch_spans: 100}}\n").expect("a file");
    let selection = Selection::of(&[&app])
        .with("--queue-dir", &folder.path().join("queue").display().to_string())
        .with("--config", &config.display().to_string())
        .with("--shutdown-timeout", "10s");
    let collector = Collector::start();
    // 200 spans a second.
    collector.set_fault(Fault::Slow(Duration::from_secs(2)));
    let tracer = Tracer::start_with(&selection, collector, Transport::Grpc);
    let mut records = serve(&app, 0..8000);
    let first = tracer.finish();
    let stored = first.ledger.of_exporter("otlp", "stored");
    assert!(stored > 1000 && first.ledger.exported > 100, "{:?}", first.ledger);
    let tracer = Tracer::start_with(&selection, Collector::start(), Transport::Grpc);
    records.extend(serve(&app, 8000..8100));
    wait_for_ledger(&tracer, "an empty disk", |ledger| {
        ledger.of_exporter("otlp", "restored") == stored
    });
    let mut second = tracer.finish();
    second.spans.extend(first.spans);
    assert_served(&second.spans, &app.service, &records);
    drop(host);
}
