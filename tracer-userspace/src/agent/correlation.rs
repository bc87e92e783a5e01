//! The correlation stage: signals of all lanes in one time order -> spans -> metrics, sampling, exporters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::inference::Inference;
use crate::correlate::Correlator;
use crate::export;
use crate::metrics::Metrics;
use crate::model::{Nanos, Service, Signal, Span};
use crate::record::{Recorder, Told};
use crate::sample::{Sampler, Shedder};

/// Who was behind a process id at a time.
pub type Services = Box<dyn FnMut(u32, Nanos) -> Arc<Service> + Send>;

/// Follows who wakes whom in a process from now on, or (false) not any more.
pub type Follow = Box<dyn FnMut(u32, bool) + Send>;

/// Owns the correlator and hands its spans on.
pub struct Correlation {
    correlator: Correlator,
    inference: Option<Inference>,
    services: Services,
    follow: Option<Follow>,
    export: export::Pipeline,
    metrics: Option<Metrics>,
    shedder: Option<Shedder>,
    sampler: Option<Sampler>,
    recorder: Option<Recorder>,
    spans: Vec<Span>,
    nobody_reads: Arc<AtomicBool>,
}

impl Correlation {
    /// A stage that asks `services` who is behind a process.
    pub fn new(
        correlator: Correlator,
        services: Services,
        export: export::Pipeline,
        metrics: Option<Metrics>,
        shedder: Option<Shedder>,
        sampler: Option<Sampler>,
        recorder: Option<Recorder>,
    ) -> Self {
        Self {
            correlator,
            inference: None,
            services,
            follow: None,
            export,
            metrics,
            shedder,
            sampler,
            recorder,
            spans: Vec::new(),
            nobody_reads: Arc::default(),
        }
    }

    /// With a thread for what times alone tell.
    pub fn with_inference(self, inference: Option<Inference>) -> Self {
        Self { inference, ..self }
    }

    /// With somebody to ask to follow processes.
    pub fn with_hand_offs(self, follow: Follow) -> Self {
        Self {
            follow: Some(follow),
            ..self
        }
    }

    /// Set once the spans' only reader has gone (standard output closed).
    pub fn nobody_reads(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.nobody_reads)
    }

    /// Takes signals in time order and leaves the vector empty; everything up to `watermark` has been told.
    pub fn advance(&mut self, signals: &mut Vec<Signal>, watermark: Nanos) {
        for signal in signals.drain(..) {
            let at = signal.ts;
            let services = &mut self.services;
            match &mut self.recorder {
                None => self.correlator.signal(signal, &mut |tgid| services(tgid, at)),
                Some(recorder) => {
                    let told = Told::of(&signal);
                    self.correlator.signal(signal, &mut |tgid| {
                        let service = services(tgid, at);
                        recorder.service(tgid, &service);
                        service
                    });
                    recorder.tell(&told);
                }
            }
        }
        if let Some(inference) = &self.inference {
            inference.exchange(&mut self.correlator);
        }
        self.correlator.advance(watermark, &mut self.spans);
        if let Some(recorder) = &mut self.recorder {
            recorder.advance(watermark);
        }
        for (tgid, is_worth_while) in self.correlator.take_followed() {
            if let Some(follow) = &mut self.follow {
                follow(tgid, is_worth_while);
            }
        }
        if self
            .shedder
            .as_mut()
            .is_some_and(|shedder| shedder.turn_began(watermark))
        {
            self.correlator.forget_orders();
        }
        self.pass_on(watermark, false);
    }

    /// Ends what is open and gives back the exporters, which still hold what they have not sent.
    pub fn finish(mut self, signals: &mut Vec<Signal>, watermark: Nanos) -> export::Pipeline {
        self.advance(signals, watermark);
        if let Some(inference) = self.inference.take() {
            inference.finish(&mut self.correlator);
        }
        self.correlator.finish(&mut self.spans);
        if let Some(recorder) = &mut self.recorder {
            recorder.flush();
        }
        self.pass_on(watermark, true);
        self.export
    }

    /// Spans -> metrics, shedding, sampling, exporters. With the last ones these decide on all that they hold.
    fn pass_on(&mut self, watermark: Nanos, is_last: bool) {
        self.measure();
        let torn = self.correlator.take_torn();
        if let Some(shedder) = &mut self.shedder {
            let mut kept = Vec::with_capacity(self.spans.len());
            shedder.torn(torn, watermark, &mut kept);
            shedder.offer(&mut self.spans, watermark, &mut kept);
            if is_last {
                shedder.finish(watermark, &mut kept);
            }
            match self.sampler {
                Some(_) => self.spans = kept,
                None => self.keep(kept),
            }
        }
        if let Some(sampler) = &mut self.sampler {
            let mut kept = Vec::new();
            sampler.offer(&mut self.spans, watermark, &mut kept);
            if is_last {
                sampler.finish(watermark, &mut kept);
            }
            self.keep(kept);
        }
        self.hand_on();
    }

    /// Counts before anything is left out.
    fn measure(&self) {
        if let Some(metrics) = &self.metrics
            && !self.spans.is_empty()
        {
            metrics.record(&self.spans, self.sampler.is_none() && self.shedder.is_none());
        }
    }

    /// What sampling kept is handed on, and may stand for others.
    fn keep(&mut self, kept: Vec<Span>) {
        if let Some(metrics) = &self.metrics
            && !kept.is_empty()
        {
            metrics.exemplify(&kept);
        }
        self.spans = kept;
    }

    fn hand_on(&mut self) {
        if !self.spans.is_empty() {
            // As many will come the next time, more or less: growing step by step copies them again and again.
            let next = Vec::with_capacity(self.spans.len());
            self.export.send(std::mem::replace(&mut self.spans, next));
            if self.export.is_gone() {
                self.nobody_reads.store(true, Relaxed);
            }
        }
    }
}
