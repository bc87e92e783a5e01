//! An HTTP client that posts requests to one URL, for all exporters that speak HTTP.

use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use bytes::Bytes;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};

use super::body::Body;
use super::config::{Compression, Headers};
use super::retry::{self, Answer};
use super::tls::Files;

/// Bytes of an answer that are read; what a backend says beyond is of no use.
const ANSWER_LIMIT: usize = 64 << 10;

/// What a backend wants to see with every request, made anew each time: signatures, tokens that expire.
pub(super) trait Authorise: Send + Sync {
    /// The headers for one request. It may fail for a while (a metadata server that is slow): the request is tried again.
    fn authorise<'a>(&'a self, request: &'a Outgoing<'a>) -> Authorised<'a>;
}

/// Headers to come.
pub(super) type Authorised<'a> = Pin<Box<dyn Future<Output = anyhow::Result<HeaderMap>> + Send + 'a>>;

/// A `POST` before it is sent.
pub(super) struct Outgoing<'a> {
    pub url: &'a str,
    /// The headers that are the same every time.
    pub headers: &'a HeaderMap,
    pub body: &'a Body,
}

/// How requests are made.
pub(super) struct Settings<'a> {
    pub url: &'a http::Uri,
    pub content_type: &'static str,
    pub headers: &'a Headers,
    pub compression: Compression,
    pub timeout: Duration,
    pub tls: &'a Files,
    pub auth: Option<Arc<dyn Authorise>>,
}

/// The client.
pub(super) struct Client {
    http: reqwest::Client,
    url: String,
    headers: HeaderMap,
    compression: Compression,
    auth: Option<Arc<dyn Authorise>>,
}

/// A successful answer.
pub(super) struct Reply {
    pub status: http::StatusCode,
    pub content_type: String,
    pub body: Vec<u8>,
}

impl Client {
    /// Builds the client; nothing is sent yet.
    ///
    /// # Errors
    /// Names the setting that cannot be used.
    pub fn new(settings: Settings<'_>) -> anyhow::Result<Self> {
        // The crates of the HTTP client leave the choice to the program. Somebody else's earlier choice does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut headers = HeaderMap::new();
        for (name, value) in &settings.headers.0 {
            let (Ok(key), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                anyhow::bail!("header `{name}` cannot be sent over HTTP: use printable ASCII")
            };
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(settings.content_type));
        if let Some(name) = settings.compression.name() {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
        }
        // A redirect would carry the headers, and the secrets in them, somewhere else.
        let mut builder = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(settings.timeout)
            .user_agent(concat!("tracer/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &settings.tls.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(pem)
                .context("the file of the certificate setting cannot be used")?;
            builder = builder.tls_certs_only(authorities);
        } else if settings.url.scheme() == Some(&http::uri::Scheme::HTTP) {
            // Without TLS the host needs no trust store, and small ones have none.
            builder = builder.tls_certs_only([]);
        }
        if let Some((certificate, key)) = &settings.tls.identity {
            let pem = [certificate.as_slice(), b"\n", key].concat();
            let identity =
                reqwest::Identity::from_pem(&pem).context("the client certificate and key cannot be used")?;
            builder = builder.identity(identity);
        }
        Ok(Self {
            http: builder.build().context("the HTTP client cannot be set up")?,
            url: settings.url.to_string(),
            headers,
            compression: settings.compression,
            auth: settings.auth,
        })
    }

    /// Where it posts to.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Compresses a body as the settings say.
    pub fn compress(&self, body: Body) -> Body {
        match self.compression {
            Compression::None => body,
            Compression::Gzip => {
                let mut gzip =
                    GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
                // Writing to memory cannot fail.
                body.pieces().for_each(|piece| drop(gzip.write_all(piece)));
                Bytes::from(gzip.finish().unwrap_or_default()).into()
            }
            Compression::Zstd => {
                let level = zstd::DEFAULT_COMPRESSION_LEVEL;
                let packed = zstd::bulk::compress(&body.joined(), level);
                Bytes::from(packed.unwrap_or_default()).into()
            }
        }
    }

    /// Posts a body once; `Err` says what a failure means.
    ///
    /// # Errors
    /// The answer to give where the backend did not take it.
    pub async fn post(&self, body: Body) -> Result<Reply, Answer> {
        let later = |why| Answer::Later { after: None, why };
        let mut headers = self.headers.clone();
        if let Some(auth) = &self.auth {
            let outgoing = Outgoing {
                url: &self.url,
                headers: &self.headers,
                body: &body,
            };
            match auth.authorise(&outgoing).await {
                Ok(more) => headers.extend(more),
                Err(error) => return Err(later(format!("no credentials: {error:#}"))),
            }
        }
        let request = self
            .http
            .post(&self.url)
            .headers(headers)
            .body(reqwest::Body::wrap(body));
        // No answer at all: the OTLP specification has clients try again.
        let mut response = request.send().await.map_err(|error| later(chain(&error)))?;
        let status = response.status();
        let mut answer = Vec::new();
        while let Ok(Some(part)) = response.chunk().await {
            let room = ANSWER_LIMIT - answer.len();
            answer.extend_from_slice(part.get(..room).unwrap_or(&part));
            if answer.len() >= ANSWER_LIMIT {
                break;
            }
        }
        let header = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        if !status.is_success() {
            let why = format!("HTTP {status} {}", excerpt(&answer));
            let after = header(RETRY_AFTER);
            return Err(retry::http(status.as_u16(), after, SystemTime::now(), why));
        }
        Ok(Reply {
            status,
            content_type: header(CONTENT_TYPE).unwrap_or_default().to_owned(),
            body: answer,
        })
    }
}

/// The start of an answer, fit for a log line.
pub(super) fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(..200).unwrap_or(answer))
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// An error with its causes: the outermost one alone ("transport error") tells nobody what to do.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}
