//! Starting an exporter of spans over OTLP: at once, or when what it needs to know has been found out.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use super::config::Otlp;
use super::encode::Encoder;
use super::{Client, Endpoint, Signal, resolve};
use crate::export::delivery::{self, Terms};
use crate::export::http::Authorise;
use crate::export::registry::Job;
use crate::export::worker::{Stop, Worker};
use crate::model::Key;

/// How long to wait before what a backend needs is looked for again.
const AGAIN: Duration = Duration::from_secs(10);

/// What a backend wants beside OTLP itself.
#[derive(Default)]
pub(in crate::export) struct Wishes {
    /// Attributes that every resource gets.
    pub resource: Vec<(Box<str>, Box<str>)>,
    /// Attributes of spans that are sent under a second name too.
    pub aliases: &'static [(Key, Key)],
    /// Over HTTP only.
    pub auth: Option<Arc<dyn Authorise>>,
}

/// Starts an exporter.
///
/// # Errors
/// The endpoint or the certificates cannot be used; nothing is sent to find out.
pub(in crate::export) fn start(section: &Otlp, job: Job, wishes: Wishes) -> anyhow::Result<Worker> {
    let parts = Parts::new(section, wishes)?;
    Worker::start(&thread(&job), Arc::clone(&job.intake), move |stop| {
        parts.run(job, stop)
    })
}

/// Starts an exporter that has to ask others first (which region, which project), for as long as it takes: spans wait meanwhile.
///
/// # Errors
/// No thread is to be had.
pub(in crate::export) fn start_when_known<F>(
    job: Job,
    find_out: impl Fn() -> F + Send + 'static,
) -> anyhow::Result<Worker>
where
    F: Future<Output = anyhow::Result<(Otlp, Wishes)>>,
{
    Worker::start(&thread(&job), Arc::clone(&job.intake), move |stop| {
        Ok(async move {
            let exporter = job.name;
            let mut closing = stop.closing.clone();
            let mut has_told = false;
            let parts = loop {
                let found = find_out()
                    .await
                    .and_then(|(section, wishes)| Parts::new(&section, wishes));
                match found {
                    Ok(parts) => break parts,
                    Err(error) if !has_told => {
                        tracing::error!(exporter, "cannot export yet, trying again: {error:#}");
                        has_told = true;
                    }
                    Err(_) => {}
                }
                if *closing.borrow() {
                    return;
                }
                let _ = tokio::time::timeout(AGAIN, closing.changed()).await;
            };
            match parts.run(job, stop) {
                Ok(work) => work.await,
                Err(error) => tracing::error!(exporter, "cannot export: {error:#}"),
            }
        })
    })
}

fn thread(job: &Job) -> String {
    format!("export-{}", job.name)
}

/// An exporter before it has a thread.
struct Parts {
    section: Otlp,
    endpoint: Endpoint,
    wishes: Wishes,
}

impl Parts {
    fn new(section: &Otlp, wishes: Wishes) -> anyhow::Result<Self> {
        Ok(Self {
            endpoint: resolve(section, Signal::Traces)?,
            section: section.clone(),
            wishes,
        })
    }

    /// Must be called inside a runtime.
    fn run(self, job: Job, stop: Stop) -> anyhow::Result<impl Future<Output = ()>> {
        let Self {
            section,
            endpoint,
            wishes,
        } = self;
        let client = Client::new(&section, &endpoint, wishes.auth)?;
        tracing::info!(
            exporter = job.name,
            url = %endpoint.url,
            protocol = ?endpoint.protocol,
            "exporting spans over OTLP"
        );
        let terms = Terms {
            timeout: section.timeout,
            concurrency: section.concurrency,
        };
        let encoder = Encoder::new(job.clock.clone()).with(wishes.resource, wishes.aliases);
        Ok(delivery::run(job, terms, encoder, client, stop))
    }
}
