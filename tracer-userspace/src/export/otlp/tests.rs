//! The exporter against a collector with the official types. In every case the ledger balances.

mod authority;
mod collector;
mod faults;
mod proxy;
mod queue;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opentelemetry_otlp::Protocol::{self, Grpc, HttpBinary, HttpJson};
use tonic::Code;

use self::authority::{Authority, File};
use self::collector::{Collector, Reply, Tls};
use crate::export::config::{Compression, Config, Headers, Otlp, Queue, Retry};
use crate::export::console::Screen;
use crate::export::fixtures::{self, EPOCH};
use crate::export::{Clock, Console, Format, Left, Pipeline};
use crate::telemetry::{Ledger, Reason, Snapshot};

const ALL: [Protocol; 3] = [Grpc, HttpBinary, HttpJson];
/// Far longer than anything here takes on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

fn config(protocol: Protocol, endpoint: String) -> Config {
    Config {
        otlp: Otlp {
            endpoint: Some(endpoint),
            protocol: Some(protocol),
            ..Otlp::default()
        },
        queue: Queue {
            batch_age: Duration::from_millis(5),
            ..Queue::default()
        },
        retry: Retry {
            initial: Duration::from_millis(5),
            max: Duration::from_millis(20),
            give_up: LONG,
        },
        ..Config::default()
    }
}

fn plain(collector: &Collector, protocol: Protocol) -> Config {
    config(protocol, format!("http://{}", collector.address))
}

struct Run {
    pipeline: Pipeline,
    ledger: Arc<Ledger>,
}

impl Run {
    fn new(config: &Config) -> Self {
        Self::with_output(config, Box::new(std::io::sink()))
    }

    fn with_output(config: &Config, output: Box<dyn Write + Send>) -> Self {
        let ledger = Arc::new(Ledger::default());
        let screen = Screen::detect(&config.console, false, &|_| None);
        let clock = Clock::with_offset(EPOCH);
        let pipeline = Pipeline::start_with(config, clock, Arc::clone(&ledger), output, screen).unwrap();
        Self { pipeline, ledger }
    }

    /// `n` spans, as one hand-over.
    fn send(&self, service: &str, n: usize) {
        self.ledger.seen(n as u64);
        self.pipeline
            .send(fixtures::spans(&fixtures::service(service), n));
    }

    fn until(&self, what: &str, done: impl Fn(&Snapshot) -> bool) {
        let deadline = Instant::now() + LONG;
        while !done(&self.ledger.snapshot()) {
            assert!(
                Instant::now() < deadline,
                "{what} never came: {}",
                self.ledger.snapshot()
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops; nothing may be left open.
    fn stop(self, timeout: Duration) -> (Snapshot, Left) {
        let left = self.pipeline.shutdown(timeout);
        let snapshot = self.ledger.snapshot();
        assert_eq!(snapshot.open(), 0, "{snapshot}");
        let sums = snapshot
            .services
            .values()
            .fold((0, 0, 0), |sum, s| (sum.0 + s.0, sum.1 + s.1, sum.2 + s.2));
        let dropped = snapshot.dropped.values().sum::<u64>();
        assert_eq!(sums, (snapshot.seen, snapshot.exported, dropped), "{snapshot}");
        (snapshot, left)
    }

    /// Stops and expects so many spans exported and so many dropped for a reason.
    #[track_caller]
    fn stop_with(self, exported: u64, dropped: &[(Reason, u64)]) {
        let (snapshot, _) = self.stop(LONG);
        assert_eq!(
            (snapshot.exported, snapshot.dropped),
            (exported, dropped.iter().copied().collect())
        );
    }
}

#[test]
fn spans_arrive_once_grouped_by_service() {
    for protocol in ALL {
        let collector = Collector::start(protocol, Tls::No);
        let mut config = plain(&collector, protocol);
        config.queue.batch_spans = 50;
        let run = Run::new(&config);
        for service in ["shop", "cart", "shop"] {
            run.send(service, 120);
        }
        run.stop_with(360, &[]);
        let spans = collector.spans();
        assert_eq!(spans.len(), 360);
        assert_eq!(
            spans
                .iter()
                .filter(|(service, _)| service.contains("shop"))
                .count(),
            240
        );
        let largest = collector.received(|all| {
            let spans = |r: &collector::Received| {
                r.request
                    .resource_spans
                    .iter()
                    .flat_map(|r| &r.scope_spans)
                    .map(|s| s.spans.len())
                    .sum::<usize>()
            };
            all.iter().map(spans).max()
        });
        assert_eq!(largest, Some(50), "{protocol:?}");
    }
}

#[test]
fn headers_and_compression() {
    for protocol in ALL {
        for compression in [Compression::Gzip, Compression::Zstd, Compression::None] {
            let collector = Collector::start(protocol, Tls::No);
            let mut config = plain(&collector, protocol);
            config.otlp.compression = compression;
            config.otlp.headers = Headers([("api-key".into(), "secret".into())].into());
            let run = Run::new(&config);
            run.send("shop", 100);
            run.stop_with(100, &[]);
            collector.received(|all| {
                let headers = &all[0].headers;
                assert_eq!(headers["api-key"], "secret");
                assert!(
                    headers["user-agent"].to_str().unwrap().contains("tracer/"),
                    "{headers:?}"
                );
                let name = if protocol == Grpc {
                    "grpc-encoding"
                } else {
                    "content-encoding"
                };
                let encoding = headers.get(name).map(|value| value.to_str().unwrap());
                assert_eq!(encoding.filter(|&name| name != "identity"), compression.name());
            });
            assert_eq!(collector.spans().len(), 100);
        }
    }
}

#[test]
fn the_environment_reaches_the_wire() {
    for (protocol, name) in [
        (Grpc, "grpc"),
        (HttpBinary, "http/protobuf"),
        (HttpJson, "http/json"),
    ] {
        let collector = Collector::start(protocol, Tls::No);
        let wrong = "http://127.0.0.1:1".to_owned();
        let right = match protocol {
            Grpc => format!("http://{}", collector.address),
            _ => format!("http://{}/v1/traces", collector.address),
        };
        let mut config = config(Grpc, wrong.clone());
        let env = |variable: &str| match variable {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => Some(wrong.clone()),
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some(right.clone()),
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL" => Some(name.to_owned()),
            "OTEL_EXPORTER_OTLP_HEADERS" => Some("a=all".to_owned()),
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS" => Some("a=for%20traces".to_owned()),
            _ => None,
        };
        config.apply_env(&env).unwrap();
        let run = Run::new(&config);
        run.send("shop", 1);
        run.stop_with(1, &[]);
        collector.received(|all| assert_eq!(all[0].headers["a"], "for traces"));
    }
}

#[test]
fn tls_with_an_own_authority() {
    let (ours, strange) = (Authority::new(), Authority::new());
    let (ours_file, strange_file) = (File::new(&ours.pem), File::new(&strange.pem));
    let (certificate, key) = ours.issue();
    let (certificate, key) = (File::new(&certificate), File::new(&key));
    for protocol in ALL {
        // (server, trusted authority, whether we show a certificate, whether spans arrive)
        for (tls, trusted, shows, arrives) in [
            (Tls::Server(&ours), &ours_file, false, true),
            (Tls::Server(&ours), &strange_file, false, false),
            (Tls::Mutual(&ours), &ours_file, true, true),
            (Tls::Mutual(&ours), &ours_file, false, false),
        ] {
            let collector = Collector::start(protocol, tls);
            let mut config = config(
                protocol,
                format!("https://localhost:{}", collector.address.port()),
            );
            config.otlp.certificate = Some(trusted.0.clone());
            config.otlp.client_certificate = shows.then(|| certificate.0.clone());
            config.otlp.client_key = shows.then(|| key.0.clone());
            config.retry.give_up = Duration::from_millis(if arrives { 60_000 } else { 50 });
            let run = Run::new(&config);
            run.send("shop", 3);
            match arrives {
                true => run.stop_with(3, &[]),
                false => run.stop_with(0, &[(Reason::ExportFailed, 3)]),
            }
            assert_eq!(
                collector.spans().len(),
                if arrives { 3 } else { 0 },
                "{protocol:?}"
            );
        }
    }
}

#[test]
fn certificates_that_cannot_be_used_are_told_at_the_start() {
    let junk = File::new("junk");
    let (absent, present) = (Some("/nonexistent.pem".into()), Some(junk.0.clone()));
    for (otlp, part) in [
        (
            Otlp {
                certificate: absent.clone(),
                ..Otlp::default()
            },
            "cannot read certificate `/nonexistent.pem`",
        ),
        (
            Otlp {
                certificate: present.clone(),
                ..Otlp::default()
            },
            "holds no PEM block",
        ),
        (
            Otlp {
                client_key: present.clone(),
                ..Otlp::default()
            },
            "without client_certificate",
        ),
        (
            Otlp {
                client_certificate: present.clone(),
                ..Otlp::default()
            },
            "without client_key",
        ),
    ] {
        for protocol in ALL {
            let endpoint = Some("https://localhost:1".into());
            let otlp = Otlp {
                endpoint,
                protocol: Some(protocol),
                ..otlp.clone()
            };
            let config = Config {
                otlp,
                ..Config::default()
            };
            let error = Pipeline::start(&config, Clock::with_offset(0), Arc::default())
                .map(drop)
                .unwrap_err();
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
}

#[test]
fn failures_that_may_pass_are_tried_again() {
    use Code::{Aborted, Cancelled, DataLoss, DeadlineExceeded, OutOfRange, Unavailable};
    let grpc = [
        Cancelled,
        DeadlineExceeded,
        Aborted,
        OutOfRange,
        Unavailable,
        DataLoss,
    ]
    .map(|code| Reply::Grpc(code, None));
    let http = [429, 502, 503, 504].map(|status| Reply::Http(status, "", "busy"));
    for (protocol, replies) in [
        (Grpc, grpc.to_vec()),
        (HttpBinary, http.to_vec()),
        (HttpJson, http.to_vec()),
    ] {
        let collector = Collector::start(protocol, Tls::No);
        let tries = replies.len() + 1;
        collector.script(replies);
        let run = Run::new(&plain(&collector, protocol));
        run.send("shop", 7);
        run.until("the spans", |s| s.exported == 7);
        run.stop_with(7, &[]);
        assert_eq!(collector.received(<[_]>::len), tries);
    }
}

#[test]
fn the_backend_says_when_to_come_back() {
    let waits = [
        (Grpc, Reply::Grpc(Code::ResourceExhausted, Some(400)), 400),
        (Grpc, Reply::Grpc(Code::Unavailable, Some(300)), 300),
        (HttpBinary, Reply::Http(429, "1", ""), 1000),
        (HttpBinary, Reply::Http(503, "1", ""), 1000),
    ];
    for (protocol, reply, millis) in waits {
        let collector = Collector::start(protocol, Tls::No);
        collector.script([reply]);
        let run = Run::new(&plain(&collector, protocol));
        run.send("shop", 2);
        // Stopping does not cut short a wait that the backend asked for.
        run.stop_with(2, &[]);
        let waited = collector.received(|all| all[1].at - all[0].at);
        assert!(
            waited >= Duration::from_millis(millis),
            "{protocol:?}: {waited:?}"
        );
    }
}

#[test]
fn refusals_are_final() {
    let grpc = [
        Code::InvalidArgument,
        Code::Unauthenticated,
        Code::Unimplemented,
        Code::Internal,
        Code::ResourceExhausted,
    ]
    .map(|code| (Grpc, Reply::Grpc(code, None)));
    let http = [400, 401, 404, 500, 302].map(|status| (HttpBinary, Reply::Http(status, "", "no")));
    for (protocol, reply) in grpc.into_iter().chain(http) {
        let collector = Collector::start(protocol, Tls::No);
        collector.script([reply]);
        let run = Run::new(&plain(&collector, protocol));
        run.send("shop", 2);
        run.stop_with(0, &[(Reason::ExportFailed, 2)]);
        assert_eq!(collector.received(<[_]>::len), 1);
    }
}

#[test]
fn what_is_too_large_is_sent_in_halves() {
    // (spans that the receiver takes at once, requests, spans that arrive)
    for (limit, requests, arrive) in [(100, 1, 11), (6, 3, 11), (3, 7, 11), (1, 21, 11), (0, 21, 0)] {
        for protocol in ALL {
            let collector = Collector::start(protocol, Tls::No);
            collector.always(Reply::AtMost(limit));
            let run = Run::new(&plain(&collector, protocol));
            let mut spans = fixtures::spans(&fixtures::service("shop"), 7);
            let more = fixtures::spans(&fixtures::service("cart"), 11);
            spans.extend(more.into_iter().skip(7));
            run.ledger.seen(11);
            run.pipeline.send(spans);
            let drops = [(Reason::ExportFailed, 11 - arrive)];
            run.stop_with(arrive, if arrive < 11 { &drops } else { &[] });
            assert_eq!(collector.received(<[_]>::len), requests, "{protocol:?}, {limit}");
        }
    }
}

#[test]
fn a_partial_success_is_counted() {
    for protocol in ALL {
        for (rejected, dropped) in [(3, 3), (10, 10), (1000, 10), (0, 0), (-5, 0)] {
            let collector = Collector::start(protocol, Tls::No);
            collector.script([Reply::Partial(rejected, "too old")]);
            let run = Run::new(&plain(&collector, protocol));
            run.send("shop", 10);
            let drops = [(Reason::ExportFailed, dropped)];
            run.stop_with(10 - dropped, if dropped > 0 { &drops } else { &[] });
            assert_eq!(
                collector.received(<[_]>::len),
                1,
                "a partial success is never sent again"
            );
        }
    }
}

#[test]
fn a_backend_that_comes_back_gets_everything() {
    for protocol in ALL {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let run = Run::new(&config(protocol, format!("http://{address}")));
        for _ in 0..20 {
            run.send("shop", 10);
        }
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(run.ledger.snapshot().open(), 200, "nothing is given up");
        let collector = Collector::start_at(address, protocol, Tls::No);
        run.until("the spans", |s| s.exported == 200);
        drop(collector);
        run.stop_with(200, &[]);
    }
}

#[test]
fn a_silent_backend_costs_spans_and_no_memory() {
    for protocol in ALL {
        let collector = Collector::start(protocol, Tls::No);
        collector.always(Reply::Hang);
        let mut config = plain(&collector, protocol);
        config.queue.max_spans = 1000;
        config.queue.batch_spans = 100;
        config.otlp.timeout = LONG;
        let run = Run::new(&config);
        for _ in 0..50 {
            run.send("shop", 100);
        }
        assert_eq!(
            run.ledger.snapshot().dropped,
            [(Reason::ExportQueueFull, 4000)].into()
        );
        run.until("a request", |_| collector.received(<[_]>::len) > 0);
        let started = Instant::now();
        let (snapshot, left) = run.stop(Duration::from_millis(100));
        assert!(started.elapsed() < LONG, "stopping does not wait for the backend");
        assert_eq!(left, Left { spans: 1000 });
        let dropped = [(Reason::ExportQueueFull, 4000), (Reason::Shutdown, 1000)];
        assert_eq!(snapshot.dropped, dropped.into());
    }
}

#[test]
fn the_queue_is_bounded_in_bytes_and_gives_room_back() {
    let collector = Collector::start(HttpBinary, Tls::No);
    let mut config = plain(&collector, HttpBinary);
    config.queue.max_bytes = 200_000;
    let run = Run::new(&config);
    run.send("shop", 1000);
    assert_eq!(
        run.ledger.snapshot().dropped,
        [(Reason::ExportQueueFull, 1000)].into(),
        "more than fits at once"
    );
    for round in 1..=30 {
        run.send("shop", 100);
        run.until("room", |s| s.exported == round * 100);
    }
    run.stop_with(3000, &[(Reason::ExportQueueFull, 1000)]);
}

#[test]
fn a_slow_answer_is_a_failure_that_may_pass() {
    for protocol in ALL {
        let collector = Collector::start(protocol, Tls::No);
        collector.script([Reply::Hang]);
        let mut config = plain(&collector, protocol);
        config.otlp.timeout = Duration::from_millis(500);
        let run = Run::new(&config);
        run.send("shop", 2);
        run.until("the spans", |s| s.exported == 2);
        run.stop_with(2, &[]);
        assert_eq!(collector.received(<[_]>::len), 2);
    }
}

#[test]
fn a_web_server_is_no_backend() {
    for (kind, body, dropped) in [
        ("text/html", "<!doctype html><title>hello</title>", 2),
        ("application/x-protobuf", "\u{7}garbage", 2),
        ("application/json", "{}", 0),
        ("text/plain", "", 0),
    ] {
        let collector = Collector::start(HttpBinary, Tls::No);
        collector.script([Reply::Page(kind, body)]);
        let run = Run::new(&plain(&collector, HttpBinary));
        run.send("shop", 2);
        let drops = [(Reason::ExportFailed, dropped)];
        run.stop_with(2 - dropped, if dropped > 0 { &drops } else { &[] });
    }
}

#[test]
fn garbage_is_survived() {
    let answers: [&'static [u8]; 4] = [
        b"",
        b"\0\0\0\0\xff\xff\xff\xff",
        b"HTTP/1.1 999999 what\r\n\r\n",
        b"\x16\x03\x01 not http at all\r\n\r\n",
    ];
    for protocol in ALL {
        for answer in answers {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            // Ends with the test's process.
            std::thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let _ = stream.read(&mut [0; 1024]);
                    let _ = stream.write_all(answer);
                }
            });
            let mut config = config(protocol, format!("http://{address}"));
            config.retry.give_up = Duration::from_millis(30);
            let run = Run::new(&config);
            run.send("shop", 4);
            run.stop_with(0, &[(Reason::ExportFailed, 4)]);
        }
    }
}

#[test]
fn with_two_exporters_a_span_counts_once() {
    struct Broken;
    impl Write for Broken {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    // (console format, stdout works, backend works) -> (exported, dropped)
    for (format, stdout, backend, exported) in [
        (Format::Json, true, true, 6),
        (Format::Json, false, true, 0),
        (Format::Json, true, false, 0),
        (Format::Json, false, false, 0),
        // Beside OTLP the waterfall is a view.
        (Format::Waterfall, true, true, 6),
        (Format::Waterfall, false, true, 6),
        (Format::Waterfall, true, false, 0),
    ] {
        let collector = Collector::start(HttpBinary, Tls::No);
        if !backend {
            collector.always(Reply::Http(400, "", ""));
        }
        let mut config = plain(&collector, HttpBinary);
        config.console = Console {
            enabled: Some(true),
            format,
            ..Console::default()
        };
        let output: Box<dyn Write + Send> = if stdout {
            Box::new(std::io::sink())
        } else {
            Box::new(Broken)
        };
        let run = Run::with_output(&config, output);
        run.send("shop", 4);
        run.send("cart", 2);
        let drops = [(Reason::ExportFailed, 6 - exported)];
        run.stop_with(exported, if exported < 6 { &drops } else { &[] });
    }
}
