//! The disk queue: nothing is lost or doubled by a backend that is away or a daemon that is restarted, and the books balance.

use std::path::PathBuf;

use super::*;
use crate::telemetry::Disk;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-queue-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    /// The files of requests.
    fn files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.0.join("otlp")).unwrap();
        let mut files: Vec<_> = files
            .map(|file| file.unwrap().path())
            .filter(|path| path.extension().is_some_and(|end| end == "request"))
            .collect();
        files.sort();
        files
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn with_queue(collector: &Collector, protocol: Protocol, folder: &Folder) -> Config {
    let mut config = plain(collector, protocol);
    config.queue.dir = Some(folder.0.clone());
    config
}

fn disk(snapshot: &Snapshot) -> Disk {
    snapshot.exporters["otlp"].disk.unwrap()
}

/// Stops. Everything that the exporter was given, now or by an earlier run, was delivered, given up or is on the disk.
#[track_caller]
fn stop(run: Run, timeout: Duration) -> Snapshot {
    let (snapshot, _) = run.stop(timeout);
    let books = snapshot.exporters["otlp"];
    let disk = books.disk.unwrap();
    let unsent = snapshot.dropped.get(&Reason::Shutdown).copied().unwrap_or(0);
    assert_eq!(
        snapshot.seen + disk.found,
        books.delivered + books.failed + disk.stored() + unsent,
        "{snapshot}"
    );
    snapshot
}

/// Sends `n` spans in hand-overs of ten. Their ids go on where those before ended.
fn send(run: &Run, from: u64, n: u64) {
    for first in (from..from + n).step_by(10) {
        let mut spans = fixtures::spans(&fixtures::service("shop"), 10);
        for (span, number) in spans.iter_mut().zip(first + 1..) {
            span.span_id = crate::model::SpanId(number.to_be_bytes());
        }
        run.ledger.seen(10);
        run.pipeline.send(spans);
    }
}

/// Every id from 1 to `n` came, and came once.
#[track_caller]
fn assert_once(collectors: &[&Collector], n: u64) {
    let spans = collectors.iter().flat_map(|collector| collector.spans());
    let mut ids: Vec<_> = spans
        .map(|(_, id)| u64::from_be_bytes(id.try_into().unwrap()))
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (1..=n).collect::<Vec<_>>());
}

#[test]
fn what_waits_for_a_backend_survives_restarts() {
    for protocol in ALL {
        let folder = Folder::new(&format!("restart-{protocol:?}"));
        let away = Collector::start(protocol, Tls::No);
        away.always(match protocol {
            Grpc => Reply::Grpc(Code::Unavailable, None),
            _ => Reply::Http(503, "", ""),
        });
        for round in 0..2 {
            let run = Run::new(&with_queue(&away, protocol, &folder));
            send(&run, round * 100, 100);
            run.until("all on the disk", |s| s.spilled == 100);
            let snapshot = stop(run, LONG);
            assert_eq!((snapshot.exported, disk(&snapshot).found), (0, round * 100));
            assert_eq!(disk(&snapshot).stored(), (round + 1) * 100);
        }
        let back = Collector::start(protocol, Tls::No);
        let run = Run::new(&with_queue(&back, protocol, &folder));
        send(&run, 200, 50);
        run.until("everything", |s| {
            s.exporters
                .get("otlp")
                .is_some_and(|books| books.delivered == 250)
        });
        let snapshot = stop(run, LONG);
        let expected = Disk {
            found: 200,
            spilled: 0,
            restored: 200,
            lost: 0,
        };
        assert_eq!((snapshot.exported, disk(&snapshot)), (50, expected));
        // Spans of the rejecting collector were seen there, and not taken.
        assert_once(&[&back], 250);
        assert!(folder.files().is_empty());
    }
}

#[test]
fn a_backend_that_comes_back_gets_what_waits_on_the_disk() {
    for protocol in ALL {
        let folder = Folder::new(&format!("back-{protocol:?}"));
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut config = config(protocol, format!("http://{address}"));
        config.queue.dir = Some(folder.0.clone());
        let run = Run::new(&config);
        send(&run, 0, 200);
        run.until("all on the disk", |s| s.spilled == 200);
        let collector = Collector::start_at(address, protocol, Tls::No);
        run.until("everything", |s| s.exporters["otlp"].delivered == 200);
        // Now that it takes spans, they go there directly.
        send(&run, 200, 100);
        run.until("the rest", |s| s.exported == 100);
        let snapshot = stop(run, LONG);
        assert_eq!(
            disk(&snapshot),
            Disk {
                found: 0,
                spilled: 200,
                restored: 200,
                lost: 0
            }
        );
        assert_once(&[&collector], 300);
    }
}

/// Nobody knows whether a backend that does not answer got the spans: they are kept. It is the only case in which they may come twice.
#[test]
fn what_has_no_answer_when_the_daemon_stops_is_kept() {
    for protocol in ALL {
        let folder = Folder::new(&format!("silent-{protocol:?}"));
        let silent = Collector::start(protocol, Tls::No);
        silent.always(Reply::Hang);
        let mut config = with_queue(&silent, protocol, &folder);
        config.queue.batch_spans = 50;
        config.otlp.timeout = LONG;
        let run = Run::new(&config);
        send(&run, 0, 500);
        run.until("requests", |_| silent.received(<[_]>::len) == 4);
        let snapshot = stop(run, Duration::from_secs(2));
        assert_eq!((snapshot.spilled, snapshot.dropped.len()), (500, 0), "{snapshot}");
        let back = Collector::start(protocol, Tls::No);
        let run = Run::new(&with_queue(&back, protocol, &folder));
        run.until("everything", |s| {
            s.exporters
                .get("otlp")
                .is_some_and(|books| books.delivered == 500)
        });
        stop(run, LONG);
        assert_once(&[&back], 500);
    }
}

#[test]
fn what_memory_does_not_hold_goes_to_the_disk() {
    let folder = Folder::new("memory");
    let silent = Collector::start(HttpBinary, Tls::No);
    silent.always(Reply::Hang);
    let mut config = with_queue(&silent, HttpBinary, &folder);
    config.queue.max_spans = 1000;
    config.queue.batch_spans = 100;
    config.otlp.timeout = LONG;
    let run = Run::new(&config);
    for first in (0..5000).step_by(100) {
        // No faster than the disk is.
        run.until("room", |s| s.open() < 700);
        send(&run, first, 100);
    }
    let snapshot = stop(run, Duration::from_secs(2));
    assert_eq!(
        (snapshot.spilled, snapshot.dropped.len()),
        (5000, 0),
        "{snapshot}"
    );
}

#[test]
fn the_bound_of_the_disk_holds() {
    let folder = Folder::new("bound");
    let away = Collector::start(HttpBinary, Tls::No);
    away.always(Reply::Http(503, "", ""));
    let mut config = with_queue(&away, HttpBinary, &folder);
    config.queue.batch_spans = 10;
    // Room for three small requests.
    config.queue.disk_bytes = 3 * 4096;
    config.queue.max_spans = 100;
    let run = Run::new(&config);
    send(&run, 0, 500);
    run.until("a full disk", |s| disk(s).spilled == 30);
    let snapshot = stop(run, Duration::from_millis(300));
    assert_eq!((snapshot.spilled, folder.files().len()), (30, 3), "{snapshot}");
    assert_eq!(snapshot.dropped.values().sum::<u64>(), 470, "{snapshot}");
}

#[test]
fn what_the_disk_held_may_be_too_large_refused_or_damaged() {
    let folder = Folder::new("refused");
    let away = Collector::start(HttpBinary, Tls::No);
    away.always(Reply::Http(503, "", ""));
    let mut config = with_queue(&away, HttpBinary, &folder);
    config.queue.batch_spans = 10;
    let run = Run::new(&config);
    send(&run, 0, 50);
    run.until("all on the disk", |s| s.spilled == 50);
    stop(run, LONG);
    let files = folder.files();
    assert_eq!(files.len(), 5);
    let torn = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &torn[..torn.len() / 2]).unwrap();
    let back = Collector::start(HttpBinary, Tls::No);
    // The first is taken in part, the second is damaged, the third refused. Of the fourth the backend takes one half, then it is
    // away once more; nobody gets anything twice.
    back.script([
        Reply::Partial(4, "no"),
        Reply::Http(400, "", ""),
        Reply::Http(413, "", ""),
        Reply::Take,
        Reply::Http(503, "", ""),
    ]);
    let run = Run::new(&with_queue(&back, HttpBinary, &folder));
    run.until("everything", |s| {
        s.exporters
            .get("otlp")
            .is_some_and(|books| books.delivered + books.failed == 50)
    });
    let snapshot = stop(run, LONG);
    let expected = Disk {
        found: 50,
        spilled: 0,
        restored: 26,
        lost: 24,
    };
    assert_eq!(disk(&snapshot), expected, "{snapshot}");
    assert!(folder.files().is_empty());
}

#[test]
fn an_exporter_whose_backend_is_away_does_not_hurt_the_others() {
    let folder = Folder::new("two");
    let (good, away) = (
        Collector::start(HttpBinary, Tls::No),
        Collector::start(Grpc, Tls::No),
    );
    away.always(Reply::Grpc(Code::Unavailable, None));
    let mut config = with_queue(&good, HttpBinary, &folder);
    config
        .choose(&[format!("jaeger=http://{}", away.address)])
        .unwrap();
    let run = Run::new(&config);
    send(&run, 0, 100);
    run.until("both", |s| s.spilled == 100);
    let (snapshot, _) = run.stop(LONG);
    assert_eq!(snapshot.exporters["otlp"].delivered, 100);
    assert_eq!(snapshot.exporters["jaeger"].disk.unwrap().stored(), 100);
    assert_once(&[&good], 100);
}
