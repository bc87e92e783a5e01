//! `cargo xtask`: everything that is done with this repository, each subcommand in a file of its own.

use clap::{Parser, Subcommand};

mod ebpf;

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
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Ebpf(args) => ebpf::run(&args),
    }
}
