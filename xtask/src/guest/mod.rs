//! Guests under QEMU's software emulation: stock Debian kernels, an initramfs with the programs that are wanted, and `xtask` itself as
//! first process, which tells what it sees over a serial line of its own, one JSON object a line.
//!
//! Kernels and the emulator come from Debian's archives ([`archive`]) and are kept in `~/.cache/tracer`.

pub mod archive;
pub mod image;
pub mod init;
pub mod kernel;
pub mod qemu;

use std::path::PathBuf;

use anyhow::Context as _;

/// An architecture that guests have.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, clap::ValueEnum)]
pub enum Arch {
    /// 64-bit PC.
    #[default]
    #[value(name = "x86_64")]
    X86_64,
    /// 64-bit ARM.
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// As the compiler, Linux and QEMU name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian names it.
    pub const fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// That of this machine.
    pub fn host() -> anyhow::Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => anyhow::bail!("no guests for {other}"),
        }
    }
}

/// A folder of what is fetched once and used by every checkout, made if missing.
pub fn cache(name: &str) -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = base.join("tracer").join(name);
    std::fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}
