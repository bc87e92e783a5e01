//! `cargo xtask`: everything that is done with this repository, each subcommand in a file of its own.

use clap::{Parser, Subcommand};

mod ebpf;
mod fuzz;
mod record;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run, test, bench and check the tracer")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Rebuild the BPF objects under tracer-ebpf/prebuilt/
    Ebpf(ebpf::Args),
    /// Fuzz a protocol's session and detection, guided by coverage
    Fuzz(fuzz::Args),
    /// Record a conversation of real programs as a capture
    Record(record::Args),
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Record(args) => record::run(&args),
    }
}
