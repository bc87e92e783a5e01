//! Elastic APM: the OTLP door of APM Server (and of Elastic Cloud's managed intake), with its own ways of authorisation.
//!
//! Its service map takes the edge from a caller to what it calls from `span.destination.service.*`, which APM Server derives from
//! attributes by their older names (elastic/apm-data, `input/otlp/traces.go`): spans carry these beside the newer ones.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use opentelemetry_semantic_conventions::attribute as semconv;
use serde::{Deserialize, Deserializer};

use super::config::{Compression, duration};
use super::otlp::{self, Otlp, Protocol, Wishes};
use super::registry::{Env, Exporter, Job, variable};
use super::worker::Worker;
use crate::model::Key;

/// Names that Elastic knows, for those that the conventions have now.
const OLDER_NAMES: &[(Key, Key)] = &[
    (semconv::DB_SYSTEM_NAME, "db.system"),
    (semconv::DB_NAMESPACE, "db.name"),
    (semconv::DB_QUERY_TEXT, "db.statement"),
    ("rpc.system.name", "rpc.system"),
    (semconv::MESSAGING_DESTINATION_NAME, "messaging.destination"),
    (semconv::MESSAGING_OPERATION_NAME, "messaging.operation"),
];

/// The `elastic` section of the configuration. The variables are those of Elastic's own agents.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Elastic {
    /// URL of the APM server (`ELASTIC_APM_SERVER_URL`).
    pub endpoint: String,
    /// `grpc` or `http/protobuf`; APM Server takes both on one port.
    #[serde(deserialize_with = "protocol")]
    pub protocol: Protocol,
    /// Sent as `Authorization: Bearer …` (`ELASTIC_APM_SECRET_TOKEN`). Never logged.
    pub secret_token: Option<Secret>,
    /// Sent as `Authorization: ApiKey …` (`ELASTIC_APM_API_KEY`); wins over the secret token. Never logged.
    pub api_key: Option<Secret>,
    /// `deployment.environment.name`, by which Elastic separates its service maps (`ELASTIC_APM_ENVIRONMENT`).
    pub environment: Option<String>,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// How long one request may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// File (PEM) of the authorities that sign the server's certificate (`ELASTIC_APM_SERVER_CERT`). Unset: the host's trust store.
    pub certificate: Option<PathBuf>,
    /// Requests that may be under way at the same time.
    pub concurrency: usize,
}

impl Default for Elastic {
    fn default() -> Self {
        Self {
            endpoint: "http://localhost:8200".into(),
            protocol: Protocol::HttpBinary,
            secret_token: None,
            api_key: None,
            environment: None,
            compression: Compression::Gzip,
            timeout: Duration::from_secs(10),
            certificate: None,
            concurrency: 4,
        }
    }
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

fn protocol<'de, D: Deserializer<'de>>(from: D) -> Result<Protocol, D::Error> {
    otlp::protocol(from).map(|protocol| protocol.unwrap_or(Protocol::HttpBinary))
}

impl Elastic {
    fn section(&self) -> Otlp {
        let mut section = Otlp {
            endpoint: Some(self.endpoint.clone()),
            protocol: Some(self.protocol),
            compression: self.compression,
            timeout: self.timeout,
            certificate: self.certificate.clone(),
            concurrency: self.concurrency,
            ..Otlp::default()
        };
        let authorization = match (&self.api_key, &self.secret_token) {
            (Some(key), _) => Some(format!("ApiKey {}", key.0)),
            (None, Some(token)) => Some(format!("Bearer {}", token.0)),
            (None, None) => None,
        };
        if let Some(value) = authorization {
            section.headers.0.insert("authorization".into(), value);
        }
        section
    }
}

impl Exporter for Elastic {
    fn set_target(&mut self, target: &str) {
        self.endpoint = target.to_owned();
    }

    fn apply_env(&mut self, env: Env<'_>) -> anyhow::Result<()> {
        let get = |name| variable(env, name);
        if let Some(url) = get("ELASTIC_APM_SERVER_URL") {
            self.endpoint = url;
        }
        if let Some(path) = get("ELASTIC_APM_SERVER_CERT") {
            self.certificate = Some(path.into());
        }
        self.secret_token = get("ELASTIC_APM_SECRET_TOKEN")
            .map(Secret)
            .or(self.secret_token.take());
        self.api_key = get("ELASTIC_APM_API_KEY").map(Secret).or(self.api_key.take());
        self.environment = get("ELASTIC_APM_ENVIRONMENT").or(self.environment.take());
        Ok(())
    }

    fn start(&self, job: Job) -> anyhow::Result<Worker> {
        if self.compression == Compression::Zstd {
            bail!("APM Server does not take zstd: set the compression to gzip or none");
        }
        let environment = self.environment.iter().flat_map(|name| {
            // The older name is the one that most versions of APM Server read.
            ["deployment.environment.name", "deployment.environment"]
                .map(|key| (key.into(), name.as_str().into()))
        });
        let wishes = Wishes {
            resource: environment.collect(),
            aliases: OLDER_NAMES,
            auth: None,
        };
        otlp::start(&self.section(), job, wishes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_wins_over_the_token_and_neither_is_shown() {
        let header = |variables: &[(&str, &str)]| {
            let mut section = Elastic::default();
            let env = |name: &str| {
                variables
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, v)| (*v).to_owned())
            };
            section.apply_env(&env).unwrap();
            let shown = format!("{section:?}");
            assert!(!shown.contains("s3cret"), "{shown}");
            section.section().headers.0.get("authorization").cloned()
        };
        let (token, key) = (
            ("ELASTIC_APM_SECRET_TOKEN", "s3cret"),
            ("ELASTIC_APM_API_KEY", "aWQ6a2V5s3cret"),
        );
        assert_eq!(header(&[]), None);
        assert_eq!(header(&[token]).as_deref(), Some("Bearer s3cret"));
        assert_eq!(header(&[key]).as_deref(), Some("ApiKey aWQ6a2V5s3cret"));
        assert_eq!(header(&[token, key]).as_deref(), Some("ApiKey aWQ6a2V5s3cret"));
    }
}
