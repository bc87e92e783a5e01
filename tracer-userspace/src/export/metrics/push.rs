//! Metrics over OTLP, once an interval.

use std::time::Duration;

use bytes::Bytes;
use prost::Message as _;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};

use super::config::{Config, Temporality};
use super::delta::Taken;
use super::encode::Form;
use super::{Scene, now};
use crate::export::body::Body;
use crate::export::config::{self, Otlp};
use crate::export::delivery::Transport as _;
use crate::export::otlp::{Client, Endpoint, Signal, resolve};
use crate::export::renew::Renewing;
use crate::export::retry::{Answer, Backoff};
use crate::model::Family;

/// Where and how.
pub struct Target {
    endpoint: Endpoint,
    transport: Otlp,
    config: Config,
    retry: config::Retry,
}

impl Target {
    /// Applies the rules for endpoints.
    pub fn resolve(config: &config::Config) -> anyhow::Result<Self> {
        let transport = config.metrics.transport(&config.otlp);
        Ok(Self {
            endpoint: resolve(&transport, Signal::Metrics)?,
            transport,
            config: config.metrics.clone(),
            retry: config.retry.clone(),
        })
    }
}

/// The exporter.
pub struct Push {
    client: Renewing<Client>,
    target: Target,
    taken: Taken,
    /// Whether the last export failed: the log tells when that changes.
    failing: bool,
}

impl Push {
    /// Sets the client up. Nothing is sent yet.
    pub fn new(target: Target) -> anyhow::Result<Self> {
        let client = Client::new(&target.transport, &target.endpoint, None)?;
        tracing::info!(url = %target.endpoint.url, "exporting metrics over OTLP");
        Ok(Self {
            client,
            target,
            taken: Taken::default(),
            failing: false,
        })
    }

    /// Exports until it is stopped, and then once more.
    pub async fn run(mut self, scene: &Scene, mut stopping: watch::Receiver<bool>) {
        let every = self.target.config.interval;
        let mut ticks = interval_at(Instant::now() + every, every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stop = tokio::select! {
                _ = ticks.tick() => false,
                _ = stopping.wait_for(|&stop| stop) => true,
            };
            self.export(scene, Instant::now() + every).await;
            if stop {
                return;
            }
        }
    }

    async fn export(&mut self, scene: &Scene, deadline: Instant) {
        let families = scene.gather();
        let is_delta = self.target.config.temporality != Temporality::Cumulative;
        let deltas: Vec<Family>;
        let told = if is_delta {
            deltas = self.taken.deltas(&families);
            &deltas
        } else {
            &families
        };
        let form = Form {
            clock: &scene.clock,
            temporality: self.target.config.temporality,
            buckets: self.target.config.histogram,
            now: now(),
            myself: &scene.myself,
        };
        let requests = form.requests(told);
        let mut taken = Vec::new();
        let mut outcome = Ok(());
        for (request, series) in requests {
            let body = self
                .client
                .prepare(Body::from(Bytes::from(request.encode_to_vec())));
            match self.send(&body, deadline).await {
                Ok(()) => taken.extend(series),
                Err(why) => outcome = Err(why),
            }
        }
        if is_delta {
            let at = form.now;
            self.taken.commit(families, &taken, at);
        }
        match outcome {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    tracing::info!("the OTLP backend takes metrics again");
                }
            }
            Err(why) => {
                // Nothing is lost but detail in time: the next export says it all.
                if !std::mem::replace(&mut self.failing, true) {
                    tracing::warn!("the OTLP backend does not take metrics: {why}");
                }
            }
        }
    }

    async fn send(&mut self, body: &Body, deadline: Instant) -> Result<(), String> {
        let mut backoff = Backoff::new(&self.target.retry);
        loop {
            let limit = self.target.transport.timeout;
            let answer = timeout(limit, self.client.send(body.clone())).await;
            let (after, why) = match answer {
                Ok(Answer::Taken { rejected, message }) => {
                    if rejected > 0 || !message.is_empty() {
                        tracing::warn!(rejected, "the OTLP backend says of metrics: {message}");
                    }
                    return Ok(());
                }
                Ok(Answer::Refused { why } | Answer::TooLarge { why }) => return Err(why),
                Ok(Answer::Later { after, why }) => (after, why),
                Err(_) => {
                    self.client.silent();
                    let limit = humantime::format_duration(limit);
                    (None, format!("no answer within {limit}"))
                }
            };
            let Some(wait) = backoff.next(after, fastrand::f64()) else {
                return Err(why);
            };
            if timeout_at(deadline, tokio::time::sleep(wait.max(Duration::from_millis(1))))
                .await
                .is_err()
            {
                return Err(why);
            }
        }
    }
}
