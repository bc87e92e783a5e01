use super::*;
use crate::discover::Census;
use crate::export::Format;
use crate::kernel::{Finding, Report, Status};

fn run(args: &[&str]) -> Result<Command, Exit> {
    run_with(args, &|_| None)
}

fn run_with(args: &[&str], environment: &dyn Fn(&str) -> Option<String>) -> Result<Command, Exit> {
    parse_from(std::iter::once(&"tracer").chain(args), environment)
}

fn config(args: &[&str]) -> Config {
    match run(args) {
        Ok(Command::Run(config)) => *config,
        other => panic!("{args:?}: {other:?}"),
    }
}

#[test]
fn the_command_line_is_sound() {
    command().debug_assert();
}

#[test]
fn without_options_everything_has_its_default() {
    assert_eq!(config(&[]), Config::default());
}

#[test]
fn options_reach_the_configuration() {
    let c = config(&[
        "--include-port",
        "80,443",
        "--include-port=8080",
        "--include-exe",
        "nginx",
        "--format=json",
        "--color",
        "never",
        "--otlp-endpoint",
        "http://c:4318",
        "--otlp-headers",
        "a=b",
        "--otlp-headers=c=d",
        "--workers",
        "2",
    ]);
    assert_eq!(c.selection.include.ports, [80, 443, 8080]);
    assert_eq!(c.selection.include.executables.len(), 1);
    assert_eq!(
        (c.export.console.enabled, c.export.console.format),
        (Some(true), Format::Json)
    );
    assert_eq!(c.export.otlp.endpoint.as_deref(), Some("http://c:4318"));
    assert_eq!(c.export.otlp.headers.0.len(), 2);
    assert_eq!(c.workers, Some(2));
    assert_eq!(
        config(&["--workers", "2", "--workers", "3"]).workers,
        Some(3),
        "the last one counts"
    );
    assert_eq!(config(&["--format", "none"]).export.console.enabled, Some(false));
}

#[test]
fn doctor_is_a_command() {
    assert_eq!(run(&["doctor"]), Ok(Command::Doctor { json: false }));
    assert_eq!(run(&["doctor", "--json"]), Ok(Command::Doctor { json: true }));
}

#[test]
fn replay_is_a_command() {
    let file = "run.jsonl".into();
    assert_eq!(run(&["replay", "run.jsonl"]), Ok(Command::Replay { file }));
    assert_eq!(run(&["replay"]).unwrap_err().code, EXIT_USAGE);
}

#[test]
fn explain_is_a_command() {
    let expected = Command::Explain {
        file: "spans.jsonl".into(),
        id: "4c1b".to_owned(),
    };
    assert_eq!(run(&["explain", "spans.jsonl", "4c1b"]), Ok(expected));
    assert_eq!(run(&["explain", "spans.jsonl"]).unwrap_err().code, EXIT_USAGE);
}

#[test]
fn help_and_version_are_no_errors() {
    let version = run(&["--version"]).unwrap_err();
    assert_eq!(
        (version.code, version.message),
        (0, format!("tracer {}\n", env!("CARGO_PKG_VERSION")))
    );
    let help = run(&["--help"]).unwrap_err();
    assert_eq!(help.code, 0);
    for setting in SETTINGS {
        assert!(
            help.message.contains(&format!("--{}", setting.flag)),
            "{}",
            help.message
        );
    }
    for text in [
        "sudo tracer",
        "doctor",
        "Exit codes:",
        "--config",
        "TRACER_CONFIG",
    ] {
        assert!(help.message.contains(text), "{text}: {}", help.message);
    }
    assert_eq!(run(&["-h"]).unwrap_err().code, 0);
}

#[test]
fn mistakes_end_with_code_2_and_a_remedy() {
    let rows: &[(&[&str], &[&str])] = &[
        (
            &["--confg", "x"],
            &["unexpected argument '--confg'", "'--config'"],
        ),
        (
            &["--format", "xml"],
            &["invalid value 'xml'", "waterfall, json, none"],
        ),
        (&["--workers"], &["a value is required for '--workers <N>'"]),
        (
            &["--workers", "many"],
            &[
                "tracer: --workers many: \"many\" is not a number",
                "use auto or",
                "tracer --help",
            ],
        ),
        (&["docter"], &["'docter'", "'doctor'"]),
        (
            &["--config", "/nowhere.yaml"],
            &["/nowhere.yaml: cannot be read", "--config"],
        ),
        (&["--workers", "2", "doctor"], &["'doctor'"]),
    ];
    for (args, parts) in rows {
        let exit = run(args).unwrap_err();
        assert_eq!(exit.code, EXIT_USAGE, "{args:?}");
        for part in *parts {
            assert!(exit.message.contains(part), "{args:?}: {}", exit.message);
        }
    }
}

#[test]
fn the_environment_names_the_file_and_the_flag_wins() {
    let environment = |name: &str| (name == "TRACER_CONFIG").then(|| "/from/variable.yaml".to_owned());
    let exit = run_with(&[], &environment).unwrap_err();
    assert!(exit.message.contains("/from/variable.yaml"), "{}", exit.message);
    let exit = run_with(&["--config", "/from/flag.yaml"], &environment).unwrap_err();
    assert!(exit.message.contains("/from/flag.yaml"), "{}", exit.message);
}

fn report(can_run: bool) -> Report {
    Report {
        kernel: "6.1.0".to_owned(),
        can_run,
        backend: can_run.then_some("tracepoint"),
        hooks: if can_run { vec!["sock_send_length"] } else { vec![] },
        findings: vec![
            Finding {
                name: "privileges".to_owned(),
                status: Status::Ok,
                required: true,
                needed_for: "loading programs",
                detail: None,
                remedy: None,
            },
            Finding {
                name: "sock_send_length".to_owned(),
                status: Status::Missing,
                required: !can_run,
                needed_for: "capture",
                detail: Some("not in this kernel".to_owned()),
                remedy: Some("use Linux 6.3 or newer".to_owned()),
            },
        ],
    }
}

#[test]
fn doctor_says_what_is_missing_and_exits_by_it() {
    let census = Census {
        languages: [("go", 2), ("python", 1)].into(),
        tasks: [("goroutine", 1)].into(),
        unread_tasks: [("goroutine: the layout of \"go1.4\" is not known".to_owned(), 7)].into(),
    };
    let (text, code) = doctor(&report(false), &census, false);
    assert_eq!(code, EXIT_UNABLE);
    let expected = format!(
        "tracer {}, Linux 6.1.0: this host cannot be traced as it is\n\n\
         ok       privileges        needed: loading programs\n\
         MISSING  sock_send_length  needed: capture\n\
         \x20                          found: not in this kernel\n\
         \x20                          remedy: use Linux 6.3 or newer\n\
         processes by language: go 2, python 1\n\
         processes whose tasks can be read: goroutine 1\n\
         tasks that can't be read, so that parents there rest on weaker evidence: goroutine: the layout of \"go1.4\" is \
         not known (process 7)\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(text, expected);
    let (text, code) = doctor(&report(true), &Census::default(), true);
    assert_eq!(code, 0);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["can_run"], true);
    assert_eq!(json["findings"][1]["status"], "missing");
    assert_eq!(json["findings"][1]["remedy"], "use Linux 6.3 or newer");
    assert!(json["processes_by_language"].as_object().unwrap().is_empty());
}
