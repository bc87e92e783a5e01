//! The OTLP exporter: one thread that encodes requests and keeps a few of them under way.

mod body;
mod encode;
mod endpoint;
mod grpc;
mod http;
mod retry;
mod tls;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use opentelemetry_otlp::Protocol;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub(super) use self::body::Body;
pub use self::encode::Encoding;
use self::encode::{Encoder, Request};
pub(super) use self::endpoint::{Endpoint, Signal, resolve};
pub(super) use self::retry::{Answer, Backoff};
pub(super) use self::tls::Files;
use super::accounts::{Accounts, Share};
use super::clock::Clock;
use super::config::{self, Config};
use super::intake::Intake;
use super::worker::{Stop, Worker};
use crate::telemetry::Reason;

/// Starts the exporter.
///
/// # Errors
/// The endpoint or the certificates cannot be used; nothing is sent to find out.
pub(super) fn start(
    config: &Config,
    clock: Clock,
    accounts: Arc<Accounts>,
    intake: Arc<Intake>,
) -> anyhow::Result<Worker> {
    let endpoint = resolve(&config.otlp, Signal::Traces)?;
    let files = tls::Files::read(&config.otlp)?;
    let otlp = config.otlp.clone();
    let queue = config.queue.clone();
    let retry = config.retry.clone();
    Worker::start("export-otlp", Arc::clone(&intake), move |stop| {
        let client = Client::new(&otlp, &endpoint, &files)?;
        tracing::info!(url = %endpoint.url, protocol = ?endpoint.protocol, "exporting spans over OTLP");
        let delivery = Arc::new(Delivery {
            timeout: otlp.timeout,
            retry,
            accounts,
            intake,
            failing: AtomicBool::new(false),
            said: Mutex::default(),
            closing: stop.closing.clone(),
        });
        let slots = Arc::new(Semaphore::new(otlp.concurrency.max(1)));
        Ok(run(
            Encoder::new(clock.clone()),
            clock,
            client,
            delivery,
            slots,
            queue,
            stop,
        ))
    })
    .context("starting the OTLP exporter")
}

async fn run(
    mut encoder: Encoder,
    clock: Clock,
    client: Client,
    delivery: Arc<Delivery>,
    slots: Arc<Semaphore>,
    queue: config::Queue,
    _stop: Stop,
) {
    let mut under_way = JoinSet::new();
    let intake = Arc::clone(&delivery.intake);
    while let Some(parcels) = intake.take().await {
        clock.keep_true();
        let mut estimate = 0;
        let mut parcels = parcels.into_iter().peekable();
        while let Some(parcel) = parcels.next() {
            let mut spans = parcel.spans.iter();
            let (all, mut uncounted) = (parcel.spans.len().max(1), parcel.bytes);
            while let Some(span) = spans.next() {
                encoder.push(parcel.ticket, span);
                let is_full = encoder.spans() >= queue.batch_spans || encoder.bytes() >= queue.batch_bytes;
                let left = spans.len();
                if !is_full && left > 0 {
                    continue;
                }
                // What the queue counted of this parcel goes over to the request, the part that was encoded.
                let still = parcel.bytes / all * left;
                estimate += uncounted - still;
                uncounted = still;
                if !is_full && parcels.peek().is_some() {
                    continue;
                }
                let Some(request) = encoder.finish() else { continue };
                intake.resize(std::mem::take(&mut estimate), request.body.len());
                // Requests that wait for a slot would cost memory; spans that wait in the queue are bounded there.
                let Ok(slot) = Arc::clone(&slots).acquire_owned().await else {
                    return;
                };
                let (client, delivery) = (client.clone(), Arc::clone(&delivery));
                while under_way.try_join_next().is_some() {}
                under_way.spawn(async move {
                    delivery.deliver(client, request).await;
                    drop(slot);
                });
            }
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// Sends requests of one signal; copies share connections.
#[derive(Clone)]
pub(super) enum Client {
    Grpc(Box<grpc::Client>),
    Http(http::Client),
}

impl Client {
    /// Sets it up; nothing is sent yet. Must be called inside a runtime.
    pub fn new(config: &config::Otlp, endpoint: &Endpoint, files: &Files) -> anyhow::Result<Self> {
        // The crates of the HTTP client leave the choice to the program. Somebody else's earlier choice does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(match endpoint.protocol {
            Protocol::Grpc => Self::Grpc(Box::new(grpc::Client::new(config, endpoint, files)?)),
            _ => Self::Http(http::Client::new(config, &endpoint.url, files)?),
        })
    }

    /// The body as it goes on the wire.
    pub fn prepare(&self, body: Body) -> Body {
        match self {
            Self::Grpc(_) => body,
            Self::Http(client) => client.prepare(body),
        }
    }

    /// Sends one request.
    pub async fn export(&mut self, body: Body) -> Answer {
        match self {
            Self::Grpc(client) => client.export(body).await,
            Self::Http(client) => client.export(body).await,
        }
    }
}

/// What all requests share.
struct Delivery {
    timeout: Duration,
    retry: config::Retry,
    accounts: Arc<Accounts>,
    intake: Arc<Intake>,
    /// Whether the last try failed: the log tells when that changes, not every time.
    failing: AtomicBool,
    /// The last thing that the backend said about spans it took.
    said: Mutex<String>,
    closing: watch::Receiver<bool>,
}

impl Delivery {
    /// Sends a request until it is taken, refused or given up, and accounts for its spans.
    async fn deliver(&self, mut client: Client, request: Request) {
        let Request { body, spans, shares } = request;
        let held = body.len();
        let mut body = client.prepare(body);
        let mut backoff = Backoff::new(&self.retry);
        let mut is_waiting = false;
        let verdict = loop {
            let answer = tokio::time::timeout(self.timeout, client.export(body.clone())).await;
            let answer = answer.unwrap_or_else(|_| Answer::Later {
                after: None,
                why: format!("no answer within {}", humantime::format_duration(self.timeout)),
            });
            match answer {
                Answer::Taken { rejected, message } => {
                    self.taken(rejected, &message);
                    break Ok(rejected);
                }
                Answer::Refused { why } => {
                    tracing::error!(spans, "the OTLP backend refused spans: {why}");
                    break Err(Reason::ExportFailed);
                }
                Answer::Later { after, why } => {
                    if !self.failing.swap(true, Relaxed) {
                        tracing::warn!("the OTLP backend does not take spans, trying again: {why}");
                    }
                    let Some(wait) = backoff.next(after, fastrand::f64()) else {
                        tracing::error!(spans, "gave up on the OTLP backend: {why}");
                        break Err(Reason::ExportFailed);
                    };
                    if !is_waiting {
                        is_waiting = true;
                        body.set_aside();
                    }
                    self.wait(wait, after.is_some()).await;
                }
            }
        };
        self.settle(&shares, verdict);
        self.intake.release(spans, held);
    }

    /// Waits; a daemon that stops tries once more at once, unless the backend itself asked for the wait.
    async fn wait(&self, wait: Duration, asked: bool) {
        let mut closing = self.closing.clone();
        if asked || *closing.borrow() {
            return tokio::time::sleep(wait).await;
        }
        let _ = tokio::time::timeout(wait, closing.changed()).await;
    }

    fn taken(&self, rejected: u64, message: &str) {
        if self.failing.swap(false, Relaxed) {
            tracing::info!("the OTLP backend takes spans again");
        }
        if rejected == 0 && message.is_empty() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != message {
            tracing::warn!(rejected, "the OTLP backend says: {message}");
            message.clone_into(&mut said);
        }
    }

    /// A partial success gives a number only, so the first spans of the request stand for those that were rejected.
    fn settle(&self, shares: &[Share], verdict: Result<u64, Reason>) {
        let mut rejected = verdict.unwrap_or_default();
        for share in shares {
            let refused = rejected.min(share.spans.into()) as u32;
            rejected -= u64::from(refused);
            if let Err(reason) = verdict {
                self.accounts.report(share, Err(reason));
                continue;
            }
            for (spans, verdict) in [
                (refused, Err(Reason::ExportFailed)),
                (share.spans - refused, Ok(())),
            ] {
                if spans > 0 {
                    self.accounts.report(
                        &Share {
                            spans,
                            ..share.clone()
                        },
                        verdict,
                    );
                }
            }
        }
    }
}
