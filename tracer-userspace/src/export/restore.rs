//! From the disk to the backend: one request at a time, oldest first. While the backend fails, nothing else is sent, so these are
//! the tries that find out whether it takes spans again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::config::Retry;
use super::delivery::{Delivery, Request, Transport};
use super::disk::{Disk, Stored};
use super::retry::{Answer, Backoff};

/// What is left to do for a request from the disk.
enum After {
    /// Nothing: it is gone.
    Next,
    /// It stays where it is. The backend may have said when to come back.
    Wait(Option<Duration>),
}

impl<T: Transport> Delivery<T> {
    /// Sends what is on the disk, whenever there is something, until the daemon stops. What is not sent then waits for the next run.
    pub(super) async fn restore(self: Arc<Self>, disk: Arc<Disk>) {
        let patient = Retry {
            give_up: Duration::MAX,
            ..self.retry.clone()
        };
        let mut backoff = Backoff::new(&patient);
        let mut closing = self.stop.closing.clone();
        loop {
            if self.stop.is_closing() && (self.is_failing() || self.stop.is_half_over()) {
                return;
            }
            let Some(stored) = disk.oldest() else {
                if self.stop.is_closing() {
                    return;
                }
                tokio::select! {
                    () = disk.filled() => {}
                    _ = closing.changed() => {}
                }
                continue;
            };
            match self.restore_one(&disk, stored).await {
                After::Next => backoff = Backoff::new(&patient),
                After::Wait(asked) => {
                    let wait = backoff.next(asked, fastrand::f64()).unwrap_or(patient.max);
                    let stop = tokio::time::timeout(wait, closing.wait_for(|&closing| closing)).await;
                    if stop.is_ok() {
                        return;
                    }
                }
            }
        }
    }

    async fn restore_one(&self, disk: &Disk, stored: Stored) -> After {
        let (exporter, spans) = (self.name, stored.spans);
        let body = match disk.read(stored) {
            Ok(body) => body,
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::error!(exporter, spans, "a request in the disk queue is damaged: {error}");
                self.lose(spans as u64);
                disk.remove(stored);
                return After::Next;
            }
            Err(error) => {
                tracing::error!(exporter, spans, "the disk queue cannot be read: {error}");
                return After::Wait(None);
            }
        };
        let shares = Vec::new();
        let mut parts = vec![Request { body, spans, shares }];
        while let Some(part) = parts.pop() {
            let body = self.transport.prepare(part.body.clone());
            let answer = tokio::select! {
                answer = self.try_once(body) => answer,
                // Whether the backend got it nobody knows: the next run sends it again.
                () = self.stop.nearly_over() => {
                    parts.push(part);
                    return self.keep(disk, stored, &parts, None);
                }
            };
            match answer {
                Answer::Taken { rejected, message } => {
                    self.taken(rejected, &message);
                    let rejected = rejected.min(part.spans as u64);
                    let delivered = part.spans as u64 - rejected;
                    self.account.note(|books| books.delivered += delivered);
                    self.account.note_disk(|disk| disk.restored += delivered);
                    self.lose(rejected);
                }
                Answer::TooLarge { why } => match self.halves(&part) {
                    Some((front, back)) => parts.extend([back, front]),
                    None => {
                        tracing::error!(
                            exporter,
                            spans = part.spans,
                            "the backend takes no request of that size: {why}"
                        );
                        self.lose(part.spans as u64);
                    }
                },
                Answer::Refused { why } => {
                    tracing::error!(exporter, spans = part.spans, "the backend refused spans: {why}");
                    self.lose(part.spans as u64);
                }
                Answer::Later { after, why } => {
                    self.failed(&why);
                    parts.push(part);
                    return self.keep(disk, stored, &parts, after);
                }
            }
        }
        disk.remove(stored);
        After::Next
    }

    /// Keeps the parts of a request that are not settled yet.
    fn keep(&self, disk: &Disk, stored: Stored, parts: &[Request], after: Option<Duration>) -> After {
        let left: usize = parts.iter().map(|part| part.spans).sum();
        if left == stored.spans {
            return After::Wait(after);
        }
        // The room of what was delivered is free, but only once the rest is safe.
        for part in parts {
            if !matches!(disk.put(&part.body, part.spans), Ok(true)) {
                self.lose(part.spans as u64);
            }
        }
        disk.remove(stored);
        After::Wait(after)
    }

    /// Spans on the disk go no further.
    fn lose(&self, spans: u64) {
        if spans > 0 {
            self.account.note(|books| books.failed += spans);
            self.account.note_disk(|disk| disk.lost += spans);
        }
    }
}
