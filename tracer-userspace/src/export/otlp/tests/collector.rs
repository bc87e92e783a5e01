//! An OTLP collector for tests, over gRPC and HTTP, with the official types. What it answers is scripted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use opentelemetry_otlp::Protocol;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, pki_types::pem::PemObject};
use tonic::codec::CompressionEncoding;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::authority::Authority;

/// How one request is answered.
#[derive(Clone)]
pub enum Reply {
    Take,
    Partial(i64, &'static str),
    /// gRPC code, and `RetryInfo` in milliseconds.
    Grpc(Code, Option<u64>),
    /// HTTP status, `Retry-After`, body.
    Http(u16, &'static str, &'static str),
    /// HTTP status with a content type and a body.
    Page(&'static str, &'static str),
    /// Taken if it has so many spans at most, else too large.
    AtMost(usize),
    /// No answer.
    Hang,
}

/// One request as it came.
pub struct Received {
    pub at: Instant,
    pub request: ExportTraceServiceRequest,
    pub headers: http::HeaderMap,
}

impl Received {
    /// Number of spans.
    pub fn spans(&self) -> usize {
        let groups = self.request.resource_spans.iter();
        let scopes = groups.flat_map(|group| &group.scope_spans);
        scopes.map(|scope| scope.spans.len()).sum()
    }
}

#[derive(Clone, Default)]
struct Script {
    received: Arc<Mutex<Vec<Received>>>,
    replies: Arc<Mutex<VecDeque<Reply>>>,
    /// What is answered when the script has run out.
    otherwise: Arc<Mutex<Option<Reply>>>,
}

impl Script {
    fn receive(&self, request: ExportTraceServiceRequest, headers: http::HeaderMap) -> Reply {
        let scopes = request.resource_spans.iter().flat_map(|group| &group.scope_spans);
        let spans: usize = scopes.map(|scope| scope.spans.len()).sum();
        self.received.lock().unwrap().push(Received {
            at: Instant::now(),
            request,
            headers,
        });
        let next = self.replies.lock().unwrap().pop_front();
        let reply = next.or_else(|| self.otherwise.lock().unwrap().clone());
        match reply.unwrap_or(Reply::Take) {
            Reply::AtMost(limit) if spans <= limit => Reply::Take,
            reply => reply,
        }
    }
}

/// A running collector; it ends with its value.
pub struct Collector {
    pub address: SocketAddr,
    script: Script,
    _runtime: tokio::runtime::Runtime,
}

/// Whether the collector speaks TLS, and whether it asks for the client's certificate.
#[derive(Clone, Copy)]
pub enum Tls<'a> {
    No,
    Server(&'a Authority),
    /// With a certificate that is not valid any more.
    Expired(&'a Authority),
    Mutual(&'a Authority),
}

impl Collector {
    pub fn start(protocol: Protocol, tls: Tls<'_>) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), protocol, tls)
    }

    pub fn start_at(address: SocketAddr, protocol: Protocol, tls: Tls<'_>) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let script = Script::default();
        match protocol {
            Protocol::Grpc => runtime.spawn(grpc(listener, script.clone(), grpc_tls(tls))),
            _ => runtime.spawn(http(listener, script.clone(), http_tls(tls))),
        };
        Self {
            address,
            script,
            _runtime: runtime,
        }
    }

    /// Answers the next requests so.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.replies.lock().unwrap().extend(replies);
    }

    /// Answers all requests beyond the script so.
    pub fn always(&self, reply: Reply) {
        *self.script.otherwise.lock().unwrap() = Some(reply);
    }

    /// Looks at what came.
    pub fn received<T>(&self, look: impl FnOnce(&[Received]) -> T) -> T {
        look(&self.script.received.lock().unwrap())
    }

    /// Names and span ids of all spans that came, by service.
    pub fn spans(&self) -> Vec<(String, Vec<u8>)> {
        self.received(|all| {
            let mut spans = Vec::new();
            for group in all.iter().flat_map(|received| &received.request.resource_spans) {
                let resource = group.resource.as_ref().unwrap();
                let name = resource
                    .attributes
                    .iter()
                    .find(|a| a.key == "service.name")
                    .unwrap();
                let name = format!("{:?}", name.value);
                for span in group.scope_spans.iter().flat_map(|scope| &scope.spans) {
                    spans.push((name.clone(), span.span_id.clone()));
                }
            }
            spans.sort();
            spans
        })
    }
}

fn response(rejected_spans: i64, error_message: &str) -> ExportTraceServiceResponse {
    let partial = ExportTracePartialSuccess {
        rejected_spans,
        error_message: error_message.into(),
    };
    ExportTraceServiceResponse {
        partial_success: Some(partial),
    }
}

#[tonic::async_trait]
impl TraceService for Script {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        let headers = request.metadata().clone().into_headers();
        match self.receive(request.into_inner(), headers) {
            Reply::Take => Ok(tonic::Response::new(ExportTraceServiceResponse::default())),
            Reply::Partial(n, message) => Ok(tonic::Response::new(response(n, message))),
            Reply::Grpc(code, None) => Err(Status::new(code, "scripted")),
            Reply::Grpc(code, Some(millis)) => {
                let details = ErrorDetails::with_retry_info(Some(Duration::from_millis(millis)));
                Err(Status::with_error_details(code, "scripted", details))
            }
            Reply::AtMost(limit) => Err(Status::resource_exhausted(format!(
                "grpc: received message larger than max (9 vs. {limit})"
            ))),
            Reply::Http(..) | Reply::Page(..) => panic!("an HTTP answer over gRPC"),
            Reply::Hang => std::future::pending().await,
        }
    }
}

fn grpc_tls(tls: Tls<'_>) -> Option<tonic::transport::ServerTlsConfig> {
    use tonic::transport::{Certificate, Identity, ServerTlsConfig};
    let (authority, mutual) = match tls {
        Tls::No => return None,
        Tls::Server(authority) | Tls::Expired(authority) => (authority, false),
        Tls::Mutual(authority) => (authority, true),
    };
    let year = if matches!(tls, Tls::Expired(_)) {
        2020
    } else {
        4000
    };
    let (certificate, key) = authority.issue_until(year);
    let config = ServerTlsConfig::new().identity(Identity::from_pem(certificate, key));
    let ca = Certificate::from_pem(&authority.pem);
    Some(if mutual { config.client_ca_root(ca) } else { config })
}

async fn grpc(listener: TcpListener, script: Script, tls: Option<tonic::transport::ServerTlsConfig>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let mut server = tonic::transport::Server::builder();
    if let Some(tls) = tls {
        server = server.tls_config(tls).unwrap();
    }
    let service = TraceServiceServer::new(script)
        .accept_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Zstd);
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    server
        .add_service(service)
        .serve_with_incoming(incoming)
        .await
        .unwrap();
}

fn http_tls(tls: Tls<'_>) -> Option<TlsAcceptor> {
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let (authority, mutual) = match tls {
        Tls::No => return None,
        Tls::Server(authority) | Tls::Expired(authority) => (authority, false),
        Tls::Mutual(authority) => (authority, true),
    };
    let year = if matches!(tls, Tls::Expired(_)) {
        2020
    } else {
        4000
    };
    let (certificate, key) = authority.issue_until(year);
    let builder = rustls::ServerConfig::builder();
    let builder = if mutual {
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap())
            .unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    Some(TlsAcceptor::from(Arc::new(
        builder.with_single_cert(chain, key).unwrap(),
    )))
}

async fn http(listener: TcpListener, script: Script, tls: Option<TlsAcceptor>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    while let Ok((stream, _)) = listener.accept().await {
        let (script, tls) = (script.clone(), tls.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(script.clone(), request));
            let http = hyper::server::conn::http1::Builder::new();
            match tls {
                // Clients that fail the handshake or go away are part of the tests.
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        let _ = http.serve_connection(TokioIo::new(stream), service).await;
                    }
                }
                None => drop(http.serve_connection(TokioIo::new(stream), service).await),
            }
        });
    }
}

async fn answer(
    script: Script,
    request: http::Request<hyper::body::Incoming>,
) -> Result<http::Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/v1/traces"));
    let is_json = match parts.headers["content-type"].to_str().unwrap() {
        "application/x-protobuf" => false,
        "application/json" => true,
        other => panic!("content type {other}"),
    };
    let body = body.collect().await.unwrap().to_bytes();
    let encoding = parts.headers.get("content-encoding");
    let body = match encoding.map(|name| name.to_str().unwrap()) {
        Some("gzip") => {
            let mut plain = Vec::new();
            GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
            plain
        }
        Some("zstd") => zstd::decode_all(&body[..]).unwrap(),
        Some(other) => panic!("content encoding {other}"),
        None => body.to_vec(),
    };
    let request = if is_json {
        serde_json::from_slice(&body).unwrap()
    } else {
        ExportTraceServiceRequest::decode(body.as_slice()).unwrap()
    };
    let reply = |status: u16, kind: &str, body: Vec<u8>| {
        http::Response::builder()
            .status(status)
            .header("content-type", kind)
            .body(Full::from(body))
            .unwrap()
    };
    let official = |response: ExportTraceServiceResponse| match is_json {
        true => reply(200, "application/json", serde_json::to_vec(&response).unwrap()),
        false => reply(200, "application/x-protobuf", response.encode_to_vec()),
    };
    Ok(match script.receive(request, parts.headers) {
        Reply::Take => official(ExportTraceServiceResponse::default()),
        Reply::Partial(n, message) => official(response(n, message)),
        Reply::Http(status, retry_after, body) => {
            let mut response = reply(status, "text/plain", body.into());
            if !retry_after.is_empty() {
                response
                    .headers_mut()
                    .insert("retry-after", retry_after.parse().unwrap());
            }
            response
        }
        Reply::AtMost(_) => reply(413, "text/plain", Vec::new()),
        Reply::Page(kind, body) => reply(200, kind, body.into()),
        Reply::Grpc(..) => panic!("a gRPC answer over HTTP"),
        Reply::Hang => std::future::pending().await,
    })
}
