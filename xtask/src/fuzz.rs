//! Fuzzes protocols.

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// A registered protocol, or `all`
    #[arg(default_value = "all")]
    pub protocol: String,
    /// For how long
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
}

/// Runs the subcommand.
pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("under construction")
}
