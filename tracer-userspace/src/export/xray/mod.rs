//! AWS X-Ray: its OTLP end point (HTTP only), with requests signed by Signature Version 4.

mod sign;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_config::{BehaviorVersion, Region};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use serde::Deserialize;

use self::sign::Signer;
use super::config::{Compression, duration};
use super::otlp::{self, Otlp, Protocol, Wishes};
use super::registry::{Exporter, Job};
use super::worker::Worker;

/// The `xray` section of the configuration. What is not set comes from where AWS's own tools take it: `AWS_REGION`, `AWS_PROFILE`,
/// `AWS_ACCESS_KEY_ID` and so on, the shared files, the container's role, the instance's role (IMDSv2).
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Xray {
    /// Region (`eu-central-1`).
    pub region: Option<String>,
    /// Profile of the shared configuration.
    pub profile: Option<String>,
    /// URL, taken as it is. Unset: `https://xray.REGION.amazonaws.com/v1/traces`.
    pub endpoint: Option<String>,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// How long one request may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Requests that may be under way at the same time.
    pub concurrency: usize,
}

impl Default for Xray {
    fn default() -> Self {
        Self {
            region: None,
            profile: None,
            endpoint: None,
            compression: Compression::Gzip,
            timeout: Duration::from_secs(10),
            concurrency: 4,
        }
    }
}

impl Exporter for Xray {
    fn set_target(&mut self, target: &str) {
        self.endpoint = Some(target.to_owned());
    }

    fn start(&self, job: Job) -> anyhow::Result<Worker> {
        let xray = Arc::new(self.clone());
        otlp::start_when_known(job, move || {
            let xray = Arc::clone(&xray);
            async move { xray.find_out().await }
        })
    }
}

impl Xray {
    /// Finds the region and the place where credentials come from.
    async fn find_out(&self) -> anyhow::Result<(Otlp, Wishes)> {
        // One TLS library in the daemon is enough.
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let mut loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http);
        if let Some(region) = &self.region {
            loader = loader.region(Region::new(region.clone()));
        }
        if let Some(profile) = &self.profile {
            loader = loader.profile_name(profile);
        }
        let found = loader.load().await;
        let region = found
            .region()
            .context("no AWS region is set: set `region`, AWS_REGION, or one in the profile")?
            .to_string();
        let provider = found
            .credentials_provider()
            .context("no place to take AWS credentials from")?;
        Ok(self.section(&region, provider))
    }

    fn section(&self, region: &str, provider: SharedCredentialsProvider) -> (Otlp, Wishes) {
        let url = || format!("https://xray.{region}.amazonaws.com/v1/traces");
        let section = Otlp {
            traces_endpoint: Some(self.endpoint.clone().unwrap_or_else(url)),
            protocol: Some(Protocol::HttpBinary),
            compression: self.compression,
            timeout: self.timeout,
            concurrency: self.concurrency,
            ..Otlp::default()
        };
        let wishes = Wishes {
            auth: Some(Arc::new(Signer::new(provider, region.to_owned()))),
            ..Wishes::default()
        };
        (section, wishes)
    }
}
