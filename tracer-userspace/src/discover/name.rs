//! What a service is called: the first of these that says something.
//!
//! 1. what its operator declared for OpenTelemetry ([`Declared`]);
//! 2. the Kubernetes workload, the pod, the container, the systemd unit;
//! 3. what runs in the interpreter or virtual machine ([`runtimes`]);
//! 4. the executable.

use super::cgroup::Placement;
use super::container::Container;
use super::declared::Declared;
use super::go::GoBinary;
use super::procfs::{Snapshot, file_id};
use super::runtimes::{self, Naming, Program};
use super::words::{folder, is_generic, program, stem};
use std::path::Path;

/// The name of a service and what was found with it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Name {
    /// `service.name`.
    pub name: String,
    /// `service.namespace`.
    pub namespace: Option<String>,
    /// `service.version`.
    pub version: Option<String>,
    /// The process works for its parent and has the parent's name.
    pub of_parent: bool,
}

/// `service.name` of a process that nothing is known about (the OpenTelemetry SDK's own default).
pub const UNKNOWN: &str = "unknown_service";

/// Everything that a name is taken from.
pub struct Sources<'a> {
    /// The process.
    pub process: &'a Snapshot,
    /// What its operator declared.
    pub declared: &'a Declared,
    /// Its control group.
    pub placement: &'a Placement,
    /// Its container.
    pub container: &'a Container,
    /// Build information of a Go program.
    pub go: Option<&'a GoBinary>,
}

/// Names a process.
#[must_use]
pub fn name(sources: &Sources<'_>) -> Name {
    let Sources {
        process,
        declared,
        placement,
        container,
        go,
    } = *sources;
    let naming = runtimes::named(process);
    let of_parent = naming == Naming::Parent;
    let program = match naming {
        Naming::Program(program) => program,
        Naming::Parent | Naming::Unknown => executable(process, go),
    };
    let placed = container
        .workload()
        .map(|(_, name)| name)
        .or(container.pod.as_deref())
        .or(container.compose.as_ref().map(|(service, _)| service.as_str()))
        .or(container.name.as_deref())
        .or(placement.unit.as_deref());
    let namespace = declared
        .get("service.namespace")
        .or(container.namespace.as_deref());
    Name {
        name: declared
            .get("service.name")
            .or(placed)
            .unwrap_or(&program.name)
            .to_owned(),
        namespace: namespace
            .or(container.compose.as_ref().map(|(_, project)| project.as_str()))
            .map(str::to_owned),
        version: declared
            .get("service.version")
            .map(str::to_owned)
            .or(program.version),
        of_parent,
    }
}

/// The executable's name. Process titles (`postgres: user db`) do not matter: the executable is known by its link.
fn executable(process: &Snapshot, go: Option<&GoBinary>) -> Program {
    let version = go.and_then(|go| go.module_version.clone());
    let Some(path) = process.exe.as_deref() else {
        return Program {
            name: without_executable(process),
            version,
        };
    };
    let exe = path
        .to_str()
        .and_then(|p| p.rsplit('/').next())
        .unwrap_or_default();
    // One file under many names (redis-server is a link to redis-check-rdb, busybox): the name it was called by.
    let called = called_by(process).filter(|called| *called != exe);
    let base = called.unwrap_or(exe);
    let base = base.strip_prefix("memfd:").unwrap_or(base);
    let name = match go.and_then(|go| go.main_package.as_deref()) {
        Some(package) if is_generic(base) => from_package(package).or_else(|| program(path, &[])),
        _ if is_generic(base) => program(path, &[]),
        _ => Some(interpreter_name(base).to_owned()),
    };
    let name = name
        .filter(|n| !n.is_empty())
        .unwrap_or_else(|| without_executable(process));
    Program { name, version }
}

/// `github.com/acme/shop/cmd/server` is `shop`.
fn from_package(package: &str) -> Option<String> {
    folder(Path::new(package)).filter(|name| !name.contains('.') && name != "command-line-arguments")
}

/// An interpreter that runs nothing that has a name goes by its own, without its version.
fn interpreter_name(base: &str) -> &str {
    match runtimes::runtime_name(base) {
        name @ ("python" | "pypy" | "php" | "php-fpm" | "ruby" | "perl" | "lua") => name,
        _ => base,
    }
}

/// The base name of `argv[0]`, if the file it names is the executable.
fn called_by(process: &Snapshot) -> Option<&str> {
    let exe = process.identity.exe?;
    // A title may follow the path in the same text: `/usr/bin/redis-server 127.0.0.1:6379`.
    let path = process
        .args
        .first()?
        .split([' ', ':'])
        .next()
        .filter(|p| !p.is_empty())?;
    let same = |path: &Path| file_id(&process.reach(path)) == Some(exe);
    let found = match path.contains('/') {
        true => same(Path::new(path)),
        false => ["/usr/bin", "/usr/sbin", "/usr/local/bin", "/bin", "/sbin"]
            .iter()
            .any(|d| same(&Path::new(d).join(path))),
    };
    found.then(|| stem(path, &[]))
}

/// A process whose executable cannot be read: kernel threads, zombies, processes that vanish under our eyes.
fn without_executable(process: &Snapshot) -> String {
    let title = process.args.first().map(String::as_str).unwrap_or_default();
    let word = title.split([' ', ':']).next().unwrap_or_default();
    let base = stem(word, &[]);
    match (base.is_empty(), process.comm.is_empty()) {
        (false, _) => base.to_owned(),
        (true, false) => process.comm.to_string(),
        (true, true) => UNKNOWN.to_owned(),
    }
}
