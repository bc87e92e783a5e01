//! Where spans go, and how hard we try. Each exporter owns its section of the configuration; here is what they share.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub use super::console::{Colour, Console, Format};
pub use super::otlp::Otlp;
pub use super::registry::{Config, NAMES};

/// Headers, kept out of every log: their values are often secrets.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Headers(pub BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map()
            .entries(self.0.keys().map(|name| (name, "…")))
            .finish()
    }
}

/// Compression of requests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// None.
    #[default]
    None,
    /// gzip.
    Gzip,
    /// Zstandard: smaller than gzip at less cost, where the backend takes it (the Collector, Jaeger and Tempo do).
    Zstd,
}

impl Compression {
    /// Its name in `Content-Encoding`.
    pub(super) const fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Gzip => Some("gzip"),
            Self::Zstd => Some("zstd"),
        }
    }

    /// The compression of that name.
    pub(super) fn parse(name: &str) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Zstd]
            .into_iter()
            .find(|known| known.name().unwrap_or("none") == name)
    }
}

/// The bounded queue in front of each exporter, and how it is cut into requests.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Queue {
    /// Spans that may wait; more are dropped and counted (`export_queue_full`).
    pub max_spans: usize,
    /// Bytes that waiting spans may hold.
    pub max_bytes: usize,
    /// Spans after which a request is sent without waiting for more.
    pub batch_spans: usize,
    /// Bytes after which a request is sent (gRPC servers refuse more than 4 MiB by default).
    pub batch_bytes: usize,
    /// How long a span waits for others at most (`200ms`).
    #[serde(deserialize_with = "duration")]
    pub batch_age: Duration,
    /// Folder where requests wait that cannot be sent, also while the daemon does not run. Unset: they wait in memory.
    pub dir: Option<PathBuf>,
    /// Bytes that the requests of one exporter may take there.
    pub disk_bytes: u64,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_spans: 65_536,
            max_bytes: 16 << 20,
            batch_spans: 2048,
            batch_bytes: 1 << 20,
            batch_age: Duration::from_millis(200),
            dir: None,
            disk_bytes: 1 << 30,
        }
    }
}

/// Retries of requests that failed for a reason that may pass: exponential back-off with jitter.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// The first wait, doubled each time (`1s`).
    #[serde(deserialize_with = "duration")]
    pub initial: Duration,
    /// The longest wait between two tries (`30s`).
    #[serde(deserialize_with = "duration")]
    pub max: Duration,
    /// How long one request is tried before it is dropped and counted (`export_failed`).
    #[serde(deserialize_with = "duration")]
    pub give_up: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            initial: Duration::from_secs(1),
            max: Duration::from_secs(30),
            give_up: Duration::from_secs(300),
        }
    }
}

pub(super) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!(
            "`{text}` is not a duration ({error}); write 500ms, 10s or 5m"
        ))
    })
}

#[cfg(test)]
mod tests {
    use opentelemetry_otlp::Protocol;

    use super::*;
    use crate::export::metrics::{Buckets, Config as MetricsConfig, Temporality};

    fn read(yaml: &str) -> Result<Config, String> {
        serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
    }

    #[test]
    fn every_key_is_read() {
        let config = read(
            "otlp: {endpoint: 'http://c:4318', traces_endpoint: 'http://t/x', protocol: grpc, headers: {a: b}, \
             compression: gzip, timeout: 3s, certificate: /ca, client_certificate: /crt, client_key: /key, \
             insecure: true, concurrency: 2}\n\
             console: {enabled: true, format: json, colour: never, resource: true, settle: 1ms, patience: 2s, \
             lines_per_second: 7}\n\
             queue: {max_spans: 1, max_bytes: 2, batch_spans: 3, batch_bytes: 4, batch_age: 5ms, dir: /q, \
             disk_bytes: 6}\n\
             retry: {initial: 6ms, max: 7s, give_up: 8m}\n\
             metrics: {otlp: true, endpoint: 'http://m/y', interval: 9s, temporality: delta, histogram: exponential, \
             prometheus: '127.0.0.1:9464'}\n",
        )
        .unwrap();
        let expected = Config {
            otlp: Otlp {
                endpoint: Some("http://c:4318".into()),
                traces_endpoint: Some("http://t/x".into()),
                protocol: Some(Protocol::Grpc),
                headers: Headers(BTreeMap::from([("a".into(), "b".into())])),
                compression: Compression::Gzip,
                timeout: Duration::from_secs(3),
                certificate: Some("/ca".into()),
                client_certificate: Some("/crt".into()),
                client_key: Some("/key".into()),
                insecure: true,
                concurrency: 2,
            },
            console: Console {
                enabled: Some(true),
                format: Format::Json,
                colour: Colour::Never,
                resource: true,
                settle: Duration::from_millis(1),
                patience: Duration::from_secs(2),
                lines_per_second: 7,
            },
            queue: Queue {
                max_spans: 1,
                max_bytes: 2,
                batch_spans: 3,
                batch_bytes: 4,
                batch_age: Duration::from_millis(5),
                dir: Some("/q".into()),
                disk_bytes: 6,
            },
            retry: Retry {
                initial: Duration::from_millis(6),
                max: Duration::from_secs(7),
                give_up: Duration::from_secs(480),
            },
            metrics: MetricsConfig {
                otlp: Some(true),
                endpoint: Some("http://m/y".into()),
                interval: Duration::from_secs(9),
                temporality: Temporality::Delta,
                histogram: Buckets::Exponential,
                prometheus: Some(([127, 0, 0, 1], 9464).into()),
                ..MetricsConfig::default()
            },
            ..Config::default()
        };
        assert_eq!(config, expected);
        assert!(
            !format!("{config:?}").contains("\"b\""),
            "header values are secrets"
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (yaml, part) in [
            ("otlp: {endpont: x}", "endpont"),
            ("otlp: {protocol: http/xml}", "http/json"),
            ("to: [zipkn]", "use otlp, "),
            ("otlp: {timeout: '10'}", "write 500ms"),
            ("console: {format: xml}", "xml"),
            ("queue: {max_spans: -1}", "-1"),
        ] {
            let error = read(yaml).unwrap_err();
            assert!(error.contains(part), "{yaml}: {error}");
        }
        assert_eq!(read("{}").unwrap(), Config::default());
    }
}
