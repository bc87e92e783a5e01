//! The correlation stage: signals of all lanes in one time order -> spans -> metrics, exporters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::correlate::Correlator;
use crate::export;
use crate::metrics::Metrics;
use crate::model::{Nanos, Service, Signal, Span};

/// Owns the correlator and hands its spans on.
pub struct Correlation {
    correlator: Correlator,
    services: Box<dyn FnMut(u32) -> Arc<Service> + Send>,
    export: export::Pipeline,
    metrics: Option<Metrics>,
    spans: Vec<Span>,
    nobody_reads: Arc<AtomicBool>,
}

impl Correlation {
    /// A stage that asks `services` who is behind a process.
    pub fn new(
        correlator: Correlator,
        services: Box<dyn FnMut(u32) -> Arc<Service> + Send>,
        export: export::Pipeline,
        metrics: Option<Metrics>,
    ) -> Self {
        Self {
            correlator,
            services,
            export,
            metrics,
            spans: Vec::new(),
            nobody_reads: Arc::default(),
        }
    }

    /// Set once the spans' only reader has gone (standard output closed).
    pub fn nobody_reads(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.nobody_reads)
    }

    /// Takes signals in time order and leaves the vector empty; everything up to `watermark` has been told.
    pub fn advance(&mut self, signals: &mut Vec<Signal>, watermark: Nanos) {
        for signal in signals.drain(..) {
            self.correlator.signal(signal, &mut self.services);
        }
        self.correlator.advance(watermark, &mut self.spans);
        self.hand_on();
    }

    /// Ends what is open and gives back the exporters, which still hold what they have not sent.
    pub fn finish(mut self, signals: &mut Vec<Signal>, watermark: Nanos) -> export::Pipeline {
        self.advance(signals, watermark);
        self.correlator.finish(&mut self.spans);
        self.hand_on();
        self.export
    }

    fn hand_on(&mut self) {
        if !self.spans.is_empty() {
            if let Some(metrics) = &self.metrics {
                metrics.record(&self.spans, true);
            }
            // As many will come the next time, more or less: growing step by step copies them again and again.
            let next = Vec::with_capacity(self.spans.len());
            self.export.send(std::mem::replace(&mut self.spans, next));
            if self.export.is_gone() {
                self.nobody_reads.store(true, Relaxed);
            }
        }
    }
}
