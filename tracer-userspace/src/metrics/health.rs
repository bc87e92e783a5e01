//! The tracer's own health as metrics: the loss ledger, its processor time and memory, its rings, queues and connections.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::instruments::SECOND;
use crate::model::{Bounds, Family, Gather, Instrument, InstrumentKind, Key, Label, Nanos, Point, Reading};
use crate::telemetry::{Delivered, Ledger};

macro_rules! instruments {
    ($($id:ident: $kind:ident $name:literal, $unit:literal, $scale:expr, $text:literal;)*) => {
        $(static $id: Instrument = Instrument {
            name: $name,
            unit: $unit,
            description: $text,
            kind: InstrumentKind::$kind,
            scale: $scale,
            bounds: &Bounds::new(&[]),
        };)*
        /// All of them, in the order in which they are told.
        pub static ALL: &[&Instrument] = &[$(&$id),*];
    };
}

instruments! {
    SEEN: Counter "tracer.exchange.seen", "{exchange}", 1, "Requests that were seen to begin.";
    EXPORTED: Counter "tracer.exchange.exported", "{exchange}", 1, "Exchanges whose spans every exporter has delivered.";
    DROPPED: Counter "tracer.exchange.dropped", "{exchange}", 1, "Exchanges that go no further, by reason.";
    OPEN: Gauge "tracer.exchange.open", "{exchange}", 1, "Exchanges that are neither exported nor dropped yet.";
    SAMPLING: Counter "tracer.sampling.overflowed", "{trace}", 1, "Traces on which the head sampler decided because too many waited for the tail sampler.";
    KERNEL: Counter "tracer.kernel.events", "{event}", 1, "Counters of the kernel side and of the way from there: events, most of them lost.";
    RING_USED: Gauge "tracer.ring.used", "By", 1, "Bytes that wait in the ring buffers between kernel and tracer.";
    RING_SIZE: Gauge "tracer.ring.size", "By", 1, "Bytes that the ring buffers hold.";
    QUEUE_USED: Gauge "tracer.export.queue.used", "{span}", 1, "Spans that an exporter holds.";
    QUEUE_SIZE: Gauge "tracer.export.queue.size", "{span}", 1, "Spans that an exporter holds at most.";
    SPILLED: Counter "tracer.exchange.spilled", "{exchange}", 1, "Exchanges that went to an exporter's disk queue.";
    DELIVERED: Counter "tracer.export.delivered", "{span}", 1, "Spans that an exporter's backend took.";
    FAILED: Counter "tracer.export.failed", "{span}", 1, "Spans that an exporter gave up.";
    STORED: Gauge "tracer.export.disk.stored", "{span}", 1, "Spans in an exporter's disk queue.";
    DISK_USED: Gauge "tracer.export.disk.used", "By", 1, "Bytes that an exporter's disk queue takes.";
    DISK_SIZE: Gauge "tracer.export.disk.size", "By", 1, "Bytes that an exporter's disk queue takes at most.";
    CONNECTIONS: Gauge "tracer.connection.open", "{connection}", 1, "Connections that are followed.";
    CPU: Counter "process.cpu.time", "s", 1_000_000, "Processor time of the tracer.";
    MEMORY: UpDownCounter "process.memory.usage", "By", 1, "Memory of the tracer in use (RSS).";
    BUDGET: Gauge "tracer.cpu.budget", "{cpu}", 1_000_000, "Cores that the tracer may use, if it has a budget.";
    USED: Gauge "tracer.cpu.used", "{cpu}", 1_000_000, "Cores that the tracer used in the last second, its kernel side included, if it has a budget.";
    KEPT: Gauge "tracer.shed.kept", "1", 1_000_000, "Share of the traces, and of the connections from outside, that is kept to stay within the budget.";
    BPF_TIME: Counter "tracer.bpf.run_time", "s", SECOND, "Time spent in a BPF program, while the kernel counts it (kernel.bpf_stats_enabled).";
    BPF_RUNS: Counter "tracer.bpf.runs", "{run}", 1, "Runs of a BPF program, while the kernel counts them.";
}

/// Reads the tracer's health.
pub struct Own {
    ledger: Arc<Ledger>,
    start: Nanos,
}

impl Own {
    /// Counts since `start`.
    #[must_use]
    pub fn new(ledger: Arc<Ledger>, start: Nanos) -> Self {
        Self { ledger, start }
    }

    fn family(&self, instrument: &'static Instrument, points: impl IntoIterator<Item = Told>) -> Family {
        let points = points.into_iter().map(|Told { labels, value }| Point {
            // Labels make these series: the same hash as long as the tracer runs.
            series: series(&labels),
            service: None,
            labels: labels.into(),
            start: self.start,
            value: Reading::Number(value),
        });
        Family {
            instrument,
            points: points.collect(),
        }
    }
}

struct Told {
    labels: Vec<(Key, Label)>,
    value: u64,
}

fn plain(value: u64) -> [Told; 1] {
    [Told {
        labels: Vec::new(),
        value,
    }]
}

fn one(key: Key, name: &str, value: u64) -> Told {
    Told {
        labels: vec![(key, Label::Text(name.into()))],
        value,
    }
}

/// FNV-1a (Fowler, Noll, Vo) over the labels.
fn series(labels: &[(Key, Label)]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for (key, label) in labels {
        let text = match label {
            Label::Text(text) => text,
            Label::Static(text) => *text,
            Label::Int(_) | Label::Bool(_) => "",
        };
        for byte in key.bytes().chain([0]).chain(text.bytes()).chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}

impl Gather for Own {
    fn gather(&self, _now: Nanos) -> Vec<Family> {
        let snapshot = self.ledger.snapshot();
        let health = self.ledger.health();
        let mut exported = Vec::new();
        let mut spilled = Vec::new();
        let mut dropped = Vec::new();
        for account in self.ledger.accounts() {
            exported.push(one("tracer.service", &account.service, account.exported));
            if account.spilled > 0 {
                spilled.push(one("tracer.service", &account.service, account.spilled));
            }
            for (reason, n) in account.dropped {
                let mut told = one("tracer.service", &account.service, n);
                told.labels
                    .push(("tracer.reason", Label::Static(reason.as_str())));
                dropped.push(told);
            }
        }
        let (user, system) = processor_time();
        let mode = |name, time: Duration| one("cpu.mode", name, time.as_micros() as u64);
        let (queues, disks) = (health.queues(), health.disks());
        let level = |levels: &[(&'static str, u64, u64)], value: fn(&(&'static str, u64, u64)) -> u64| {
            let told = levels.iter().map(|q| one("tracer.exporter", q.0, value(q)));
            told.collect::<Vec<_>>()
        };
        let exporter = |value: fn(&Delivered) -> Option<u64>| {
            let told = snapshot.exporters.iter();
            let told = told.filter_map(|(name, books)| Some(one("tracer.exporter", name, value(books)?)));
            told.collect::<Vec<_>>()
        };
        let budget = health.budget();
        let programs = health.programs();
        let kernel = snapshot
            .kernel
            .iter()
            .map(|(name, &n)| one("tracer.counter", name, n));
        let families = [
            self.family(&SEEN, plain(snapshot.seen)),
            self.family(&EXPORTED, exported),
            self.family(&DROPPED, dropped),
            self.family(&OPEN, plain(u64::try_from(snapshot.open()).unwrap_or(0))),
            self.family(&SAMPLING, plain(health.sampling_overflow.load(Relaxed))),
            self.family(&KERNEL, kernel),
            self.family(&RING_USED, plain(health.ring_used.load(Relaxed))),
            self.family(&RING_SIZE, plain(health.ring_size.load(Relaxed))),
            self.family(&QUEUE_USED, level(&queues, |q| q.1)),
            self.family(&QUEUE_SIZE, level(&queues, |q| q.2)),
            self.family(&SPILLED, spilled),
            self.family(&DELIVERED, exporter(|books| Some(books.delivered))),
            self.family(&FAILED, exporter(|books| Some(books.failed))),
            self.family(&STORED, exporter(|books| Some(books.disk?.stored()))),
            self.family(&DISK_USED, level(&disks, |q| q.1)),
            self.family(&DISK_SIZE, level(&disks, |q| q.2)),
            self.family(&CONNECTIONS, plain(health.connections.load(Relaxed))),
            self.family(&CPU, [mode("user", user), mode("system", system)]),
            self.family(&MEMORY, resident_bytes().map(plain).into_iter().flatten()),
            self.family(&BUDGET, budget.into_iter().flat_map(|b| plain(b.cores[0]))),
            self.family(&USED, budget.into_iter().flat_map(|b| plain(b.cores[1]))),
            self.family(
                &KEPT,
                budget.into_iter().flat_map(|b| {
                    let [traces, connections] = b.kept;
                    let kept = |what, value| one("tracer.shed.subject", what, value);
                    [kept("traces", traces), kept("connections", connections)]
                }),
            ),
            self.family(
                &BPF_TIME,
                programs
                    .iter()
                    .map(|p| one("tracer.program", &p.name, p.run_time)),
            ),
            self.family(
                &BPF_RUNS,
                programs.iter().map(|p| one("tracer.program", &p.name, p.runs)),
            ),
        ];
        families
            .into_iter()
            .filter(|family| !family.points.is_empty())
            .collect()
    }
}

/// Processor time of this process, in user and in system mode.
fn processor_time() -> (Duration, Duration) {
    // Fields 14 and 15 of proc_pid_stat(5), in ticks; the command in field 2 may hold blanks, so fields are counted behind it.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let mut fields = fields
        .split_whitespace()
        .skip(11)
        .map(|field| field.parse().unwrap_or(0));
    let mut next = || Duration::from_secs_f64(fields.next().unwrap_or(0) as f64 / ticks());
    (next(), next())
}

/// Ticks of a second (`USER_HZ`), 100 on every architecture that Linux still has.
fn ticks() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

/// Resident memory of this process (proc_pid_statm(5): pages in the second field).
fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::Reason;

    fn numbers(families: &[Family], name: &str) -> Vec<u64> {
        let family = families.iter().find(|family| family.instrument.name == name);
        family
            .into_iter()
            .flat_map(|family| &family.points)
            .map(|point| match point.value {
                Reading::Number(number) => number,
                _ => panic!("{name} is a number"),
            })
            .collect()
    }

    #[test]
    fn the_ledger_and_the_process_are_told() {
        let ledger = Arc::new(Ledger::default());
        ledger.seen(10);
        ledger.exported("a", 6);
        ledger.dropped(Some("a"), Reason::Malformed, 1);
        ledger.dropped(Some("b"), Reason::Malformed, 1);
        ledger.kernel("ring_full", 3);
        ledger.health().rings(5, 100);
        ledger.health().opened();
        ledger.health().set_budget(0.5, 0.25, 0.125, 1.0);
        ledger.health().watch_queue("otlp", Box::new(|| (4, 8)));
        ledger.health().watch_disk("otlp", Box::new(|| (16, 32)));
        ledger.spilled("c", 1);
        ledger.of_exporter("otlp", |books| {
            (books.delivered, books.failed) = (6, 2);
            books.disk.get_or_insert_default().spilled = 1;
        });
        let families = Own::new(Arc::clone(&ledger), 7).gather(8);
        for (name, expected) in [
            ("tracer.exchange.seen", vec![10]),
            ("tracer.exchange.exported", vec![6, 0, 0]),
            ("tracer.exchange.spilled", vec![1]),
            ("tracer.exchange.dropped", vec![1, 1]),
            ("tracer.exchange.open", vec![1]),
            ("tracer.kernel.events", vec![3]),
            ("tracer.ring.used", vec![5]),
            ("tracer.ring.size", vec![100]),
            ("tracer.export.queue.used", vec![4]),
            ("tracer.export.queue.size", vec![8]),
            ("tracer.export.delivered", vec![6]),
            ("tracer.export.failed", vec![2]),
            ("tracer.export.disk.stored", vec![1]),
            ("tracer.export.disk.used", vec![16]),
            ("tracer.export.disk.size", vec![32]),
            ("tracer.connection.open", vec![1]),
            ("tracer.cpu.budget", vec![500_000]),
            ("tracer.cpu.used", vec![250_000]),
            ("tracer.shed.kept", vec![125_000, 1_000_000]),
        ] {
            assert_eq!(numbers(&families, name), expected, "{name}");
        }
        assert!(numbers(&families, "process.memory.usage")[0] > 1 << 20);
        assert_eq!(numbers(&families, "process.cpu.time").len(), 2);
        let mut told: Vec<_> = families
            .iter()
            .flat_map(|f| f.points.iter().map(|p| (f.instrument.name, p.series)))
            .collect();
        let all = told.len();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), all, "series of a family are told apart");
    }
}
