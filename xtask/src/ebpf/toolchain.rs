//! What building BPF objects needs besides stable Rust, set up without being asked: the sources of `core`, and
//! `bpf-linker` linked with the compiler's own LLVM.

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;

/// The objects are built with this compiler: another gives other bytes.
const RUSTC: &str = "1.95.0";
const BPF_LINKER: &str = "0.13.0";
/// A folder with Rust's sources: `library/`, or `rust-src-VERSION-library.tar.xz`.
const SOURCES_VARIABLE: &str = "TRACER_RUST_SRC";

/// Everything found or made.
pub struct Toolchain {
    /// `rustc --print sysroot`.
    pub sysroot: PathBuf,
    host: String,
    linker: PathBuf,
}

impl Toolchain {
    /// Finds what is there and installs what is not.
    pub fn prepare(root: &Path) -> anyhow::Result<Self> {
        let version = output(Command::new("rustc").arg("-vV"))?;
        let field = |name: &str| {
            version
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .map(str::to_owned)
        };
        let release = field("release: ").context("rustc -vV names no release")?;
        anyhow::ensure!(
            release == RUSTC,
            "the BPF objects are built with rustc {RUSTC}, this is {release}: \
             `rustup toolchain install {RUSTC}`, then `cargo +{RUSTC} xtask ebpf`"
        );
        let sysroot = sysroot()?;
        let host = field("host: ").context("rustc -vV names no host")?;
        let llvm = field("LLVM version: ").context("rustc -vV names no LLVM")?;
        let major = llvm.split('.').next().unwrap_or_default().to_owned();
        let work = root.join("target/ebpf");
        fs::create_dir_all(&work)?;
        sources_of_core(root, &work, &sysroot)?;
        let mut toolchain = Self {
            sysroot,
            host,
            linker: PathBuf::new(),
        };
        toolchain.linker = toolchain.bpf_linker(&work, &major)?;
        Ok(toolchain)
    }

    /// Search path of commands, the linker first.
    pub fn path(&self) -> anyhow::Result<OsString> {
        let folder = self
            .linker
            .parent()
            .context("the linker lies in a folder")?
            .to_owned();
        let rest = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(
            std::iter::once(folder).chain(std::env::split_paths(&rest)),
        )?)
    }

    /// Where the compiler's shared libraries lie, which the linker uses too.
    pub fn libraries(&self) -> PathBuf {
        self.sysroot.join("lib")
    }

    /// The toolchain's own `objcopy`.
    pub fn objcopy(&self) -> PathBuf {
        self.sysroot
            .join("lib/rustlib")
            .join(&self.host)
            .join("bin/rust-objcopy")
    }

    /// One that is installed already, if it is the right version; else builds it under `target/`.
    fn bpf_linker(&self, work: &Path, llvm_major: &str) -> anyhow::Result<PathBuf> {
        let own = work.join("tools/bin/bpf-linker");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let candidates = std::env::split_paths(&path).map(|folder| folder.join("bpf-linker"));
        if let Some(found) = std::iter::once(own.clone())
            .chain(candidates)
            .find(|file| self.is_right(file))
        {
            return Ok(found);
        }
        eprintln!("building bpf-linker {BPF_LINKER} (once, some minutes)");
        let prefix = self.llvm_prefix(work, llvm_major)?;
        run(Command::new("cargo")
            .args([
                "install",
                "bpf-linker",
                "--version",
                BPF_LINKER,
                "--locked",
                "--no-default-features",
            ])
            .arg("--features")
            .arg(format!("llvm-{llvm_major}"))
            .arg("--root")
            .arg(work.join("tools"))
            .env("LLVM_PREFIX", prefix)
            .env("LD_LIBRARY_PATH", self.libraries()))
        .context("building bpf-linker")?;
        anyhow::ensure!(
            self.is_right(&own),
            "{} was built and does not run",
            own.display()
        );
        Ok(own)
    }

    fn is_right(&self, linker: &Path) -> bool {
        linker.is_file()
            && output(
                Command::new(linker)
                    .arg("--version")
                    .env("LD_LIBRARY_PATH", self.libraries()),
            )
            .is_ok_and(|version| version.split_whitespace().any(|word| word == BPF_LINKER))
    }

    /// A folder that looks like an installation of LLVM to `bpf-linker`'s build: the compiler's own library under the name
    /// that it looks for.
    fn llvm_prefix(&self, work: &Path, major: &str) -> anyhow::Result<PathBuf> {
        let start = format!("libLLVM.so.{major}.");
        let library = fs::read_dir(self.libraries())?
            .filter_map(Result::ok)
            .find(|entry| entry.file_name().to_string_lossy().starts_with(&start))
            .with_context(|| format!("no {start}* in {}", self.libraries().display()))?;
        let prefix = work.join("llvm");
        fs::create_dir_all(prefix.join("lib"))?;
        let link = prefix.join("lib/libLLVM.so");
        let _ = fs::remove_file(&link);
        symlink(library.path(), &link).with_context(|| link.display().to_string())?;
        Ok(prefix)
    }
}

/// The sources of Rust's standard library, in the compiler's sysroot.
pub fn standard_library_sources() -> anyhow::Result<()> {
    let root = crate::shell::root();
    let work = root.join("target/ebpf");
    fs::create_dir_all(&work)?;
    sources_of_core(root, &work, &sysroot()?)
}

/// `rustc --print sysroot`.
pub fn sysroot() -> anyhow::Result<PathBuf> {
    Ok(PathBuf::from(
        output(Command::new("rustc").args(["--print", "sysroot"]))?.trim(),
    ))
}

/// The sources of `core`: rustup's component, else Debian's package of the same version, else a folder that holds them.
fn sources_of_core(root: &Path, work: &Path, sysroot: &Path) -> anyhow::Result<()> {
    let place = sysroot.join("lib/rustlib/src/rust");
    let there = || place.join("library/core/src/lib.rs").is_file();
    if there() {
        return Ok(());
    }
    let ways: [(&str, &dyn Fn() -> anyhow::Result<()>); 3] = [
        ("rustup", &|| {
            run(Command::new("rustup").args(["component", "add", "rust-src"]))
        }),
        ("Debian", &|| from_debian(work, &place)),
        ("a folder", &|| from_folder(root, &place)),
    ];
    let mut failures = Vec::new();
    for (name, way) in ways {
        match way() {
            Ok(()) if there() => return Ok(()),
            Ok(()) => failures.push(format!("{name}: nothing arrived at {}", place.display())),
            Err(error) => failures.push(format!("{name}: {error:#}")),
        }
    }
    anyhow::bail!(
        "the sources of Rust's core library are missing. `rustup component add rust-src`, or name a folder that holds \
         `library/` in {SOURCES_VARIABLE}. Tried:\n  {}",
        failures.join("\n  ")
    )
}

fn from_debian(work: &Path, place: &Path) -> anyhow::Result<()> {
    let listed = output(Command::new("apt-cache").args(["madison", "rust-src"]))?;
    let version = listed
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .map(str::trim)
        .find(|version| version.starts_with(RUSTC))
        .with_context(|| format!("no package rust-src of version {RUSTC}"))?;
    let folder = work.join("debian");
    fs::create_dir_all(&folder)?;
    run(Command::new("apt-get")
        .current_dir(&folder)
        .arg("download")
        .arg(format!("rust-src={version}")))?;
    for package in fs::read_dir(&folder)?.filter_map(Result::ok) {
        if package
            .path()
            .extension()
            .is_some_and(|extension| extension == "deb")
        {
            run(Command::new("dpkg-deb")
                .arg("--extract")
                .arg(package.path())
                .arg(&folder))?;
        }
    }
    let unpacked = folder.join("usr/src").join(format!("rustc-{RUSTC}"));
    copy(&unpacked.join("library"), place)
}

fn from_folder(root: &Path, place: &Path) -> anyhow::Result<()> {
    let folder = match std::env::var_os(SOURCES_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => root
            .parent()
            .context("the checkout lies in a folder")?
            .join("shared/toolchain"),
    };
    let archive = folder.join(format!("rust-src-{RUSTC}-library.tar.xz"));
    if archive.is_file() {
        crate::install::ensure(&[("xz", "xz-utils")])?;
        fs::create_dir_all(place)?;
        return run(Command::new("tar").arg("-xJf").arg(&archive).arg("-C").arg(place));
    }
    copy(&folder.join("library"), place)
}

/// Copies a folder into another.
fn copy(from: &Path, into: &Path) -> anyhow::Result<()> {
    anyhow::ensure!(from.is_dir(), "{} is no folder", from.display());
    fs::create_dir_all(into)?;
    run(Command::new("cp")
        .args(["-r", "--no-preserve=ownership"])
        .arg(from)
        .arg(into))
}

/// Runs a command to its successful end.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}

fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    anyhow::ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8(output.stdout)?)
}
