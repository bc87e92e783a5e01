//! One bounded reading of what procfs says about a process.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Most bytes kept of a command line. Java class paths are long; names stand at the ends that this still holds.
const MAX_CMDLINE: u64 = 128 * 1024;
/// Most bytes kept of an environment. The kernel allows more; what a process needs for a name fits here.
const MAX_ENVIRON: u64 = 256 * 1024;
/// Most bytes kept of the small text files.
const MAX_TEXT: u64 = 16 * 1024;

/// A file by its identity, not its path: the executable of a container or a deleted one is recognised too.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct FileId {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
}

/// What never changes while a process lives under one program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Clock ticks after boot (`/proc/PID/stat`, field 22).
    pub start_time: u64,
    /// The executable, `None` for kernel threads and zombies.
    pub exe: Option<FileId>,
}

/// A process as procfs showed it.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Process id.
    pub pid: u32,
    /// Parent.
    pub ppid: u32,
    /// It has executed no program since it was forked.
    pub is_fork: bool,
    /// Start and executable.
    pub identity: Identity,
    /// Name of the main thread. Programs rename it, so it names a service only when nothing else is left.
    pub comm: Box<str>,
    /// Path of the executable in the process's own mount namespace, without ` (deleted)`.
    pub exe: Option<PathBuf>,
    /// Arguments; one single text where the program overwrote them with a title.
    pub args: Vec<String>,
    /// Environment the program was started with.
    pub environ: Environ,
    /// `/proc/PID/cgroup`.
    pub cgroup: String,
    /// Current directory, in the process's own mount namespace.
    pub cwd: Option<PathBuf>,
    /// `/proc/PID`.
    pub dir: PathBuf,
}

/// An environment, searched in place.
#[derive(Clone, Default, Debug)]
pub struct Environ(Vec<u8>);

impl Environ {
    /// The environment in the kernel's form: `NAME=value` texts, each ended by a zero byte.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Whether there are no variables, or none that could be read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of a variable; `None` if it is unset, empty or not UTF-8.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .split(|&b| b == 0)
            .find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
            .and_then(|value| std::str::from_utf8(value).ok())
            .filter(|value| !value.is_empty())
    }
}

impl Identity {
    /// Reads only what tells one process from another: one small file and one link. `None` if it is gone.
    #[must_use]
    pub fn read(proc_root: &Path, pid: u32) -> Option<Self> {
        let dir = proc_root.join(pid.to_string());
        let stat = read_text(&dir.join("stat"), MAX_TEXT)?;
        Some(Self {
            start_time: parse_stat(&stat)?.start_time,
            exe: file_id(&dir.join("exe")),
        })
    }
}

impl Snapshot {
    /// Reads everything. `None` if the process is gone; fields that are refused or torn down already are empty.
    #[must_use]
    pub fn read(proc_root: &Path, pid: u32) -> Option<Self> {
        let dir = proc_root.join(pid.to_string());
        let stat = parse_stat(&read_text(&dir.join("stat"), MAX_TEXT)?)?;
        let exe = std::fs::read_link(dir.join("exe"))
            .ok()
            .map(|path| match path.to_str() {
                Some(text) => PathBuf::from(text.strip_suffix(" (deleted)").unwrap_or(text)),
                None => path,
            });
        Some(Self {
            pid,
            ppid: stat.ppid,
            is_fork: stat.flags & PF_FORKNOEXEC != 0,
            identity: Identity {
                start_time: stat.start_time,
                exe: file_id(&dir.join("exe")),
            },
            comm: stat.comm,
            exe,
            args: split_args(&read_bytes(&dir.join("cmdline"), MAX_CMDLINE).unwrap_or_default()),
            environ: Environ(read_bytes(&dir.join("environ"), MAX_ENVIRON).unwrap_or_default()),
            cgroup: read_text(&dir.join("cgroup"), MAX_TEXT).unwrap_or_default(),
            cwd: std::fs::read_link(dir.join("cwd")).ok(),
            dir,
        })
    }

    /// Base name of the executable (`process.executable.name`).
    #[must_use]
    pub fn exe_name(&self) -> Option<&str> {
        self.exe.as_deref()?.file_name()?.to_str()
    }

    /// Where we reach a path of the process: absolute ones below its root, others below its current directory.
    #[must_use]
    pub fn reach(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/") {
            Ok(relative) => self.dir.join("root").join(relative),
            Err(_) => self.dir.join("cwd").join(path),
        }
    }

    /// A path of the process made absolute by its current directory; without `.` and `..`.
    #[must_use]
    pub fn absolute(&self, path: &Path) -> PathBuf {
        let mut absolute = PathBuf::new();
        let joined = self.cwd.as_deref().unwrap_or(Path::new("")).join(path);
        for part in joined.components() {
            match part {
                std::path::Component::ParentDir => {
                    absolute.pop();
                }
                std::path::Component::CurDir => {}
                part => absolute.push(part),
            }
        }
        absolute
    }
}

/// "Forked but didn't exec" (include/linux/sched.h).
const PF_FORKNOEXEC: u32 = 0x40;

struct Stat {
    comm: Box<str>,
    ppid: u32,
    flags: u32,
    start_time: u64,
}

/// `proc(5)`: `pid (comm) state ppid …`; the name may hold spaces and brackets, so fields count from the last `)`.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (head, rest) = stat.rsplit_once(')')?;
    let (_, comm) = head.split_once('(')?;
    let mut fields = rest.split_ascii_whitespace();
    let ppid = fields.nth(1)?.parse().ok()?;
    let flags = fields.nth(4)?.parse().ok()?;
    let start_time = fields.nth(12)?.parse().ok()?;
    Some(Stat {
        comm: comm.into(),
        ppid,
        flags,
        start_time,
    })
}

/// Arguments, which end with zero bytes; programs that write a title leave padding behind.
pub fn split_args(bytes: &[u8]) -> Vec<String> {
    let end = bytes
        .iter()
        .rposition(|&b| b != 0 && b != b' ')
        .map_or(0, |last| last.saturating_add(1));
    let bytes = bytes.get(..end).unwrap_or_default();
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes
        .split(|&b| b == 0)
        .map(|arg| String::from_utf8_lossy(arg).into_owned())
        .collect()
}

/// Identity of the file at a path, links followed.
#[must_use]
pub fn file_id(path: &Path) -> Option<FileId> {
    let meta = std::fs::metadata(path).ok()?;
    Some(FileId {
        dev: meta.dev(),
        ino: meta.ino(),
    })
}

fn read_bytes(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_text(path: &Path, limit: u64) -> Option<String> {
    Some(String::from_utf8_lossy(&read_bytes(path, limit)?).into_owned())
}

/// Opens a regular file that a traced process may have chosen: a FIFO or a device in its place is not opened.
#[must_use]
pub fn open_regular(path: &Path) -> Option<File> {
    // O_PATH touches nothing but the name, so that the type is known before anything is opened.
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .ok()?;
    if !handle.metadata().ok()?.is_file() {
        return None;
    }
    let fd = std::os::fd::AsRawFd::as_raw_fd(&handle);
    File::open(format!("/proc/self/fd/{fd}")).ok()
}

/// Reads at most `limit` bytes of a regular file; see [`open_regular`]. `None` if it is longer.
#[must_use]
pub fn read_regular(path: &Path, limit: u64) -> Option<Vec<u8>> {
    let file = open_regular(path)?;
    if file.metadata().ok()?.len() > limit {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}
