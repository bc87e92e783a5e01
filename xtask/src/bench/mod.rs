//! `cargo xtask bench`: what tracing costs. `docs/benchmarks.md` says what each figure means.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::shell;

mod capture;
pub mod daemon;
mod engine;
mod export;
mod load;
mod measure;
mod nginx;
mod overhead;
mod pipeline;
pub mod process;
mod sink;
mod startup;
pub mod table;
mod vm;
mod wrk;

/// Options of `cargo xtask bench`.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// nginx under wrk on this machine, with and without the daemon, in interleaved pairs
    Overhead(overhead::Args),
    /// The same in a guest that counts instructions (repeatable; one vCPU under software emulation)
    Vm(vm::Args),
    /// Recorded chunks through every stage on one core, with instructions and allocations per exchange
    Pipeline(pipeline::Args),
    /// Recorded runs of each runtime through the causality engine alone: CPU time an exchange
    Engine(engine::Args),
    /// Spans to a local sink: spans a second and core, instructions and allocations a span; memory with a dead backend
    Export(export::Args),
    /// What a message costs in the kernel, by what the policy says of its connection
    Capture(capture::Args),
    /// Time to attached, memory and CPU at readiness
    Startup(startup::Args),
    /// (used by `vm`) The first process of the guest
    #[command(hide = true)]
    Guest(vm::guest::Args),
    /// (used by `overhead`) Requests at a constant rate
    #[command(hide = true)]
    Load(load::Args),
    /// (used by `vm`) An OTLP/HTTP endpoint that counts spans and keeps nothing
    #[command(hide = true)]
    Sink(sink::Args),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.bench {
        Bench::Overhead(args) => overhead::run(args),
        Bench::Vm(args) => vm::run(args),
        Bench::Pipeline(args) => pipeline::run(args),
        Bench::Engine(args) => engine::run(args),
        Bench::Export(args) => export::run(args),
        Bench::Capture(args) => capture::run(args),
        Bench::Startup(args) => startup::run(args),
        Bench::Guest(args) => vm::guest::run(args),
        Bench::Load(args) => load::run(args),
        Bench::Sink(args) => sink::run(args),
    }
}

/// Where a bench may write: under `target/`, made if missing.
fn scratch(bench: &str) -> anyhow::Result<PathBuf> {
    let dir = shell::target_dir()?.join("bench").join(bench);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

/// Builds a binary or an example of the workspace for release and says where it lies.
fn build(package: &str, what: &[&str]) -> anyhow::Result<PathBuf> {
    let output = shell::cargo()
        .args([
            "build",
            "--quiet",
            "--release",
            "--message-format=json-render-diagnostics",
            "--package",
            package,
        ])
        .args(what)
        .stderr(Stdio::inherit())
        .output()
        .context("running cargo build")?;
    ensure!(output.status.success(), "cargo build of {package} failed");
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .with_context(|| format!("cargo build of {package} named no executable"))
}

/// The daemon, built for release.
fn build_daemon() -> anyhow::Result<PathBuf> {
    build("tracer-userspace", &["--bin", "tracer"])
}

/// This program, built for release: the benches' own client, sink and guest.
fn build_self() -> anyhow::Result<PathBuf> {
    build("xtask", &["--bin", "xtask"])
}

/// Looks a program up in `PATH` and where Debian puts programs.
fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/bin", "/usr/sbin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

/// Like [`find_program`], as an error.
fn program(name: &str) -> anyhow::Result<PathBuf> {
    find_program(name).with_context(|| format!("{name} is not installed"))
}

/// A loopback port that nobody listens on.
fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?
        .local_addr()?
        .port())
}
