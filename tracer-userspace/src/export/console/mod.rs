//! Spans on standard output, for people (`waterfall`) or programs (`json`).
//!
//! The console has a thread of its own: a reader that does not read stops it and nothing else. Once standard output is
//! closed, it goes quiet for good.

mod config;
pub(super) mod json;
mod style;
mod traces;
mod waterfall;

#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Instant;

pub use self::config::{Colour, Console, Format};
pub(super) use self::style::Screen;
use self::traces::{Limits, Traces};
use super::accounts::{Account, TicketId};
use super::buffer::Buffer;
use super::clock::Clock;
use super::config::Config;
use super::intake::{Intake, Parcel};
use super::worker::Worker;
use crate::model::Span;
use crate::telemetry::Reason;

/// Bytes of text that are kept between writes.
const KEPT_BYTES: usize = 1 << 20;

/// The console as the pipeline sees it.
pub(super) struct View {
    intake: Arc<Intake>,
    /// The books, where printing a span is what makes it exported.
    account: Option<Account>,
    /// Standard output is closed.
    gone: Arc<AtomicBool>,
    /// Spans that did not fit, where they do not count.
    overflow: AtomicU64,
}

impl View {
    pub fn new(intake: Arc<Intake>, account: Option<Account>, gone: Arc<AtomicBool>) -> Self {
        Self {
            intake,
            account,
            gone,
            overflow: AtomicU64::new(0),
        }
    }

    /// Takes spans to show; what does not fit is left out, with a notice.
    pub fn offer(&self, parcel: Parcel) {
        if self.gone.load(Relaxed) {
            return;
        }
        if let Err(parcel) = self.intake.put(parcel) {
            self.overflow.fetch_add(parcel.spans.len() as u64, Relaxed);
        }
    }

    fn report<'a>(
        &self,
        ticket: TicketId,
        spans: impl IntoIterator<Item = &'a Span>,
        verdict: Result<(), Reason>,
    ) {
        if let Some(account) = &self.account {
            account.report_spans(ticket, spans, verdict.into());
        }
    }
}

/// Starts the console.
///
/// # Errors
/// The thread cannot be had.
pub(super) fn start(
    config: &Config,
    clock: Clock,
    view: Arc<View>,
    output: Box<dyn Write + Send>,
    screen: Screen,
) -> anyhow::Result<Worker> {
    let intake = Arc::clone(&view.intake);
    let console = config.console.clone();
    let output = Output {
        to: output,
        gone: Arc::clone(&view.gone),
    };
    let max_spans = config.queue.max_spans;
    Worker::start("console", intake, move |_| {
        Ok(async move {
            match console.format {
                Format::Json => print_json(&view, &clock, output, console.resource).await,
                Format::Waterfall => print_traces(&view, &clock, output, screen, &console, max_spans).await,
            }
        })
    })
}

async fn print_json(view: &View, clock: &Clock, mut output: Output, with_resource: bool) {
    let mut writer = json::Writer::new(clock.clone(), with_resource);
    let mut lines = Buffer::default();
    while let Some(parcels) = view.intake.take().await {
        clock.keep_true();
        for parcel in parcels {
            for span in parcel.spans.iter() {
                writer.span(&mut lines, span);
            }
            let verdict = output.write(lines.as_slice());
            lines.clear(KEPT_BYTES);
            view.report(parcel.ticket, parcel.spans.iter(), verdict);
            view.intake.release(parcel.spans.len(), parcel.bytes);
        }
    }
}

async fn print_traces(
    view: &View,
    clock: &Clock,
    mut output: Output,
    screen: Screen,
    config: &Console,
    max_spans: usize,
) {
    let tick = (config.settle / 2).max(std::time::Duration::from_millis(10));
    let mut traces = Traces::new(Limits {
        settle: config.settle,
        patience: config.patience,
        max_spans: max_spans / 2,
        lines_per_second: screen.is_terminal.then_some(config.lines_per_second),
    });
    let mut text = Vec::new();
    let mut is_open = true;
    while is_open {
        let parcels = if traces.is_empty() {
            view.intake.take().await
        } else {
            // Traces wait to be printed, whether or not more spans come.
            tokio::time::timeout(tick, view.intake.take())
                .await
                .unwrap_or_else(|_| Some(Vec::new()))
        };
        is_open = parcels.is_some();
        clock.keep_true();
        let now = Instant::now();
        for parcel in parcels.into_iter().flatten() {
            for span in parcel.spans.iter() {
                traces.add(parcel.ticket, span, now);
            }
            view.intake.release(0, parcel.bytes);
        }
        traces.left_out(0, view.overflow.swap(0, Relaxed));
        let width = screen.width();
        let ready = traces.ready(now, !is_open);
        for (trace, _) in ready.iter().filter(|(_, is_shown)| *is_shown) {
            waterfall::render(&mut text, trace, clock, screen.palette, width);
        }
        if let Some((traces, spans)) = traces.take_left_out(now, !is_open) {
            waterfall::notice(&mut text, traces, spans, screen.palette);
        }
        let written = output.write(&text);
        text.clear();
        text.shrink_to(KEPT_BYTES);
        for (trace, is_shown) in &ready {
            let verdict = if *is_shown {
                written
            } else {
                Err(Reason::ExportQueueFull)
            };
            if let Some(account) = &view.account {
                trace
                    .nodes
                    .iter()
                    .for_each(|node| account.report(&node.share, verdict.into()));
            }
            view.intake.release(trace.nodes.len(), 0);
        }
    }
}

/// Standard output, written to once a batch.
struct Output {
    to: Box<dyn Write + Send>,
    gone: Arc<AtomicBool>,
}

impl Output {
    fn write(&mut self, text: &[u8]) -> Result<(), Reason> {
        if self.gone.load(Relaxed) {
            return Err(Reason::ExportFailed);
        }
        if text.is_empty() {
            return Ok(());
        }
        self.to
            .write_all(text)
            .and_then(|()| self.to.flush())
            .map_err(|error| {
                // A reader that had enough (`| head`) is no fault.
                if error.kind() != io::ErrorKind::BrokenPipe {
                    tracing::error!("writing spans to standard output: {error}");
                }
                self.gone.store(true, Relaxed);
                Reason::ExportFailed
            })
    }
}
