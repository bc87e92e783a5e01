//! The keys that flags and variables set too: one row each, from which the command line, its help and the tests are made.

use std::net::{AddrParseError, Ipv4Addr, SocketAddr};

use super::{
    Backend, Config, Probes, parse_cpu_budget, parse_duration, parse_log_level, parse_ring_bytes,
    parse_workers,
};
use crate::discover::{Command, Glob};
use crate::export::{Colour, Format};
use crate::sample;

/// One setting.
pub struct Setting {
    /// Flag, without `--`.
    pub flag: &'static str,
    /// Other spelling of the flag.
    pub alias: Option<&'static str>,
    /// Variables; the first that is set counts. (The `OTEL_EXPORTER_OTLP_*` variables are the exporter's.)
    pub variables: &'static [&'static str],
    /// Key in the file.
    pub key: &'static str,
    /// Name of the value in the help.
    pub value: &'static str,
    /// Words that are possible, if these are all.
    pub possible: &'static [&'static str],
    /// Whether it takes several values (flag: repeated, or joined by commas).
    pub list: bool,
    /// Whether values must not be shown.
    pub secret: bool,
    /// Heading in the help.
    pub group: &'static str,
    /// Help.
    pub help: &'static str,
    /// Puts the values in place of what a weaker layer said.
    pub set: fn(&mut Config, &[String]) -> Result<(), String>,
}

impl Setting {
    /// The value as it may stand in a message.
    pub(super) fn shown<'a>(&self, value: &'a str) -> &'a str {
        if self.secret { "…" } else { value }
    }

    /// The values in one text.
    #[must_use]
    pub fn split(&self, text: &str) -> Vec<String> {
        if !self.list {
            return vec![text.trim().to_owned()];
        }
        text.split(',')
            .map(str::trim)
            .filter(|value| !value.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

const EXPORT: &str = "Where spans go";
const SELECT: &str = "What is traced";
const RUN: &str = "How the tracer runs";

const BASE: Setting = Setting {
    flag: "",
    alias: None,
    variables: &[],
    key: "",
    value: "",
    possible: &[],
    list: false,
    secret: false,
    group: RUN,
    help: "",
    set: |_, _| Ok(()),
};

/// All settings, in the order of the help.
pub static SETTINGS: &[Setting] = &[
    Setting {
        flag: "export",
        variables: &["TRACER_EXPORT"],
        key: "export.to",
        value: "NAME[=TARGET]",
        list: true,
        group: EXPORT,
        help: "Send spans to these backends, each by its name (otlp, jaeger, collector, tempo, elastic, zipkin, xray, \
               cloudtrace, file or console), perhaps with \
               where it is: --export jaeger,file=spans.jsonl. docs/backends.md has a section for each",
        set: |config, values| config.export.choose(values),
        ..BASE
    },
    Setting {
        flag: "otlp-endpoint",
        key: "export.otlp.endpoint",
        value: "URL",
        group: EXPORT,
        help: "Send spans to this OTLP backend, such as http://localhost:4318 (or set OTEL_EXPORTER_OTLP_ENDPOINT). \
               Without one, traces are shown here in the terminal",
        set: |config, values| {
            config.export.otlp.set_endpoint(last(values));
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "otlp-protocol",
        key: "export.otlp.protocol",
        value: "PROTOCOL",
        possible: &["grpc", "http/protobuf", "http/json"],
        group: EXPORT,
        help: "How to talk to the backend [default: grpc on port 4317, else http/protobuf]",
        set: |config, values| standard(config, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", &last(values)),
        ..BASE
    },
    Setting {
        flag: "otlp-headers",
        key: "export.otlp.headers",
        value: "NAME=VALUE",
        list: true,
        secret: true,
        group: EXPORT,
        help: "Headers for the backend, such as an access token. Other users of this host can see flags: \
               OTEL_EXPORTER_OTLP_HEADERS and the config file are safer",
        set: |config, values| standard(config, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", &values.join(",")),
        ..BASE
    },
    Setting {
        flag: "format",
        variables: &["TRACER_FORMAT"],
        key: "export.console.format",
        value: "FORMAT",
        possible: &["waterfall", "json", "none"],
        group: EXPORT,
        help: "What to print on standard output: each trace as a waterfall, each span as a line of JSON, or nothing \
               [default: waterfall, or none with an OTLP endpoint]",
        set: |config, values| {
            let console = &mut config.export.console;
            match last(values).as_str() {
                "waterfall" => (console.enabled, console.format) = (Some(true), Format::Waterfall),
                "json" => (console.enabled, console.format) = (Some(true), Format::Json),
                "none" => console.enabled = Some(false),
                _ => return Err("use waterfall, json or none".to_owned()),
            }
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "colour",
        alias: Some("color"),
        variables: &["TRACER_COLOUR", "TRACER_COLOR"],
        key: "export.console.colour",
        value: "WHEN",
        possible: &["auto", "always", "never"],
        group: EXPORT,
        help: "Whether the waterfall is coloured [default: auto]",
        set: |config, values| {
            config.export.console.colour = match last(values).as_str() {
                "auto" => Colour::Auto,
                "always" => Colour::Always,
                "never" => Colour::Never,
                _ => return Err("use auto, always or never".to_owned()),
            };
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "queue-dir",
        variables: &["TRACER_QUEUE_DIR"],
        key: "export.queue.dir",
        value: "FOLDER",
        group: EXPORT,
        help: "Keep spans in files there while a backend does not take them, also from one run of the tracer to the next",
        set: |config, values| {
            config.export.queue.dir = Some(last(values).into());
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "prometheus-listen",
        variables: &["TRACER_PROMETHEUS_LISTEN"],
        key: "export.metrics.prometheus",
        value: "ADDRESS",
        group: EXPORT,
        help: "Measure every exchange, and let Prometheus scrape the metrics there, such as 127.0.0.1:9464 or 9464 (on \
               loopback)",
        set: |config, values| {
            config.export.metrics.prometheus = Some(listen_address(&last(values))?);
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "sampler",
        variables: &["OTEL_TRACES_SAMPLER"],
        key: "sample.sampler",
        value: "NAME",
        group: EXPORT,
        help: "Export some traces only: always_on, always_off, traceidratio, or parentbased_ with one of these behind it",
        set: |config, values| {
            config.sample.sampler = Some(sample::Kind::parse(&last(values))?);
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "sampler-arg",
        variables: &["OTEL_TRACES_SAMPLER_ARG"],
        key: "sample.ratio",
        value: "RATIO",
        group: EXPORT,
        help: "Share of the traces that the traceidratio samplers export, from 0 to 1 [default: 1]",
        set: |config, values| {
            config.sample.ratio = sample::parse_ratio(&last(values))?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "tail-sampling",
        variables: &["TRACER_TAIL_SAMPLING"],
        key: "sample.tail.enabled",
        value: "WHEN",
        possible: &["true", "false"],
        group: EXPORT,
        help: "Decide when a trace is known: keep what failed, is slow or rare, and of the rest a few a second [default: false]",
        set: |config, values| {
            config.sample.tail.enabled = match last(values).as_str() {
                "true" => true,
                "false" => false,
                _ => return Err("use true or false".to_owned()),
            };
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "include-exe",
        variables: &["TRACER_INCLUDE_EXE"],
        key: "selection.include.executables",
        value: "GLOB",
        list: true,
        group: SELECT,
        help: "Trace only these executables: a path pattern (/usr/sbin/*) or a file name (nginx)",
        set: |config, values| put(&mut config.selection.include.executables, values, glob),
        ..BASE
    },
    Setting {
        flag: "include-command",
        variables: &["TRACER_INCLUDE_COMMAND"],
        key: "selection.include.commands",
        value: "TEXT",
        list: true,
        group: SELECT,
        help: "Trace only processes whose command line holds this text (with * or ?: matches this pattern)",
        set: |config, values| put(&mut config.selection.include.commands, values, command),
        ..BASE
    },
    Setting {
        flag: "include-pid",
        variables: &["TRACER_INCLUDE_PID"],
        key: "selection.include.pids",
        value: "PID",
        list: true,
        group: SELECT,
        help: "Trace only these processes (and the workers that they forked)",
        set: |config, values| put(&mut config.selection.include.pids, values, pid),
        ..BASE
    },
    Setting {
        flag: "include-port",
        variables: &["TRACER_INCLUDE_PORT"],
        key: "selection.include.ports",
        value: "PORT",
        list: true,
        group: SELECT,
        help: "Trace only connections with one of these ports at either end",
        set: |config, values| put(&mut config.selection.include.ports, values, port),
        ..BASE
    },
    Setting {
        flag: "exclude-exe",
        variables: &["TRACER_EXCLUDE_EXE"],
        key: "selection.exclude.executables",
        value: "GLOB",
        list: true,
        group: SELECT,
        help: "Do not trace these executables. Exclusion wins over inclusion",
        set: |config, values| put(&mut config.selection.exclude.executables, values, glob),
        ..BASE
    },
    Setting {
        flag: "exclude-command",
        variables: &["TRACER_EXCLUDE_COMMAND"],
        key: "selection.exclude.commands",
        value: "TEXT",
        list: true,
        group: SELECT,
        help: "Do not trace processes whose command line holds this text",
        set: |config, values| put(&mut config.selection.exclude.commands, values, command),
        ..BASE
    },
    Setting {
        flag: "exclude-pid",
        variables: &["TRACER_EXCLUDE_PID"],
        key: "selection.exclude.pids",
        value: "PID",
        list: true,
        group: SELECT,
        help: "Do not trace these processes",
        set: |config, values| put(&mut config.selection.exclude.pids, values, pid),
        ..BASE
    },
    Setting {
        flag: "exclude-port",
        variables: &["TRACER_EXCLUDE_PORT"],
        key: "selection.exclude.ports",
        value: "PORT",
        list: true,
        group: SELECT,
        help: "Do not trace connections with one of these ports at either end",
        set: |config, values| put(&mut config.selection.exclude.ports, values, port),
        ..BASE
    },
    Setting {
        flag: "explain",
        variables: &["TRACER_EXPLAIN"],
        key: "correlate.explain",
        value: "WHETHER",
        possible: &["true", "false"],
        help: "Whether each span tells which thread and which task moved its request and its response, which is what parents are \
               decided from [default: false]",
        set: |config, values| {
            config.correlate.explain = last(values).parse().map_err(|_| "use true or false".to_owned())?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "infer",
        variables: &["TRACER_INFER"],
        key: "correlate.infer",
        value: "WHAT",
        possible: &["off", "links", "parents"],
        help: "What times alone decide of calls whose request no rule tells: nothing, links, or parents where that is nearly certain; \
               costs CPU (up to a tenth of a core) and half a second of delay [default: off]",
        set: |config, values| {
            config.correlate.infer = last(values).parse()?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "log-level",
        variables: &["TRACER_LOG_LEVEL", "RUST_LOG"],
        key: "log_level",
        value: "LEVEL",
        help: "What the tracer says about itself on standard error: off, error, warn, info, debug or trace [default: info]",
        set: |config, values| {
            config.log_level = parse_log_level(&last(values))?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "capture",
        variables: &["TRACER_CAPTURE"],
        key: "capture.backend",
        value: "BACKEND",
        possible: &["auto", "tracepoint", "fentry", "syscall"],
        help: "How to hook the kernel [default: auto, the first that this kernel allows]",
        set: |config, values| {
            config.capture.backend = match last(values).as_str() {
                "auto" => Backend::Auto,
                "tracepoint" => Backend::Tracepoint,
                "fentry" => Backend::Fentry,
                "syscall" => Backend::Syscall,
                _ => return Err("use auto, tracepoint, fentry or syscall".to_owned()),
            };
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "ring-bytes",
        variables: &["TRACER_RING_BYTES"],
        key: "capture.ring_bytes",
        value: "BYTES",
        help: "Size of each ring buffer between the kernel and the tracer, a power of two [default: 2097152]",
        set: |config, values| {
            config.capture.ring_bytes = parse_ring_bytes(last_bytes(values)?)?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "probes",
        variables: &["TRACER_PROBES"],
        key: "capture.probes",
        value: "WHERE",
        help: "Place probes in traced processes where nothing cheaper tells who works for whom: auto (those that are there \
               already), always (later ones, too: keeps CAP_SYS_ADMIN) or never [default: never]",
        set: |config, values| {
            config.capture.probes = match last(values).as_str() {
                "auto" => Probes::Auto,
                "always" => Probes::Always,
                "never" => Probes::Never,
                _ => return Err("use auto, always or never".to_owned()),
            };
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "record",
        variables: &["TRACER_RECORD"],
        key: "capture.record",
        value: "FILE",
        help: "Record what parents are decided from, for 'tracer replay'; no headers, no payload",
        set: |config, values| {
            config.capture.record = Some(last(values).into());
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "record-bytes",
        variables: &["TRACER_RECORD_BYTES"],
        key: "capture.record_bytes",
        value: "BYTES",
        help: "Most bytes of that recording [default: 268435456]",
        set: |config, values| {
            config.capture.record_bytes = last_bytes(values)?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "workers",
        variables: &["TRACER_WORKERS"],
        key: "workers",
        value: "N",
        help: "Worker threads [default: auto, by the number of CPUs]",
        set: |config, values| {
            config.workers = parse_workers(&last(values))?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "cpu-budget",
        variables: &["TRACER_CPU_BUDGET"],
        key: "cpu_budget",
        value: "SHARE",
        help: "Processor time that the tracer may use, as a share of one core: 0.05 or 5%. Above it whole traces are left out, and \
               counted [default: off]",
        set: |config, values| {
            config.cpu_budget = parse_cpu_budget(&last(values))?;
            Ok(())
        },
        ..BASE
    },
    Setting {
        flag: "shutdown-timeout",
        variables: &["TRACER_SHUTDOWN_TIMEOUT"],
        key: "shutdown_timeout",
        value: "DURATION",
        help: "How long to go on sending spans after Ctrl-C or SIGTERM [default: 5s]",
        set: |config, values| {
            config.shutdown_timeout = parse_duration(&last(values))?;
            Ok(())
        },
        ..BASE
    },
];

fn last(values: &[String]) -> String {
    values.last().cloned().unwrap_or_default()
}

fn last_bytes(values: &[String]) -> Result<u64, String> {
    let text = last(values);
    text.parse()
        .map_err(|_| format!("{text:?} is not a number of bytes: write 1048576 for 1 MiB"))
}

/// Lets the exporter read the text by the rules of a standard variable; the caller says where it came from.
fn standard(config: &mut Config, variable: &str, value: &str) -> Result<(), String> {
    let one = |name: &str| (name == variable).then(|| value.to_owned());
    config.export.apply_env(&one).map_err(|error| {
        let text = error.to_string();
        let named = [format!("{variable}={value} "), format!("{variable}: ")];
        named
            .iter()
            .find_map(|name| text.strip_prefix(name.as_str()))
            .unwrap_or(&text)
            .to_owned()
    })
}

fn put<T>(list: &mut Vec<T>, values: &[String], parse: fn(&str) -> Result<T, String>) -> Result<(), String> {
    *list = values
        .iter()
        .map(|value| parse(value))
        .collect::<Result<_, _>>()?;
    Ok(())
}

fn glob(text: &str) -> Result<Glob, String> {
    Glob::try_from(text.to_owned())
}

fn command(text: &str) -> Result<Command, String> {
    Command::try_from(text.to_owned())
}

/// An address with a port, or a port of the loopback address.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.parse() {
        Ok(port) => Ok((Ipv4Addr::LOCALHOST, port).into()),
        Err(_) => text.parse(),
    };
    address.map_err(|_: AddrParseError| {
        format!("{text:?} is not an address to listen on: write 127.0.0.1:9464, or a port")
    })
}

fn pid(text: &str) -> Result<u32, String> {
    text.parse()
        .ok()
        .filter(|&pid| pid > 0)
        .ok_or_else(|| format!("{text:?} is not a process id: write its number"))
}

fn port(text: &str) -> Result<u16, String> {
    let found = text.parse().ok().filter(|&port| port > 0);
    found.ok_or_else(|| format!("{text:?} is not a port: write a number from 1 to 65535"))
}
