//! OTLP over HTTP with protobuf bodies.

use std::io::Write;
use std::time::SystemTime;

use anyhow::Context;
use flate2::write::GzEncoder;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;

use super::body::Body;
use super::grpc::{chain, taken};
use super::retry::{self, Answer};
use super::tls::Files;
use crate::export::config::{Compression, Otlp};

const PROTOBUF: &str = "application/x-protobuf";
/// Bytes of an answer that are read; what a backend says beyond is of no use.
const ANSWER_LIMIT: usize = 64 << 10;

/// A client; copies share the connections.
#[derive(Clone)]
pub(in crate::export) struct Client {
    http: reqwest::Client,
    url: String,
    compression: Compression,
}

impl Client {
    /// Builds the client; nothing is sent yet.
    pub fn new(config: &Otlp, url: &http::Uri, tls: &Files) -> anyhow::Result<Self> {
        let mut headers = HeaderMap::new();
        for (name, value) in &config.headers.0 {
            let (Ok(key), Ok(mut value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) else {
                anyhow::bail!("OTLP: header `{name}` cannot be sent over HTTP: use printable ASCII")
            };
            value.set_sensitive(true);
            headers.insert(key, value);
        }
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
        if config.compression == Compression::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // A redirect would carry the headers, and the secrets in them, somewhere else.
        let mut builder = reqwest::Client::builder()
            .default_headers(headers)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.timeout)
            .timeout(config.timeout)
            .user_agent(concat!("tracer/", env!("CARGO_PKG_VERSION")));
        if let Some(pem) = &tls.authorities {
            let authorities = reqwest::Certificate::from_pem_bundle(pem)
                .context("OTLP: the file of the certificate setting cannot be used")?;
            builder = builder.tls_certs_only(authorities);
        } else if url.scheme() == Some(&http::uri::Scheme::HTTP) {
            // Without TLS the host needs no trust store, and small ones have none.
            builder = builder.tls_certs_only([]);
        }
        if let Some((certificate, key)) = &tls.identity {
            let pem = [certificate.as_slice(), b"\n", key].concat();
            let identity = reqwest::Identity::from_pem(&pem)
                .context("OTLP: the client certificate and key cannot be used")?;
            builder = builder.identity(identity);
        }
        let http = builder
            .build()
            .context("OTLP: the HTTP client cannot be set up")?;
        Ok(Self {
            http,
            url: url.to_string(),
            compression: config.compression,
        })
    }

    /// The body as it goes on the wire; done once a request, not once a try.
    pub fn prepare(&self, body: Body) -> Body {
        if self.compression == Compression::None {
            return body;
        }
        let mut gzip = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
        // Writing to memory cannot fail.
        for piece in body.pieces() {
            let _ = gzip.write_all(piece);
        }
        bytes::Bytes::from(gzip.finish().unwrap_or_default()).into()
    }

    /// Sends one request.
    pub async fn export(&self, body: Body) -> Answer {
        let body = reqwest::Body::wrap(body);
        let mut response = match self.http.post(&self.url).body(body).send().await {
            Ok(response) => response,
            // No answer at all: the specification has clients try again.
            Err(error) => {
                return Answer::Later {
                    after: None,
                    why: chain(&error),
                };
            }
        };
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
            return retry::http(status.as_u16(), header(RETRY_AFTER), SystemTime::now(), why);
        }
        let kind = header(CONTENT_TYPE).unwrap_or_default();
        if answer.is_empty() || kind.starts_with("application/json") {
            return Answer::Taken {
                rejected: 0,
                message: String::new(),
            };
        }
        match ExportTraceServiceResponse::decode(answer.as_slice()) {
            Ok(response) => taken(response),
            Err(_) => Answer::Refused {
                why: format!(
                    "HTTP {status}, but the answer (`{kind}`) is not OTLP: is {} an OTLP endpoint? {}",
                    self.url,
                    excerpt(&answer)
                ),
            },
        }
    }
}

/// The start of an answer, fit for a log line.
fn excerpt(answer: &[u8]) -> String {
    String::from_utf8_lossy(answer.get(..200).unwrap_or(answer))
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}
