//! Google Cloud Trace: the OTLP end point of Google Cloud's telemetry API, with OAuth by Google's own crate (key of a service account,
//! metadata server, workload identity).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use google_cloud_auth::credentials::{
    Builder, CacheableResource, Credentials, external_account, service_account,
};
use http::header::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::config::{Compression, duration};
use super::http::{Authorise, Authorised, Outgoing};
use super::otlp::{self, Otlp, Protocol, Wishes};
use super::registry::{Env, Exporter, Job, variable};
use super::worker::Worker;

/// All that writing traces needs.
const SCOPE: &str = "https://www.googleapis.com/auth/trace.append";
/// The variable that names a key file.
const KEY_FILE: &str = "GOOGLE_APPLICATION_CREDENTIALS";
/// The resource attribute that says where a span belongs.
const PROJECT: &str = "gcp.project_id";

/// The `cloudtrace` section of the configuration.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CloudTrace {
    /// Project that the traces belong to (`GOOGLE_CLOUD_PROJECT`). Unset: that of the key file, else the metadata server's.
    pub project: Option<String>,
    /// Project that requests are charged to (`GOOGLE_CLOUD_QUOTA_PROJECT`), where it is another.
    pub quota_project: Option<String>,
    /// File (JSON) of a service account's key or a workload identity. Unset: `GOOGLE_APPLICATION_CREDENTIALS`, gcloud's own
    /// file, or the metadata server.
    pub credentials: Option<PathBuf>,
    /// URL of the telemetry API; `/v1/traces` is appended.
    pub endpoint: String,
    /// `gzip` or `none`.
    pub compression: Compression,
    /// How long one request may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Requests that may be under way at the same time.
    pub concurrency: usize,
}

impl Default for CloudTrace {
    fn default() -> Self {
        Self {
            project: None,
            quota_project: None,
            credentials: None,
            endpoint: "https://telemetry.googleapis.com".into(),
            compression: Compression::Gzip,
            timeout: Duration::from_secs(10),
            concurrency: 4,
        }
    }
}

impl Exporter for CloudTrace {
    fn set_target(&mut self, target: &str) {
        self.endpoint = target.to_owned();
    }

    fn apply_env(&mut self, env: Env<'_>) -> anyhow::Result<()> {
        let get = |name| variable(env, name);
        self.project = get("GOOGLE_CLOUD_PROJECT").or(self.project.take());
        self.quota_project = get("GOOGLE_CLOUD_QUOTA_PROJECT").or(self.quota_project.take());
        if self.credentials.is_none() {
            self.credentials = get(KEY_FILE).map(Into::into);
        }
        Ok(())
    }

    fn start(&self, job: Job) -> anyhow::Result<Worker> {
        let trace = Arc::new(self.clone());
        let file = self.key_file()?.map(Arc::new);
        otlp::start_when_known(job, move || {
            let (trace, file) = (Arc::clone(&trace), file.clone());
            async move { trace.find_out(file.as_deref()).await }
        })
    }
}

impl CloudTrace {
    fn key_file(&self) -> anyhow::Result<Option<Value>> {
        let Some(path) = &self.credentials else {
            return Ok(None);
        };
        let what = || {
            format!(
                "Google credentials `{}`: give the path of a JSON key",
                path.display()
            )
        };
        let text = std::fs::read(path).with_context(what)?;
        serde_json::from_slice(&text).map(Some).with_context(what)
    }

    /// Finds the credentials and the project.
    async fn find_out(&self, file: Option<&Value>) -> anyhow::Result<(Otlp, Wishes)> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let credentials = self.credentials(file).context("Google credentials")?;
        let in_file = || Some(file?.get("project_id")?.as_str()?.to_owned());
        let project = match self.project.clone().or_else(in_file) {
            Some(project) => project,
            None => project_of_host(self.timeout)
                .await
                .context("no Google Cloud project is known: set `project` or GOOGLE_CLOUD_PROJECT")?,
        };
        let section = Otlp {
            endpoint: Some(self.endpoint.clone()),
            protocol: Some(Protocol::HttpBinary),
            compression: self.compression,
            timeout: self.timeout,
            concurrency: self.concurrency,
            ..Otlp::default()
        };
        let wishes = Wishes {
            resource: vec![(PROJECT.into(), project.into())],
            auth: Some(Arc::new(Tokens(credentials))),
            ..Wishes::default()
        };
        Ok((section, wishes))
    }

    fn is_usual_file(&self) -> bool {
        let usual = std::env::var_os(KEY_FILE).map(PathBuf::from);
        usual.is_some() && usual == self.credentials
    }

    fn credentials(&self, file: Option<&Value>) -> anyhow::Result<Credentials> {
        let kind = file.and_then(|file| file.get("type")).and_then(Value::as_str);
        let quota = self.quota_project.clone();
        Ok(match (kind, file) {
            (Some("service_account"), Some(file)) => {
                let specifier = service_account::AccessSpecifier::from_scopes([SCOPE]);
                let builder = service_account::Builder::new(file.clone()).with_access_specifier(specifier);
                match quota {
                    Some(quota) => builder.with_quota_project_id(quota).build()?,
                    None => builder.build()?,
                }
            }
            (Some("external_account"), Some(file)) => {
                let builder = external_account::Builder::new(file.clone()).with_scopes([SCOPE]);
                match quota {
                    Some(quota) => builder.with_quota_project_id(quota).build()?,
                    None => builder.build()?,
                }
            }
            // Other kinds are for Google's own search through the usual places to find again.
            (Some(kind), _) if !self.is_usual_file() => {
                anyhow::bail!("a key of type `{kind}`: use a service_account or external_account")
            }
            _ => {
                let builder = Builder::default().with_scopes([SCOPE]);
                match quota {
                    Some(quota) => builder.with_quota_project_id(quota).build()?,
                    None => builder.build()?,
                }
            }
        })
    }
}

/// Asks the metadata server (<https://cloud.google.com/compute/docs/metadata/overview>).
async fn project_of_host(timeout: Duration) -> anyhow::Result<String> {
    let host = std::env::var("GCE_METADATA_HOST").unwrap_or_else(|_| "metadata.google.internal".into());
    let client = reqwest::Client::builder()
        .tls_certs_only([])
        .no_proxy()
        .timeout(timeout)
        .build()?;
    let answer = client
        .get(format!("http://{host}/computeMetadata/v1/project/project-id"))
        .header("Metadata-Flavor", "Google")
        .send()
        .await?
        .error_for_status()?;
    let project = answer.text().await?.trim().to_owned();
    anyhow::ensure!(!project.is_empty(), "the metadata server names no project");
    Ok(project)
}

/// Tokens from Google's crate, which keeps and renews them.
struct Tokens(Credentials);

impl Authorise for Tokens {
    fn authorise<'a>(&'a self, _request: &'a Outgoing<'a>) -> Authorised<'a> {
        Box::pin(async {
            let headers: HeaderMap = match self.0.headers(http::Extensions::new()).await? {
                CacheableResource::New { data, .. } => data,
                CacheableResource::NotModified => HeaderMap::new(),
            };
            Ok(headers)
        })
    }
}
