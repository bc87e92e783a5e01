//! Real programs as children of the test: own log, own process group, ended when the test ends, however it ends.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// A loopback port that nobody listens on, below the range from which the kernel picks ephemeral ports, so that
/// no connection of another program takes it before the application does.
///
/// # Panics
/// If none is free.
#[must_use]
pub fn free_port() -> u16 {
    const FIRST: u16 = 18000;
    const COUNT: u16 = 12000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = (std::process::id() as u16).wrapping_mul(37) % COUNT;
    for _ in 0..COUNT {
        let port = FIRST + (start.wrapping_add(NEXT.fetch_add(1, Relaxed))) % COUNT;
        if TcpListener::bind(("0.0.0.0", port)).is_ok() && TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// A folder under the system's temporary folder that other users may enter (PostgreSQL refuses to run as root);
/// removed when dropped, kept if `TRACER_TEST_KEEP` is set.
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes one.
    ///
    /// # Panics
    /// If it can't.
    #[must_use]
    pub fn new(name: &str) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = format!(
            "tracer-e2e-{}-{}-{name}",
            std::process::id(),
            NEXT.fetch_add(1, Relaxed)
        );
        let path = std::env::temp_dir().join(folder);
        fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Its path as text.
    #[must_use]
    pub fn text(&self) -> &str {
        self.0.to_str().expect("a temporary folder with a UTF-8 name")
    }

    /// Writes a file into it.
    ///
    /// # Panics
    /// If it can't.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(&path, content).expect("write a file");
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::env::var_os("TRACER_TEST_KEEP").is_none() {
            _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A running program.
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    /// The program's folder; removed after the program has ended.
    pub dir: TempDir,
    stop_signal: i32,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Starts `command` with stdout and stderr going to a log in `dir`, in a process group of its own. If the test's thread dies,
    /// the kernel sends it SIGTERM.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn spawn(name: &str, dir: TempDir, command: &mut Command) -> Self {
        let log = dir.path().join(format!("{name}.log"));
        let file = File::create(&log).expect("a log file");
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a second handle of the log"))
            .stderr(file)
            .process_group(0);
        // SAFETY: between fork and exec the closure makes one system call and allocates nothing.
        unsafe { command.pre_exec(end_with_parent) };
        let child = command.spawn().unwrap_or_else(|error| {
            panic!("{name}: {command:?}: {error}; `cargo xtask test` installs what is missing")
        });
        Self {
            name: name.to_owned(),
            child,
            log,
            dir,
            stop_signal: libc::SIGTERM,
            ended: None,
        }
    }

    /// Ends it with another signal than SIGTERM.
    #[must_use]
    pub fn stopped_by(mut self, signal: i32) -> Self {
        self.stop_signal = signal;
        self
    }

    /// Waits until it accepts connections on a loopback port.
    ///
    /// # Panics
    /// If it ends before, or does not within two minutes.
    #[must_use]
    pub fn listening(self, port: u16) -> Self {
        self.until("listens", move |_| {
            TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).is_ok()
        })
    }

    /// Waits until `ready` holds of its log.
    ///
    /// # Panics
    /// If it ends before, or does not within two minutes.
    #[must_use]
    pub fn until(mut self, what: &str, ready: impl Fn(&str) -> bool) -> Self {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if ready(&self.output()) {
                return self;
            }
            if let Some(status) = self.try_wait() {
                panic!(
                    "{} ended before it {what}: {status}\n{}",
                    self.name,
                    self.output()
                );
            }
            assert!(
                Instant::now() < deadline,
                "{} not ready ({what}) in two minutes:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Its name in messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of the program's first process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ids of all processes of its group (workers included).
    #[must_use]
    pub fn pids(&self) -> Vec<u32> {
        let group = self.pid().to_string();
        let mut pids: Vec<u32> = fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter(|pid| stat_field(*pid, 5).is_some_and(|pgrp| pgrp == group))
            .collect();
        pids.sort_unstable();
        pids
    }

    /// What it has written so far.
    #[must_use]
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Resident memory of the first process, in bytes.
    ///
    /// # Panics
    /// If it has ended.
    #[must_use]
    pub fn rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("a running process");
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
        let kib: u64 = line
            .split_whitespace()
            .nth(1)
            .and_then(|n| n.parse().ok())
            .expect("a number");
        kib * 1024
    }

    /// Sends a signal to the first process.
    pub fn signal(&self, signal: i32) {
        if self.ended.is_none() {
            // SAFETY: kill takes integers only; the child is not reaped yet, so the id is its own.
            unsafe { libc::kill(self.child.id() as i32, signal) };
        }
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// If it does not end within `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.try_wait() {
                return status;
            }
            assert!(
                Instant::now() < deadline,
                "{} still runs after {limit:?}:\n{}",
                self.name,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn try_wait(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().expect("wait for a child");
        }
        self.ended
    }
}

/// Asks the kernel to end this process when the thread that started it ends.
fn end_with_parent() -> std::io::Result<()> {
    // SAFETY: PR_SET_PDEATHSIG takes an integer.
    match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGTERM) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A field of `/proc/<pid>/stat`, counted from 1 as in proc(5); those behind the command's name only.
fn stat_field(pid: u32, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let behind_name = stat.rsplit_once(')')?.1;
    behind_name.split_whitespace().nth(field - 3).map(str::to_owned)
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(self.stop_signal);
        let deadline = Instant::now() + Duration::from_secs(3);
        while self.ended.is_none() && Instant::now() < deadline {
            _ = self.try_wait();
            std::thread::sleep(Duration::from_millis(5));
        }
        // SAFETY: killpg takes integers only; the group was made for this program.
        unsafe { libc::killpg(self.child.id() as i32, libc::SIGKILL) };
        if self.ended.is_none() {
            _ = self.child.wait();
        }
        if std::thread::panicking() {
            let output = self.output();
            let tail: Vec<&str> = output.lines().rev().take(15).collect();
            eprintln!("--- last lines of {}:", self.name);
            for line in tail.iter().rev() {
                eprintln!("    {line}");
            }
        }
    }
}
