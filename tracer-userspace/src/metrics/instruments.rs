//! Every metric that exchanges give, by the OpenTelemetry semantic conventions where they have it.

use crate::model::{Bounds, Instrument, InstrumentKind};

/// For what is no histogram.
static NONE: Bounds = Bounds::new(&[]);

/// Nanoseconds in a second.
pub const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// The bounds that the conventions advise for HTTP, RPC, messaging and DNS.
static CALLS: Bounds = Bounds::new(&[
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    75 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    750 * MS,
    SECOND,
    2_500 * MS,
    5 * SECOND,
    7_500 * MS,
    10 * SECOND,
]);
/// The bounds that the conventions advise for databases.
static QUERIES: Bounds = Bounds::new(&[
    MS,
    5 * MS,
    10 * MS,
    50 * MS,
    100 * MS,
    500 * MS,
    SECOND,
    5 * SECOND,
    10 * SECOND,
]);
/// The default bounds of the OpenTelemetry Collector's service graph connector.
static EDGES: Bounds = Bounds::new(&[
    2 * MS,
    4 * MS,
    6 * MS,
    8 * MS,
    10 * MS,
    50 * MS,
    100 * MS,
    200 * MS,
    400 * MS,
    800 * MS,
    SECOND,
    1_400 * MS,
    2 * SECOND,
    5 * SECOND,
    10 * SECOND,
    15 * SECOND,
]);
/// Waits that matter begin far below those of calls.
static WAITS: Bounds = Bounds::new(&[
    MS / 10,
    MS / 4,
    MS / 2,
    MS,
    5 * MS / 2,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    SECOND,
    5 * SECOND,
    10 * SECOND,
]);
/// The conventions advise none for sizes.
static SIZES: Bounds = Bounds::new(&[
    0,
    256,
    1 << 10,
    4 << 10,
    16 << 10,
    64 << 10,
    256 << 10,
    1 << 20,
    4 << 20,
    16 << 20,
    64 << 20,
    256 << 20,
]);

macro_rules! instruments {
    ($($id:ident: $kind:ident $name:literal, $unit:literal, $scale:expr, $bounds:expr, $text:literal;)*) => {
        $(#[doc = $text]
        pub static $id: Instrument = Instrument {
            name: $name,
            unit: $unit,
            description: $text,
            kind: InstrumentKind::$kind,
            scale: $scale,
            bounds: &$bounds,
        };)*
        /// All of them, in the order in which they are told.
        pub static ALL: &[&Instrument] = &[$(&$id),*];
    };
}

instruments! {
    HTTP_SERVER: Histogram "http.server.request.duration", "s", SECOND, CALLS, "Duration of HTTP server requests.";
    HTTP_SERVER_REQUEST: Histogram "http.server.request.body.size", "By", 1, SIZES, "Size of HTTP server request bodies.";
    HTTP_SERVER_RESPONSE: Histogram "http.server.response.body.size", "By", 1, SIZES, "Size of HTTP server response bodies.";
    HTTP_CLIENT: Histogram "http.client.request.duration", "s", SECOND, CALLS, "Duration of HTTP client requests.";
    HTTP_CLIENT_REQUEST: Histogram "http.client.request.body.size", "By", 1, SIZES, "Size of HTTP client request bodies.";
    HTTP_CLIENT_RESPONSE: Histogram "http.client.response.body.size", "By", 1, SIZES, "Size of HTTP client response bodies.";
    DB_CLIENT: Histogram "db.client.operation.duration", "s", SECOND, QUERIES, "Duration of database client operations.";
    RPC_SERVER: Histogram "rpc.server.call.duration", "s", SECOND, CALLS, "Duration of inbound remote procedure calls.";
    RPC_CLIENT: Histogram "rpc.client.call.duration", "s", SECOND, CALLS, "Duration of outbound remote procedure calls.";
    MESSAGING: Histogram "messaging.client.operation.duration", "s", SECOND, CALLS, "Duration of messaging operations.";
    DNS: Histogram "dns.lookup.duration", "s", SECOND, CALLS, "Duration of DNS look-ups.";
    QUEUE: Histogram "tracer.server.queue.duration", "s", SECOND, WAITS,
        "Time that requests waited in the socket's buffer before the server read them.";
    EDGE_TOTAL: Counter "traces_service_graph_request_total", "{request}", 1, NONE, "Requests between two services.";
    EDGE_FAILED: Counter "traces_service_graph_request_failed_total", "{request}", 1, NONE, "Failed requests between two services.";
    EDGE_SERVER: Histogram "traces_service_graph_request_server_seconds", "s", SECOND, EDGES,
        "Duration of requests between two services, seen by the server.";
    EDGE_CLIENT: Histogram "traces_service_graph_request_client_seconds", "s", SECOND, EDGES,
        "Duration of requests between two services, seen by the client.";
    EDGE_UNPAIRED: Counter "traces_service_graph_unpaired_spans_total", "{span}", 1, NONE,
        "Server spans whose client was not seen on this host although they name one.";
    EDGE_DROPPED: Counter "traces_service_graph_dropped_spans_total", "{span}", 1, NONE,
        "Spans left out of the service graph because too many waited for their other end.";
    OPENED: Counter "tracer.connection.opened", "{connection}", 1, NONE,
        "Connections whose opening was seen and that have moved bytes.";
    FAILED: Counter "tracer.connection.failed", "{connection}", 1, NONE, "Connects that failed.";
    RESET: Counter "tracer.connection.reset", "{connection}", 1, NONE, "Connections that were reset by either side.";
    RETRANSMITTED: Counter "tracer.connection.retransmitted", "{segment}", 1, NONE, "TCP segments that were sent again.";
    OVERFLOWED: Counter "tracer.metrics.overflowed", "{exchange}", 1, NONE,
        "Exchanges counted in a series with otel.metric.overflow because the limit of series was reached.";
    SERIES: Gauge "tracer.metrics.series", "{series}", 1, NONE, "Sets of attributes that metrics are kept for.";
}
