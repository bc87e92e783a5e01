//! The reader's thread: rings -> pipeline, and the housekeeping between two turns.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::pipeline::Pipeline;
use super::selection::People;
use super::{HOUSEKEEPING, stop};
use crate::attach::Capture;
use crate::source::{Source, monotonic};
use crate::telemetry::Ledger;

/// Drains the rings until it is asked to stop.
pub struct Reader {
    source: Source,
    pipeline: Pipeline<People>,
    people: People,
    ledger: Arc<Ledger>,
    malformed: u64,
    next_housekeeping: Instant,
}

impl Reader {
    /// A reader that has read nothing.
    pub fn new(source: Source, pipeline: Pipeline<People>, people: People, ledger: Arc<Ledger>) -> Self {
        Self {
            source,
            pipeline,
            people,
            ledger,
            malformed: 0,
            next_housekeeping: Instant::now(),
        }
    }

    /// Reads until a stop is requested or nobody is left to read the spans.
    pub fn run(&mut self, capture: &mut Capture, stop: &stop::Requests) -> anyhow::Result<()> {
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
                capture.flush_log();
                if self.pipeline.nobody_reads() {
                    return Ok(());
                }
            }
            self.source.wait(drained.pause).context("waiting for events")?;
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
