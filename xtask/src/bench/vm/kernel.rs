//! A stock kernel: Debian's cloud kernel, unpacked without being installed, kept between runs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::shell;

/// The oldest kernel with `sock_send_length` and `sock_recv_length`.
const OLDEST: Version = (6, 3, 0);

type Version = (u32, u32, u32);

/// The newest kernel in the cache, or else the newest that Debian's sources on this machine have.
pub fn find() -> anyhow::Result<PathBuf> {
    let cache = cache()?;
    if let Some(kernel) = newest(&cache)? {
        return Ok(kernel);
    }
    shell::run(shell::as_root("apt-get").args(["--quiet", "--quiet", "update"]))?;
    let package = candidate()?;
    let download = cache.join("download");
    fs::create_dir_all(&download)?;
    shell::run(
        Command::new("apt-get")
            .args([
                "--quiet",
                "--quiet",
                "-o",
                "APT::Sandbox::User=root",
                "download",
                &package,
            ])
            .current_dir(&download),
    )?;
    for entry in fs::read_dir(&download)? {
        shell::run(
            Command::new("dpkg-deb")
                .arg("-x")
                .arg(entry?.path())
                .arg(cache.join(&package)),
        )?;
    }
    fs::remove_dir_all(&download)?;
    newest(&cache)?.with_context(|| format!("{package} holds no kernel"))
}

/// What the figures belong to: `6.12.117+deb12-cloud-amd64`.
pub fn name(kernel: &Path) -> String {
    let file = kernel.file_name().unwrap_or_default().to_string_lossy();
    file.strip_prefix("vmlinuz-").unwrap_or(&file).to_owned()
}

fn cache() -> anyhow::Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let dir = base.join("tracer").join("kernels");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    Ok(dir)
}

fn newest(cache: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut found: Option<(Version, PathBuf)> = None;
    for package in fs::read_dir(cache)? {
        let Ok(files) = fs::read_dir(package?.path().join("boot")) else {
            continue;
        };
        for file in files {
            let path = file?.path();
            let Some(version) = path
                .file_name()
                .and_then(|name| version(&name.to_string_lossy(), "vmlinuz-"))
            else {
                continue;
            };
            if found.as_ref().is_none_or(|(best, _)| version > *best) {
                found = Some((version, path));
            }
        }
    }
    Ok(found.map(|(_, path)| path))
}

fn candidate() -> anyhow::Result<String> {
    let output = Command::new("apt-cache")
        .args(["search", "--names-only", "^linux-image-[0-9].*cloud-amd64$"])
        .output()
        .context("running apt-cache")?;
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter_map(|name| Some((version(name, "linux-image-")?, name.to_owned())))
        .filter(|(version, _)| *version >= OLDEST)
        .max()
        .map(|(_, name)| name)
        .context(
            "Debian's sources on this machine have no cloud kernel of 6.3 or newer: \
             on bookworm, add bookworm-security or bookworm-backports",
        )
}

/// The version behind a prefix, if it has three parts (meta packages have two).
fn version(name: &str, prefix: &str) -> Option<Version> {
    let mut parts = name.strip_prefix(prefix)?.splitn(3, '.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let rest = parts.next()?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major, minor, rest.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_are_read() {
        for (name, expected) in [
            ("linux-image-6.12.117+deb12-cloud-amd64", Some((6, 12, 117))),
            ("linux-image-6.1.0-56-cloud-amd64", Some((6, 1, 0))),
            ("linux-image-6.12-cloud-amd64", None),
            ("linux-image-cloud-amd64", None),
        ] {
            assert_eq!(version(name, "linux-image-"), expected, "{name}");
        }
    }
}
