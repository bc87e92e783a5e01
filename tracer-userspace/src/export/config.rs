//! Where spans go, and how hard we try. Each part of the exporter owns its part of the configuration.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_PROTOCOL_GRPC, OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_JSON,
    OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Protocol,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// The `export` section of the configuration.
#[derive(Clone, PartialEq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The OTLP exporter; it runs once an endpoint is set.
    pub otlp: Otlp,
    /// Spans on standard output.
    pub console: Console,
    /// What waits for a slow or absent backend.
    pub queue: Queue,
    /// How long a request that failed is tried again.
    pub retry: Retry,
    /// Where metrics go.
    pub metrics: super::metrics::Config,
}

/// The OTLP exporter. Each key has its `OTEL_EXPORTER_OTLP_*` variable (see [`Config::apply_env`]).
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Base URL of the backend, for all signals: `http://localhost:4318`. Over HTTP, `/v1/traces` is appended.
    /// Unset (with `traces_endpoint`): OTLP is off.
    pub endpoint: Option<String>,
    /// URL for traces, taken as it is. Wins over `endpoint`.
    pub traces_endpoint: Option<String>,
    /// `grpc` or `http/protobuf`. Unset: `grpc` if the endpoint's port is 4317, which OTLP reserves for it,
    /// else `http/protobuf`.
    #[serde(deserialize_with = "protocol")]
    pub protocol: Option<Protocol>,
    /// Headers (gRPC: metadata) sent with every request, such as an access token. Never logged.
    pub headers: Headers,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// How long one request may take (`10s`).
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// File (PEM) of the authorities that sign the backend's certificate. Unset: the host's trust store.
    pub certificate: Option<PathBuf>,
    /// File (PEM) of our certificate, where the backend asks for one. Needs `client_key`.
    pub client_certificate: Option<PathBuf>,
    /// File (PEM) of the private key of `client_certificate`.
    pub client_key: Option<PathBuf>,
    /// Over gRPC, whether an endpoint without a scheme (`collector:4317`) is spoken to without TLS.
    pub insecure: bool,
    /// Requests that may be under way at the same time.
    pub concurrency: usize,
}

impl Default for Otlp {
    fn default() -> Self {
        Self {
            endpoint: None,
            traces_endpoint: None,
            protocol: None,
            headers: Headers::default(),
            compression: Compression::None,
            timeout: OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT,
            certificate: None,
            client_certificate: None,
            client_key: None,
            insecure: false,
            concurrency: 4,
        }
    }
}

impl Otlp {
    /// Whether spans are exported over OTLP.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.endpoint.is_some() || self.traces_endpoint.is_some()
    }

    /// Sets the base URL over whatever a weaker source (file, environment) said, the URL for traces included.
    pub fn set_endpoint(&mut self, endpoint: impl Into<String>) {
        self.endpoint = Some(endpoint.into());
        self.traces_endpoint = None;
    }
}

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
}

/// Spans on standard output.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Whether spans are printed. Unset: only where they go nowhere else.
    pub enabled: Option<bool>,
    /// `waterfall` (each trace as a tree) or `json` (one span a line).
    pub format: Format,
    /// `auto` (on a terminal, unless `NO_COLOR` is set), `always` or `never`.
    pub colour: Colour,
    /// `json` only: whether each line carries the whole resource, not only `service` and `pid`.
    pub resource: bool,
    /// `waterfall` only: how long a trace whose spans are all there stays quiet before it is printed (`300ms`).
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    /// `waterfall` only: how long a trace with spans missing waits for them (`3s`).
    #[serde(deserialize_with = "duration")]
    pub patience: Duration,
    /// `waterfall` on a terminal: lines printed a second at most; what is beyond is left out by whole traces.
    pub lines_per_second: u32,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            enabled: None,
            format: Format::Waterfall,
            colour: Colour::Auto,
            resource: false,
            settle: Duration::from_millis(300),
            patience: Duration::from_secs(3),
            lines_per_second: 500,
        }
    }
}

/// How spans are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Each trace as a tree over its time line.
    #[default]
    Waterfall,
    /// One span a line.
    Json,
}

/// Whether output is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
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
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            max_spans: 65_536,
            max_bytes: 16 << 20,
            batch_spans: 2048,
            batch_bytes: 1 << 20,
            batch_age: Duration::from_millis(200),
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

/// Reads the name of a protocol.
///
/// # Errors
/// Says what is possible instead.
pub(super) fn parse_protocol(name: &str) -> Result<Protocol, String> {
    match name {
        OTEL_EXPORTER_OTLP_PROTOCOL_GRPC => Ok(Protocol::Grpc),
        OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF => Ok(Protocol::HttpBinary),
        OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_JSON => {
            Err("http/json is not supported; use http/protobuf, which the same endpoints take".into())
        }
        _ => Err("use grpc or http/protobuf".into()),
    }
}

fn protocol<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Protocol>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    parse_protocol(&name)
        .map(Some)
        .map_err(|remedy| D::Error::custom(format!("`{name}` is not an OTLP protocol: {remedy}")))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!(
            "`{text}` is not a duration ({error}); write 500ms, 10s or 5m"
        ))
    })
}

#[cfg(test)]
mod tests {
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
             queue: {max_spans: 1, max_bytes: 2, batch_spans: 3, batch_bytes: 4, batch_age: 5ms}\n\
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
            ("otlp: {protocol: http/json}", "use http/protobuf"),
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
