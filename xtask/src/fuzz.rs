//! Fuzzes protocols, guided by coverage: builds `tests/fuzz` with libFuzzer's instrumentation (stable flags of rustc), seeds
//! the corpus with the protocol's captures, and runs for a while. Corpus and findings stay under `target/fuzz/`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use anyhow::{Context, ensure};

/// What cargo-fuzz passes for libFuzzer, without a sanitizer: the parsers hold no unsafe code.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub struct Args {
    /// A registered protocol, or `all`
    #[arg(default_value = "all")]
    protocol: String,
    /// For how long, each protocol
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Longest input, in bytes
    #[arg(long, default_value_t = 4096)]
    longest: u32,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the workspace")?;
    let captures = root.join("tracer-userspace/src/protocol/captures");
    let protocols = match args.protocol.as_str() {
        "all" => names(&captures)?,
        one => vec![one.to_string()],
    };
    let program = build(root)?;
    for protocol in protocols {
        fuzz(
            args,
            &protocol,
            &captures.join(&protocol),
            &root.join("target/fuzz"),
            &program,
        )?;
    }
    Ok(())
}

/// Every folder of captures but the one that is nobody's.
fn names(captures: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(captures)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && name != "none" {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

/// Builds the instrumented program; returns its path.
fn build(root: &Path) -> anyhow::Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", env::consts::ARCH);
    let folder = root.join("target/fuzz/build");
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    // With a target named, the flags hold for the program only, not for build scripts.
    let status = Command::new(cargo)
        .args(["build", "--release", "--target", &target])
        .current_dir(root.join("tests/fuzz"))
        .env("CARGO_TARGET_DIR", &folder)
        .env("RUSTFLAGS", FLAGS)
        .status()
        .context("running cargo")?;
    ensure!(
        status.success(),
        "the fuzz targets do not build (libFuzzer needs a C++ compiler: apt install g++)"
    );
    Ok(folder.join(target).join("release/sessions"))
}

fn fuzz(args: &Args, protocol: &str, captures: &Path, work: &Path, program: &Path) -> anyhow::Result<()> {
    let corpus = work.join("corpus").join(protocol);
    let findings = work.join("findings").join(protocol);
    fs::create_dir_all(&findings)?;
    fs::create_dir_all(&corpus)?;
    ensure!(
        captures.is_dir(),
        "{protocol} has no captures at {}",
        captures.display()
    );
    let status = Command::new(program)
        .arg(&corpus)
        .arg(format!("-artifact_prefix={}/", findings.display()))
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-max_len={}", args.longest))
        .args([
            "-use_value_profile=1",
            "-timeout=10",
            "-rss_limit_mb=1024",
            "-print_final_stats=1",
        ])
        .env("FUZZ_PROTOCOL", protocol)
        .env("FUZZ_CAPTURES", captures)
        .env("FUZZ_CORPUS", &corpus)
        .status()
        .context("fuzzing")?;
    ensure!(status.success(), "{protocol}: see {}", findings.display());
    Ok(())
}
