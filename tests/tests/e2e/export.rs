//! Back ends: both transports, slow, down, back again.

use std::time::Duration;

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::judge::assert_served;
use tracer_tests::{Client, Collector, Fault, Host, Selection, Tracer, Transport};

#[test]
fn http_protobuf() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let selection = Selection::of(&[&app]);
    let tracer = Tracer::start(&selection, Transport::Http);
    let records = drive(app.port, 4, 0..300, |client, n| {
        client.get(&format!("/hello/{n}"))
    });
    let finished = tracer.finish();
    assert_served(&finished.spans, &app.service, &records);
    drop(host);
}

/// The back end refuses for a while: what was refused is sent again, nothing is lost, nothing comes twice.
#[test]
fn unavailable_for_a_while() {
    let Some(host) = Host::ready() else { return };
    for transport in [Transport::Grpc, Transport::Http] {
        let app = apps::nginx(Setup::named("served"));
        let collector = Collector::start();
        collector.set_fault(Fault::Unavailable);
        let tracer = Tracer::start_with(&Selection::of(&[&app]), collector, transport);
        let records = drive(app.port, 4, 0..500, |client, n| {
            client.get(&format!("/hello/{n}"))
        });
        let refused = || tracer.collector.requests() > 0;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !refused() && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(refused(), "the daemon tries to export");
        tracer.collector.set_fault(Fault::None);
        tracer
            .collector
            .wait_until(Duration::from_secs(30), "everything is sent again", |spans| {
                spans.len() >= records.len()
            });
        let finished = tracer.finish();
        assert_served(&finished.spans, &app.service, &records);
    }
    drop(host);
}

/// The back end takes its time: the daemon waits, clients do not.
#[test]
fn slow() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let collector = Collector::start();
    collector.set_fault(Fault::Slow(Duration::from_millis(200)));
    let tracer = Tracer::start_with(&Selection::of(&[&app]), collector, Transport::Grpc);
    let records = drive(app.port, 8, 0..2000, |client, n| {
        client.get(&format!("/hello/{n}"))
    });
    let finished = tracer.finish();
    assert_served(&finished.spans, &app.service, &records);
    drop(host);
}

/// Nobody listens: the daemon stops within its time-out, what it could not send is counted, its memory stays where it was.
#[test]
fn down() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let collector = Collector::start();
    collector.set_fault(Fault::Unavailable);
    let tracer = Tracer::start_with(&Selection::of(&[&app]), collector, Transport::Grpc);
    // Fast enough to fill the export queue, slow enough that the rings never are.
    let unhurried = |client: &mut Client, n: u64| {
        std::thread::sleep(Duration::from_micros(400));
        client.get(&format!("/hello/{n}"))
    };
    let warm = drive(app.port, 4, 0..10_000, unhurried).len();
    let before = tracer.rss();
    let more = drive(app.port, 4, 0..20_000, unhurried).len();
    let grown = tracer.rss().saturating_sub(before);
    assert!(grown < 100 << 20, "memory grew by {} MiB", grown >> 20);
    let finished = tracer.finish_with_drops(&["export_failed", "export_queue_full", "shutdown"]);
    assert_eq!(finished.spans.len(), 0, "the back end took nothing");
    let counted = finished.ledger.dropped_total() - finished.ledger.dropped("not_selected");
    assert_eq!(
        counted,
        (warm + more) as i64,
        "every exchange is counted as dropped: {:?}",
        finished.ledger
    );
    drop(host);
}
