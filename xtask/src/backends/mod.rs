//! `cargo xtask backends`: the traffic of a real application goes through the daemon to every backend that can run here, and is read
//! back from each. This file installs and builds the programs; `tests/examples/backends/` runs them.

mod programs;

use anyhow::{Result, bail};

use crate::{install, shell};

/// Options of `cargo xtask backends`.
#[derive(clap::Args)]
pub struct Args {
    /// Requests to the application
    #[arg(long, default_value_t = 300)]
    requests: u64,
    /// Write the table into docs/backends.md
    #[arg(long)]
    write: bool,
    /// Install and build what is needed, and run nothing
    #[arg(long)]
    install_only: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    if !shell::is_root() {
        bail!("the daemon loads BPF programs: run it as root (sudo -E cargo xtask backends)");
    }
    let target = shell::target_dir()?;
    install::debian_packages()?;
    install::python_packages(&target)?;
    let folder = programs::install()?;
    if args.install_only {
        return Ok(());
    }
    shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))?;
    let mut runner = shell::cargo();
    runner
        .args([
            "run",
            "--quiet",
            "--package",
            "tracer-tests",
            "--example",
            "backends",
            "--",
        ])
        .arg(folder)
        .arg(shell::root().join("xtask/src/backends/judge"))
        .arg(args.requests.to_string());
    if args.write {
        runner.arg(shell::root().join("docs/backends.md"));
    }
    shell::run(&mut runner)
}
