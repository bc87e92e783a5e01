//! `cargo xtask`: everything that is done with this repository, each subcommand in a file of its own.

use clap::{CommandFactory as _, Parser, Subcommand};

mod accuracy;
mod backends;
mod bench;
mod dist;
mod ebpf;
mod fuzz;
mod guest;
mod install;
mod kernels;
mod record;
mod run;
mod shell;
mod test;
mod tidy;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build, run, test, bench and check the tracer")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Score the parents that the tracer claims
    Accuracy(accuracy::Args),
    /// Send traces to every backend that can run here, and read them back
    Backends(backends::Args),
    /// Measure what tracing costs
    Bench(bench::Args),
    /// Build static binaries of the daemon, as they are released
    Dist(dist::Args),
    /// Rebuild the BPF objects under tracer-ebpf/prebuilt/
    Ebpf(ebpf::Args),
    /// Fuzz a protocol's session and detection, guided by coverage
    Fuzz(fuzz::Args),
    /// Run the daemon on stock kernels of every age, in emulated guests
    Kernels(kernels::Args),
    /// Record a conversation of real programs as a capture
    Record(record::Args),
    /// Build the daemon and trace this host in the terminal
    Run(run::Args),
    /// Install what the tests need, and run them all
    Test(test::Args),
    /// Check the rules of the house
    Tidy,
}

fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Accuracy(args) => accuracy::run(&args),
        Command::Backends(args) => backends::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Dist(args) => dist::run(&args),
        Command::Ebpf(args) => ebpf::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::Kernels(args) => kernels::run(&args),
        Command::Record(args) => record::run(&args),
        Command::Run(args) => run::run(&args),
        Command::Test(args) => test::run(&args),
        Command::Tidy => tidy::run(&Args::command()),
    }
}
