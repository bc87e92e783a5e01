//! Chunks of nginx and wrk, both ends, through flow -> protocol -> correlate -> OTLP encode in one thread, as fast as they go.
//! `cargo xtask bench pipeline` runs it; it prints one JSON object.

use std::sync::Arc;

use hashbrown::HashMap;
use tracer_userspace::agent::{Lane, Selects};
use tracer_userspace::correlate::{self, Correlator};
use tracer_userspace::export::{Clock, Encoding};
use tracer_userspace::model::{Conn, Nanos, Resource, Service, Span};
use tracer_userspace::telemetry::Ledger;

mod allocations;
mod traffic;

use traffic::Traffic;

/// Events in one drain of the rings: two milliseconds at 15,000 requests a second.
const DRAIN: usize = 128;
/// Spans in one request of the exporter.
const BATCH: usize = 512;

/// Every connection is selected and every process lives.
#[derive(Clone)]
struct All;

impl Selects for All {
    fn selects(&self, _conn: &Conn) -> bool {
        true
    }

    fn is_alive(&self, _tgid: u32) -> bool {
        true
    }

    fn introduce(&self, _tgid: u32, _thread: &str) {}
}

/// The stages, as the daemon joins them where there is one worker.
struct Stages {
    lane: Lane<All>,
    correlator: Correlator,
    services: HashMap<u32, Arc<Service>>,
    encoding: Encoding,
    spans: Vec<Span>,
    waiting: usize,
    exported: u64,
    encoded_bytes: u64,
    events: u64,
}

impl Stages {
    fn new() -> Self {
        let ledger = Arc::new(Ledger::default());
        Self {
            lane: Lane::new(0, All, Arc::clone(&ledger)),
            correlator: Correlator::new(correlate::Config::default(), ledger),
            services: HashMap::new(),
            encoding: Encoding::new(Clock::with_offset(1_700_000_000_000_000_000)),
            spans: Vec::new(),
            waiting: 0,
            exported: 0,
            encoded_bytes: 0,
            events: 0,
        }
    }

    /// Everything up to `watermark` has been handed to the lane.
    fn advance(&mut self, watermark: Nanos) {
        let services = &mut self.services;
        let mut service = |tgid| Arc::clone(services.entry(tgid).or_insert_with(|| Arc::new(service(tgid))));
        for signal in self.lane.signals().drain(..) {
            self.correlator.signal(signal, &mut service);
        }
        self.correlator.advance(watermark, &mut self.spans);
        for span in self.spans.drain(..) {
            self.encoding.push(&span);
            self.waiting += 1;
            if self.waiting == BATCH {
                self.encoded_bytes += self
                    .encoding
                    .finish()
                    .iter()
                    .map(|piece| piece.len() as u64)
                    .sum::<u64>();
                self.exported += BATCH as u64;
                self.waiting = 0;
            }
        }
    }

    /// Runs requests through; their spans may still be held at the end.
    fn run(&mut self, traffic: &mut Traffic, requests: u64) {
        let mut in_drain = 0;
        let mut served = 0;
        while served < requests {
            served += traffic.turn(|header, head, tail| {
                self.lane.event(header, head, tail);
                self.events += 1;
                in_drain += 1;
            });
            for (conn, policy) in self.lane.policies().drain(..) {
                traffic.apply(conn, policy);
            }
            if in_drain >= DRAIN {
                in_drain = 0;
                self.advance(traffic.now());
            }
        }
    }
}

/// A resource of the size that real ones have.
fn service(tgid: u32) -> Service {
    let name = if tgid == traffic::SERVER { "nginx" } else { "wrk" };
    let text = [
        ("service.name", name),
        ("service.instance.id", "4c3f8a52-0d3c-4b39-9a55-3e1bb0a6a6f1"),
        ("telemetry.sdk.name", "opentelemetry"),
        ("telemetry.sdk.language", "cpp"),
        ("telemetry.distro.name", "tracer"),
        ("host.name", "host-1"),
        ("host.arch", "amd64"),
        ("os.type", "linux"),
        ("process.executable.name", name),
    ];
    Service {
        name: name.into(),
        tgid,
        resource: Resource {
            text: text
                .iter()
                .map(|&(key, value)| (key.into(), value.into()))
                .collect(),
            ints: vec![("process.pid".into(), i64::from(tgid))],
            lists: Vec::new(),
        },
        selected: true,
        ..Service::default()
    }
}

/// CPU time of this process: on a machine that is shared, time that passes says more about the others.
fn cpu_seconds() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().ok());
    let (Some(Some(warm)), Some(Some(requests))) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: pipeline WARM-UP-REQUESTS REQUESTS");
        std::process::exit(2);
    };
    let mut traffic = Traffic::new(20);
    let mut stages = Stages::new();
    traffic.open(|header| stages.lane.event(header, &[], &[]));
    stages.run(&mut traffic, warm);
    let (exported, bytes, events) = (stages.exported, stages.encoded_bytes, stages.events);
    let before = allocations::total();
    let start = cpu_seconds();
    stages.run(&mut traffic, requests);
    let seconds = cpu_seconds() - start;
    let after = allocations::total();
    println!(
        "{{\"requests\":{requests},\"chunks\":{},\"spans\":{},\"encoded_bytes\":{},\"seconds\":{seconds},\"allocations\":{},\
         \"allocated_bytes\":{}}}",
        stages.events - events,
        stages.exported - exported,
        stages.encoded_bytes - bytes,
        after.0 - before.0,
        after.1 - before.1,
    );
}
