//! `cargo xtask dist`: static binaries that run on any kernel and distribution, as `target/dist/tracer-<arch>`.
//!
//! They are linked with musl. Its C compiler and linker for every architecture is `zig cc` (package `ziglang` on PyPI); Rust's standard
//! library comes from rustup, or is built from source where rustup cannot be reached.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::ebpf::toolchain;
use crate::guest::{self, Arch};
use crate::shell;

/// Options of `cargo xtask dist`.
#[derive(clap::Args)]
pub struct Args {
    /// Only for this architecture (default: all)
    #[arg(long)]
    arch: Option<Arch>,
}

const ZIG: &str = "0.17.1";

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let all = [Arch::X86_64, Arch::Aarch64];
    for arch in all
        .into_iter()
        .filter(|arch| args.arch.is_none_or(|only| only == *arch))
    {
        let path = daemon(arch)?;
        let mib = fs::metadata(&path)?.len() as f64 / f64::from(1 << 20);
        println!("{} ({mib:.1} MiB)", path.display());
    }
    Ok(())
}

/// The daemon as it is released: built, stripped, and at its place.
pub fn daemon(arch: Arch) -> anyhow::Result<PathBuf> {
    let built = build(arch, "release", DAEMON)?;
    let stripped = folder()?.join(format!("tracer-{}", arch.name()));
    strip(&built, &stripped)?;
    Ok(stripped)
}

/// The daemon's package and program.
pub const DAEMON: &[&str] = &["--package", "tracer-userspace", "--bin", "tracer"];

/// Copies a program without what only debuggers read.
pub fn strip(program: &Path, into: &Path) -> anyhow::Result<()> {
    let sysroot = toolchain::sysroot()?;
    let host = Arch::host()?.name();
    let objcopy = format!("lib/rustlib/{host}-unknown-linux-gnu/bin/rust-objcopy");
    shell::run(
        shell::command(sysroot.join(objcopy))
            .env("LD_LIBRARY_PATH", sysroot.join("lib"))
            .arg("--strip-all")
            .arg(program)
            .arg(into),
    )
}

/// Builds one program of the workspace statically, the one that `what` names last, and says where it lies.
pub fn build(arch: Arch, profile: &str, what: &[&str]) -> anyhow::Result<PathBuf> {
    let target = format!("{}-unknown-linux-musl", arch.name());
    let compiler = compiler(arch)?;
    let variable = target.replace('-', "_");
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--quiet", "--message-format=json-render-diagnostics"])
        .args(["--profile", profile, "--target", &target])
        .args(what)
        .env(format!("CC_{variable}"), &compiler.cc)
        .env(format!("AR_{variable}"), &compiler.ar)
        .env(
            format!("CARGO_TARGET_{}_LINKER", variable.to_uppercase()),
            &compiler.cc,
        )
        .env(
            format!("CARGO_TARGET_{}_RUSTFLAGS", variable.to_uppercase()),
            "-C link-self-contained=no -C target-feature=+crt-static",
        );
    if !has_standard_library(&target)? {
        toolchain::standard_library_sources()?;
        cargo
            .env("RUSTC_BOOTSTRAP", "1")
            .args(["-Z", "build-std=std,panic_abort"]);
    }
    executable(&mut cargo, what.last().copied().unwrap_or_default())
        .with_context(|| format!("the static build for {target}"))
}

/// Runs a cargo that tells in JSON what it builds; the executable of that name.
pub fn executable(cargo: &mut Command, wanted: &str) -> anyhow::Result<PathBuf> {
    let output = cargo.stderr(Stdio::inherit()).output().context("running cargo")?;
    anyhow::ensure!(output.status.success(), "cargo failed");
    // A test comes with the programs of its package.
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message.pointer("/target/name").and_then(|name| name.as_str()) == Some(wanted))
        .filter_map(|message| message.get("executable")?.as_str().map(PathBuf::from))
        .next_back()
        .context("cargo named no executable")
}

/// Builds the C program of these sources statically; `narrow`: for 32 bits.
pub fn c_program(arch: Arch, narrow: bool, sources: &[PathBuf], into: &Path) -> anyhow::Result<()> {
    let target = match (arch, narrow) {
        (Arch::X86_64, false) => "x86_64-linux-musl",
        (Arch::X86_64, true) => "x86-linux-musl",
        (Arch::Aarch64, false) => "aarch64-linux-musl",
        (Arch::Aarch64, true) => "arm-linux-musleabihf",
    };
    shell::run(
        shell::command(zig()?)
            .args(["cc", "-target", target])
            .args(["-std=gnu11", "-O1", "-static", "-pthread", "-o"])
            .arg(into)
            .args(sources),
    )
}

fn folder() -> anyhow::Result<PathBuf> {
    let folder = shell::target_dir()?.join("dist");
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

/// Whether the compiler has this target's standard library, after rustup was asked for it.
fn has_standard_library(target: &str) -> anyhow::Result<bool> {
    let library = toolchain::sysroot()?.join("lib/rustlib").join(target).join("lib");
    if !library.is_dir() && !shell::succeeds(shell::command("rustup").args(["target", "add", target])) {
        eprintln!("    rustup has no {target}: building the standard library from its sources");
    }
    Ok(library.is_dir())
}

struct Compiler {
    cc: PathBuf,
    ar: PathBuf,
}

/// `zig cc` and `zig ar` as programs without arguments of their own.
fn compiler(arch: Arch) -> anyhow::Result<Compiler> {
    let zig = zig()?;
    let folder = folder()?.join("tools");
    fs::create_dir_all(&folder)?;
    let script = |name: String, text: String| -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(path);
        }
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Ok(path)
    };
    let (zig, arch) = (zig.display(), arch.name());
    // Others name the target as Rust does, which zig does not know.
    let cc = format!(
        "#!/bin/bash\nwords=()\nfor word; do\n  case $word in --target=* | -m64) ;; *) words+=(\"$word\") ;; esac\ndone\n\
         exec '{zig}' cc -target {arch}-linux-musl \"${{words[@]}}\"\n"
    );
    Ok(Compiler {
        cc: script(format!("cc-{arch}"), cc)?,
        ar: script("ar".to_owned(), format!("#!/bin/sh\nexec '{zig}' ar \"$@\"\n"))?,
    })
}

/// The program `zig`, installed into the cache if it is missing.
fn zig() -> anyhow::Result<PathBuf> {
    let place = guest::cache("zig")?.join(ZIG);
    let program = place.join("ziglang/zig");
    if program.is_file() {
        return Ok(program);
    }
    crate::install::ensure(&[("python3", "python3"), ("python3:ensurepip", "python3-venv")])?;
    let venv = place.join("venv");
    shell::run(shell::command("python3").args(["-m", "venv"]).arg(&venv))?;
    shell::run(
        shell::command(venv.join("bin/python"))
            .args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--target",
            ])
            .arg(&place)
            .arg(format!("ziglang=={ZIG}")),
    )?;
    fs::remove_dir_all(venv)?;
    anyhow::ensure!(program.is_file(), "ziglang has no {}", program.display());
    Ok(program)
}
