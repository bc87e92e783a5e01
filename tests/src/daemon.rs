//! The daemon under test.

use std::process::Command;
use std::time::Duration;

use crate::apps::{App, NO_PORT};
use crate::collector::{Collector, Transport};
use crate::host;
use crate::ledger::Ledger;
use crate::metrics::Point;
use crate::process::{Program, TempDir};
use crate::span::Spans;

/// What the daemon is told to trace, so that a test does not see the rest of the machine.
#[derive(Clone, Default, Debug)]
pub struct Selection {
    arguments: Vec<String>,
    launcher: Vec<String>,
}

impl Selection {
    /// Connections with one of the ports of the apps, and of what was started for them, at either end, whoever holds that end, except the test's own clients.
    /// Where one of them has no port, all connections of their processes.
    #[must_use]
    pub fn of(apps: &[&App]) -> Self {
        let others = apps.iter().flat_map(|app| &app.others);
        let all: Vec<&App> = apps.iter().copied().chain(others).collect();
        let by_pid = all.iter().any(|app| app.port == NO_PORT);
        all.iter()
            .fold(Self::default(), |selection, app| match by_pid {
                true => selection.pid(app.program.pid()),
                false => selection.port(app.port),
            })
            .without_test()
    }

    /// Not the test itself, whose clients would give spans too.
    #[must_use]
    pub fn without_test(self) -> Self {
        self.with("--exclude-pid", &std::process::id().to_string())
    }

    /// Also connections with that port at either end.
    #[must_use]
    pub fn port(self, port: u16) -> Self {
        self.with("--include-port", &port.to_string())
    }

    /// Only that process and its workers (and others named so).
    #[must_use]
    pub fn pid(self, pid: u32) -> Self {
        self.with("--include-pid", &pid.to_string())
    }

    /// Any other argument of the daemon.
    #[must_use]
    pub fn with(mut self, flag: &str, value: &str) -> Self {
        self.arguments.extend([flag.to_owned(), value.to_owned()]);
        self
    }

    /// Started by that command, which gets the daemon and its arguments as its own last ones.
    #[must_use]
    pub fn launched_by(mut self, command: &[&str]) -> Self {
        self.launcher = command.iter().map(|&word| word.to_owned()).collect();
        self
    }

    /// The arguments, for a daemon that is started by other means.
    #[must_use]
    pub fn arguments(&self) -> &[String] {
        &self.arguments
    }
}

/// A running daemon and the collector that it exports to.
pub struct Tracer {
    program: Program,
    /// Where it exports to.
    pub collector: Collector,
}

/// What a stopped daemon leaves.
pub struct Finished {
    /// Everything that arrived at the collector.
    pub spans: Spans,
    /// Points of metrics that arrived there.
    pub points: Vec<Point>,
    /// The last ledger.
    pub ledger: Ledger,
    /// What the daemon printed.
    pub output: String,
}

/// Holds all that any test makes: they count every exchange exactly while clients, servers, collector and a hardly optimised daemon
/// compete for the processors of a test machine. What the default holds is the benches' subject.
const RING_BYTES: &str = "16777216";

impl Tracer {
    /// Starts it and waits until it says that it is attached.
    #[must_use]
    pub fn start(selection: &Selection, transport: Transport) -> Self {
        Self::start_with(selection, Collector::start(), transport)
    }

    /// The same, with a collector that is there already.
    #[must_use]
    pub fn start_with(selection: &Selection, collector: Collector, transport: Transport) -> Self {
        let protocol = match transport {
            Transport::Grpc => "grpc",
            Transport::Http => "http/protobuf",
        };
        let daemon = host::daemon_binary();
        let mut command = match selection.launcher.split_first() {
            Some((program, arguments)) => {
                let mut launcher = Command::new(program);
                launcher.args(arguments).arg(daemon);
                launcher
            }
            None => Command::new(daemon),
        };
        if !selection.arguments.iter().any(|argument| argument == "--capture") {
            command.args(host::wanted_backend().iter().flat_map(|name| ["--capture", name]));
        }
        command
            .args(["--ring-bytes", RING_BYTES])
            .args(&selection.arguments)
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", collector.endpoint())
            .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol);
        let program = Program::spawn("tracer", TempDir::new("tracer"), &mut command)
            .until("says `tracer: ready`", |log| {
                log.lines().any(|line| line.trim() == "tracer: ready")
            });
        Self { program, collector }
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn rss(&self) -> u64 {
        self.program.rss()
    }

    /// What it has printed so far.
    #[must_use]
    pub fn output(&self) -> String {
        self.program.output()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.program.signal(signal);
    }

    /// Kills it with SIGKILL; what it exported before stays in the collector, which is handed back.
    #[must_use]
    pub fn kill(self) -> Collector {
        let Self {
            mut program,
            collector,
        } = self;
        program.signal(libc::SIGKILL);
        program.wait(Duration::from_secs(10));
        collector
    }

    /// Stops it with SIGTERM and asserts that the ledger balances, that nothing was dropped, and that what it counts as
    /// exported is what arrived.
    ///
    /// # Panics
    /// If one of these does not hold, or it does not stop in time.
    #[must_use]
    pub fn finish(self) -> Finished {
        self.finish_with_drops(&[])
    }

    /// The same, where exchanges may be dropped for `reasons`.
    ///
    /// # Panics
    /// As [`Self::finish`].
    #[must_use]
    pub fn finish_with_drops(mut self, reasons: &[&str]) -> Finished {
        self.program.signal(libc::SIGTERM);
        let status = self.program.wait(Duration::from_secs(30));
        let output = self.program.output();
        assert!(status.success(), "the daemon ended with {status}:\n{output}");
        let ledger = Ledger::last_in(&output).unwrap_or_else(|| panic!("no ledger in the output:\n{output}"));
        let spans = self.collector.spans();
        if let Some(problem) = ledger.imbalance() {
            panic!("the ledger does not balance: {problem}: {ledger:?}");
        }
        for (reason, n) in &ledger.dropped {
            assert!(
                *n == 0 || reason == "not_selected" || reasons.contains(&reason.as_str()),
                "{n} exchanges dropped: {reason}; {ledger:?}; arrived:\n{spans}"
            );
        }
        assert_eq!(
            ledger.exported + ledger.of_exporter("otlp", "restored"),
            spans.len() as i64,
            "the ledger's exported and restored against what arrived; {ledger:?}"
        );
        let mut ids: Vec<_> = spans.iter().map(|span| &span.span_id).collect();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), spans.len(), "span ids are unique");
        Finished {
            spans,
            points: self.collector.points(),
            ledger,
            output,
        }
    }
}
