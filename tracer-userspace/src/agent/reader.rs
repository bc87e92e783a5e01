//! The reader's thread: rings -> pipeline, and the housekeeping between two turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::budget::{Budget, bpf_stats_enabled};
use super::pipeline::Pipeline;
use super::selection::People;
use super::{HOUSEKEEPING, stop};
use crate::attach::{Capture, ProgramStats};
use crate::source::{Source, monotonic};
use crate::telemetry::{Ledger, Program};

/// Drains the rings until it is asked to stop.
pub struct Reader {
    source: Source,
    pipeline: Pipeline<People>,
    people: People,
    ledger: Arc<Ledger>,
    malformed: u64,
    /// Somebody reads how the tracer is.
    is_watched: bool,
    next_housekeeping: Instant,
    budget: Option<Budget>,
}

impl Reader {
    /// A reader that has read nothing.
    pub fn new(
        source: Source,
        pipeline: Pipeline<People>,
        people: People,
        ledger: Arc<Ledger>,
        is_watched: bool,
        budget: Option<Budget>,
    ) -> Self {
        Self {
            source,
            pipeline,
            people,
            ledger,
            malformed: 0,
            is_watched,
            next_housekeeping: Instant::now(),
            budget,
        }
    }

    /// Reads until a stop is requested or nobody is left to read the spans.
    pub fn run(&mut self, capture: &mut Capture, stop: &stop::Requests) -> anyhow::Result<()> {
        capture.watch_loops(self.people.have_loops());
        eprintln!("tracer: ready");
        while !stop.is_requested() {
            let pipeline = &mut self.pipeline;
            let drained = self
                .source
                .drain(|header, head, tail| pipeline.event(header, head, tail));
            self.malformed += drained.malformed as u64;
            self.pipeline.advance(drained.watermark);
            if stop.take_report() {
                self.count(capture);
                eprintln!("{}", self.ledger.snapshot());
            }
            let now = Instant::now();
            if now >= self.next_housekeeping {
                self.next_housekeeping = now + HOUSEKEEPING;
                self.people.sweep();
                capture.watch_loops(self.people.have_loops());
                capture.follow_hand_offs();
                capture.place_probes();
                capture.flush_log();
                if let Some(budget) = &mut self.budget {
                    budget.look(capture, &self.ledger, bpf_stats_enabled() == Some(true));
                }
                if self.is_watched {
                    self.tell_health(capture);
                }
                if self.pipeline.nobody_reads() {
                    return Ok(());
                }
            }
            let nap = self.budget.as_mut().map(|budget| budget.take_turns(capture));
            let pause = nap.map_or(drained.pause, |nap| drained.pause.min(nap));
            self.source.wait(pause).context("waiting for events")?;
        }
        Ok(())
    }

    /// Detaches, drains what is left, flushes the exporters and prints the ledger.
    pub fn finish(mut self, mut capture: Capture, timeout: Duration) {
        capture.detach();
        let pipeline = &mut self.pipeline;
        let drained = self
            .source
            .drain_all(|header, head, tail| pipeline.event(header, head, tail));
        self.malformed += drained.malformed as u64;
        self.pipeline.advance(drained.watermark);
        self.count(&capture);
        match self.pipeline.finish(monotonic()) {
            Ok(exporters) => {
                let left = exporters.shutdown(timeout);
                tracing::debug!("after the flush: {left:?}");
            }
            Err(why) => tracing::error!("{why:#}"),
        }
        eprintln!("{}", self.ledger.snapshot());
    }

    fn tell_health(&self, capture: &Capture) {
        self.count(capture);
        let health = self.ledger.health();
        let (used, size) = self.source.fill();
        health.rings(used, size);
        if bpf_stats_enabled() == Some(true) {
            match capture.program_stats() {
                Ok(all) => health.set_programs(all.into_iter().map(program).collect()),
                Err(why) => tracing::debug!("what the programs cost can't be read: {why:#}"),
            }
        }
    }

    fn count(&self, capture: &Capture) {
        match capture.counters() {
            Ok(counters) => {
                for (name, total) in counters {
                    self.ledger.kernel(name, total);
                }
            }
            Err(why) => tracing::warn!("the kernel side's counters can't be read: {why:#}"),
        }
        self.ledger.kernel("malformed_events", self.malformed);
    }
}

fn program(stats: ProgramStats) -> Program {
    Program {
        name: stats.name,
        run_time: stats.run_time.as_nanos() as u64,
        runs: stats.run_count,
    }
}
