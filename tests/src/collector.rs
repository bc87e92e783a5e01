//! An OTLP collector inside the test: gRPC and HTTP/protobuf on one port, decoded with the official types.

use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tonic::codec::CompressionEncoding;

use crate::metrics::{self, Point};
use crate::span::Spans;

/// How the daemon is told to export.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// `OTEL_EXPORTER_OTLP_PROTOCOL=grpc`.
    Grpc,
    /// `OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf`.
    Http,
}

/// What is wrong with the back end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fault {
    /// Nothing.
    None,
    /// It answers "unavailable" and keeps nothing.
    Unavailable,
    /// It takes that long for each request.
    Slow(Duration),
}

struct State {
    spans: Mutex<Spans>,
    points: Mutex<Vec<Point>>,
    headers: Mutex<Vec<HeaderMap>>,
    fault: Mutex<Fault>,
    requests: AtomicUsize,
}

impl State {
    /// Takes a request, or refuses it because of the fault that is set.
    async fn take(&self, headers: HeaderMap, request: ExportTraceServiceRequest) -> Result<(), ()> {
        self.requests.fetch_add(1, SeqCst);
        let fault = *lock(&self.fault);
        match fault {
            Fault::None => {}
            Fault::Unavailable => return Err(()),
            Fault::Slow(time) => tokio::time::sleep(time).await,
        }
        lock(&self.headers).push(headers);
        lock(&self.spans).extend(Spans::of(request));
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running collector; dropped, it closes its port.
pub struct Collector {
    state: Arc<State>,
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Collector {
    /// Listens on a free loopback port.
    ///
    /// # Panics
    /// If it can't listen.
    #[must_use]
    pub fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// Has what another one got, too.
    pub fn absorb(&self, spans: Spans) {
        lock(&self.state.spans).extend(spans);
    }

    /// Listens on that address (to come back where a collector was before).
    ///
    /// # Panics
    /// If it can't listen.
    #[must_use]
    pub fn start_at(address: SocketAddr) -> Self {
        let state = Arc::new(State {
            spans: Mutex::default(),
            points: Mutex::default(),
            headers: Mutex::default(),
            fault: Mutex::new(Fault::None),
            requests: AtomicUsize::new(0),
        });
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime
            .block_on(tokio::net::TcpListener::bind(address))
            .expect("listen on loopback");
        let address = listener.local_addr().expect("the collector's address");
        let grpc = TraceServiceServer::new(Grpc(Arc::clone(&state)))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(64 << 20);
        let metrics = MetricsServiceServer::new(Grpc(Arc::clone(&state)))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(64 << 20);
        let http = {
            let state = Arc::clone(&state);
            axum::routing::post(move |headers: HeaderMap, body: Bytes| {
                http(Arc::clone(&state), headers, body)
            })
        };
        let http_metrics = {
            let state = Arc::clone(&state);
            axum::routing::post(move |headers: HeaderMap, body: Bytes| {
                http_metrics(Arc::clone(&state), headers, body)
            })
        };
        let router = tonic::service::Routes::new(grpc)
            .add_service(metrics)
            .into_axum_router()
            .route("/v1/traces", http)
            .route("/v1/metrics", http_metrics)
            .layer(axum::extract::DefaultBodyLimit::max(64 << 20));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            state,
            address,
            runtime: Some(runtime),
        }
    }

    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on, fail in this way.
    pub fn set_fault(&self, fault: Fault) {
        *lock(&self.state.fault) = fault;
    }

    /// Export requests so far, refused ones included.
    #[must_use]
    pub fn requests(&self) -> usize {
        self.state.requests.load(SeqCst)
    }

    /// Headers (gRPC: metadata) of the accepted requests.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderMap> {
        lock(&self.state.headers).clone()
    }

    /// Everything that has arrived.
    #[must_use]
    pub fn spans(&self) -> Spans {
        lock(&self.state.spans).clone()
    }

    /// Every point of a metric that has arrived.
    #[must_use]
    pub fn points(&self) -> Vec<Point> {
        lock(&self.state.points).clone()
    }

    /// Waits until what has arrived satisfies `enough`, and returns it.
    ///
    /// # Panics
    /// If it does not within `limit`.
    pub fn wait_until(&self, limit: Duration, what: &str, enough: impl Fn(&Spans) -> bool) -> Spans {
        let deadline = Instant::now() + limit;
        loop {
            let spans = self.spans();
            if enough(&spans) {
                return spans;
            }
            assert!(
                Instant::now() < deadline,
                "{what}: not within {limit:?}; arrived:\n{spans}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Grpc(Arc<State>);

#[tonic::async_trait]
impl TraceService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let headers = request.metadata().clone().into_headers();
        match self.0.take(headers, request.into_inner()).await {
            Ok(()) => Ok(tonic::Response::new(ExportTraceServiceResponse::default())),
            Err(()) => Err(tonic::Status::unavailable("told to be unavailable")),
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Grpc {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        lock(&self.0.points).extend(metrics::points(request.into_inner()));
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

/// A message that came over HTTP.
fn decode<M: prost::Message + Default>(headers: &HeaderMap, body: &[u8]) -> Result<M, StatusCode> {
    let is = |name: header::HeaderName, value: &str| headers.get(name).is_some_and(|v| v == value);
    if !is(header::CONTENT_TYPE, "application/x-protobuf") {
        return Err(StatusCode::UNSUPPORTED_MEDIA_TYPE);
    }
    let mut plain = Vec::new();
    if is(header::CONTENT_ENCODING, "gzip") {
        let mut gzip = flate2::read::GzDecoder::new(body);
        gzip.read_to_end(&mut plain)
            .map_err(|_| StatusCode::BAD_REQUEST)?;
    } else {
        plain.extend_from_slice(body);
    }
    M::decode(&plain[..]).map_err(|_| StatusCode::BAD_REQUEST)
}

fn encoded(message: &impl prost::Message) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/x-protobuf")];
    (kind, message.encode_to_vec()).into_response()
}

async fn http(state: Arc<State>, headers: HeaderMap, body: Bytes) -> Response {
    let request: ExportTraceServiceRequest = match decode(&headers, &body) {
        Ok(request) => request,
        Err(status) => return status.into_response(),
    };
    match state.take(headers, request).await {
        Ok(()) => encoded(&ExportTraceServiceResponse::default()),
        Err(()) => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    }
}

async fn http_metrics(state: Arc<State>, headers: HeaderMap, body: Bytes) -> Response {
    match decode(&headers, &body) {
        Ok(request) => {
            lock(&state.points).extend(metrics::points(request));
            encoded(&ExportMetricsServiceResponse::default())
        }
        Err(status) => status.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
    use opentelemetry_proto::tonic::trace::v1 as otlp;

    use prost::Message as _;

    use super::*;
    use crate::Client;

    fn request(name: &str) -> ExportTraceServiceRequest {
        let span = otlp::Span {
            trace_id: vec![1; 16],
            span_id: vec![2; 8],
            name: name.to_owned(),
            kind: otlp::span::SpanKind::Server as i32,
            ..otlp::Span::default()
        };
        let scope_spans = vec![otlp::ScopeSpans {
            spans: vec![span],
            ..otlp::ScopeSpans::default()
        }];
        let resource_spans = vec![otlp::ResourceSpans {
            scope_spans,
            ..otlp::ResourceSpans::default()
        }];
        ExportTraceServiceRequest { resource_spans }
    }

    fn export_by_grpc(collector: &Collector, name: &str) -> Result<(), tonic::Code> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let channel = tonic::transport::Channel::from_shared(collector.endpoint()).expect("a URL");
            let client = TraceServiceClient::new(channel.connect().await.expect("connect"));
            let mut client = client.send_compressed(CompressionEncoding::Gzip);
            client
                .export(request(name))
                .await
                .map(|_| ())
                .map_err(|status| status.code())
        })
    }

    fn export_by_http(collector: &Collector, name: &str, gzip: bool) -> u16 {
        let mut body = request(name).encode_to_vec();
        let mut headers = vec![("Content-Type", "application/x-protobuf")];
        if gzip {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(&body).expect("compress");
            body = encoder.finish().expect("compress");
            headers.push(("Content-Encoding", "gzip"));
        }
        Client::to(collector.address())
            .request("POST", "/v1/traces", &headers, &body)
            .status
    }

    #[test]
    fn takes_both_transports() {
        let collector = Collector::start();
        assert_eq!(export_by_grpc(&collector, "grpc"), Ok(()));
        assert_eq!(export_by_http(&collector, "http", false), 200);
        assert_eq!(export_by_http(&collector, "gzip", true), 200);
        let names: Vec<_> = collector.spans().iter().map(|span| span.name.clone()).collect();
        assert_eq!(names, ["grpc", "http", "gzip"]);
        assert_eq!(
            Client::to(collector.address()).post("/v1/traces", b"x").status,
            415
        );
    }

    #[test]
    fn fails_as_told() {
        let collector = Collector::start();
        collector.set_fault(Fault::Unavailable);
        assert_eq!(export_by_grpc(&collector, "grpc"), Err(tonic::Code::Unavailable));
        assert_eq!(export_by_http(&collector, "http", false), 503);
        assert!(collector.spans().is_empty());
        assert_eq!(collector.requests(), 2);
    }
}
