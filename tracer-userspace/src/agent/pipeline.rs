//! The stages behind the reader, in one thread or sharded by connection over several.
//!
//! With one worker everything happens in the reader's thread and no byte is copied. With more, each drain of the rings is
//! an *epoch*: every worker gets its part of it (an empty one too), answers with the signals of that epoch, and the
//! correlation thread merges the answers of all workers by time before it goes on. A full queue drops the batch's events and counts
//! them; the streams resynchronise by their positions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use tracer_common::{EventHeader, EventKind, ProcessFacts};

use super::batch::Batch;
use super::correlation::Correlation;
use super::lane::{Lane, Selects};
use crate::export;
use crate::model::{ConnId, Nanos, Signal};
use crate::protocol::CapturePolicy;
use crate::telemetry::Ledger;

/// Epochs that may wait for a worker.
const QUEUE: usize = 64;
/// Nanoseconds between two sweeps of idle flows.
const SWEEP: Nanos = 60_000_000_000;

/// Applies what a session wants captured, wherever the connections are kept.
pub type ApplyPolicy = Arc<dyn Fn(ConnId, CapturePolicy) + Send + Sync>;

/// The stages behind the reader.
pub enum Pipeline<S> {
    /// One worker, in the caller's thread.
    Inline(Box<Inline<S>>),
    /// Several workers and a correlation thread.
    Sharded(Sharded),
}

/// One worker, in the caller's thread.
pub struct Inline<S> {
    lane: Lane<S>,
    correlation: Correlation,
    apply: ApplyPolicy,
    next_sweep: Nanos,
}

type Told = dyn Fn(&ProcessFacts<'_>, Nanos) -> bool + Send;

/// Several workers.
pub struct Sharded {
    workers: Vec<Worker>,
    correlation: JoinHandle<export::Pipeline>,
    nobody_reads: Arc<AtomicBool>,
    ledger: Arc<Ledger>,
    dropped: u64,
    /// Takes in who a process is; whether something else was known under its id.
    told: Box<Told>,
}

struct Worker {
    pending: Batch,
    queue: Sender<Batch>,
    empty: Receiver<Batch>,
    thread: JoinHandle<()>,
}

struct Epoch {
    signals: Vec<Signal>,
    watermark: Nanos,
}

impl<S: Selects + Clone + Send + 'static> Pipeline<S> {
    /// Starts `workers` workers (at least one).
    pub fn start(
        workers: usize,
        selection: S,
        correlation: Correlation,
        apply: ApplyPolicy,
        ledger: Arc<Ledger>,
    ) -> std::io::Result<Self> {
        if workers <= 1 {
            let lane = Lane::new(0, selection, ledger);
            return Ok(Self::Inline(Box::new(Inline {
                lane,
                correlation,
                apply,
                next_sweep: 0,
            })));
        }
        let mut running = Vec::with_capacity(workers);
        let mut answers = Vec::with_capacity(workers);
        for index in 0..workers {
            let (queue, batches) = bounded::<Batch>(QUEUE);
            let (recycle, empty) = bounded::<Batch>(QUEUE);
            let (answer, answered) = bounded::<Epoch>(QUEUE);
            let lane = Lane::new(index, selection.clone(), Arc::clone(&ledger));
            let apply = Arc::clone(&apply);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || work(lane, &batches, &recycle, &answer, &apply))?;
            running.push(Worker {
                pending: Batch::default(),
                queue,
                empty,
                thread,
            });
            answers.push(answered);
        }
        let nobody_reads = correlation.nobody_reads();
        let correlation = std::thread::Builder::new()
            .name("correlate".into())
            .spawn(move || correlate(correlation, &answers))?;
        Ok(Self::Sharded(Sharded {
            workers: running,
            correlation,
            nobody_reads,
            ledger,
            dropped: 0,
            told: Box::new(move |facts, at| selection.told(facts, at)),
        }))
    }

    /// Takes one event.
    pub fn event(&mut self, header: &EventHeader, head: &[u8], tail: &[u8]) {
        match self {
            Self::Inline(inline) => inline.lane.event(header, head, tail),
            Self::Sharded(sharded) => sharded.event(header, head, tail),
        }
    }

    /// All events up to `watermark` have been handed over.
    pub fn advance(&mut self, watermark: Nanos) {
        match self {
            Self::Inline(inline) => inline.advance(watermark),
            Self::Sharded(sharded) => sharded.advance(watermark),
        }
    }

    /// Whether there is no point in going on: the spans' only reader has gone.
    pub fn nobody_reads(&self) -> bool {
        match self {
            Self::Inline(inline) => inline.correlation.nobody_reads().load(Relaxed),
            Self::Sharded(sharded) => sharded.nobody_reads.load(Relaxed),
        }
    }

    /// Ends everything that is open; gives back the exporters, which still hold what they have not sent.
    pub fn finish(self, now: Nanos) -> anyhow::Result<export::Pipeline> {
        match self {
            Self::Inline(mut inline) => {
                inline.lane.finish(now);
                Ok(inline.correlation.finish(inline.lane.signals(), now))
            }
            Self::Sharded(sharded) => sharded.finish(now),
        }
    }
}

impl<S: Selects> Inline<S> {
    fn advance(&mut self, watermark: Nanos) {
        self.lane.release_overdue(watermark);
        self.lane.pause(watermark);
        for (id, policy) in self.lane.policies().drain(..) {
            (self.apply)(id, policy);
        }
        if watermark >= self.next_sweep {
            self.next_sweep = watermark + SWEEP;
            self.lane.sweep(watermark);
        }
        self.correlation.advance(self.lane.signals(), watermark);
    }
}

impl Sharded {
    fn event(&mut self, header: &EventHeader, head: &[u8], tail: &[u8]) {
        // Before any worker meets what that process does. They learn of it only if a name changes.
        let (mut replaced, mut header, mut head) = (*header, header, head);
        if EventKind(header.kind) == EventKind::PROCESS {
            if !ProcessFacts::decode(header, head).is_some_and(|facts| (self.told)(&facts, header.ts)) {
                return;
            }
            replaced.captured = 0;
            (header, head) = (&replaced, &[]);
        }
        let shard = shard(header.cookie, self.workers.len());
        if let Some(worker) = self.workers.get_mut(shard) {
            worker.pending.push(header, head, tail);
        }
    }

    fn advance(&mut self, watermark: Nanos) {
        for worker in &mut self.workers {
            let mut batch =
                std::mem::replace(&mut worker.pending, worker.empty.try_recv().unwrap_or_default());
            batch.watermark = watermark;
            match worker.queue.try_send(batch) {
                Ok(()) => {}
                Err(TrySendError::Full(mut batch) | TrySendError::Disconnected(mut batch)) => {
                    self.dropped += batch.events() as u64;
                    self.ledger.kernel("worker_queue_full", self.dropped);
                    batch.drain(|_, _, _| {});
                    worker.pending = batch;
                }
            }
        }
    }

    fn finish(self, now: Nanos) -> anyhow::Result<export::Pipeline> {
        for mut worker in self.workers {
            worker.pending.watermark = now;
            // The worker still empties its queue, so this waits only for work that is under way.
            let _ = worker.queue.send(worker.pending);
            drop(worker.queue);
            if worker.thread.join().is_err() {
                tracing::error!("a worker panicked; its connections' exchanges are lost");
            }
        }
        self.correlation
            .join()
            .map_err(|_| anyhow::anyhow!("the correlation thread panicked"))
    }
}

/// Socket cookies count upwards by CPU; a multiplication spreads them.
fn shard(cookie: u64, workers: usize) -> usize {
    let spread = cookie.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    (spread as usize) % workers.max(1)
}

fn work<S: Selects>(
    mut lane: Lane<S>,
    batches: &Receiver<Batch>,
    recycle: &Sender<Batch>,
    answer: &Sender<Epoch>,
    apply: &ApplyPolicy,
) {
    let mut next_sweep = 0;
    let mut watermark = 0;
    for mut batch in batches {
        watermark = batch.watermark;
        batch.drain(|header, head, tail| lane.event(header, head, tail));
        // A full recycling queue means that enough empty batches wait: this one's memory is freed.
        let _ = recycle.try_send(batch);
        lane.release_overdue(watermark);
        lane.pause(watermark);
        for (id, policy) in lane.policies().drain(..) {
            apply(id, policy);
        }
        if watermark >= next_sweep {
            next_sweep = watermark + SWEEP;
            lane.sweep(watermark);
        }
        let signals = std::mem::take(lane.signals());
        if answer.send(Epoch { signals, watermark }).is_err() {
            return;
        }
    }
    lane.finish(watermark);
    let signals = std::mem::take(lane.signals());
    let _ = answer.send(Epoch { signals, watermark });
}

/// Merges the epochs. A worker whose queue was full skips an epoch, so workers are compared by watermark, not by number: time has come
/// to the smallest watermark that the workers have answered.
fn correlate(mut stage: Correlation, answers: &[Receiver<Epoch>]) -> export::Pipeline {
    let mut pending: Vec<Signal> = Vec::new();
    let mut ready: Vec<Signal> = Vec::new();
    let mut reached: Vec<Nanos> = vec![0; answers.len()];
    let mut open: Vec<bool> = vec![true; answers.len()];
    while open.iter().any(|&is_open| is_open) {
        // Wait for the worker that is furthest behind.
        let Some(behind) = (0..answers.len())
            .filter(|&i| open[i])
            .min_by_key(|&i| reached[i])
        else {
            break;
        };
        match answers[behind].recv() {
            Ok(epoch) => {
                reached[behind] = epoch.watermark.max(reached[behind] + 1);
                pending.extend(epoch.signals);
            }
            Err(_) => {
                open[behind] = false;
                continue;
            }
        }
        let Some(watermark) = (0..answers.len()).filter(|&i| open[i]).map(|i| reached[i]).min() else {
            break;
        };
        pending.sort_by_key(|signal| signal.ts);
        let split = pending.partition_point(|signal| signal.ts <= watermark);
        ready.extend(pending.drain(..split));
        stage.advance(&mut ready, watermark);
    }
    pending.sort_by_key(|signal| signal.ts);
    let end = reached.into_iter().max().unwrap_or_default();
    stage.finish(&mut pending, end)
}
