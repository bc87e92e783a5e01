//! Debian's archives, whatever this machine's own package sources are: an apt with folders of its own, which verifies signatures
//! as any apt does and installs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use super::Arch;
use crate::shell;

/// Suites with kernels and with the emulator. What has left a mirror is at archive.debian.org, which apt is told by the file
/// `sources.list` next to the index if somebody edits it.
const SOURCES: &[(&str, &str)] = &[
    ("debian", "bullseye"),
    ("debian-security", "bullseye-security"),
    ("debian", "bookworm"),
    ("debian-security", "bookworm-security"),
    ("debian", "trixie"),
    ("debian-security", "trixie-security"),
    ("debian", "trixie-backports"),
];

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The index of the packages for one architecture.
pub struct Archive {
    root: PathBuf,
    /// Why the index may not be whole.
    trouble: Option<String>,
}

impl Archive {
    /// Fetches the index, unless that was done within a day.
    pub fn open(arch: Arch) -> anyhow::Result<Self> {
        anyhow::ensure!(
            Path::new("/usr/bin/apt-get").exists(),
            "kernels and emulator come from Debian's archives, and this machine has no apt-get to fetch them with"
        );
        let root = super::cache("archive")?.join(arch.debian());
        for folder in ["state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(root.join(folder))?;
        }
        fs::write(root.join("state/status"), "")?;
        let list = root.join("sources.list");
        if !list.exists() {
            fs::write(&list, sources())?;
        }
        let path = root.display();
        fs::write(
            root.join("apt.conf"),
            format!(
                "Dir::State \"{path}/state\";\nDir::State::status \"{path}/state/status\";\nDir::Cache \"{path}/cache\";\n\
                 Dir::Etc::sourcelist \"{path}/sources.list\";\nDir::Etc::sourceparts \"/dev/null\";\n\
                 Dir::Etc::preferences \"/dev/null\";\nDir::Etc::preferencesparts \"/dev/null\";\n\
                 APT::Architecture \"{arch}\";\nAPT::Architectures {{ \"{arch}\"; }};\nAPT::Install-Recommends \"false\";\n\
                 Acquire::Retries \"3\";\nAcquire::http::Timeout \"30\";\nAPT::Default-Release \"\";\nAPT::Sandbox::User \"root\";\nAcquire::Languages \"none\";\n\
                 Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
                 // Suites that are no longer updated stay as they are.\nAcquire::Check-Valid-Until \"false\";\n",
                arch = arch.debian()
            ),
        )?;
        let mut archive = Self { root, trouble: None };
        let stamp = archive.root.join("updated");
        let fresh = fs::metadata(&stamp)
            .and_then(|data| data.modified())
            .is_ok_and(|time| time.elapsed().is_ok_and(|age| age.as_secs() < 24 * 3600));
        if !fresh {
            // A suite that a mirror has dropped must not keep the others away; what is missing then is told by what needs it.
            match shell::run(archive.apt("apt-get").args(["-qq", "update", "--error-on=any"])) {
                Ok(()) => fs::write(stamp, "")?,
                Err(why) => {
                    eprintln!("    not every suite can be had: {why:#}");
                    archive.trouble = Some(format!(
                        "{why:#}. What is fetched once is kept in {}: until then this machine needs the network, and an answer of \
                         the archives that {} names",
                        archive.root.display(),
                        list.display()
                    ));
                }
            }
        }
        Ok(archive)
    }

    /// Why what is not found may be there all the same, if something is known to be amiss.
    pub fn trouble(&self) -> &str {
        self.trouble.as_deref().unwrap_or("the index is whole")
    }

    /// Names of packages that match the extended regular expression.
    pub fn search(&self, pattern: &str) -> anyhow::Result<Vec<String>> {
        let found = shell::output(self.apt("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(found
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect())
    }

    /// Puts the contents of these packages into a folder: all or nothing.
    pub fn unpack(&self, packages: &[String], into: &Path) -> anyhow::Result<()> {
        let folder = self.emptied("download")?;
        shell::run(
            self.apt("apt-get")
                .args(["-qq", "download"])
                .args(packages)
                .current_dir(&folder),
        )?;
        unpack_all(&folder, into)
    }

    /// Puts the contents of these packages of a suite, and of all packages that they depend on, into a folder.
    pub fn unpack_with_dependencies(
        &self,
        suite: &str,
        packages: &[&str],
        into: &Path,
    ) -> anyhow::Result<()> {
        let folder = self.emptied("closure")?;
        fs::create_dir_all(folder.join("partial"))?;
        shell::run(
            self.apt("apt-get")
                .args(["-qq", "--yes", "--download-only", "-t", suite])
                .arg("-o")
                .arg(format!("Dir::Cache::archives={}", folder.display()))
                .arg("install")
                .args(packages),
        )?;
        unpack_all(&folder, into)
    }

    fn emptied(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.root.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .env("APT_CONFIG", self.root.join("apt.conf"))
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

fn sources() -> String {
    let signed = if Path::new(KEYRING).exists() {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    SOURCES
        .iter()
        .map(|(archive, suite)| format!("deb {signed}http://deb.debian.org/{archive} {suite} main\n"))
        .collect()
}

/// Unpacks every package in `folder` and removes it. `into` appears only when it is complete.
fn unpack_all(folder: &Path, into: &Path) -> anyhow::Result<()> {
    let parent = into.parent().context("a folder to unpack into")?;
    fs::create_dir_all(parent)?;
    let unfinished = parent.join(format!(".unfinished-{}", std::process::id()));
    for entry in fs::read_dir(folder)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            shell::output(Command::new("dpkg-deb").arg("-x").arg(&package).arg(&unfinished))?;
        }
    }
    if into.exists() {
        fs::remove_dir_all(into)?;
    }
    fs::rename(&unfinished, into).with_context(|| format!("making {}", into.display()))?;
    Ok(fs::remove_dir_all(folder)?)
}
