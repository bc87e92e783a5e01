//! Processes that are gone before anybody can look at them, and those that become another program.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use tracer_tests::apps::{self, Setup};
use tracer_tests::judge::score;
use tracer_tests::process::TempDir;
use tracer_tests::{Host, Kind, Selection, Spans};

fn check_names(spans: &Spans, kind: Kind, names: impl Iterator<Item = (u64, String)>) {
    let spans = spans.kind(kind);
    for (n, name) in names {
        let span = spans.marked(n);
        let span = span.only(&format!("{name} does one request"));
        assert_eq!(span.service, name, "{span}");
    }
}

fn succeed(command: &mut Command) {
    let status = command.status().expect("the program starts");
    assert!(status.success(), "{command:?}: {status}");
}

/// A copy of the program under another name.
fn copy(program: &Path, folder: &TempDir, name: &str) -> std::path::PathBuf {
    let path = folder.path().join(name);
    std::fs::copy(program, &path).expect("a copy of the program");
    path
}

/// 200 processes, each of which does one request as soon as it runs and is gone then: half of them call, half serve; half are named by
/// their environment, half by their executable.
#[test]
fn two_hundred_that_are_gone() {
    let Some(host) = Host::ready() else { return };
    let program = apps::short();
    let folder = TempDir::new("short");
    let jobs = [
        copy(&program, &folder, "nightly-job"),
        copy(&program, &folder, "greeter"),
    ];
    let app = apps::nginx(Setup::named("served"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a listener");
    let address = listener.local_addr().expect("its address");
    let tracer = host.trace(&Selection::of(&[&app]).port(address.port()));
    let named = |n: u64, of: usize| {
        let mut command = Command::new(if n.is_multiple_of(2) { &program } else { &jobs[of] });
        if n.is_multiple_of(2) {
            command.env("OTEL_SERVICE_NAME", format!("short-{n}"));
        }
        command
    };
    for n in 0..100 {
        succeed(named(n, 0).args(["call", &app.port.to_string(), &n.to_string()]));
    }
    for n in 100..200 {
        // As a supervisor does that starts a program for each connection.
        let mut client = TcpStream::connect(address).expect("a connection");
        write!(client, "GET /hello/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n").expect("a request");
        let mut command = named(n, 1);
        let listener = listener.as_raw_fd();
        let inherit = move || {
            // SAFETY: no memory is involved.
            match unsafe { libc::dup2(listener, 3) } {
                3 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(inherit) };
        succeed(command.args(["serve", &n.to_string()]));
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.ends_with(&format!("\r\n\r\n{n}")), "{answer}");
    }
    let finished = tracer.finish();
    let spans = &finished.spans;
    spans.assert_len(
        300,
        "one for each process, and one for each request that nginx served",
    );
    let name = |n: u64, other: &str| {
        if n.is_multiple_of(2) {
            format!("short-{n}")
        } else {
            other.to_owned()
        }
    };
    check_names(spans, Kind::Client, (0..100).map(|n| (n, name(n, "nightly-job"))));
    check_names(spans, Kind::Server, (100..200).map(|n| (n, name(n, "greeter"))));
    let (calls, served) = (spans.kind(Kind::Client), spans.service(&app.service));
    assert_eq!(
        score(&served, &calls).right,
        100,
        "each request belongs to its caller"
    );
}

/// A process that runs another program in the middle of a connection is another service from there on.
#[test]
fn another_program_on_the_same_connection() {
    let Some(host) = Host::ready() else { return };
    let program = apps::short();
    let folder = TempDir::new("short");
    let next = copy(&program, &folder, "successor");
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    for n in 0..20 {
        let n = 2 * n;
        let mut command = Command::new(&program);
        command
            .env("OTEL_SERVICE_NAME", format!("before-{n}"))
            .env("NEXT_NAME", format!("after-{}", n + 1))
            .args(["twice", &app.port.to_string(), &n.to_string()])
            .arg(&next);
        succeed(&mut command);
    }
    let finished = tracer.finish();
    let name = |n: u64| {
        if n.is_multiple_of(2) {
            format!("before-{n}")
        } else {
            format!("after-{n}")
        }
    };
    check_names(&finished.spans, Kind::Client, (0..40).map(|n| (n, name(n))));
    finished.spans.assert_len(80, "each request from both ends");
}
