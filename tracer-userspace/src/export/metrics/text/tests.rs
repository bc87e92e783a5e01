use super::*;
use crate::model::{Bounds, Labels, Resource, SpanId, TraceId};

static DURATION: Instrument = Instrument {
    name: "http.server.request.duration",
    unit: "s",
    description: "Duration of HTTP server requests.",
    kind: InstrumentKind::Histogram,
    scale: 1_000_000_000,
    bounds: &Bounds::new(&[5_000_000, 1_000_000_000]),
};
static EDGES: Instrument = Instrument {
    name: "traces_service_graph_request_total",
    unit: "{request}",
    description: "Back\\slash.",
    kind: InstrumentKind::Counter,
    scale: 1,
    bounds: &Bounds::new(&[]),
};
static MEMORY: Instrument = Instrument {
    name: "process.memory.usage",
    unit: "By",
    description: "Memory.",
    kind: InstrumentKind::UpDownCounter,
    scale: 1,
    bounds: &Bounds::new(&[]),
};

fn service(name: &str, namespace: Option<&str>) -> Arc<Service> {
    let mut text = vec![
        ("service.name".into(), name.into()),
        ("service.instance.id".into(), format!("{name}-1").into()),
        ("host.name".into(), "h\"1".into()),
    ];
    if let Some(namespace) = namespace {
        text.push(("service.namespace".into(), namespace.into()));
    }
    Arc::new(Service {
        name: name.into(),
        resource: Resource {
            text,
            ints: vec![("process.pid".into(), 7)],
            lists: Vec::new(),
        },
        ..Service::default()
    })
}

fn families() -> Vec<Family> {
    let point = |service: Option<Arc<Service>>, labels: Labels, value| Point {
        series: 1,
        service,
        labels,
        start: 0,
        value,
    };
    let labels: Labels = Arc::new([
        ("http.route", Label::Text("/a\"\\\nb".into())),
        ("http.response.status_code", Label::Int(200)),
    ]);
    let told = Distribution {
        sum: 3_002_000_000,
        counts: vec![1, 0, 2],
        exponential: None,
        exemplars: vec![Exemplar {
            trace_id: TraceId([0xab; 16]),
            span_id: SpanId([1; 8]),
            value: 2_000_000_000,
            ts: 1_700_000_000_123_456_789,
        }],
    };
    let value = Reading::Distribution(Box::new(told));
    vec![
        Family {
            instrument: &DURATION,
            points: vec![point(Some(service("shop", Some("eu"))), labels, value)],
        },
        Family {
            instrument: &EDGES,
            points: vec![point(
                None,
                Arc::new([("client", Label::Static("a"))]),
                Reading::Number(5),
            )],
        },
        Family {
            instrument: &MEMORY,
            points: vec![point(None, Arc::new([]), Reading::Number(4096))],
        },
    ]
}

fn page(format: Format) -> String {
    write(
        &families(),
        &service("tracer", None),
        &Clock::with_offset(0),
        format,
    )
}

#[test]
fn openmetrics() {
    let shop = r#"job="eu/shop",instance="shop-1""#;
    let series = format!(r#"{shop},http_route="/a\"\\\nb",http_response_status_code="200""#);
    let tracer = r#"job="tracer",instance="tracer-1""#;
    let trace = "abababababababababababababababab";
    let expected = format!(
        r#"# HELP http_server_request_duration_seconds Duration of HTTP server requests.
# TYPE http_server_request_duration_seconds histogram
# UNIT http_server_request_duration_seconds seconds
http_server_request_duration_seconds_bucket{{{series},le="0.005"}} 1
http_server_request_duration_seconds_bucket{{{series},le="1.0"}} 1
http_server_request_duration_seconds_bucket{{{series},le="+Inf"}} 3 # {{trace_id="{trace}",span_id="0101010101010101"}} 2 1700000000.123
http_server_request_duration_seconds_sum{{{series}}} 3.002
http_server_request_duration_seconds_count{{{series}}} 3
# HELP traces_service_graph_request Back\\slash.
# TYPE traces_service_graph_request counter
traces_service_graph_request_total{{{tracer},client="a"}} 5
# HELP process_memory_usage_bytes Memory.
# TYPE process_memory_usage_bytes gauge
# UNIT process_memory_usage_bytes bytes
process_memory_usage_bytes{{{tracer}}} 4096
# HELP target What is known of each service.
# TYPE target info
target_info{{{tracer},host_name="h\"1",process_pid="7"}} 1
target_info{{{shop},host_name="h\"1",process_pid="7"}} 1
# EOF
"#
    );
    assert_eq!(page(Format::OpenMetrics), expected);
}

#[test]
fn plain_text_has_no_exemplars_and_other_names_of_types() {
    let page = page(Format::Plain);
    for line in [
        "# TYPE traces_service_graph_request_total counter",
        "# TYPE target_info gauge",
    ] {
        assert!(page.lines().any(|l| l == line), "{line}\n{page}");
    }
    assert!(page.contains(r#"le="1"} 1"#), "{page}");
    assert!(!page.contains("trace_id") && !page.contains("# EOF") && !page.contains("# UNIT"));
}

#[test]
fn the_accept_header_chooses() {
    // What Prometheus 2.42 and 3 send, curl, a browser, and some that say odd things.
    for (accept, expected) in [
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            Format::OpenMetrics,
        ),
        (
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
            Format::OpenMetrics,
        ),
        (
            "text/plain;version=0.0.4;q=1,application/openmetrics-text;version=1.0.0;q=0.1",
            Format::Plain,
        ),
        (
            "application/openmetrics-text;version=0.0.1,text/plain;q=0.5",
            Format::Plain,
        ),
        ("application/openmetrics-text", Format::OpenMetrics),
        ("application/openmetrics-text; q=0", Format::Plain),
        ("*/*", Format::Plain),
        ("", Format::Plain),
        (";;,=;q", Format::Plain),
    ] {
        assert_eq!(Format::negotiate(accept), expected, "{accept}");
    }
}
