//! OTLP over gRPC: `Export` of the signal's service, with bytes that are encoded already.

use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Request, Status};
use tonic_types::StatusExt;

use super::body::Body;
use super::endpoint::{Endpoint, Signal};
use super::retry::{self, Answer};
use super::tls::Files;
use crate::export::config::{Compression, Otlp};

/// The method of each signal's service. Their answers differ in names only, not in bytes.
const fn method(signal: Signal) -> &'static str {
    match signal {
        Signal::Traces => "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        Signal::Metrics => "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    }
}

/// A client; copies share the connection.
#[derive(Clone)]
pub(in crate::export) struct Client {
    grpc: Grpc<Channel>,
    metadata: MetadataMap,
    method: &'static str,
}

impl Client {
    /// Connects on first use, and again whenever the connection breaks. Must be called inside a runtime.
    pub fn new(config: &Otlp, target: &Endpoint, tls: &Files) -> anyhow::Result<Self> {
        let url = &target.url;
        let mut endpoint = Channel::builder(url.clone())
            .connect_timeout(config.timeout)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .user_agent(concat!("tracer/", env!("CARGO_PKG_VERSION")))
            .context("OTLP: user agent")?;
        if url.scheme_str() == Some("https") {
            let mut client = ClientTlsConfig::new();
            client = match &tls.authorities {
                Some(pem) => client.ca_certificate(Certificate::from_pem(pem)),
                None => client.with_native_roots(),
            };
            if let Some((certificate, key)) = &tls.identity {
                client = client.identity(Identity::from_pem(certificate, key));
            }
            endpoint = endpoint
                .tls_config(client)
                .context("OTLP: the TLS certificates cannot be used")?;
        }
        let mut grpc = Grpc::new(endpoint.connect_lazy());
        if config.compression == Compression::Gzip {
            grpc = grpc.send_compressed(CompressionEncoding::Gzip);
        }
        grpc = grpc.accept_compressed(CompressionEncoding::Gzip);
        let mut metadata = MetadataMap::new();
        for (name, value) in &config.headers.0 {
            // `-bin` names carry bytes in base64, which tonic would refuse as text.
            let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            let value = MetadataValue::try_from(value.as_str());
            let (Ok(key), Ok(mut value)) = (key, value) else {
                anyhow::bail!(
                    "OTLP: header `{name}` cannot be sent over gRPC: use printable ASCII, and no name that ends in -bin"
                )
            };
            value.set_sensitive(true);
            metadata.insert::<MetadataKey<tonic::metadata::Ascii>>(key, value);
        }
        Ok(Self {
            grpc,
            metadata,
            method: method(target.signal),
        })
    }

    /// Sends one request.
    pub async fn export(&mut self, body: Body) -> Answer {
        match self.try_export(body).await {
            Ok(bytes) => match ExportTraceServiceResponse::decode(bytes) {
                Ok(response) => taken(response),
                Err(error) => Answer::Refused {
                    why: format!("the answer is not OTLP: {error}"),
                },
            },
            Err(status) => {
                // A `RetryInfo` without a delay asks for another try all the same.
                let retry_after = status
                    .get_details_retry_info()
                    .map(|info| info.retry_delay.unwrap_or_default());
                retry::grpc(status.code(), retry_after, describe(&status))
            }
        }
    }

    async fn try_export(&mut self, body: Body) -> Result<Bytes, Status> {
        self.grpc
            .ready()
            .await
            .map_err(|error| Status::unavailable(chain(&error)))?;
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        let response = self
            .grpc
            .unary(request, PathAndQuery::from_static(self.method), Raw)
            .await?;
        Ok(response.into_inner())
    }
}

/// What an answer without an error says.
pub(super) fn taken(response: ExportTraceServiceResponse) -> Answer {
    let partial = response.partial_success.unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        message: partial.error_message,
    }
}

fn describe(status: &Status) -> String {
    let source = std::error::Error::source(status).map(chain).unwrap_or_default();
    format!("{:?}: {} {source}", status.code(), status.message())
        .trim_end()
        .to_owned()
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

/// Messages that are bytes already.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Body;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Body;
    type Error = Status;

    fn encode(&mut self, item: Body, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.reserve(item.len());
        item.pieces().for_each(|piece| to.put_slice(piece));
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
