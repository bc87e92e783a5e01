//! Zipkin's own JSON (`POST /api/v2/spans`, <https://zipkin.io/zipkin-api/>): the server takes no OTLP.

mod encode;

#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use self::encode::Encoder;
use super::body::Body;
use super::config::{Compression, Headers, duration};
use super::delivery::{self, Terms, Transport};
use super::http::{Client, Settings};
use super::registry::{Env, Exporter, Job};
use super::renew::Renewing;
use super::retry::Answer;
use super::tls::{Files, Paths};
use super::worker::Worker;

const PATH: &str = "/api/v2/spans";
/// The standard variables (OpenTelemetry specification, "Zipkin Exporter").
const ENDPOINT: &str = "OTEL_EXPORTER_ZIPKIN_ENDPOINT";
const TIMEOUT: &str = "OTEL_EXPORTER_ZIPKIN_TIMEOUT";

/// The `zipkin` section of the configuration.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Zipkin {
    /// URL of the server; `/api/v2/spans` is appended where there is no path.
    pub endpoint: String,
    /// Headers sent with every request. Never logged.
    pub headers: Headers,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// How long one request may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// File (PEM) of the authorities that sign the server's certificate. Unset: the host's trust store.
    pub certificate: Option<PathBuf>,
    /// File (PEM) of our certificate, where the server asks for one. Needs `client_key`.
    pub client_certificate: Option<PathBuf>,
    /// File (PEM) of the private key of `client_certificate`.
    pub client_key: Option<PathBuf>,
    /// Requests that may be under way at the same time.
    pub concurrency: usize,
}

impl Default for Zipkin {
    fn default() -> Self {
        Self {
            endpoint: "http://localhost:9411".into(),
            headers: Headers::default(),
            compression: Compression::None,
            timeout: Duration::from_secs(10),
            certificate: None,
            client_certificate: None,
            client_key: None,
            concurrency: 4,
        }
    }
}

impl Zipkin {
    fn url(&self) -> anyhow::Result<http::Uri> {
        let given = &self.endpoint;
        let advice = || format!("Zipkin endpoint `{given}` is not a URL: write it as http://host:9411");
        let url: http::Uri = given.parse().with_context(advice)?;
        if !matches!(url.scheme_str(), Some("http" | "https")) || url.host().is_none_or(str::is_empty) {
            bail!(advice());
        }
        if url.path() != "/" {
            return Ok(url);
        }
        let base = given.trim_end_matches('/');
        format!("{base}{PATH}").parse().with_context(advice)
    }

    fn tls(&self) -> Paths<'_> {
        Paths {
            certificate: self.certificate.as_deref(),
            client_certificate: self.client_certificate.as_deref(),
            client_key: self.client_key.as_deref(),
        }
    }

    fn client(&self, url: &http::Uri) -> anyhow::Result<Server> {
        let client = Client::new(Settings {
            url,
            content_type: "application/json",
            headers: &self.headers,
            compression: self.compression,
            timeout: self.timeout,
            tls: &Files::read(&self.tls())?,
            auth: None,
        })?;
        Ok(Server(client))
    }
}

impl Exporter for Zipkin {
    fn set_target(&mut self, target: &str) {
        self.endpoint = target.to_owned();
    }

    fn apply_env(&mut self, env: Env<'_>) -> anyhow::Result<()> {
        let get = |name| env(name).filter(|value| !value.trim().is_empty());
        if let Some(url) = get(ENDPOINT) {
            self.endpoint = url.trim().to_owned();
        }
        if let Some(text) = get(TIMEOUT) {
            let millis = text.trim().parse().ok().filter(|&millis: &u64| millis > 0);
            let millis = millis.ok_or_else(|| {
                anyhow!("{TIMEOUT}={text} is not a time-out: write milliseconds, 10000 for 10 s")
            })?;
            self.timeout = Duration::from_millis(millis);
        }
        Ok(())
    }

    fn start(&self, job: Job) -> anyhow::Result<Worker> {
        if self.compression == Compression::Zstd {
            bail!("Zipkin does not take zstd: set the compression to gzip or none");
        }
        let url = self.url()?;
        let section = self.clone();
        Worker::start("export-zipkin", Arc::clone(&job.intake), move |stop| {
            let made = section.clone();
            let to = url.clone();
            let server = Renewing::new(section.tls().all(), move || made.client(&to))?;
            tracing::info!(exporter = job.name, %url, "exporting spans to Zipkin");
            let terms = Terms {
                timeout: section.timeout,
                concurrency: section.concurrency,
            };
            let encoder = Encoder::new(job.clock.clone());
            Ok(delivery::run(job, terms, encoder, server, stop))
        })
    }
}

struct Server(Client);

impl Transport for Server {
    fn prepare(&self, body: Body) -> Body {
        self.0.compress(body)
    }

    /// Cuts the array between two spans.
    fn split(&self, body: &Body, first: usize) -> Option<(Body, Body)> {
        let body = body.joined();
        let spans: Vec<&RawValue> = serde_json::from_slice(&body).ok()?;
        let (front, back) = spans.split_at_checked(first)?;
        let part = |spans| Some(Body::from(Bytes::from(serde_json::to_vec(spans).ok()?)));
        Some((part(front)?, part(back)?))
    }

    async fn send(&self, body: Body) -> Answer {
        match self.0.post(body).await {
            Ok(_) => Answer::Taken {
                rejected: 0,
                message: String::new(),
            },
            Err(answer) => answer,
        }
    }
}
