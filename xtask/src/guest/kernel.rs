//! Stock kernels: Debian's cloud kernels, unpacked without being installed, kept between runs.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::Context as _;

use super::Arch;
use super::archive::Archive;

/// Releases with the same beginning: `6.12`, or `7` for the newest 7.x.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Series {
    major: u32,
    minor: Option<u32>,
}

impl Series {
    /// `major.minor`.
    pub const fn new(major: u32, minor: u32) -> Self {
        Self {
            major,
            minor: Some(minor),
        }
    }

    fn has(self, (major, minor, _): Version) -> bool {
        major == self.major && self.minor.is_none_or(|wanted| minor == wanted)
    }
}

impl fmt::Display for Series {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.minor {
            Some(minor) => write!(f, "{}.{minor}", self.major),
            None => write!(f, "{}", self.major),
        }
    }
}

impl FromStr for Series {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |part: &str| {
            part.parse()
                .map_err(|_| format!("{text:?} is not like 6.12 or 7"))
        };
        match text.split_once('.') {
            None => Ok(Self {
                major: number(text)?,
                minor: None,
            }),
            Some((major, minor)) => Ok(Self::new(number(major)?, number(minor)?)),
        }
    }
}

/// (major, minor, patch)
pub type Version = (u32, u32, u32);

/// A kernel that can be booted.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// `uname -r`: `6.12.117+deb13-cloud-amd64`.
    pub release: String,
    /// The compressed kernel.
    pub image: PathBuf,
}

impl Kernel {
    /// The version that the release begins with.
    pub fn version(&self) -> Version {
        version(&self.release).unwrap_or_default()
    }
}

/// The newest kernel of a series in the cache, or else the newest that Debian's archives have. `refresh`: the archives' in any case.
pub fn find(series: Series, arch: Arch, refresh: bool) -> anyhow::Result<Kernel> {
    let cache = super::cache("kernels")?;
    if !refresh && let Some(kernel) = newest(&cache, series, arch)? {
        return Ok(kernel);
    }
    let archive = Archive::open(arch)?;
    let pattern = format!("^linux-image-[0-9].*-cloud-{}$", arch.debian());
    let mut releases: Vec<(Version, String)> = archive
        .search(&pattern)?
        .into_iter()
        .filter_map(|package| {
            let release = package.strip_prefix("linux-image-")?.to_owned();
            Some((version(&release)?, release))
        })
        .filter(|(version, _)| series.has(*version))
        .collect();
    releases.sort_by(|a, b| b.cmp(a));
    releases.dedup();
    for (_, release) in releases {
        let place = cache.join(format!("linux-image-{release}"));
        if in_folder(&place, arch).is_none()
            && let Err(error) = fetch(&archive, &release, &place)
        {
            // Archives drop packages that they still list.
            eprintln!("    {release} cannot be had, the one before it is tried: {error:#}");
            continue;
        }
        return in_folder(&place, arch).with_context(|| format!("no kernel in {}", place.display()));
    }
    anyhow::bail!(
        "Debian's archives have no cloud kernel {series} for {}, as far as they could be read: {}",
        arch.debian(),
        archive.trouble()
    )
}

fn fetch(archive: &Archive, release: &str, place: &Path) -> anyhow::Result<()> {
    // From 6.16 on the image itself lies in a package of its own.
    let mut packages = archive.search(&format!("^linux-binary-{}$", release.replace('+', "[+]")))?;
    packages.push(format!("linux-image-{release}"));
    archive.unpack(&packages, place)
}

fn newest(cache: &Path, series: Series, arch: Arch) -> anyhow::Result<Option<Kernel>> {
    let mut kernels = Vec::new();
    for folder in fs::read_dir(cache)? {
        kernels.extend(in_folder(&folder?.path(), arch));
    }
    kernels.retain(|kernel| series.has(kernel.version()));
    kernels.sort_by(|a, b| (a.version(), &a.release).cmp(&(b.version(), &b.release)));
    Ok(kernels.pop())
}

/// The kernel in an unpacked `linux-image-RELEASE`.
fn in_folder(folder: &Path, arch: Arch) -> Option<Kernel> {
    let name = folder.file_name()?.to_string_lossy().into_owned();
    let release = name.strip_prefix("linux-image-")?;
    if !release.ends_with(&format!("-cloud-{}", arch.debian())) {
        return None;
    }
    let places = [
        folder.join(format!("boot/vmlinuz-{release}")),
        folder.join(format!("usr/lib/modules/{release}/vmlinuz")),
    ];
    let image = places.into_iter().find(|place| place.is_file())?;
    Some(Kernel {
        release: release.to_owned(),
        image,
    })
}

/// The version that a release begins with, if it has three parts (meta packages have two).
fn version(release: &str) -> Option<Version> {
    let mut parts = release.splitn(3, '.');
    let (major, minor) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    let rest = parts.next()?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    Some((major, minor, rest.get(..digits)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        for (release, expected) in [
            ("6.12.117+deb12-cloud-amd64", Some((6, 12, 117))),
            ("6.1.0-56-cloud-amd64", Some((6, 1, 0))),
            ("6.12-cloud-amd64", None),
            ("cloud-amd64", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn series_have_their_releases() {
        let check = |series: &str, version, is| {
            let series: Series = series.parse().expect("a series");
            assert_eq!(series.has(version), is, "{series} {version:?}");
        };
        check("6.1", (6, 1, 0), true);
        check("6.1", (6, 12, 117), false);
        check("7", (7, 3, 4), true);
        check("7", (6, 19, 14), false);
        assert!("six".parse::<Series>().is_err());
        assert!("6.x".parse::<Series>().is_err());
    }
}
