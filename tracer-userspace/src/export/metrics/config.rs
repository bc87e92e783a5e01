//! Where metrics go.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{anyhow, bail};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::export::config::Otlp;
use crate::export::registry::variable;

const EXPORTER: &str = "OTEL_METRICS_EXPORTER";
const INTERVAL: &str = "OTEL_METRIC_EXPORT_INTERVAL";
const TEMPORALITY: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
const AGGREGATION: &str = "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION";
const PROMETHEUS_HOST: &str = "OTEL_EXPORTER_PROMETHEUS_HOST";
const PROMETHEUS_PORT: &str = "OTEL_EXPORTER_PROMETHEUS_PORT";
/// The standard defaults of the two variables above.
const PROMETHEUS: (&str, u16) = ("127.0.0.1", 9464);

/// The `export.metrics` section of the configuration. Without an exporter, nothing is measured.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether metrics go to the OTLP backend. Unset: only if `endpoint` is set (not every backend of traces takes metrics).
    pub otlp: Option<bool>,
    /// URL for metrics, taken as it is. Unset: `/v1/metrics` of `export.otlp.endpoint`, whose other settings hold here too.
    pub endpoint: Option<String>,
    /// Time between two exports (`60s`).
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// `cumulative`, `delta` or `lowmemory`.
    pub temporality: Temporality,
    /// `explicit` or `exponential` buckets, over OTLP.
    pub histogram: Buckets,
    /// Address and port of the page for Prometheus (`127.0.0.1:9464`). Unset: there is none.
    pub prometheus: Option<SocketAddr>,
    /// What the environment says of metrics where it differs from what it says of traces.
    #[serde(skip)]
    pub(in crate::export) differences: Option<Box<Differences>>,
}

/// The transport's settings by the environment, for traces and for metrics.
#[derive(Clone, PartialEq, Debug)]
pub struct Differences {
    traces: Otlp,
    metrics: Otlp,
}

/// Since when counters count.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Temporality {
    /// Since the series began.
    #[default]
    Cumulative,
    /// Since the last export; what goes up and down stays as it is.
    Delta,
    /// The same, where nothing needs to be remembered for it: here as `delta`.
    LowMemory,
}

/// The buckets of histograms.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Buckets {
    /// The bounds that the conventions advise.
    #[default]
    Explicit,
    /// Powers of a base that adapts (OTLP `ExponentialHistogram`).
    Exponential,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            otlp: None,
            endpoint: None,
            interval: Duration::from_secs(60),
            temporality: Temporality::Cumulative,
            histogram: Buckets::Explicit,
            prometheus: None,
            differences: None,
        }
    }
}

impl Config {
    /// Whether there is anybody to measure for.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.has_otlp() || self.prometheus.is_some()
    }

    /// Whether exponential buckets are wanted.
    #[must_use]
    pub fn wants_exponential(&self) -> bool {
        self.has_otlp() && self.histogram == Buckets::Exponential
    }

    /// Whether metrics go to an OTLP backend.
    #[must_use]
    pub fn has_otlp(&self) -> bool {
        self.otlp.unwrap_or(self.endpoint.is_some())
    }

    /// Lays the environment over what the file said.
    pub(in crate::export) fn apply_env(
        &mut self,
        env: &dyn Fn(&str) -> Option<String>,
        traces: &Otlp,
        metrics: &Otlp,
    ) -> anyhow::Result<()> {
        let get = |name: &str| variable(env, name);
        if let Some(url) = get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT") {
            self.endpoint = Some(url);
        }
        if let Some(list) = get(EXPORTER) {
            let (mut otlp, mut prometheus) = (false, false);
            for name in list.split(',').map(str::trim) {
                match name {
                    "otlp" => otlp = true,
                    "prometheus" => prometheus = true,
                    "none" => {}
                    _ => bail!("{EXPORTER}={list}: `{name}` is not known: use otlp, prometheus or none"),
                }
            }
            self.otlp = Some(otlp);
            self.prometheus = match (prometheus, self.prometheus) {
                (false, _) => None,
                (true, Some(address)) => Some(address),
                (true, None) => Some(listen_address(&get)?),
            };
        }
        if let Some(value) = get(INTERVAL) {
            let millis: u64 = value.parse().ok().filter(|&millis| millis > 0).ok_or_else(|| {
                anyhow!(
                    "{INTERVAL}={value} is not an interval: write milliseconds as a whole number above 0, 60000 for a minute"
                )
            })?;
            self.interval = Duration::from_millis(millis);
        }
        if let Some(value) = get(TEMPORALITY) {
            self.temporality = match value.to_ascii_lowercase().as_str() {
                "cumulative" => Temporality::Cumulative,
                "delta" => Temporality::Delta,
                "lowmemory" => Temporality::LowMemory,
                _ => bail!("{TEMPORALITY}={value}: use cumulative, delta or lowmemory"),
            };
        }
        if let Some(value) = get(AGGREGATION) {
            self.histogram = match value.to_ascii_lowercase().as_str() {
                "explicit_bucket_histogram" => Buckets::Explicit,
                "base2_exponential_bucket_histogram" => Buckets::Exponential,
                _ => bail!(
                    "{AGGREGATION}={value}: use explicit_bucket_histogram or base2_exponential_bucket_histogram"
                ),
            };
        }
        if traces != metrics {
            self.differences = Some(Box::new(Differences {
                traces: traces.clone(),
                metrics: metrics.clone(),
            }));
        }
        Ok(())
    }

    /// The transport's settings: those of traces, but for what the environment says of metrics alone.
    pub(super) fn transport(&self, traces: &Otlp) -> Otlp {
        let mut own = traces.clone();
        own.traces_endpoint.clone_from(&self.endpoint);
        if let Some(differences) = &self.differences {
            macro_rules! take {
                ($($field:ident)*) => {
                    $(if differences.metrics.$field != differences.traces.$field {
                        own.$field = differences.metrics.$field.clone();
                    })*
                };
            }
            take!(protocol headers compression timeout certificate client_certificate client_key insecure);
        }
        own
    }
}

fn listen_address(get: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<SocketAddr> {
    let host = get(PROMETHEUS_HOST).unwrap_or_else(|| PROMETHEUS.0.to_owned());
    let host = if host == "localhost" { PROMETHEUS.0 } else { &host };
    let ip = host
        .parse()
        .map_err(|_| anyhow!("{PROMETHEUS_HOST}={host} is not an address: write 127.0.0.1 or 0.0.0.0"))?;
    let port = match get(PROMETHEUS_PORT) {
        Some(port) => port
            .parse()
            .map_err(|_| anyhow!("{PROMETHEUS_PORT}={port} is not a port: write a number from 1 to 65535"))?,
        None => PROMETHEUS.1,
    };
    Ok(SocketAddr::new(ip, port))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text)
        .ok()
        .filter(|time| !time.is_zero())
        .ok_or_else(|| D::Error::custom(format!("`{text}` is not an interval; write 10s or 1m")))
}
