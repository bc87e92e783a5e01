//! A thread with a small runtime of its own for each exporter, and how it is stopped in bounded time.

use std::future::Future;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, anyhow};
use tokio::sync::watch;

use super::intake::Intake;

/// How a worker learns that the daemon stops.
#[derive(Clone)]
pub(super) struct Stop {
    /// Becomes true: no more spans come, finish what is there.
    pub closing: watch::Receiver<bool>,
    /// Known once `closing` is true.
    times: Arc<OnceLock<Times>>,
}

#[derive(Clone, Copy)]
struct Times {
    half: Instant,
    last: Instant,
}

impl Stop {
    /// Whether the daemon stops.
    pub fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Whether half of the time for stopping is over: nothing new is sent if it can be kept.
    pub fn is_half_over(&self) -> bool {
        self.times.get().is_some_and(|times| Instant::now() >= times.half)
    }

    /// Waits until the time for stopping is nearly over: just enough is left for keeping what is under way.
    pub async fn nearly_over(&self) {
        let mut closing = self.closing.clone();
        if closing.wait_for(|&closing| closing).await.is_ok()
            && let Some(times) = self.times.get()
        {
            return tokio::time::sleep_until(times.last.into()).await;
        }
        std::future::pending().await
    }
}

/// A running exporter.
pub(super) struct Worker {
    intake: Arc<Intake>,
    closing: watch::Sender<bool>,
    times: Arc<OnceLock<Times>>,
    abort: watch::Sender<bool>,
    done: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Worker {
    /// Starts a thread that builds its work inside its runtime and does it.
    ///
    /// # Errors
    /// The thread or the runtime cannot be had, or the work cannot be built.
    pub fn start<B, W>(name: &str, intake: Arc<Intake>, build: B) -> anyhow::Result<Self>
    where
        B: FnOnce(Stop) -> anyhow::Result<W> + Send + 'static,
        W: Future<Output = ()>,
    {
        let (closing, closing_seen) = watch::channel(false);
        let times = Arc::default();
        let stop = Stop {
            closing: closing_seen,
            times: Arc::clone(&times),
        };
        let (abort, mut aborted) = watch::channel(false);
        let (built, ready) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .context("setting up the exporter's runtime")?;
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    match build(stop) {
                        Ok(work) => {
                            let _ = built.send(Ok(()));
                            tokio::select! {
                                () = work => {}
                                _ = aborted.wait_for(|&stop| stop) => {}
                            }
                        }
                        Err(error) => drop(built.send(Err(error))),
                    }
                });
                // A name look-up that hangs must not keep the daemon.
                runtime.shutdown_background();
                let _ = finished.send(());
            })
            .context("starting the exporter's thread")?;
        ready
            .recv()
            .map_err(|_| anyhow!("the exporter's thread panicked"))??;
        Ok(Self {
            intake,
            closing,
            times,
            abort,
            done,
            thread,
        })
    }

    /// Lets no more spans in and has the rest sent, until then at most.
    pub fn close(&self, deadline: Instant) {
        let now = Instant::now();
        let time = deadline.saturating_duration_since(now);
        let _ = self.times.set(Times {
            half: now + time / 2,
            last: now + time.mul_f64(0.9),
        });
        self.intake.close();
        let _ = self.closing.send(true);
    }

    /// Waits until everything is sent or the deadline has passed; then what is left is abandoned. True if nothing was.
    pub fn join(self, deadline: Instant) -> bool {
        let in_time = match self
            .done
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => true,
            Err(RecvTimeoutError::Timeout) => false,
        };
        let _ = self.abort.send(true);
        // A thread that hangs in a write to standard output cannot be ended; it is left to the end of the process.
        if in_time && self.thread.join().is_err() {
            tracing::error!("an exporter's thread panicked");
        }
        in_time
    }
}
