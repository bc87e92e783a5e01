//! The sections of the exporters that speak OTLP to an endpoint that the user names.

use std::path::PathBuf;
use std::time::Duration;

use opentelemetry_otlp::{
    OTEL_EXPORTER_OTLP_PROTOCOL_GRPC, OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_JSON,
    OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF, OTEL_EXPORTER_OTLP_TIMEOUT_DEFAULT, Protocol,
};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use super::{Wishes, start};
use crate::export::config::{Compression, Headers, duration};
use crate::export::registry::{Env, Exporter, Job};
use crate::export::tls;
use crate::export::worker::Worker;

/// The OTLP exporter. Each key has its `OTEL_EXPORTER_OTLP_*` variable (see [`Config::apply_env`]).
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Otlp {
    /// Base URL of the backend, for all signals: `http://localhost:4318`. Over HTTP, `/v1/traces` is appended.
    /// Unset (with `traces_endpoint`): OTLP is off.
    pub endpoint: Option<String>,
    /// URL for traces, taken as it is. Wins over `endpoint`.
    pub traces_endpoint: Option<String>,
    /// `grpc`, `http/protobuf` or `http/json`. Unset: `grpc` if the endpoint's port is 4317, which OTLP reserves for it,
    /// else `http/protobuf`.
    #[serde(deserialize_with = "protocol")]
    pub protocol: Option<Protocol>,
    /// Headers (gRPC: metadata) sent with every request, such as an access token. Never logged.
    pub headers: Headers,
    /// `gzip`, `zstd` or `none`.
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
    /// Sets the base URL over whatever a weaker source (file, environment) said, the URL for traces included.
    pub fn set_endpoint(&mut self, endpoint: impl Into<String>) {
        self.endpoint = Some(endpoint.into());
        self.traces_endpoint = None;
    }

    /// The files of the TLS settings.
    pub(in crate::export) fn tls(&self) -> tls::Paths<'_> {
        tls::Paths {
            certificate: self.certificate.as_deref(),
            client_certificate: self.client_certificate.as_deref(),
            client_key: self.client_key.as_deref(),
        }
    }

    /// The same, with a base URL where none is set.
    fn or(&self, endpoint: &str) -> Self {
        let mut section = self.clone();
        if section.endpoint.is_none() && section.traces_endpoint.is_none() {
            section.endpoint = Some(endpoint.to_owned());
        }
        section
    }
}

impl Exporter for Otlp {
    /// Spans are exported over OTLP once there is an endpoint.
    fn is_set(&self) -> bool {
        self.endpoint.is_some() || self.traces_endpoint.is_some()
    }

    fn set_target(&mut self, target: &str) {
        self.set_endpoint(target);
    }

    fn apply_env(&mut self, env: Env<'_>) -> anyhow::Result<()> {
        self.apply_standard(env)
    }

    fn start(&self, job: Job) -> anyhow::Result<Worker> {
        // The specification's own default.
        start(&self.or("http://localhost:4318"), job, Wishes::default())
    }
}

macro_rules! presets {
    ($($(#[$doc:meta])* $name:ident = $endpoint:literal,)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Debug, Default, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Otlp);

        impl Exporter for $name {
            fn set_target(&mut self, target: &str) {
                self.0.set_endpoint(target);
            }

            fn start(&self, job: Job) -> anyhow::Result<Worker> {
                start(&self.0.or($endpoint), job, Wishes::default())
            }
        }
    )*};
}

presets! {
    /// Jaeger v2, which takes OTLP where the specification says.
    Jaeger = "http://localhost:4317",
    /// The OpenTelemetry Collector.
    Collector = "http://localhost:4317",
    /// Grafana Tempo.
    Tempo = "http://localhost:4317",
}

/// Reads the name of a protocol.
///
/// # Errors
/// Says what is possible instead.
pub(super) fn parse_protocol(name: &str) -> Result<Protocol, String> {
    match name {
        OTEL_EXPORTER_OTLP_PROTOCOL_GRPC => Ok(Protocol::Grpc),
        OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_PROTOBUF => Ok(Protocol::HttpBinary),
        OTEL_EXPORTER_OTLP_PROTOCOL_HTTP_JSON => Ok(Protocol::HttpJson),
        _ => Err("use grpc, http/protobuf or http/json".into()),
    }
}

pub(in crate::export) fn protocol<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Protocol>, D::Error> {
    let Some(name) = Option::<String>::deserialize(from)? else {
        return Ok(None);
    };
    parse_protocol(&name)
        .map(Some)
        .map_err(|remedy| D::Error::custom(format!("`{name}` is not an OTLP protocol: {remedy}")))
}
