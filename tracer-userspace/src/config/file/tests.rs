use super::super::tests::Directory;
use super::*;

#[test]
fn mistakes_have_their_place_their_reason_and_the_nearest_key() {
    let rows: &[(&str, &str)] = &[
        (
            "log_levle: info",
            ":1:1: unknown key `log_levle`: did you mean `log_level`?",
        ),
        (
            "export:\n  otlp:\n    endpont: x",
            ":3:5: unknown key `endpont`: did you mean `endpoint`?",
        ),
        (
            "endpoint: http://x",
            ":1:1: unknown key `endpoint`: did you mean `export.otlp.endpoint`?",
        ),
        (
            "otlp_endpoint: http://x",
            ":1:1: unknown key `otlp_endpoint`: did you mean `export.otlp.endpoint`?",
        ),
        (
            "nonsense: 1",
            ":1:1: unknown key `nonsense`: the keys here are `log_level`, `workers`, `cpu_budget`, `shutdown_timeout`, `capture`, \
             `selection`, `correlate`, `metrics`, `sample` or `export`",
        ),
        (
            "selection:\n  include:\n    port: [80]",
            ":3:5: unknown key `port`: did you mean `ports`?",
        ),
        (
            "selection:\n  includ:\n    ports: [80]",
            ":2:3: unknown key `includ`: did you mean `include`?",
        ),
        (
            "workers: many",
            ":1:10: `workers`: \"many\" is not a number of workers: use auto or a number from 1 to 64",
        ),
        (
            "workers: 0",
            ":1:10: `workers`: \"0\" is not a number of workers: use auto or a number from 1 to 64",
        ),
        (
            "capture:\n  backend: kprobe",
            ":2:12: `backend`: `kprobe` is not possible here: use `auto`, `tracepoint`, `fentry` or `syscall`",
        ),
        (
            "capture:\n  backend: tracepiont",
            ":2:12: `backend`: `tracepiont` is not possible here: did you mean `tracepoint`? use `auto`, `tracepoint`, `fentry` or `syscall`",
        ),
        (
            "capture:\n  ring_bytes: 1000",
            ":2:15: `ring_bytes`: 1000 is not the size of a ring: use a power of two from 262144 (256 KiB) to 268435456 \
             (256 MiB), such as 262144",
        ),
        (
            "capture:\n  ring_bytes: big",
            ":2:15: `ring_bytes`: this is not possible here: use a whole number that is not negative",
        ),
        (
            "capture:\n  log: maybe",
            ":2:8: `log`: this is not possible here: use true or false",
        ),
        (
            "shutdown_timeout: 5",
            ":1:19: `shutdown_timeout`: \"5\" is not a duration (time unit needed, for example 5sec or 5ms): write \
             500ms, 10s or 5m",
        ),
        (
            "selection:\n  include:\n    ports: [70000]",
            ":3:13: `ports`: this is not possible here: use a whole number from 0 to 65535",
        ),
        (
            "selection:\n  include:\n    ports: 80",
            ":3:12: `ports`: this is not possible here: use a list, such as [a, b]",
        ),
        (
            "selection:\n  include:\n    executables:\n      - '['",
            ":4:9: bad glob pattern \"[\": invalid range pattern",
        ),
        (
            "export:\n  otlp:\n    protocol: http/xml",
            ":3:15: `protocol`: `http/xml` is not an OTLP protocol: use grpc, http/protobuf or http/json",
        ),
        (
            "export:\n  console:\n    format: xml",
            ":3:13: `format`: `xml` is not possible here: use `waterfall` or `json`",
        ),
        (
            "export:\n  queue:\n    max_spans: -1",
            ":3:16: `max_spans`: this is not possible here: use a whole number that is not negative",
        ),
        (
            "workers: 1\nworkers: 2",
            ":2:1: `workers` is given twice: remove one of them",
        ),
        (
            "workers: [1",
            ":1:10: `workers`: this is not possible here: use one value",
        ),
        (
            "log_level: inof",
            ":1:12: `log_level`: \"inof\" is not a log level: did you mean info? use off, error, warn, info, debug, trace",
        ),
        (
            "- a\n- b",
            ":1:1: this is not possible here: use keys and values, such as `key: value`",
        ),
        (
            "just text",
            ":1:1: this is not possible here: use keys and values, such as `key: value`",
        ),
    ];
    for (text, expected) in rows {
        let (place, reason) = parse(text).map(|_| ()).unwrap_err();
        assert_eq!(format!("{place}: {reason}"), *expected, "{text}");
    }
}

#[test]
fn a_file_without_keys_is_the_default() {
    for text in [
        "",
        "\n\n",
        "# nothing\n",
        "---\n# nothing\n",
        "{}",
        "capture: {}\n",
    ] {
        assert_eq!(parse(text), Ok(Config::default()), "{text:?}");
    }
}

#[test]
fn files_that_others_can_write_are_refused() {
    let directory = Directory::new("trust");
    for (mode, good) in [
        (0o600, true),
        (0o644, true),
        (0o400, true),
        (0o664, false),
        (0o646, false),
        (0o666, false),
    ] {
        let path = directory.file("tracer.yaml", "workers: 2\n", mode);
        let shown = path.display();
        match read(&path) {
            Ok(config) => assert!(good && config.workers == Some(2), "mode {mode:o}"),
            Err(error) => {
                assert!(!good, "mode {mode:o}: {error}");
                assert_eq!(
                    error,
                    format!(
                        "{shown}: others than its owner can write it (mode {mode:o}); remedy: chmod go-w {shown}"
                    )
                );
            }
        }
    }
}

#[test]
fn files_of_other_users_are_refused() {
    let directory = Directory::new("owner");
    let path = directory.file("tracer.yaml", "", 0o600);
    let metadata = std::fs::metadata(&path).unwrap();
    let shown = path.display();
    let (owner, stranger) = (metadata.uid(), metadata.uid().wrapping_add(1));
    assert_eq!(trusted(&path, &metadata, owner), Ok(()));
    // What root owns, everybody may use.
    let expected = match owner {
        0 => Ok(()),
        _ => Err(format!(
            "{shown}: belongs to user {owner}, who is neither root nor the user that runs the tracer; remedy: chown root {shown}"
        )),
    };
    assert_eq!(trusted(&path, &metadata, stranger), expected);
    // SAFETY: geteuid(2) takes nothing, touches no memory and always succeeds.
    if unsafe { libc::geteuid() } == 0 {
        std::os::unix::fs::chown(&path, Some(65_534), None).unwrap();
        let error = read(&path).unwrap_err();
        assert!(
            error.contains("belongs to user 65534") && error.contains("remedy: chown root"),
            "{error}"
        );
    }
}

#[test]
fn files_that_are_none_are_refused() {
    let error = read(Path::new("/nowhere/tracer.yaml")).unwrap_err();
    assert_eq!(
        error,
        "/nowhere/tracer.yaml: cannot be read (No such file or directory (os error 2)): give the path of a file with --config"
    );
    assert_eq!(
        read(Path::new("/")).unwrap_err(),
        "/: is not a regular file: give the path of a file with --config"
    );
    let directory = Directory::new("text");
    let path = directory.file("bad.yaml", "workers: 1\nwokers: 2\n", 0o600);
    let shown = path.display();
    assert_eq!(
        read(&path).unwrap_err(),
        format!("{shown}:2:1: unknown key `wokers`: did you mean `workers`?")
    );
}
