//! OTLP: one thread that encodes requests and keeps a few of them under way.

mod config;
mod encode;
mod endpoint;
mod env;
mod grpc;
mod http;
pub(super) mod json;
mod split;
mod start;
mod wire;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;

pub(super) use self::config::protocol;
pub use self::config::{Collector, Jaeger, Otlp, Tempo};
pub(super) use self::encode::Encoder;
pub use self::encode::Encoding;
pub(super) use self::endpoint::{Endpoint, Signal, resolve};
pub(super) use self::start::{Wishes, start, start_when_known};
use super::accounts::TicketId;
use super::body::Body;
use super::delivery::{Encode, Request, Transport};
use super::http::Authorise;
use super::renew::Renewing;
use super::retry::Answer;
use super::tls;
use crate::model::Span;
pub(super) use opentelemetry_otlp::Protocol;

impl Encode for Encoder {
    fn push(&mut self, ticket: TicketId, span: &Span) {
        self.push(ticket, span);
    }

    fn spans(&self) -> usize {
        self.spans()
    }

    fn bytes(&self) -> usize {
        self.bytes()
    }

    fn finish(&mut self) -> Option<Request> {
        self.finish()
    }
}

/// A way to an OTLP backend, for any signal whose requests are encoded already.
pub(super) enum Client {
    Grpc(Box<grpc::Client>),
    Http(http::Client),
}

impl Client {
    /// Connects on first use, and again with what the certificates' files hold then. Must be called inside a runtime.
    ///
    /// # Errors
    /// Names the setting that cannot be used.
    pub fn new(
        section: &Otlp,
        endpoint: &Endpoint,
        auth: Option<Arc<dyn Authorise>>,
    ) -> anyhow::Result<Renewing<Self>> {
        let (section, endpoint) = (section.clone(), endpoint.clone());
        // The crates of TLS leave the choice to the program. Somebody else's earlier choice does as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Renewing::new(section.tls().all(), move || {
            let files = tls::Files::read(&section.tls())?;
            Ok(match endpoint.protocol {
                Protocol::Grpc => Self::Grpc(Box::new(grpc::Client::new(&section, &endpoint, &files)?)),
                _ => Self::Http(http::Client::new(&section, &endpoint, &files, auth.clone())?),
            })
        })
    }
}

impl Transport for Client {
    fn prepare(&self, body: Body) -> Body {
        match self {
            Self::Grpc(_) => body,
            Self::Http(client) => client.prepare(body),
        }
    }

    fn split(&self, body: &Body, first: usize) -> Option<(Body, Body)> {
        split::split(&body.joined(), first)
    }

    async fn send(&self, body: Body) -> Answer {
        match self {
            Self::Grpc(client) => client.export(body).await,
            Self::Http(client) => client.export(body).await,
        }
    }
}

/// What an answer without an error says. The answers of all signals have the same fields with the same numbers.
fn taken(body: &[u8]) -> Result<Answer, prost::DecodeError> {
    let partial = ExportTraceServiceResponse::decode(body)?
        .partial_success
        .unwrap_or_default();
    Ok(Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        message: partial.error_message,
    })
}
