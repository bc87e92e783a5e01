//! From encoded requests to a backend that takes them, sooner or later: batches, retries, and the books. Nothing here knows what
//! the bytes mean, so every exporter that sends requests shares it.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use super::accounts::{Account, Share, TicketId};
use super::body::Body;
use super::clock::Clock;
use super::config::{Queue, Retry};
use super::intake::Intake;
use super::registry::Job;
use super::retry::{Answer, Backoff};
use super::worker::Stop;
use crate::model::Span;
use crate::telemetry::Reason;

/// One request, ready to be sent, and whose spans it carries.
pub(super) struct Request {
    /// As it was encoded.
    pub body: Body,
    /// Number of spans.
    pub spans: usize,
    /// The spans, by hand-over and service, in the order of the body.
    pub shares: Vec<Share>,
}

/// Collects spans until a request is full.
pub(super) trait Encode {
    /// Adds a span that was handed over as part of `ticket`.
    fn push(&mut self, ticket: TicketId, span: &Span);
    /// Spans collected since the last request.
    fn spans(&self) -> usize;
    /// Their bytes, about.
    fn bytes(&self) -> usize;
    /// The request of everything collected; `None` if there is nothing.
    fn finish(&mut self) -> Option<Request>;
}

/// A way to a backend.
pub(super) trait Transport: Send + Sync + 'static {
    /// The body as it goes on the wire; done once a request, not once a try.
    fn prepare(&self, body: Body) -> Body {
        body
    }

    /// Cuts a body, as it was encoded, behind its first spans; `None` where that cannot be done.
    fn split(&self, _body: &Body, _first: usize) -> Option<(Body, Body)> {
        None
    }

    /// One try.
    fn send(&self, body: Body) -> impl Future<Output = Answer> + Send;
}

/// How requests are sent.
pub(super) struct Terms {
    /// How long one try may take.
    pub timeout: Duration,
    /// Requests under way at the same time.
    pub concurrency: usize,
}

/// Encodes what comes in and sends it, until the queue is closed and everything is settled.
pub(super) async fn run<T: Transport>(
    job: Job,
    terms: Terms,
    mut encoder: impl Encode,
    transport: T,
    stop: Stop,
) {
    let Job {
        name,
        clock,
        account,
        intake,
        queue,
        retry,
    } = job;
    let delivery = Arc::new(Delivery {
        name,
        transport,
        timeout: terms.timeout,
        retry,
        account,
        intake,
        failing: AtomicBool::new(false),
        said: Mutex::default(),
        closing: stop.closing.clone(),
    });
    let slots = Arc::new(Semaphore::new(terms.concurrency.max(1)));
    send_all(&clock, &queue, &mut encoder, &delivery, &slots).await;
}

async fn send_all<T: Transport>(
    clock: &Clock,
    queue: &Queue,
    encoder: &mut impl Encode,
    delivery: &Arc<Delivery<T>>,
    slots: &Arc<Semaphore>,
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
                let Ok(slot) = Arc::clone(slots).acquire_owned().await else {
                    return;
                };
                let delivery = Arc::clone(delivery);
                while under_way.try_join_next().is_some() {}
                under_way.spawn(async move {
                    delivery.deliver(request).await;
                    drop(slot);
                });
            }
        }
    }
    while under_way.join_next().await.is_some() {}
}

/// What all requests of an exporter share.
struct Delivery<T> {
    name: &'static str,
    transport: T,
    timeout: Duration,
    retry: Retry,
    account: Account,
    intake: Arc<Intake>,
    /// Whether the last try failed: the log tells when that changes, not every time.
    failing: AtomicBool,
    /// The last thing that the backend said about spans it took.
    said: Mutex<String>,
    closing: watch::Receiver<bool>,
}

impl<T: Transport> Delivery<T> {
    /// Sends a request until it is taken, refused or given up, in parts if it must be, and accounts for its spans.
    async fn deliver(&self, request: Request) {
        let (spans, held) = (request.spans, request.body.len());
        let mut parts = vec![request];
        while let Some(mut part) = parts.pop() {
            let (verdict, halves) = self.deliver_part(&mut part).await;
            match halves {
                Some((front, back)) => parts.extend([back, front]),
                None => self.settle(&part.shares, verdict),
            }
        }
        self.intake.release(spans, held);
    }

    /// What became of a request: how many of its spans were rejected, or why all are lost, or halves to be sent instead.
    async fn deliver_part(&self, request: &mut Request) -> (Result<u64, Reason>, Option<(Request, Request)>) {
        let mut body = self.transport.prepare(request.body.clone());
        let mut is_waiting = false;
        let (exporter, spans) = (self.name, request.spans);
        let mut backoff = Backoff::new(&self.retry);
        loop {
            let answer = tokio::time::timeout(self.timeout, self.transport.send(body.clone())).await;
            let answer = answer.unwrap_or_else(|_| Answer::Later {
                after: None,
                why: format!("no answer within {}", humantime::format_duration(self.timeout)),
            });
            match answer {
                Answer::Taken { rejected, message } => {
                    self.taken(rejected, &message);
                    return (Ok(rejected), None);
                }
                Answer::TooLarge { why } => {
                    let halves = self.halves(request);
                    if halves.is_none() {
                        tracing::error!(
                            exporter,
                            spans,
                            "the backend takes no request of that size: {why}"
                        );
                    }
                    return (Err(Reason::ExportFailed), halves);
                }
                Answer::Refused { why } => {
                    tracing::error!(exporter, spans, "the backend refused spans: {why}");
                    return (Err(Reason::ExportFailed), None);
                }
                Answer::Later { after, why } => {
                    if !self.failing.swap(true, Relaxed) {
                        tracing::warn!(exporter, "the backend does not take spans, trying again: {why}");
                    }
                    let Some(wait) = backoff.next(after, fastrand::f64()) else {
                        tracing::error!(exporter, spans, "gave up on the backend: {why}");
                        return (Err(Reason::ExportFailed), None);
                    };
                    if !is_waiting {
                        is_waiting = true;
                        request.body.set_aside();
                        body = self.transport.prepare(request.body.clone());
                    }
                    self.wait(wait, after.is_some()).await;
                }
            }
        }
    }

    fn halves(&self, request: &Request) -> Option<(Request, Request)> {
        let first = request.spans / 2;
        if first == 0 {
            return None;
        }
        let (front, back) = self.transport.split(&request.body, first)?;
        let (mut front_shares, mut back_shares) = (Vec::new(), Vec::new());
        let mut left = first as u32;
        for share in &request.shares {
            let here = share.spans.min(left);
            left -= here;
            for (spans, shares) in [(here, &mut front_shares), (share.spans - here, &mut back_shares)] {
                if spans > 0 {
                    shares.push(Share {
                        spans,
                        ..share.clone()
                    });
                }
            }
        }
        let part = |body, spans, shares| Request { body, spans, shares };
        Some((
            part(front, first, front_shares),
            part(back, request.spans - first, back_shares),
        ))
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
        let exporter = self.name;
        if self.failing.swap(false, Relaxed) {
            tracing::info!(exporter, "the backend takes spans again");
        }
        if rejected == 0 && message.is_empty() {
            return;
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said != message {
            tracing::warn!(exporter, rejected, "the backend says: {message}");
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
                self.account.report(share, Err(reason));
                continue;
            }
            for (spans, verdict) in [
                (refused, Err(Reason::ExportFailed)),
                (share.spans - refused, Ok(())),
            ] {
                if spans > 0 {
                    self.account.report(
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
