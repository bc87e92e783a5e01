//! The programs of a guest: built statically, as they are released, or those that were built for this machine's own tests.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use super::{guest, ways};
use crate::guest::Arch;
use crate::guest::image::Image;
use crate::{dist, install, shell};

/// How programs are built.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// Statically, with that profile.
    Static(&'static str),
    /// As `cargo xtask test` builds them, which has done so already if it ran: nothing is compiled twice. They need the
    /// libraries of this machine.
    Tests,
}

/// An initramfs with all of them, good for every kernel.
pub fn image(arch: Arch, build: Build, path: &Path) -> anyhow::Result<()> {
    let mut image = Image::new();
    let folder = path.parent().context("a folder")?;
    match build {
        Build::Static(profile) => {
            let own = ["--package", "xtask", "--bin", "xtask"];
            let judge = ["--package", "tracer-userspace", "--test", "capture"];
            for (what, place) in [
                (dist::DAEMON, guest::DAEMON),
                (&own, "/init"),
                (&judge, ways::JUDGE),
            ] {
                let built = dist::build(arch, profile, what)?;
                // An emulated machine unpacks slowly.
                let stripped = path.with_extension("stripped");
                dist::strip(&built, &stripped)?;
                image.static_program(&stripped, place)?;
            }
        }
        Build::Tests => {
            anyhow::ensure!(
                arch == Arch::host()?,
                "only for guests of this machine's architecture"
            );
            for (what, place) in [
                ("tracer", guest::DAEMON),
                ("xtask", "/init"),
                ("capture", ways::JUDGE),
            ] {
                let stripped = folder.join(what);
                dist::strip(&of_tests(what)?, &stripped)?;
                image.program(&stripped, place)?;
            }
        }
    }
    let sources = ways::sources()?;
    for (narrow, place) in [(false, ways::PROGRAM), (true, ways::NARROW)] {
        let width = if narrow { 32 } else { 64 };
        let path = folder.join(format!("cases-{}-{width}", arch.name()));
        match build {
            Build::Static(_) => dist::c_program(arch, narrow, &sources, &path)?,
            // Other compilers have no such option.
            Build::Tests if narrow && arch != Arch::X86_64 => continue,
            Build::Tests => c_program(narrow, &sources, &path)?,
        }
        image.static_program(&path, place)?;
    }
    let mut out = BufWriter::new(File::create(path)?);
    image.write(&mut out)?;
    Ok(out.flush()?)
}

/// A program of the workspace. Always with `--workspace`: with one package selected, cargo would build the dependencies again with that
/// package's features.
fn of_tests(name: &str) -> anyhow::Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args([
        "test",
        "--workspace",
        "--no-run",
        "--quiet",
        "--message-format=json-render-diagnostics",
    ]);
    if name == "capture" {
        cargo.args(["--test", name]);
    } else {
        cargo = shell::cargo();
        cargo.args([
            "build",
            "--workspace",
            "--bins",
            "--quiet",
            "--message-format=json-render-diagnostics",
        ]);
    }
    dist::executable(&mut cargo, name)
}

/// The C program by this machine's compiler, as the tests build it.
fn c_program(narrow: bool, sources: &[PathBuf], into: &Path) -> anyhow::Result<()> {
    let mut needed = vec![("cc", "gcc")];
    if narrow {
        needed.extend([
            ("/usr/lib32/libc.a", "libc6-dev-i386"),
            ("/usr/include/asm", "gcc-multilib"),
        ]);
    }
    install::ensure(&needed)?;
    shell::run(
        shell::command("cc")
            .args(["-std=gnu11", "-O1", "-static", "-pthread"])
            .args(narrow.then_some("-m32"))
            .arg("-o")
            .arg(into)
            .args(sources),
    )
}
