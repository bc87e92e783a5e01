//! OTLP over gRPC: `Export` of the signal's service with bytes that are encoded already.

use std::time::Duration;

use anyhow::Context;
use bytes::{Buf, BufMut, Bytes};
use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use super::endpoint::Endpoint;
use super::taken;
use crate::export::body::Body;
use crate::export::config::{Compression, Otlp};
use crate::export::http::chain;
use crate::export::retry::{self, Answer};
use crate::export::tls::Files;

/// A client; copies share the connection.
pub(in crate::export) struct Client {
    grpc: Grpc<Channel>,
    metadata: MetadataMap,
    method: PathAndQuery,
}

impl Client {
    /// Connects on first use, and again whenever the connection breaks. Must be called inside a runtime.
    pub fn new(config: &Otlp, target: &Endpoint, tls: &Files) -> anyhow::Result<Self> {
        let url = &target.url;
        let mut endpoint = Channel::builder(url.clone())
            .connect_timeout(config.timeout)
            .http2_keep_alive_interval(Duration::from_secs(30))
            .user_agent(concat!("tracer/", env!("CARGO_PKG_VERSION")))
            .context("user agent")?;
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
                .context("the TLS certificates cannot be used")?;
        }
        let mut grpc = Grpc::new(endpoint.connect_lazy());
        grpc = match config.compression {
            Compression::None => grpc,
            Compression::Gzip => grpc.send_compressed(CompressionEncoding::Gzip),
            Compression::Zstd => grpc.send_compressed(CompressionEncoding::Zstd),
        };
        grpc = grpc
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd);
        let mut metadata = MetadataMap::new();
        for (name, value) in &config.headers.0 {
            // `-bin` names carry bytes in base64, which tonic would refuse as text.
            let key = MetadataKey::from_bytes(name.to_ascii_lowercase().as_bytes());
            let value = MetadataValue::try_from(value.as_str());
            let (Ok(key), Ok(mut value)) = (key, value) else {
                anyhow::bail!(
                    "header `{name}` cannot be sent over gRPC: use printable ASCII, and no name that ends in -bin"
                )
            };
            value.set_sensitive(true);
            metadata.insert::<MetadataKey<tonic::metadata::Ascii>>(key, value);
        }
        Ok(Self {
            grpc,
            metadata,
            method: PathAndQuery::from_static(target.signal.method()),
        })
    }

    /// Sends one request.
    pub async fn export(&self, body: Body) -> Answer {
        match self.try_export(body).await {
            Ok(bytes) => taken(&bytes).unwrap_or_else(|error| Answer::Refused {
                why: format!("the answer is not OTLP: {error}"),
            }),
            Err(status) => {
                // A `RetryInfo` without a delay asks for another try all the same.
                let retry_after = status
                    .get_details_retry_info()
                    .map(|info| info.retry_delay.unwrap_or_default());
                // With a cause the status is not the server's: the connection broke before an answer came.
                let code = match std::error::Error::source(&status) {
                    Some(_) => Code::Unavailable,
                    None => status.code(),
                };
                retry::grpc(code, retry_after, describe(&status))
            }
        }
    }

    async fn try_export(&self, body: Body) -> Result<Bytes, Status> {
        let mut grpc = self.grpc.clone();
        grpc.ready()
            .await
            .map_err(|error| Status::unavailable(chain(&error)))?;
        let mut request = Request::new(body);
        *request.metadata_mut() = self.metadata.clone();
        let response = grpc.unary(request, self.method.clone(), Raw).await?;
        Ok(response.into_inner())
    }
}

fn describe(status: &Status) -> String {
    let source = std::error::Error::source(status).map(chain).unwrap_or_default();
    format!("{:?}: {} {source}", status.code(), status.message())
        .trim_end()
        .to_owned()
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
