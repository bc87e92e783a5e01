//! All exporters behind one door.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

use super::accounts::{Account, Accounts, Fate};
use super::clock::Clock;
use super::config::{Config, Format};
use super::console::{self, Screen};
use super::disk::Disk;
use super::intake::{Intake, Parcel, weight};
use super::registry::Job;
use super::worker::Worker;
use crate::model::Span;
use crate::telemetry::{Ledger, Reason};

/// What was not exported when the daemon stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Left {
    /// Spans that no deciding exporter could deliver in time, counted as dropped (`shutdown`).
    pub spans: u64,
}

/// An exporter whose success makes a span exported.
struct Route {
    name: &'static str,
    account: Account,
    intake: Arc<Intake>,
    overflowing: AtomicBool,
}

/// The running exporters.
pub struct Pipeline {
    accounts: Arc<Accounts>,
    routes: Vec<Route>,
    /// The waterfall beside them.
    view: Option<Arc<console::View>>,
    workers: Vec<Worker>,
    gone: Arc<AtomicBool>,
}

impl Pipeline {
    /// Starts the exporters that the configuration names, each on a thread of its own.
    ///
    /// # Errors
    /// An endpoint, certificates or other settings that cannot be used, nothing to export to, or no threads to be had. A
    /// backend that does not answer is no error: spans wait for it.
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
        let running = config.running();
        let has_console = config.prints();
        if running.is_empty() && !has_console {
            bail!(
                "spans would go nowhere: name an exporter (--export), set an OTLP endpoint (OTEL_EXPORTER_OTLP_ENDPOINT) or \
                 switch the console on"
            );
        }
        let is_view = !running.is_empty() && config.console.format == Format::Waterfall;
        let deciding = running.len() + usize::from(has_console && !is_view);
        let accounts = Arc::new(Accounts::new(Arc::clone(&ledger), deciding as u32));
        let mut pipeline = Self {
            accounts: Arc::clone(&accounts),
            routes: Vec::new(),
            view: None,
            workers: Vec::new(),
            gone: Arc::default(),
        };
        for (name, exporter) in running {
            let disk = match &config.queue.dir {
                Some(dir) if exporter.is_remote() => {
                    Some(Arc::new(Disk::open(dir, name, config.queue.disk_bytes)?))
                }
                _ => None,
            };
            let job = Job {
                name,
                clock: clock.clone(),
                account: Account::new(&accounts, name),
                intake: Arc::new(Intake::new(&config.queue)),
                queue: config.queue.clone(),
                retry: config.retry.clone(),
                disk,
            };
            pipeline.add(name, &job.account, &job.intake);
            watch(&ledger, name, &job);
            let worker = exporter.start(job);
            let worker = worker.with_context(|| format!("starting the exporter `{name}`"))?;
            pipeline.workers.push(worker);
        }
        if has_console {
            let name = "console";
            let account = Account::new(&accounts, name);
            let intake = Arc::new(Intake::new(&config.queue));
            let view = Arc::new(console::View::new(
                Arc::clone(&intake),
                (!is_view).then(|| account.clone()),
                Arc::clone(&pipeline.gone),
            ));
            let worker = console::start(config, clock, Arc::clone(&view), output, screen)?;
            pipeline.workers.push(worker);
            if is_view {
                pipeline.view = Some(view);
            } else {
                pipeline.add(name, &account, &intake);
            }
        }
        Ok(pipeline)
    }

    fn add(&mut self, name: &'static str, account: &Account, intake: &Arc<Intake>) {
        self.routes.push(Route {
            name,
            account: account.clone(),
            intake: Arc::clone(intake),
            overflowing: AtomicBool::new(false),
        });
    }

    /// Takes spans. Never waits; what does not fit into an exporter's queue is dropped and counted.
    pub fn send(&self, spans: Vec<Span>) {
        if spans.is_empty() {
            return;
        }
        let ticket = self.accounts.open(&spans);
        let bytes = spans.iter().map(weight).sum();
        let spans = Arc::new(spans);
        for route in &self.routes {
            let parcel = Parcel {
                ticket,
                spans: Arc::clone(&spans),
                bytes,
            };
            let refused = route.intake.put(parcel).err();
            if let Some(parcel) = &refused {
                let lost = Fate::Lost(Reason::ExportQueueFull);
                route.account.report_spans(ticket, parcel.spans.iter(), lost);
            }
            let overflows = refused.is_some();
            if overflows && !route.overflowing.swap(true, Relaxed) {
                tracing::warn!(
                    exporter = route.name,
                    "an export queue is full, spans are dropped and counted (export_queue_full)"
                );
            } else if !overflows && route.overflowing.load(Relaxed) {
                route.overflowing.store(false, Relaxed);
            }
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

    /// Sends what is there, for `timeout` at most; what is left then goes to the disk queues, or is counted as dropped (`shutdown`).
    pub fn shutdown(self, timeout: Duration) -> Left {
        let deadline = Instant::now() + timeout;
        self.workers.iter().for_each(|worker| worker.close(deadline));
        for worker in self.workers {
            worker.join(deadline);
        }
        Left {
            spans: self.accounts.close(),
        }
    }
}

/// Lets the tracer's own metrics tell how full an exporter is.
fn watch(ledger: &Ledger, name: &'static str, job: &Job) {
    let health = ledger.health();
    let intake = Arc::clone(&job.intake);
    health.watch_queue(name, Box::new(move || intake.level()));
    if let Some(disk) = &job.disk {
        job.account.note_disk(|books| books.found = disk.spans());
        let disk = Arc::clone(disk);
        health.watch_disk(name, Box::new(move || disk.level()));
    }
}
