//! OTLP as JSON lines in a file (OpenTelemetry specification, "OpenTelemetry Protocol File Exporter"): one
//! `ExportTraceServiceRequest` a line. The Collector's `otlp_json_file` receiver reads them back.

mod rotate;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::Deserialize;

use self::rotate::Rotating;
use super::body::Body;
use super::delivery::{self, Terms, Transport};
use super::otlp::{Encoder, Signal, json};
use super::registry::{Exporter, Job};
use super::retry::Answer;
use super::worker::Worker;

/// The `file` section of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct File {
    /// The file that is written; older ones are beside it, with `.1` (the newest of them), `.2` and so on.
    pub path: PathBuf,
    /// Bytes after which a new file is begun.
    pub max_bytes: u64,
    /// Files that are kept, the one that is written included; older ones are removed.
    pub max_files: u32,
}

impl Default for File {
    fn default() -> Self {
        Self {
            path: "/var/log/tracer/spans.jsonl".into(),
            max_bytes: 100 << 20,
            max_files: 5,
        }
    }
}

impl Exporter for File {
    fn is_remote(&self) -> bool {
        false
    }

    fn set_target(&mut self, target: &str) {
        self.path = target.into();
    }

    fn start(&self, job: Job) -> anyhow::Result<Worker> {
        let file = Rotating::open(&self.path, self.max_bytes, self.max_files)?;
        tracing::info!(exporter = job.name, path = %self.path.display(), "writing spans to files");
        Worker::start("export-file", Arc::clone(&job.intake), move |stop| {
            let terms = Terms {
                // A disk answers when it wants.
                timeout: Duration::MAX,
                // Lines stay in order.
                concurrency: 1,
            };
            let encoder = Encoder::new(job.clock.clone());
            Ok(delivery::run(job, terms, encoder, Lines(Mutex::new(file)), stop))
        })
    }
}

struct Lines(Mutex<Rotating>);

impl Transport for Lines {
    fn prepare(&self, body: Body) -> Body {
        let mut line = Vec::from(json::of(Signal::Traces, &body.joined()));
        line.push(b'\n');
        Bytes::from(line).into()
    }

    /// Writes one line. A disk that is full may have room later.
    async fn send(&self, line: Body) -> Answer {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match file.append(&line.joined()) {
            Ok(()) => Answer::Taken {
                rejected: 0,
                message: String::new(),
            },
            Err(error) => Answer::Later {
                after: None,
                why: format!("{}: {error}", file.path().display()),
            },
        }
    }
}
