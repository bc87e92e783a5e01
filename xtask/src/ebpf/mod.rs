//! `cargo xtask ebpf`: builds the BPF objects that are committed under `tracer-ebpf/prebuilt/`, or proves that they come
//! from the sources.
//!
//! The bytes depend on the sources, `tracer-ebpf/Cargo.lock`, the compiler and the linker, and on nothing else: all
//! versions are pinned, and every path of this machine is mapped to a fixed one.

mod build;
mod code;
mod loops;
mod stack;
pub mod toolchain;

use std::{fs, path::Path};

use anyhow::Context as _;

use toolchain::Toolchain;

/// Options of `cargo xtask ebpf`.
#[derive(clap::Args)]
pub struct Args {
    /// Build elsewhere and compare with the committed objects, byte for byte
    #[arg(long)]
    pub check: bool,
}

/// Architectures with an object (`bpf_target_arch`): system-call numbers and registers differ.
const ARCHITECTURES: [&str; 2] = ["x86_64", "aarch64"];

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("xtask lies in the workspace")?;
    let toolchain = Toolchain::prepare(root)?;
    let prebuilt = root.join("tracer-ebpf/prebuilt");
    let mut stale = Vec::new();
    for arch in ARCHITECTURES {
        let built = build::object(root, &toolchain, arch).with_context(|| format!("building for {arch}"))?;
        loops::check(&built).with_context(|| format!("the object for {arch}"))?;
        stack::check(&built).with_context(|| format!("the object for {arch}"))?;
        let committed = prebuilt.join(format!("tracer-{arch}.bpf.o"));
        if !args.check {
            fs::create_dir_all(&prebuilt)?;
            fs::write(&committed, &built).with_context(|| committed.display().to_string())?;
            println!("{}: {} bytes", committed.display(), built.len());
        } else if fs::read(&committed).ok().as_deref() == Some(built.as_slice()) {
            println!("{}: comes from the sources", committed.display());
        } else {
            stale.push(committed.display().to_string());
        }
    }
    anyhow::ensure!(
        stale.is_empty(),
        "not what the sources give: {}; rebuild with `cargo xtask ebpf` and commit",
        stale.join(", ")
    );
    Ok(())
}
