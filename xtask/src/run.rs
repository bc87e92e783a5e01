//! Builds the daemon and starts it in the terminal.

use std::os::unix::process::CommandExt as _;

use anyhow::Context as _;

use crate::shell;

/// Options of `cargo xtask run`.
#[derive(clap::Args)]
pub struct Args {
    /// Arguments of `tracer`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Runs the subcommand: replaces this process, so that Ctrl-C and signals reach the daemon itself.
pub fn run(args: &Args) -> anyhow::Result<()> {
    shell::run(shell::cargo().args(["build", "--release", "--package", "tracer-userspace"]))?;
    let binary = shell::target_dir()?.join("release").join("tracer");
    eprintln!("Tracing every service on this host. Use one of them, or try in a second terminal:");
    eprintln!("    python3 -m http.server 8000 &");
    eprintln!("    curl http://127.0.0.1:8000/");
    eprintln!("Ctrl-C stops it.");
    let error = shell::as_root(&binary).args(&args.arguments).exec();
    Err(error).with_context(|| binary.display().to_string())
}
