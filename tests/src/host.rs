//! The machine that the tests share: one test at a time, skipped with a reason where the kernel can't be traced.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::daemon::{Selection, Tracer};

/// The right to use the machine for one test. Tests of one target folder run one after the other, whatever the number of
/// test threads and processes: they share the processors, and each measures.
pub struct Host {
    _lock: File,
}

impl Host {
    /// Waits for the turn of this test; `None` if this machine can't run it, with the reason recorded.
    ///
    /// # Panics
    /// If the daemon's binary is missing.
    #[must_use]
    pub fn ready() -> Option<Self> {
        // SAFETY: geteuid takes nothing and can't fail.
        if unsafe { libc::geteuid() } != 0 {
            skip("needs root: the daemon loads BPF programs");
            return None;
        }
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            skip("needs a kernel with BTF (CONFIG_DEBUG_INFO_BTF): /sys/kernel/btf/vmlinux is missing");
            return None;
        }
        assert!(
            daemon_binary().exists(),
            "{} is missing: `cargo xtask test` builds it (or `cargo build -p tracer-userspace`)",
            daemon_binary().display()
        );
        let path = target_dir().join("e2e.lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        // SAFETY: flock takes integers only; `lock` keeps the descriptor open.
        let locked = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX) };
        assert_eq!(locked, 0, "flock: {}", std::io::Error::last_os_error());
        Some(Self { _lock: lock })
    }

    /// Names of the capture back ends that this kernel has, as the daemon's `doctor` tells; only the one that
    /// `TRACER_TEST_CAPTURE` names, if it does.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn backends(&self) -> Vec<String> {
        if let Some(name) = wanted_backend() {
            return vec![name];
        }
        let output = Command::new(daemon_binary()).args(["doctor", "--json"]).output();
        let report: serde_json::Value =
            serde_json::from_slice(&output.expect("the daemon starts").stdout).expect("a report");
        let findings = report["findings"].as_array().expect("findings").iter();
        let names: Vec<_> = findings
            .filter(|finding| finding["status"] == "ok")
            .filter_map(|finding| finding["name"].as_str()?.strip_prefix("capture back end "))
            .map(str::to_owned)
            .collect();
        assert!(!names.is_empty(), "{report}");
        names
    }

    /// Starts the daemon with a collector of its own and waits until it is attached.
    #[must_use]
    pub fn trace(&self, selection: &Selection) -> Tracer {
        Tracer::start(selection, crate::Transport::Grpc)
    }
}

/// Records why the current test does not run: printed, and appended to the file that `cargo xtask test` reads.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("?");
    eprintln!("skipped: {test}: {reason}");
    if let Some(path) = std::env::var_os("TRACER_TEST_SKIPS") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{test}: {reason}"))
            .expect("record the skip");
    }
}

/// The capture back end that all tests are to go through, if one is asked for.
pub(crate) fn wanted_backend() -> Option<String> {
    std::env::var("TRACER_TEST_CAPTURE").ok()
}

/// Cargo's target folder, two above the test's own executable (`target/<profile>/deps/<test>`).
pub(crate) fn target_dir() -> PathBuf {
    profile_dir().parent().expect("a target folder").to_owned()
}

fn profile_dir() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own path");
    test.ancestors().nth(2).expect("target/<profile>/deps").to_owned()
}

/// The daemon: `TRACER_BINARY`, else the one built beside this test.
#[must_use]
pub fn daemon_binary() -> PathBuf {
    std::env::var_os("TRACER_BINARY").map_or_else(|| profile_dir().join("tracer"), PathBuf::from)
}

/// Raises the limit on open files of this process and its children, within what the system allows.
///
/// # Panics
/// If that is less than `wanted`.
pub fn allow_open_files(wanted: u64) {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: getrlimit fills the structure that it is given.
    let read = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    assert_eq!(read, 0, "read RLIMIT_NOFILE: {}", std::io::Error::last_os_error());
    assert!(
        limit.rlim_max >= wanted,
        "only {} open files are allowed, {wanted} are needed",
        limit.rlim_max
    );
    limit.rlim_cur = limit.rlim_cur.max(wanted);
    // SAFETY: setrlimit reads the structure that it is given.
    let set = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    assert_eq!(set, 0, "raise RLIMIT_NOFILE: {}", std::io::Error::last_os_error());
}
