//! The backends: started on free ports of loopback, ended with their value.

use std::path::Path;
use std::process::Command;

use tracer_tests::free_port;
use tracer_tests::metrics::Point;
use tracer_tests::process::{Program, TempDir};

use crate::Row;
use crate::read::{self, Found, Spans, get};

/// What the Collector's door for Elastic wants to see.
const API_KEY: &str = "dHJhY2VyOnNlY3JldA==";

/// The Collector's door for metrics.
const METRICS: &str = "metrics";

/// Which protocols are spoken: what takes two gets one in each round.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// Everything; gRPC to Jaeger, the Collector and Tempo, HTTP to Elastic.
    First,
    /// The other way round, and nothing that has only one way.
    Second,
}

/// All of them, running.
pub struct Backends {
    round: Round,
    jaeger: u16,
    jaeger_query: u16,
    zipkin: u16,
    grpc: u16,
    http: u16,
    tempo: u16,
    elastic: u16,
    metrics: u16,
    judge: u16,
    collected: TempDir,
    google_key: std::path::PathBuf,
    _running: Vec<Program>,
}

/// A name, how it is verified, and how it is asked.
type Reader<'a> = (&'static str, &'static str, Box<dyn Fn(&Spans) -> Found + 'a>);

impl Backends {
    /// Starts everything and waits until it listens.
    pub fn start(cache: &Path, judge_source: &Path, round: Round) -> Self {
        let [jaeger, jaeger_query, jaeger_http, jaeger_health] = std::array::from_fn(|_| free_port());
        let [zipkin, grpc, http, tempo, elastic, metrics, judge] = std::array::from_fn(|_| free_port());
        let mut running = Vec::new();

        let folder = TempDir::new("jaeger");
        let config = folder.write(
            "jaeger.yaml",
            jaeger_config(jaeger, jaeger_http, jaeger_query, jaeger_health),
        );
        let mut command = Command::new(cache.join("jaeger"));
        command.arg("--config").arg(format!("file:{}", config.display()));
        running.push(
            Program::spawn("jaeger", folder, &mut command)
                .listening(jaeger)
                .listening(jaeger_query),
        );

        let mut command = Command::new("java");
        command
            .args(["-Xmx400m", "-jar"])
            .arg(cache.join("zipkin.jar"))
            .args([
                "--armeria.ports[0].address=127.0.0.1".to_owned(),
                format!("--armeria.ports[0].port={zipkin}"),
                "--armeria.ports[0].protocols=HTTP".to_owned(),
            ]);
        running.push(Program::spawn("zipkin", TempDir::new("zipkin"), &mut command).listening(zipkin));

        let collected = TempDir::new("collected");
        let folder = TempDir::new("collector");
        let is_first = round == Round::First;
        let (one, other) = if is_first {
            ("grpc", "http")
        } else {
            ("http", "grpc")
        };
        let doors = [
            ("collector", one, grpc),
            ("json", "http", http),
            ("tempo", one, tempo),
            ("elastic", other, elastic),
            (METRICS, one, metrics),
        ];
        let config = folder.write("collector.yaml", collector_config(&doors, collected.path()));
        let mut command = Command::new(cache.join("collector"));
        command.arg("--config").arg(config);
        let collector = Program::spawn("collector", folder, &mut command);
        running.push(
            doors
                .iter()
                .fold(collector, |collector, (_, _, port)| collector.listening(*port)),
        );

        let folder = TempDir::new("judge");
        let google_key = folder.path().join("google-key.json");
        let mut command = Command::new(cache.join("judge-venv/bin/python"));
        command
            .arg(judge_source.join("server.py"))
            .arg(judge.to_string())
            .arg(folder.path());
        running.push(Program::spawn("judge", folder, &mut command).listening(judge));

        Self {
            round,
            jaeger: if is_first { jaeger } else { jaeger_http },
            jaeger_query,
            zipkin,
            grpc,
            http,
            tempo,
            elastic,
            metrics,
            judge,
            collected,
            google_key,
            _running: running,
        }
    }

    /// The exporters and where they send, for `--export`.
    pub fn targets(&self) -> String {
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let judge = at(self.judge);
        let mut targets = vec![
            format!("jaeger={}", at(self.jaeger)),
            format!("collector={}", at(self.grpc)),
            format!("tempo={}", at(self.tempo)),
            format!("elastic={}", at(self.elastic)),
        ];
        if self.round == Round::First {
            targets.extend([
                format!("zipkin={}", at(self.zipkin)),
                format!("xray={judge}/xray/v1/traces"),
                format!("cloudtrace={judge}/cloudtrace"),
            ]);
        }
        targets.join(",")
    }

    /// Settings that have no place on the command line. `TRACER_` variables aside, each is the standard one of its backend.
    pub fn variables(&self) -> Vec<(&'static str, String)> {
        let (path, protocol, temporality, buckets) = match self.round {
            Round::First => ("", "grpc", "cumulative", "explicit_bucket_histogram"),
            Round::Second => (
                "/v1/metrics",
                "http/json",
                "delta",
                "base2_exponential_bucket_histogram",
            ),
        };
        vec![
            ("OTEL_METRICS_EXPORTER", "otlp".to_owned()),
            ("OTEL_METRIC_EXPORT_INTERVAL", "500".to_owned()),
            (
                "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
                format!("http://127.0.0.1:{}{path}", self.metrics),
            ),
            ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", protocol.to_owned()),
            (
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                temporality.to_owned(),
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
                buckets.to_owned(),
            ),
            // Beside the named ones, plain OTLP in JSON, compressed.
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                format!("http://127.0.0.1:{}", self.http),
            ),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json".to_owned()),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd".to_owned()),
            ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", "20000".to_owned()),
            // The presets speak gRPC on port 4317 only; here they have other ports.
            ("TRACER_CONFIG", self.config()),
            ("ELASTIC_APM_API_KEY", API_KEY.to_owned()),
            ("AWS_REGION", "eu-central-1".to_owned()),
            (
                "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                format!("http://127.0.0.1:{}", self.judge),
            ),
            ("AWS_CONFIG_FILE", "/nonexistent".to_owned()),
            ("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent".to_owned()),
            (
                "GOOGLE_APPLICATION_CREDENTIALS",
                self.google_key.display().to_string(),
            ),
            ("GOOGLE_CLOUD_QUOTA_PROJECT", "billing-project".to_owned()),
        ]
    }

    fn config(&self) -> String {
        let (one, other) = match self.round {
            Round::First => ("grpc", "http/protobuf"),
            Round::Second => ("http/protobuf", "grpc"),
        };
        let text = format!(
            "export:\n  jaeger: {{protocol: {one}, compression: gzip}}\n  collector: {{protocol: {one}, compression: zstd}}\n  \
             tempo: {{protocol: {one}}}\n  elastic: {{protocol: {other}}}\n  zipkin: {{compression: gzip}}\n"
        );
        self.collected.write("tracer.yaml", text).display().to_string()
    }

    /// How each is asked.
    pub fn readers(&self) -> Vec<Reader<'_>> {
        let collected = |name: &'static str| {
            move |_: &Spans| Found::of(read::otlp_file(&self.collected.path().join(name)))
        };
        let judged = |name: &'static str| {
            move |_: &Spans| {
                let refused = get(self.judge, "/refused");
                let mut found = Found::of(read::otlp_lines(&get(self.judge, &format!("/spans/{name}"))));
                found.complaints = (refused != "0")
                    .then(|| format!("{refused} requests refused"))
                    .into_iter()
                    .collect();
                found
            }
        };
        let jaeger = Box::new(|sent: &Spans| Found::of(read::jaeger(self.jaeger_query, sent)));
        if self.round == Round::Second {
            return vec![
                (
                    "jaeger",
                    "Jaeger 1.76.0 (v2), OTLP/HTTP protobuf gzip, read back by `/api/v3/traces`",
                    jaeger,
                ),
                (
                    "collector",
                    "Collector 0.155.0, OTLP/HTTP protobuf zstd, its file exporter",
                    Box::new(collected("collector")),
                ),
                (
                    "elastic",
                    "Collector 0.155.0 in place of APM Server, OTLP/gRPC, which checks the API key",
                    Box::new(collected("elastic")),
                ),
                (
                    "tempo",
                    "Collector 0.155.0 in place of Tempo, OTLP/HTTP protobuf",
                    Box::new(collected("tempo")),
                ),
            ];
        }
        vec![
            (
                "jaeger",
                "Jaeger 1.76.0 (v2), OTLP/gRPC gzip, read back by `/api/v3/traces`",
                jaeger,
            ),
            (
                "collector",
                "Collector 0.155.0, OTLP/gRPC zstd, its file exporter",
                Box::new(collected("collector")),
            ),
            (
                "otlp",
                "Collector 0.155.0, OTLP/HTTP JSON zstd, its file exporter",
                Box::new(collected("json")),
            ),
            (
                "zipkin",
                "Zipkin 3.6.1, v2 JSON gzip, read back by `/api/v2/trace`",
                Box::new(|sent: &Spans| read::zipkin(self.zipkin, sent)),
            ),
            (
                "elastic",
                "Collector 0.155.0 in place of APM Server, OTLP/HTTP protobuf gzip, which checks the API key",
                Box::new(collected("elastic")),
            ),
            (
                "tempo",
                "Collector 0.155.0 in place of Tempo, OTLP/gRPC",
                Box::new(collected("tempo")),
            ),
            (
                "xray",
                "end point of ours: SigV4 by botocore 1.44.5, ids by X-Ray's rule; credentials by IMDSv2",
                Box::new(judged("xray")),
            ),
            (
                "cloudtrace",
                "end point of ours: token by PyJWT 2.15.1, project and quota project; a service account's key",
                Box::new(judged("cloudtrace")),
            ),
        ]
    }

    /// What the Collector got of metrics.
    pub fn points(&self) -> Vec<Point> {
        read::points(&self.collected.path().join(METRICS))
    }

    /// Zipkin's dependency graph: calls between services.
    pub fn dependencies(&self, sent: &Spans) -> Row {
        read::dependencies(self.zipkin, sent)
    }
}

fn jaeger_config(grpc: u16, http: u16, query: u16, health: u16) -> String {
    let query_grpc = free_port();
    format!(
        "service:\n  extensions: [jaeger_storage, jaeger_query, healthcheckv2]\n  pipelines:\n    traces:\n      receivers: [otlp]\n      \
         exporters: [jaeger_storage_exporter]\n  telemetry:\n    metrics: {{level: none}}\n\
         extensions:\n  healthcheckv2: {{use_v2: true, http: {{endpoint: '127.0.0.1:{health}'}}}}\n  \
         jaeger_query: {{storage: {{traces: memory}}, http: {{endpoint: '127.0.0.1:{query}'}}, grpc: {{endpoint: '127.0.0.1:{query_grpc}'}}}}\n  \
         jaeger_storage: {{backends: {{memory: {{memory: {{max_traces: 100000}}}}}}}}\n\
         receivers:\n  otlp:\n    protocols:\n      grpc: {{endpoint: '127.0.0.1:{grpc}'}}\n      http: {{endpoint: '127.0.0.1:{http}'}}\n\
         exporters:\n  jaeger_storage_exporter: {{trace_storage: memory}}\n"
    )
}

/// A receiver, a pipeline and a file for each door.
fn collector_config(doors: &[(&str, &str, u16)], into: &Path) -> String {
    let (mut receivers, mut exporters, mut pipelines) = (String::new(), String::new(), String::new());
    for (name, protocol, port) in doors {
        let auth = if *name == "elastic" {
            ", auth: {authenticator: bearertokenauth}"
        } else {
            ""
        };
        let file = into.join(name);
        receivers += &format!(
            "  otlp/{name}: {{protocols: {{{protocol}: {{endpoint: '127.0.0.1:{port}'{auth}}}}}}}\n"
        );
        exporters += &format!(
            "  file/{name}: {{path: '{}', flush_interval: 100ms}}\n",
            file.display()
        );
        let signal = if *name == METRICS { "metrics" } else { "traces" };
        pipelines +=
            &format!("    {signal}/{name}: {{receivers: [otlp/{name}], exporters: [file/{name}]}}\n");
    }
    format!(
        "receivers:\n{receivers}exporters:\n{exporters}extensions:\n  bearertokenauth: {{scheme: ApiKey, token: '{API_KEY}'}}\n\
         service:\n  extensions: [bearertokenauth]\n  telemetry: {{metrics: {{level: none}}}}\n  pipelines:\n{pipelines}"
    )
}
