//! What is the same for every process of this host.

use std::path::{Path, PathBuf};

/// Facts about the host, and where to read about its processes.
#[derive(Clone, Debug)]
pub struct Host {
    /// Mount point of procfs, as the processes' host sees it (`/proc`).
    pub proc_root: PathBuf,
    /// Root of the host's files (`/`): container metadata and log names are looked up below it.
    pub fs_root: PathBuf,
    /// `host.name`.
    pub name: Box<str>,
    /// `host.id`: the machine id, `None` where the host has none.
    pub id: Option<Box<str>>,
    /// Changes with every boot; process ids and start times are unique within one.
    pub boot_id: Box<str>,
    /// `host.arch`, a value of the semantic conventions.
    pub arch: &'static str,
    /// The process id of the tracer itself: never selected.
    pub own_pid: u32,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn read() -> Self {
        Self::read_from(Path::new("/proc"), Path::new("/"))
    }

    /// A host whose procfs and files are found elsewhere (`/host/proc` in a container, a tree built by a test).
    #[must_use]
    pub fn read_from(proc_root: &Path, fs_root: &Path) -> Self {
        let line = |path: PathBuf| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let text = text.trim();
            (!text.is_empty()).then(|| Box::<str>::from(text))
        };
        let id =
            line(fs_root.join("etc/machine-id")).or_else(|| line(fs_root.join("var/lib/dbus/machine-id")));
        Self {
            name: line(proc_root.join("sys/kernel/hostname")).unwrap_or_default(),
            boot_id: line(proc_root.join("sys/kernel/random/boot_id")).unwrap_or_default(),
            id,
            arch: arch(),
            own_pid: std::process::id(),
            proc_root: proc_root.to_owned(),
            fs_root: fs_root.to_owned(),
        }
    }
}

/// `host.arch` of the machine this was built for.
const fn arch() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        std::env::consts::ARCH
    }
}
