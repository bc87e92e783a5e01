//! All exporters behind one door.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::bail;

use super::accounts::Accounts;
use super::clock::Clock;
use super::config::{Config, Format};
use super::console::{self, Screen};
use super::intake::{Intake, Parcel, weight};
use super::otlp;
use super::worker::Worker;
use crate::model::Span;
use crate::telemetry::{Ledger, Reason};

/// What was not exported when the daemon stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Spans that no deciding exporter could deliver in time, counted as dropped (`shutdown`).
    pub spans: u64,
}

/// The running exporters.
pub struct Pipeline {
    accounts: Arc<Accounts>,
    /// Exporters whose success makes a span exported.
    deciding: Vec<Arc<Intake>>,
    /// The waterfall beside them.
    view: Option<Arc<console::View>>,
    workers: Vec<Worker>,
    overflowing: AtomicBool,
    gone: Arc<AtomicBool>,
}

impl Pipeline {
    /// Starts the exporters that the configuration names, each on a thread of its own.
    ///
    /// # Errors
    /// Nothing to export to, an endpoint or certificates that cannot be used, or no threads to be had. A backend that does not
    /// answer is no error: spans wait for it.
    pub fn start(config: &Config, clock: Clock, ledger: Arc<Ledger>) -> anyhow::Result<Self> {
        let stdout = io::stdout();
        let screen = Screen::detect(&config.console, stdout.is_terminal(), &|name| {
            std::env::var(name).ok()
        });
        Self::start_with(config, clock, ledger, Box::new(stdout), screen)
    }

    pub(super) fn start_with(
        config: &Config,
        clock: Clock,
        ledger: Arc<Ledger>,
        output: Box<dyn Write + Send>,
        screen: Screen,
    ) -> anyhow::Result<Self> {
        let has_otlp = config.otlp.is_enabled();
        let has_console = config.console.enabled.unwrap_or(!has_otlp);
        if !has_otlp && !has_console {
            bail!(
                "spans would go nowhere: set an OTLP endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) or switch the console on"
            );
        }
        let is_view = has_otlp && config.console.format == Format::Waterfall;
        let exporters = u32::from(has_otlp) + u32::from(has_console && !is_view);
        let accounts = Arc::new(Accounts::new(ledger, exporters));
        let gone = Arc::new(AtomicBool::new(false));
        let mut pipeline = Self {
            accounts: Arc::clone(&accounts),
            deciding: Vec::new(),
            view: None,
            workers: Vec::new(),
            overflowing: AtomicBool::new(false),
            gone: Arc::clone(&gone),
        };
        if has_otlp {
            let intake = Arc::new(Intake::new(&config.queue));
            pipeline.deciding.push(Arc::clone(&intake));
            pipeline
                .workers
                .push(otlp::start(config, clock.clone(), Arc::clone(&accounts), intake)?);
        }
        if has_console {
            let intake = Arc::new(Intake::new(&config.queue));
            let view = Arc::new(console::View::new(
                Arc::clone(&intake),
                (!is_view).then_some(accounts),
                gone,
            ));
            let worker = console::start(config, clock, Arc::clone(&view), output, screen)?;
            pipeline.workers.push(worker);
            if is_view {
                pipeline.view = Some(view);
            } else {
                pipeline.deciding.push(intake);
            }
        }
        Ok(pipeline)
    }

    /// Takes spans. Never waits; what does not fit into an exporter's queue is dropped and counted.
    pub fn send(&self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let ticket = self.accounts.open(&spans);
        let bytes = spans.iter().map(weight).sum();
        let spans = Arc::new(spans);
        let mut overflows = false;
        for intake in &self.deciding {
            let parcel = Parcel {
                ticket,
                spans: Arc::clone(&spans),
                bytes,
            };
            if let Err(parcel) = intake.put(parcel) {
                overflows = true;
                self.accounts
                    .report_spans(ticket, parcel.spans.iter(), Err(Reason::ExportQueueFull));
            }
        }
        if overflows && !self.overflowing.swap(true, Relaxed) {
            tracing::warn!("an export queue is full, spans are dropped and counted (export_queue_full)");
        } else if !overflows && self.overflowing.load(Relaxed) {
            self.overflowing.store(false, Relaxed);
        }
        if let Some(view) = &self.view {
            view.offer(Parcel { ticket, spans, bytes });
        }
    }

    /// Whether standard output, the only place that spans go to, is closed: there is no point in going on.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.workers.len() == 1 && self.gone.load(Relaxed)
    }

    /// Sends what is there, for `timeout` at most; what is left then is counted as dropped (`shutdown`).
    pub fn shutdown(self, timeout: Duration) -> Left {
        let deadline = Instant::now() + timeout;
        self.workers.iter().for_each(Worker::close);
        for worker in self.workers {
            worker.join(deadline);
        }
        Left {
            spans: self.accounts.close(),
        }
    }
}
