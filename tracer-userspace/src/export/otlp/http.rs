//! OTLP over HTTP, with protobuf or JSON bodies.

use anyhow::Context as _;
use opentelemetry_otlp::Protocol;

use super::endpoint::{Endpoint, Signal};
use super::{json, taken};
use crate::export::body::Body;
use crate::export::config::Otlp;
use crate::export::http::{Authorise, Client as Http, Settings, excerpt};
use crate::export::retry::Answer;
use crate::export::tls::Files;
use std::sync::Arc;

const PROTOBUF: &str = "application/x-protobuf";
const JSON: &str = "application/json";

/// A client.
pub(in crate::export) struct Client {
    http: Http,
    is_json: bool,
    signal: Signal,
}

impl Client {
    /// Builds the client; nothing is sent yet.
    pub fn new(
        config: &Otlp,
        endpoint: &Endpoint,
        tls: &Files,
        auth: Option<Arc<dyn Authorise>>,
    ) -> anyhow::Result<Self> {
        let is_json = endpoint.protocol == Protocol::HttpJson;
        let http = Http::new(Settings {
            url: &endpoint.url,
            content_type: if is_json { JSON } else { PROTOBUF },
            headers: &config.headers,
            compression: config.compression,
            timeout: config.timeout,
            tls,
            auth,
        })
        .context("OTLP over HTTP")?;
        Ok(Self {
            http,
            is_json,
            signal: endpoint.signal,
        })
    }

    /// The body as it goes on the wire.
    pub fn prepare(&self, body: Body) -> Body {
        let body = if self.is_json {
            json::of(self.signal, &body.joined()).into()
        } else {
            body
        };
        self.http.compress(body)
    }

    /// Sends one request.
    pub async fn export(&self, body: Body) -> Answer {
        let reply = match self.http.post(body).await {
            Ok(reply) => reply,
            Err(answer) => return answer,
        };
        let answer = if reply.body.is_empty() {
            Ok(Answer::Taken {
                rejected: 0,
                message: String::new(),
            })
        } else if reply.content_type.starts_with(JSON) {
            json::taken(&reply.body).map_err(|error| error.to_string())
        } else {
            taken(&reply.body).map_err(|error| error.to_string())
        };
        answer.unwrap_or_else(|error| Answer::Refused {
            why: format!(
                "HTTP {}, but the answer (`{}`) is not OTLP ({error}): is {} an OTLP endpoint? {}",
                reply.status,
                reply.content_type,
                self.http.url(),
                excerpt(&reply.body)
            ),
        })
    }
}
