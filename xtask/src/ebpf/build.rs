//! One object: compile, link, drop what only debuggers read.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::toolchain::{Toolchain, run};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the object for one architecture; its bytes.
pub fn object(root: &Path, toolchain: &Toolchain, arch: &str) -> anyhow::Result<Vec<u8>> {
    let target_dir = root.join("target/ebpf").join(arch);
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .current_dir(root.join("tracer-ebpf"))
        .args([
            "build",
            "--quiet",
            "--locked",
            "--release",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
        ])
        .arg("--target-dir")
        .arg(&target_dir)
        // Unstable options on the stable compiler: the BPF target has no prebuilt core.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            flags(root, toolchain, arch)?.join("\x1f"),
        )
        .env("PATH", toolchain.path()?)
        .env("LD_LIBRARY_PATH", toolchain.libraries());
    // What the caller set for host builds must not reach this one.
    for name in [
        "RUSTFLAGS",
        "RUSTC",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_INCREMENTAL",
    ] {
        cargo.env_remove(name);
    }
    run(&mut cargo)?;
    let linked = target_dir.join(TARGET).join("release/tracer");
    let stripped = target_dir.join("tracer.bpf.o");
    // DWARF goes, BTF stays: the kernel and the loader read that.
    run(Command::new(toolchain.objcopy())
        .arg("--strip-debug")
        .arg(&linked)
        .arg(&stripped)
        .env("LD_LIBRARY_PATH", toolchain.libraries()))?;
    fs::read(&stripped).with_context(|| stripped.display().to_string())
}

fn flags(root: &Path, toolchain: &Toolchain, arch: &str) -> anyhow::Result<Vec<String>> {
    let mut flags = vec![
        format!("--cfg=bpf_target_arch=\"{arch}\""),
        // BTF is made from debug information.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root, "/tracer");
    remap(&toolchain.sysroot, "/rust");
    for registry in registries()? {
        remap(&registry, "/registry");
    }
    Ok(flags)
}

/// Where cargo unpacks crates: a folder for each registry, whose names depend on how the registry is reached.
fn registries() -> anyhow::Result<Vec<PathBuf>> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("neither CARGO_HOME nor HOME is set")?)
            .join(".cargo"),
    };
    let mut found = Vec::new();
    let sources = home.join("registry/src");
    for entry in fs::read_dir(&sources).with_context(|| sources.display().to_string())? {
        found.push(entry?.path());
    }
    found.sort();
    Ok(found)
}
