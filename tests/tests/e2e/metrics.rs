//! Metrics of real traffic: exact counts, times within the clients' own, the service graph, what promtool says of it all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::process::TempDir;
use tracer_tests::{Client, Host, Record, Selection, Tracer, Transport, free_port, metrics};

/// One scrape: samples by name and labels.
struct Page {
    text: String,
    samples: Vec<(String, BTreeMap<String, String>, f64)>,
}

impl Page {
    fn scrape(port: u16, accept: &str) -> Self {
        let output = Command::new("curl")
            .args(["-sS", "--fail", "-H", &format!("Accept: {accept}")])
            .arg(format!("http://127.0.0.1:{port}/metrics"))
            .output()
            .expect("curl");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let samples = text
            .lines()
            .filter(|line| !line.starts_with('#'))
            .map(sample)
            .collect();
        Self { text, samples }
    }

    /// The sum of all samples of that name with these labels.
    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |sample: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| sample.get(*key).is_some_and(|v| v == value))
        };
        self.samples
            .iter()
            .filter(|(sample, own, _)| sample == name && has(own))
            .map(|(_, _, value)| value)
            .sum()
    }
}

/// `name{label="value",…} number`, and an exemplar perhaps. The test's own labels hold no quotes.
fn sample(line: &str) -> (String, BTreeMap<String, String>, f64) {
    let (name, rest) = line
        .split_once('{')
        .unwrap_or_else(|| panic!("no labels: {line}"));
    let (labels, rest) = rest
        .split_once("} ")
        .unwrap_or_else(|| panic!("no value: {line}"));
    let labels = labels
        .split("\",")
        .filter_map(|label| label.split_once("=\""))
        .map(|(key, value)| (key.to_owned(), value.trim_end_matches('"').to_owned()))
        .collect();
    let value = rest.split(' ').next().and_then(|value| value.parse().ok());
    (
        name.to_owned(),
        labels,
        value.unwrap_or_else(|| panic!("no number: {line}")),
    )
}

fn promtool(arguments: &[&str], input: &str) -> String {
    let mut program = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool (Debian package prometheus)");
    let mut stdin = program.stdin.take().expect("standard input");
    stdin.write_all(input.as_bytes()).expect("promtool reads");
    drop(stdin);
    let output = program.wait_with_output().expect("promtool ends");
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
    said
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// At least: a query for each of 60 requests, and one to three look-ups in the cache.
const CALLS_BEHIND_FLASK: f64 = 180.0;

#[test]
fn counts_are_exact_and_edges_are_right() {
    let Some(host) = Host::ready() else { return };
    let (flask, postgresql, redis) = apps::flask_with_stores(Setup::named("b-flask"));
    let go = apps::go(Setup::named("a-go").calling(&flask));
    let nginx = apps::nginx(Setup::default());
    assert_eq!(Client::connect(go.port).get("/chain/1").status, 200);
    let port = free_port();
    let selection = Selection::of(&[&go, &flask, &postgresql, &redis, &nginx])
        .with("--prometheus-listen", &port.to_string());
    let tracer = host.trace(&selection);
    let chains = drive(go.port, 4, 0..60, |client, n| client.get(&format!("/chain/{n}")));
    let files = drive(nginx.port, 4, 0..500, |client, n| {
        client.get(&format!("/hello/{n}"))
    });
    // What waits for a parent's decision comes a moment later.
    let deadline = Instant::now() + Duration::from_secs(20);
    let (page, plain) = loop {
        let page = Page::scrape(port, "application/openmetrics-text;version=1.0.0");
        let counted = page.sum("http_server_request_duration_seconds_count", &[]);
        let across = page.sum(
            "traces_service_graph_request_server_seconds_count",
            &[("client", "b-flask")],
        );
        let is_all = counted >= 620.0 && across >= CALLS_BEHIND_FLASK;
        if is_all || Instant::now() > deadline {
            break (page, Page::scrape(port, "text/plain"));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let finished = tracer.finish();

    let duration = "http_server_request_duration_seconds";
    let count = |job: &str| {
        page.sum(
            &format!("{duration}_count"),
            &[("job", job), ("http_response_status_code", "200")],
        )
    };
    assert_eq!((count("a-go"), count("nginx")), (60.0, 500.0), "{}", page.text);
    assert_eq!(count("b-flask"), 60.0);
    let queries = page.sum(
        "db_client_operation_duration_seconds_count",
        &[("job", "b-flask"), ("db_operation_name", "SELECT")],
    );
    let expected = finished
        .spans
        .service("b-flask")
        .filter(|span| span.text("db.operation.name") == "SELECT");
    assert_eq!(queries, expected.len() as f64);
    // What the server took is less than what its clients waited.
    let waited = |records: &[Record]| {
        records
            .iter()
            .map(|r| (r.ended - r.started) as f64 / 1e9)
            .sum::<f64>()
    };
    for (job, records) in [("a-go", &chains), ("nginx", &files)] {
        let took = page.sum(&format!("{duration}_sum"), &[("job", job)]);
        assert!(
            took > 0.0 && took <= waited(records),
            "{job}: {took} s of {} s",
            waited(records)
        );
    }
    let received: u64 = files.iter().map(|record| record.received).sum();
    let sent = page.sum("http_server_response_body_size_bytes_sum", &[("job", "nginx")]);
    assert_eq!(sent, received as f64);

    // Who calls whom: the tests' own client is not traced, so it is "user".
    let edge = |name: &str, client: &str, server: &str| {
        page.sum(
            &format!("traces_service_graph_request_{name}"),
            &[("client", client), ("server", server)],
        )
    };
    assert_eq!(edge("total", "user", "a-go"), 60.0, "{}", page.text);
    assert_eq!(edge("total", "user", "nginx"), 500.0);
    assert_eq!(edge("total", "a-go", "b-flask"), 60.0);
    assert_eq!(edge("server_seconds_count", "a-go", "b-flask"), 60.0);
    assert_eq!(edge("client_seconds_count", "a-go", "b-flask"), 60.0);
    assert!(edge("total", "b-flask", "postgres") >= 60.0);
    assert!(edge("total", "b-flask", "redis-server") >= 60.0);
    assert_eq!(edge("failed_total", "a-go", "b-flask"), 0.0);

    // An exemplar's trace is one that was exported.
    let exemplar = page
        .text
        .split("# {trace_id=\"")
        .nth(1)
        .and_then(|rest| rest.get(..32));
    let exemplar = exemplar.expect("an exemplar").to_owned();
    assert!(
        finished.spans.iter().any(|span| hex(&span.trace_id) == exemplar),
        "{exemplar}"
    );

    // The tracer's own health.
    assert!(page.sum("process_memory_usage_bytes", &[("job", "tracer")]) > 1e6);
    assert!(page.sum("tracer_ring_size_bytes", &[]) > 1e6);
    assert!(page.sum("tracer_exchange_seen_total", &[]) >= 680.0);
    assert_eq!(promtool(&["check", "metrics"], &plain.text), "");
}

#[test]
fn alert_rules_fire_when_they_should() {
    let rules = docs().join("prometheus/alerts.yaml");
    let tests = docs().join("prometheus/alerts.test.yaml");
    promtool(&["check", "rules", &rules.display().to_string()], "");
    promtool(&["test", "rules", &tests.display().to_string()], "");
    // Every alert is tested.
    let (rules, tests) = (std::fs::read_to_string(rules), std::fs::read_to_string(tests));
    let tests = tests.expect("the tests");
    for line in rules.expect("the rules").lines() {
        if let Some((_, name)) = line.split_once("alert: ") {
            assert!(
                tests.contains(&format!("alertname: {name}")),
                "{name} is not tested"
            );
        }
    }
}

/// Queries of the dashboard are what Prometheus can parse, and ask for metrics that there are.
#[test]
fn the_dashboard_asks_for_what_there_is() {
    let text = std::fs::read_to_string(docs().join("grafana/dashboard.json")).expect("the dashboard");
    let described = std::fs::read_to_string(docs().join("metrics.md")).expect("docs/metrics.md");
    let dashboard: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let mut rules = String::from("groups:\n  - name: dashboard\n    rules:\n");
    let mut queries = 0;
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let query = target["expr"].as_str().expect("a query");
            let query = query.replace("$__rate_interval", "5m").replace("$job", ".*");
            queries += 1;
            rules += &format!(
                "      - record: query_{queries}\n        expr: {}\n",
                serde_json::json!(query)
            );
            for word in query.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')) {
                let is_metric = ["http_", "db_", "tracer_", "traces_", "process_"]
                    .iter()
                    .any(|p| word.starts_with(p))
                    && [
                        "_bucket", "_count", "_sum", "_total", "_bytes", "_used", "_size", "_open", "_series",
                    ]
                    .iter()
                    .any(|s| word.ends_with(s));
                let stem = ["_bucket", "_count", "_sum"]
                    .iter()
                    .find_map(|suffix| word.strip_suffix(suffix))
                    .unwrap_or(word);
                assert!(
                    !is_metric || described.contains(&format!("`{stem}`")),
                    "{stem} is not in docs/metrics.md"
                );
            }
        }
    }
    assert!(queries > 20, "{queries}");
    let folder = std::env::temp_dir().join(format!("dashboard-{}.yaml", std::process::id()));
    std::fs::write(&folder, rules).expect("a file");
    let said = promtool(&["check", "rules", &folder.display().to_string()], "");
    std::fs::remove_file(&folder).expect("remove the file");
    assert!(said.contains(&format!("{queries} rules found")), "{said}");
}

/// Over OTLP: numbers and sums are exactly those of the spans, in every form that histograms have.
#[test]
fn pushed() {
    let Some(host) = Host::ready() else { return };
    for (transport, temporality, histogram) in [
        (Transport::Grpc, "cumulative", "explicit"),
        (Transport::Grpc, "delta", "exponential"),
        (Transport::Http, "cumulative", "exponential"),
        (Transport::Http, "delta", "explicit"),
    ] {
        let (flask, postgresql, redis) = apps::flask_with_stores(Setup::named("b-flask"));
        let nginx = apps::nginx(Setup::default().calling(&flask));
        let folder = TempDir::new("pushed");
        let config = folder.write(
            "tracer.yaml",
            format!("export: {{metrics: {{otlp: true, interval: 300ms, temporality: {temporality}, histogram: {histogram}}}}}\n"),
        );
        let selection = Selection::of(&[&flask, &postgresql, &redis, &nginx])
            .with("--config", &config.display().to_string());
        let tracer = Tracer::start(&selection, transport);
        drive(nginx.port, 4, 0..200, |client, n| {
            // Longer than some intervals.
            std::thread::sleep(Duration::from_millis(20));
            client.get(&format!("/pass/db/{n}"))
        });
        let finished = tracer.finish();
        let points = finished.points;
        let durations: Vec<_> = points
            .iter()
            .filter(|point| point.metric.ends_with(".duration") && !point.metric.starts_with("tracer."))
            .cloned()
            .collect();
        let what = format!("{transport:?}, {temporality}, {histogram}");
        for point in &durations {
            let form = (point.is_delta, point.is_exponential);
            assert_eq!(
                form,
                (temporality == "delta", histogram == "exponential"),
                "{what}: {point:?}"
            );
        }
        let times: BTreeSet<_> = durations.iter().map(|point| point.time).collect();
        assert!(times.len() > 1, "{what}: several exports");
        let expected = metrics::expected(&finished.spans);
        let servers = ("nginx".to_owned(), "http.server.request.duration".to_owned());
        assert_eq!(expected[&servers].0, 200);
        let problems = metrics::differences(&expected, &metrics::totals(&durations));
        assert_eq!(problems, Vec::<String>::new(), "{what}");
    }
    drop(host);
}

/// A line that drops packets, in a network of its own: what is sent again is counted, and no more than the kernel itself says.
#[test]
fn retransmits_are_counted() {
    const LOSSY: &str = "
        ip link set lo mtu 1500 up && tc qdisc add dev lo root tbf rate 4mbit burst 4kb limit 6kb || exit 7
        python3 -m http.server --bind 127.0.0.1 $1 & server=$!
        for i in 1 2 3 4 5 6 7 8 9; do curl -s -o out http://127.0.0.1:$1/file && break; sleep 0.5; done
        grep ^Tcp: /proc/self/net/snmp > counted
        kill $server; wait; cmp file out";
    let Some(host) = Host::ready() else { return };
    let (port, scrape) = (free_port(), free_port());
    let selection = Selection::default()
        .port(port)
        .with("--prometheus-listen", &scrape.to_string());
    let tracer = host.trace(&selection);
    let folder = TempDir::new("lossy");
    folder.write("file", "x".repeat(400_000));
    let status = Command::new("unshare")
        .args(["--net", "sh", "-c", LOSSY, "sh", &port.to_string()])
        .current_dir(folder.path())
        .stderr(Stdio::null())
        .status();
    assert!(status.expect("unshare").success(), "the lossy line");
    let text = std::fs::read_to_string(folder.path().join("counted")).expect("the kernel's own counts");
    let rows: Vec<Vec<&str>> = text
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let at = rows[0]
        .iter()
        .position(|name| *name == "RetransSegs")
        .expect("RetransSegs");
    let segments: f64 = rows[1][at].parse().expect("a number");
    assert!(segments > 0.0, "packets were dropped:\n{text}");
    let deadline = Instant::now() + Duration::from_secs(10);
    let counted = loop {
        let page = Page::scrape(scrape, "text/plain");
        let counted = page.sum("tracer_connection_retransmitted_total", &[]);
        if counted > 0.0 || Instant::now() > deadline {
            break counted;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    // One event may stand for several segments.
    assert!(counted > 0.0 && counted <= segments, "{counted} of {segments}");
    drop(tracer.finish());
}
