//! The bounded queue in front of an exporter. The giver never waits; what does not fit is handed back.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::accounts::TicketId;
use super::config;
use crate::model::{Exchange, Span};

/// Spans of one hand-over, shared by the exporters.
pub(super) struct Parcel {
    pub ticket: TicketId,
    pub spans: Arc<Vec<Span>>,
    /// What they were counted with on entry.
    pub bytes: usize,
}

#[derive(Default)]
struct State {
    parcels: Vec<Parcel>,
    spans: usize,
    closed: bool,
}

/// The queue. Spans and bytes count as held until the exporter lets go of them with [`Intake::release`], so what it keeps for
/// later (requests waiting for a backend) is bounded too.
pub(super) struct Intake {
    max_spans: usize,
    max_bytes: usize,
    batch_spans: usize,
    batch_age: Duration,
    held_spans: AtomicUsize,
    held_bytes: AtomicUsize,
    state: Mutex<State>,
    /// The queue is no longer empty.
    some: Notify,
    /// A whole batch is there, or the queue was closed.
    plenty: Notify,
}

impl Intake {
    pub fn new(config: &config::Queue) -> Self {
        Self {
            max_spans: config.max_spans.max(1),
            max_bytes: config.max_bytes.max(1),
            batch_spans: config.batch_spans.clamp(1, config.max_spans.max(1)),
            batch_age: config.batch_age,
            held_spans: AtomicUsize::new(0),
            held_bytes: AtomicUsize::new(0),
            state: Mutex::default(),
            some: Notify::new(),
            plenty: Notify::new(),
        }
    }

    /// Puts spans in, or hands them back if they do not fit. At most two wake-ups a batch, however many calls.
    pub fn put(&self, parcel: Parcel) -> Result<(), Parcel> {
        let spans = parcel.spans.len();
        // Only the agent's thread adds, so what is checked here cannot grow before it is added.
        if self.held_spans.load(Relaxed).saturating_add(spans) > self.max_spans
            || self.held_bytes.load(Relaxed).saturating_add(parcel.bytes) > self.max_bytes
        {
            return Err(parcel);
        }
        let (was_empty, before, after) = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.closed {
                return Err(parcel);
            }
            self.held_spans.fetch_add(spans, Relaxed);
            self.held_bytes.fetch_add(parcel.bytes, Relaxed);
            let before = state.spans;
            state.spans += spans;
            state.parcels.push(parcel);
            (state.parcels.len() == 1, before, state.spans)
        };
        if was_empty {
            self.some.notify_one();
        }
        if before < self.batch_spans && after >= self.batch_spans {
            self.plenty.notify_one();
        }
        Ok(())
    }

    /// What has gathered, once it is a batch or old enough; `None` when the queue is closed and empty.
    pub async fn take(&self) -> Option<Vec<Parcel>> {
        loop {
            let (spans, closed) = {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                (state.spans, state.closed)
            };
            if spans > 0 {
                if spans < self.batch_spans && !closed {
                    let _ = timeout(self.batch_age, self.plenty.notified()).await;
                }
                return Some(self.drain());
            }
            if closed {
                return None;
            }
            self.some.notified().await;
        }
    }

    /// Spans that are held, and that are held at most.
    pub fn level(&self) -> (u64, u64) {
        (self.held_spans.load(Relaxed) as u64, self.max_spans as u64)
    }

    /// Whether more than half of it is used.
    pub fn is_crowded(&self) -> bool {
        self.held_spans.load(Relaxed) > self.max_spans / 2
            || self.held_bytes.load(Relaxed) > self.max_bytes / 2
    }

    /// What is there now.
    pub fn drain(&self) -> Vec<Parcel> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.spans = 0;
        std::mem::take(&mut state.parcels)
    }

    /// The exporter holds so much less.
    pub fn release(&self, spans: usize, bytes: usize) {
        self.held_spans.fetch_sub(spans, Relaxed);
        self.held_bytes.fetch_sub(bytes, Relaxed);
    }

    /// The spans were encoded: they hold `after` bytes where they were counted with `before`.
    pub fn resize(&self, before: usize, after: usize) {
        self.held_bytes.fetch_add(after, Relaxed);
        self.held_bytes.fetch_sub(before, Relaxed);
    }

    /// No more spans will come.
    pub fn close(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).closed = true;
        self.some.notify_one();
        self.plenty.notify_one();
    }
}

/// About how much memory a span holds: the structures, and the text and entries of its attributes.
pub(super) fn weight(span: &Span) -> usize {
    /// Key, kind and value of one attribute, and of the value's text what it has on average.
    const ATTRIBUTE: usize = 40 + 16;
    /// A link, with its part of the vector.
    const LINK: usize = 64;
    let exchange = &*span.exchange;
    size_of::<Span>()
        + size_of::<Exchange>()
        + exchange.attributes.len() * ATTRIBUTE
        + exchange.name.len()
        + span.trace_state.len()
        + span.links.len() * LINK
}
