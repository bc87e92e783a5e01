//! From encoded requests to a backend that takes them, sooner or later: batches, retries, and the books. Nothing here knows what
//! the bytes mean, so every exporter that sends requests shares it.
//!
//! With a disk queue ([`super::disk`]), a request that failed for a reason that may pass goes to the disk and not to memory, and so
//! do those after it until the backend takes spans again ([`super::restore`] finds out); also what comes faster than the backend takes
//! it, once memory is half full, and what is not sent when the daemon stops.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::accounts::{Account, Fate, Share, TicketId};
use super::body::Body;
use super::clock::Clock;
use super::config::{Queue, Retry};
use super::disk::Disk;
use super::intake::Intake;
use super::registry::Job;
use super::retry::{Answer, Backoff};
use super::worker::Stop;
use crate::model::Span;
use crate::telemetry::Reason;

/// How often it is looked whether a request that waits for its turn should go to the disk.
const LOOK: Duration = Duration::from_millis(20);

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

    /// The backend let a try run out of time: whatever connection it went over may be dead.
    fn silent(&self) {}

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
        disk,
    } = job;
    let delivery = Arc::new(Delivery {
        name,
        transport,
        timeout: terms.timeout,
        retry,
        account,
        intake,
        failing: AtomicBool::new(false),
        disk_failing: AtomicBool::new(false),
        said: Mutex::default(),
        disk: disk.clone(),
        stop,
    });
    let slots = Arc::new(Semaphore::new(terms.concurrency.max(1)));
    let send = send_all(&clock, &queue, &mut encoder, &delivery, &slots);
    match disk {
        Some(disk) => drop(tokio::join!(send, Arc::clone(&delivery).restore(disk))),
        None => send.await,
    }
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
                let Some(slot) = slot(slots, delivery).await else {
                    delivery.put_aside(request).await;
                    continue;
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

/// The right to send a request; `None` if it should rather go to the disk, because the queue in memory fills or time runs out.
async fn slot<T>(slots: &Arc<Semaphore>, delivery: &Delivery<T>) -> Option<OwnedSemaphorePermit> {
    loop {
        let slot = Arc::clone(slots).acquire_owned();
        if delivery.disk.is_none() {
            return slot.await.ok();
        }
        if let Ok(slot) = tokio::time::timeout(LOOK, slot).await {
            return slot.ok();
        }
        if delivery.intake.is_crowded() || delivery.stop.is_half_over() {
            return None;
        }
    }
}

/// What all requests of an exporter share.
pub(super) struct Delivery<T> {
    pub(super) name: &'static str,
    pub(super) transport: T,
    timeout: Duration,
    pub(super) retry: Retry,
    pub(super) account: Account,
    intake: Arc<Intake>,
    /// Whether the last try failed: the log tells when that changes, not every time.
    failing: AtomicBool,
    /// The same of the disk.
    disk_failing: AtomicBool,
    /// The last thing that the backend said about spans it took.
    said: Mutex<String>,
    disk: Option<Arc<Disk>>,
    pub(super) stop: Stop,
}

/// What a request comes to.
enum End {
    /// So many of its spans were rejected, or all are lost.
    Settled(Result<u64, Reason>),
    /// These are to be sent instead.
    Halves(Request, Request),
    /// It is on the disk.
    Spilled,
}

impl<T: Transport> Delivery<T> {
    /// Sends a request until it is taken, refused, given up or put on the disk, in parts if it must be, and accounts for its spans.
    async fn deliver(&self, request: Request) {
        let (spans, held) = (request.spans, request.body.len());
        let mut parts = vec![request];
        while let Some(mut part) = parts.pop() {
            match self.deliver_part(&mut part).await {
                End::Halves(front, back) => parts.extend([back, front]),
                End::Settled(verdict) => self.settle(&part.shares, verdict),
                End::Spilled => {}
            }
        }
        self.intake.release(spans, held);
    }

    /// Puts a request on the disk instead of sending it; where there is no room, it is sent after all.
    async fn put_aside(&self, request: Request) {
        if self.spill(&request) {
            return self.intake.release(request.spans, request.body.len());
        }
        self.deliver(request).await;
    }

    async fn deliver_part(&self, request: &mut Request) -> End {
        if self.is_pointless() && self.spill(request) {
            return End::Spilled;
        }
        let mut body = self.transport.prepare(request.body.clone());
        let mut is_waiting = false;
        let (exporter, spans) = (self.name, request.spans);
        let mut backoff = Backoff::new(&self.retry);
        loop {
            let answer = tokio::select! {
                answer = self.try_once(body.clone()) => answer,
                // Whether the backend got it nobody knows: rather twice than never.
                () = self.out_of_time() => Answer::Later { after: None, why: "the tracer stops".to_owned() },
            };
            match answer {
                Answer::Taken { rejected, message } => {
                    self.taken(rejected, &message);
                    return End::Settled(Ok(rejected));
                }
                Answer::TooLarge { why } => {
                    if let Some((front, back)) = self.halves(request) {
                        return End::Halves(front, back);
                    }
                    tracing::error!(
                        exporter,
                        spans,
                        "the backend takes no request of that size: {why}"
                    );
                    return End::Settled(Err(Reason::ExportFailed));
                }
                Answer::Refused { why } => {
                    tracing::error!(exporter, spans, "the backend refused spans: {why}");
                    return End::Settled(Err(Reason::ExportFailed));
                }
                Answer::Later { after, why } => {
                    self.failed(&why);
                    if self.spill(request) {
                        return End::Spilled;
                    }
                    let Some(wait) = backoff.next(after, fastrand::f64()) else {
                        tracing::error!(exporter, spans, "gave up on the backend: {why}");
                        return End::Settled(Err(Reason::ExportFailed));
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

    /// One try, with an end in any case.
    pub(super) async fn try_once(&self, body: Body) -> Answer {
        let answer = tokio::time::timeout(self.timeout, self.transport.send(body)).await;
        answer.unwrap_or_else(|_| {
            self.transport.silent();
            Answer::Later {
                after: None,
                why: format!("no answer within {}", humantime::format_duration(self.timeout)),
            }
        })
    }

    /// Waits until what is under way must be put on the disk, if there is one.
    async fn out_of_time(&self) {
        match self.disk {
            Some(_) => self.stop.nearly_over().await,
            None => std::future::pending().await,
        }
    }

    /// Whether the last try failed.
    pub(super) fn is_failing(&self) -> bool {
        self.failing.load(Relaxed)
    }

    /// Whether sending is not worth a try: others wait on the disk for the backend, or there is no time left for an answer.
    fn is_pointless(&self) -> bool {
        let others_wait = || self.disk.as_ref().is_some_and(|disk| !disk.is_empty());
        (self.is_failing() && others_wait()) || self.stop.is_half_over()
    }

    /// Puts a request on the disk, if there is one with room, and accounts for its spans.
    fn spill(&self, request: &Request) -> bool {
        let Some(disk) = &self.disk else { return false };
        match disk.put(&request.body, request.spans) {
            Ok(true) => {}
            Ok(false) => return false,
            Err(error) => {
                if !self.disk_failing.swap(true, Relaxed) {
                    tracing::error!(exporter = self.name, "the disk queue cannot be written: {error}");
                }
                return false;
            }
        }
        self.disk_failing.store(false, Relaxed);
        self.account
            .note_disk(|disk| disk.spilled += request.spans as u64);
        for share in &request.shares {
            self.account.report(share, Fate::Spilled);
        }
        true
    }

    /// A try failed for a reason that may pass.
    pub(super) fn failed(&self, why: &str) {
        if !self.failing.swap(true, Relaxed) {
            tracing::warn!(
                exporter = self.name,
                "the backend does not take spans, trying again: {why}"
            );
        }
    }

    pub(super) fn halves(&self, request: &Request) -> Option<(Request, Request)> {
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
        let mut closing = self.stop.closing.clone();
        if asked || self.stop.is_closing() {
            return tokio::time::sleep(wait).await;
        }
        let _ = tokio::time::timeout(wait, closing.changed()).await;
    }

    pub(super) fn taken(&self, rejected: u64, message: &str) {
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
                self.account.report(share, Fate::Lost(reason));
                continue;
            }
            for (spans, fate) in [
                (refused, Fate::Lost(Reason::ExportFailed)),
                (share.spans - refused, Fate::Delivered),
            ] {
                if spans > 0 {
                    self.account.report(
                        &Share {
                            spans,
                            ..share.clone()
                        },
                        fate,
                    );
                }
            }
        }
    }
}
