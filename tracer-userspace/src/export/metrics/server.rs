//! The page that Prometheus scrapes: `GET /metrics`, and nothing else.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::Scene;
use super::text::{self, Format};

/// Scrapers that are served at one time.
const MAX_CONNECTIONS: usize = 16;
/// How long a scraper may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one connection lives; scrapers come back.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, scene: Arc<Scene>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of descriptors, most likely: an immediate retry would spin.
                tracing::debug!("accepting a scraper: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let scene = Arc::clone(&scene);
        tokio::spawn(async move {
            let serve = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .serve_connection(
                    TokioIo::new(stream),
                    service_fn(move |request| {
                        let scene = Arc::clone(&scene);
                        async move { Ok::<_, Infallible>(answer(&request, &scene)) }
                    }),
                );
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, serve).await {
                tracing::debug!("a scraper's connection: {error}");
            }
            drop(place);
        });
    }
}

/// Binds at once, so that a port that is taken is told at the start.
pub fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn answer(request: &Request<Incoming>, scene: &Scene) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "use GET\n");
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    let accept = request
        .headers()
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok());
    let format = Format::negotiate(accept.unwrap_or_default());
    let page = text::write(&scene.gather(), &scene.myself, &scene.clock, format);
    let mut response = Response::new(Full::from(page));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
