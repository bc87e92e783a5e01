//! Clients that are made anew: with certificates that were renewed, and over another connection where the old one is dead.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::body::Body;
use super::delivery::Transport;
use super::retry::Answer;

/// How often the files of certificates are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

/// A client that is made anew when
///
/// - a file of its certificates is another than before: they are renewed while the daemon runs;
/// - the backend let a try run out of time: a peer that vanished without a word leaves a connection that looks alive for minutes, and
///   a name that has another address by now is looked up again only for a new one.
pub(super) struct Renewing<T> {
    make: Box<dyn Fn() -> anyhow::Result<T> + Send + Sync>,
    files: Vec<PathBuf>,
    current: Mutex<Current<T>>,
}

struct Current<T> {
    client: Arc<T>,
    seen: Vec<Option<Seen>>,
    looked: Instant,
    is_dead: bool,
}

/// What tells a file from the one that was there before: when it was written, and its length.
type Seen = (SystemTime, u64);

impl<T> Renewing<T> {
    /// Makes the first client with `make`, which reads `files`.
    ///
    /// # Errors
    /// What `make` says.
    pub fn new(
        files: Vec<PathBuf>,
        make: impl Fn() -> anyhow::Result<T> + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        // Looked at before they are read: what changes in between is read once more.
        let seen = look(&files);
        Ok(Self {
            current: Mutex::new(Current {
                client: Arc::new(make()?),
                seen,
                looked: Instant::now(),
                is_dead: false,
            }),
            make: Box::new(make),
            files,
        })
    }

    /// The client for the next try.
    fn client(&self) -> Arc<T> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_old = std::mem::take(&mut current.is_dead);
        if !self.files.is_empty() && current.looked.elapsed() >= LOOK {
            current.looked = Instant::now();
            let seen = look(&self.files);
            if seen != current.seen {
                tracing::info!("certificates were renewed");
                current.seen = seen;
                is_old = true;
            }
        }
        if is_old {
            match (self.make)() {
                Ok(client) => current.client = Arc::new(client),
                // Perhaps they are being written: the files change once more then.
                Err(error) => tracing::error!("keeping the old certificates: {error:#}"),
            }
        }
        Arc::clone(&current.client)
    }
}

fn look(files: &[PathBuf]) -> Vec<Option<Seen>> {
    let seen = files.iter().map(|file| {
        let found = std::fs::metadata(file).ok()?;
        Some((found.modified().ok()?, found.len()))
    });
    seen.collect()
}

impl<T: Transport> Transport for Renewing<T> {
    fn prepare(&self, body: Body) -> Body {
        self.client().prepare(body)
    }

    fn split(&self, body: &Body, first: usize) -> Option<(Body, Body)> {
        self.client().split(body, first)
    }

    fn silent(&self) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.is_dead = true;
    }

    async fn send(&self, body: Body) -> Answer {
        self.client().send(body).await
    }
}
