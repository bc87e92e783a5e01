//! Builds the BPF objects.

/// Options of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Build elsewhere and compare with the committed objects, byte for byte
    #[arg(long)]
    pub check: bool,
}

/// Runs the subcommand.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("under construction")
}
