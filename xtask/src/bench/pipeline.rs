//! Recorded chunks through every stage on one core.

/// Options of `cargo xtask bench pipeline`.
#[derive(clap::Args)]
pub struct Args {}

/// Runs the subcommand.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("not there yet")
}
