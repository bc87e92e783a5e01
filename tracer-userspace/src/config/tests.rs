use super::*;
use crate::sample;
use std::path::PathBuf;

const EXAMPLE: &str = include_str!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../docs/tracer.example.yaml"
));

fn at<'a>(document: &'a serde_json::Value, path: &str) -> Option<&'a serde_json::Value> {
    path.split('.').try_fold(document, |value, key| value.get(key))
}

#[test]
fn the_example_has_every_key_with_its_default() {
    let config =
        file::parse(EXAMPLE).unwrap_or_else(|(place, why)| panic!("tracer.example.yaml{place}: {why}"));
    assert_eq!(config, Config::default());
    let document: serde_json::Value = serde_saphyr::from_str(EXAMPLE).expect("YAML");
    let keys = keys::all();
    assert!(keys.len() > 50, "{keys:?}");
    for key in &keys {
        assert!(at(&document, key).is_some(), "tracer.example.yaml lacks {key}");
    }
}

/// A key's value in the file, two others, and what the configuration has for each.
struct Row {
    flag: &'static str,
    values: [&'static str; 3],
    get: fn(&Config) -> String,
}

/// One row for each setting.
const ROWS: &[Row] = &[
    Row {
        flag: "export",
        values: ["file", "console", "jaeger"],
        get: |c| c.export.to.iter().collect(),
    },
    Row {
        flag: "otlp-endpoint",
        values: ["http://a:1", "http://b:2", "http://c:3"],
        get: |c| c.export.otlp.endpoint.clone().unwrap_or_default(),
    },
    Row {
        flag: "otlp-protocol",
        values: ["grpc", "http/protobuf", "grpc"],
        get: |c| match c.export.otlp.protocol {
            Some(export::Protocol::Grpc) => "grpc".to_owned(),
            Some(export::Protocol::HttpBinary) => "http/protobuf".to_owned(),
            other => format!("{other:?}"),
        },
    },
    Row {
        flag: "otlp-headers",
        values: ["k=file", "k=variable", "k=flag"],
        get: |c| {
            c.export
                .otlp
                .headers
                .0
                .iter()
                .map(|(k, v)| format!("{k}={v}"))
                .collect()
        },
    },
    Row {
        flag: "format",
        values: ["json", "waterfall", "json"],
        get: |c| format!("{:?}", c.export.console.format).to_lowercase(),
    },
    Row {
        flag: "colour",
        values: ["never", "always", "never"],
        get: |c| format!("{:?}", c.export.console.colour).to_lowercase(),
    },
    Row {
        flag: "queue-dir",
        values: ["/a", "b", "/c d"],
        get: |c| {
            let dir = c.export.queue.dir.as_ref();
            dir.map(|dir| dir.display().to_string()).unwrap_or_default()
        },
    },
    Row {
        flag: "prometheus-listen",
        values: ["127.0.0.1:1", "[::1]:2", "0.0.0.0:3"],
        get: |c| {
            c.export
                .metrics
                .prometheus
                .map(|a| a.to_string())
                .unwrap_or_default()
        },
    },
    Row {
        flag: "sampler",
        values: ["always_on", "traceidratio", "parentbased_always_off"],
        get: |c| {
            let is = |(_, kind): &&(&str, sample::Kind)| Some(*kind) == c.sample.sampler;
            let name = sample::Kind::NAMES.iter().find(is).map(|(name, _)| *name);
            name.unwrap_or_default().to_owned()
        },
    },
    Row {
        flag: "sampler-arg",
        values: ["0.5", "0.25", "0.125"],
        get: |c| c.sample.ratio.to_string(),
    },
    Row {
        flag: "tail-sampling",
        values: ["true", "false", "true"],
        get: |c| c.sample.tail.enabled.to_string(),
    },
    Row {
        flag: "include-exe",
        values: ["/a", "/b*", "c"],
        get: |c| {
            c.selection
                .include
                .executables
                .iter()
                .map(|g| String::from(g.clone()))
                .collect()
        },
    },
    Row {
        flag: "include-command",
        values: ["a", "*b", "c"],
        get: |c| {
            c.selection
                .include
                .commands
                .iter()
                .map(|g| String::from(g.clone()))
                .collect()
        },
    },
    Row {
        flag: "include-pid",
        values: ["11", "12", "13"],
        get: |c| c.selection.include.pids.iter().map(u32::to_string).collect(),
    },
    Row {
        flag: "include-port",
        values: ["11", "12", "13"],
        get: |c| c.selection.include.ports.iter().map(u16::to_string).collect(),
    },
    Row {
        flag: "exclude-exe",
        values: ["/a", "/b*", "c"],
        get: |c| {
            c.selection
                .exclude
                .executables
                .iter()
                .map(|g| String::from(g.clone()))
                .collect()
        },
    },
    Row {
        flag: "exclude-command",
        values: ["a", "*b", "c"],
        get: |c| {
            c.selection
                .exclude
                .commands
                .iter()
                .map(|g| String::from(g.clone()))
                .collect()
        },
    },
    Row {
        flag: "exclude-pid",
        values: ["11", "12", "13"],
        get: |c| c.selection.exclude.pids.iter().map(u32::to_string).collect(),
    },
    Row {
        flag: "exclude-port",
        values: ["11", "12", "13"],
        get: |c| c.selection.exclude.ports.iter().map(u16::to_string).collect(),
    },
    Row {
        flag: "explain",
        values: ["true", "false", "true"],
        get: |c| c.correlate.explain.to_string(),
    },
    Row {
        flag: "infer",
        values: ["links", "parents", "off"],
        get: |c| format!("{:?}", c.correlate.infer).to_lowercase(),
    },
    Row {
        flag: "log-level",
        values: ["warn", "error", "debug,tracer=off"],
        get: |c| c.log_level.clone(),
    },
    Row {
        flag: "capture",
        values: ["tracepoint", "fentry", "syscall"],
        get: |c| format!("{:?}", c.capture.backend).to_lowercase(),
    },
    Row {
        flag: "ring-bytes",
        values: ["262144", "524288", "2097152"],
        get: |c| c.capture.ring_bytes.to_string(),
    },
    Row {
        flag: "probes",
        values: ["always", "auto", "never"],
        get: |c| format!("{:?}", c.capture.probes).to_lowercase(),
    },
    Row {
        flag: "record",
        values: ["/a", "b", "/c d"],
        get: |c| {
            let file = c.capture.record.as_ref();
            file.map(|file| file.display().to_string()).unwrap_or_default()
        },
    },
    Row {
        flag: "record-bytes",
        values: ["1024", "2048", "1"],
        get: |c| c.capture.record_bytes.to_string(),
    },
    Row {
        flag: "workers",
        values: ["2", "3", "4"],
        get: |c| c.workers.map_or_else(|| "auto".to_owned(), |n| n.to_string()),
    },
    Row {
        flag: "cpu-budget",
        values: ["0.25", "0.5", "2"],
        get: |c| {
            c.cpu_budget
                .map_or_else(|| "off".to_owned(), |cores| cores.to_string())
        },
    },
    Row {
        flag: "shutdown-timeout",
        values: ["1s", "2s", "3s"],
        get: |c| format!("{}s", c.shutdown_timeout.as_secs()),
    },
];

/// The standard variables of the settings that have no `TRACER_*` one.
const STANDARD: &[(&str, &str)] = &[
    ("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    ("otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    ("otlp-headers", "OTEL_EXPORTER_OTLP_HEADERS"),
];

/// Numbers as they are, all else quoted.
fn scalar(value: &str) -> String {
    if value.parse::<f64>().is_ok() {
        value.to_owned()
    } else {
        format!("{value:?}")
    }
}

/// A YAML document with one key.
fn document(setting: &Setting, value: &str) -> String {
    let mut text = String::new();
    for (depth, key) in setting.key.split('.').enumerate() {
        if depth > 0 {
            text.push('\n');
        }
        text.push_str(&format!("{}{key}: ", "  ".repeat(depth)));
    }
    match setting.flag {
        "otlp-headers" => text.push_str(&format!("{{{}}}", value.replace('=', ": "))),
        _ if setting.list => text.push_str(&format!("[{}]", scalar(value))),
        _ => text.push_str(&scalar(value)),
    }
    text
}

#[test]
fn flags_beat_the_environment_beats_the_file_beats_the_default() {
    let directory = Directory::new("layers");
    assert_eq!(
        SETTINGS.iter().map(|s| s.flag).collect::<Vec<_>>(),
        ROWS.iter().map(|r| r.flag).collect::<Vec<_>>()
    );
    for (setting, row) in SETTINGS.iter().zip(ROWS) {
        let [in_file, in_variable, in_flag] = row.values;
        let path = directory.file("tracer.yaml", &document(setting, in_file), 0o600);
        let standard = STANDARD
            .iter()
            .find(|(flag, _)| *flag == setting.flag)
            .map(|(_, name)| *name);
        let names: Vec<&str> = setting.variables.iter().copied().chain(standard).collect();
        assert!(!names.is_empty(), "{} has no variable", setting.flag);
        let nothing = |_: &str| None;
        let flags = [(setting, vec![in_flag.to_owned()])];
        let layered = |environment: &dyn Fn(&str) -> Option<String>,
                       flags: &[(&'static Setting, Vec<String>)]| {
            let config =
                load(Some(&path), environment, flags).unwrap_or_else(|why| panic!("{}: {why}", setting.flag));
            (row.get)(&config)
        };
        let default = (row.get)(&load(None, &nothing, &[]).unwrap());
        assert_ne!(
            default, in_file,
            "{}: the file must say something else than the default",
            setting.flag
        );
        assert_eq!(layered(&nothing, &[]), in_file, "{} in the file", setting.flag);
        for name in names {
            let environment = |asked: &str| (asked == name).then(|| in_variable.to_owned());
            assert_eq!(layered(&environment, &[]), in_variable, "{name}");
            assert_eq!(
                layered(&environment, &flags),
                in_flag,
                "--{} over {name}",
                setting.flag
            );
            let empty = |asked: &str| (asked == name).then(String::new);
            assert_eq!(layered(&empty, &[]), in_file, "{name}, empty");
        }
        assert_eq!(layered(&nothing, &flags), in_flag, "--{}", setting.flag);
    }
}

#[test]
fn bad_values_name_their_source_and_the_remedy() {
    let nothing = |_: &str| None;
    let rows: &[(&str, &str, &str)] = &[
        (
            "workers",
            "many",
            "--workers many: \"many\" is not a number of workers: use auto or a number from 1 to 64",
        ),
        (
            "cpu-budget",
            "a lot",
            "--cpu-budget a lot: \"a lot\" is not a share of one core: write 0.05 or 5%, or off",
        ),
        (
            "cpu-budget",
            "0%",
            "--cpu-budget 0%: \"0%\" is not a share of one core: write 0.05 or 5%, or off",
        ),
        (
            "log-level",
            "inof",
            "--log-level inof: \"inof\" is not a log level: did you mean info? use off, error, warn, info, debug, trace",
        ),
        (
            "include-port",
            "0",
            "--include-port 0: \"0\" is not a port: write a number from 1 to 65535",
        ),
        (
            "exclude-pid",
            "x",
            "--exclude-pid x: \"x\" is not a process id: write its number",
        ),
        (
            "include-exe",
            "[",
            "--include-exe [: bad glob pattern \"[\": invalid range pattern",
        ),
        (
            "shutdown-timeout",
            "5",
            "--shutdown-timeout 5: \"5\" is not a duration (time unit needed, for example 5sec or 5ms): write 500ms, 10s or 5m",
        ),
        (
            "ring-bytes",
            "300000",
            "--ring-bytes 300000: 300000 is not the size of a ring: use a power of two from 262144 (256 KiB) to 268435456 (256 MiB), such as 524288",
        ),
        (
            "otlp-protocol",
            "http/xml",
            "--otlp-protocol http/xml: is not an OTLP protocol: use grpc, http/protobuf or http/json",
        ),
    ];
    for (flag, value, message) in rows {
        let setting = SETTINGS.iter().find(|s| s.flag == *flag).unwrap();
        let error = load(None, &nothing, &[(setting, vec![(*value).to_owned()])]).unwrap_err();
        assert_eq!(error, *message);
    }
    let headers = SETTINGS.iter().find(|s| s.flag == "otlp-headers").unwrap();
    let error = load(None, &nothing, &[(headers, vec!["s3cret".to_owned()])]).unwrap_err();
    assert!(
        error.starts_with("--otlp-headers …: ") && !error.contains("s3cret"),
        "{error}"
    );
    let error = load(None, &|name| (name == "TRACER_WORKERS").then(|| "0".into()), &[]).unwrap_err();
    assert_eq!(
        error,
        "TRACER_WORKERS=0: \"0\" is not a number of workers: use auto or a number from 1 to 64"
    );
}

/// A directory that goes when the test ends.
pub(super) struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tracer-config-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn file(&self, name: &str, text: &str, mode: u32) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = self.0.join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
