//! Metrics leave the daemon: pushed over OTLP, and as a page that Prometheus scrapes. One thread does both.

mod config;
mod delta;
mod encode;
mod push;
mod server;
mod text;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::watch;

pub use self::config::{Buckets, Config, Temporality};
use super::Clock;
use super::clock::now;
use crate::model::{Family, Gather, Service};

/// What both exporters need.
pub(super) struct Scene {
    sources: Vec<Box<dyn Gather>>,
    /// Whose metrics without a service are: the tracer.
    myself: Arc<Service>,
    clock: Clock,
}

impl Scene {
    fn gather(&self) -> Vec<Family> {
        self.clock.keep_true();
        let now = now();
        self.sources
            .iter()
            .flat_map(|source| source.gather(now))
            .collect()
    }
}

/// Running exporters of metrics.
pub struct Exporters {
    stop: watch::Sender<bool>,
    done: mpsc::Receiver<()>,
    thread: JoinHandle<()>,
}

impl Exporters {
    /// Starts what the configuration names; `None` if that is nothing.
    ///
    /// # Errors
    /// An endpoint or certificates that cannot be used, or an address that cannot be listened on.
    pub fn start(
        config: &super::Config,
        sources: Vec<Box<dyn Gather>>,
        myself: Arc<Service>,
        clock: Clock,
    ) -> anyhow::Result<Option<Self>> {
        if !config.metrics.is_enabled() {
            return Ok(None);
        }
        let listener = config.metrics.prometheus.map(|address| {
            let listener = server::listen(address).with_context(|| {
                format!("listening on {address} for Prometheus: is another program there?")
            })?;
            tracing::info!(
                "metrics for Prometheus at http://{}/metrics",
                listener.local_addr()?
            );
            anyhow::Ok(listener)
        });
        let listener = listener.transpose()?;
        let target = config
            .metrics
            .has_otlp()
            .then(|| push::Target::resolve(config))
            .transpose()?;
        let scene = Arc::new(Scene {
            sources,
            myself,
            clock,
        });
        let (stop, stopping) = watch::channel(false);
        let (built, ready) = mpsc::channel();
        let (finished, done) = mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(1)
            .build()
            .context("setting up the runtime for metrics")?;
        let thread = std::thread::Builder::new()
            .name("export-metrics".into())
            .spawn(move || {
                runtime.block_on(async move {
                    let push = match start_tasks(listener, target, &scene) {
                        Ok(push) => {
                            let _ = built.send(Ok(()));
                            push
                        }
                        Err(error) => return drop(built.send(Err(error))),
                    };
                    work(push, &scene, stopping).await;
                });
                runtime.shutdown_background();
                let _ = finished.send(());
            })
            .context("starting the thread for metrics")?;
        ready.recv().context("the thread for metrics panicked")??;
        Ok(Some(Self { stop, done, thread }))
    }

    /// Exports once more, for `timeout` at most.
    pub fn shutdown(self, timeout: Duration) {
        let _ = self.stop.send(true);
        if self.done.recv_timeout(timeout).is_ok() && self.thread.join().is_err() {
            tracing::error!("the thread for metrics panicked");
        }
    }
}

fn start_tasks(
    listener: Option<std::net::TcpListener>,
    target: Option<push::Target>,
    scene: &Arc<Scene>,
) -> anyhow::Result<Option<push::Push>> {
    if let Some(listener) = listener {
        let listener = tokio::net::TcpListener::from_std(listener).context("listening for Prometheus")?;
        tokio::spawn(server::serve(listener, Arc::clone(scene)));
    }
    target.map(push::Push::new).transpose()
}

async fn work(push: Option<push::Push>, scene: &Scene, mut stopping: watch::Receiver<bool>) {
    match push {
        Some(push) => push.run(scene, stopping).await,
        None => drop(stopping.wait_for(|&stop| stop).await),
    }
}
