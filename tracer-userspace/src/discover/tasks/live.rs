//! A running process's modules and memory, read only and bounded.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::discover::elf::Elf;
use crate::discover::procfs::{Snapshot, open_regular};

/// Most bytes read of a process's list of mappings.
const MAX_MAPS: u64 = 4 << 20;

/// A mapping of a process's address space (`/proc/PID/maps`).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mapping {
    /// First address, and the one after the last.
    pub start: u64,
    pub end: u64,
    /// Where it begins in the file.
    pub offset: u64,
    /// `rwxp`, as the kernel writes it.
    pub permissions: String,
    /// The file in the process's own mount namespace, or what the kernel writes for others (`[heap]`); empty if there is none.
    pub path: String,
}

/// A process's mappings and memory.
pub struct Live<'a> {
    process: &'a Snapshot,
    memory: File,
    mappings: Vec<Mapping>,
}

/// An ELF file that is mapped into a process.
pub struct Module {
    pub path: PathBuf,
    pub elf: Elf,
    /// What is added to the addresses in the file.
    pub base: u64,
}

impl<'a> Live<'a> {
    /// `None` if the process is gone or may not be read.
    pub fn open(process: &'a Snapshot) -> Option<Self> {
        let maps = std::io::Read::take(File::open(process.dir.join("maps")).ok()?, MAX_MAPS);
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut { maps }, &mut text).ok()?;
        let memory = File::open(process.dir.join("mem")).ok()?;
        let mappings = String::from_utf8_lossy(&text)
            .lines()
            .filter_map(mapping)
            .collect();
        Some(Self {
            process,
            memory,
            mappings,
        })
    }

    /// Its mappings, by address.
    pub fn mappings(&self) -> &[Mapping] {
        &self.mappings
    }

    /// The mapped file whose name (without directories) is the first that `is_it` accepts.
    pub fn module(&self, is_it: impl Fn(&str) -> bool) -> Option<Module> {
        let mapping = self.mappings.iter().find(|m| {
            let path = Path::new(&m.path);
            m.path.starts_with('/') && path.file_name().and_then(|n| n.to_str()).is_some_and(&is_it)
        })?;
        self.module_at(mapping)
    }

    /// The executable itself.
    pub fn executable(&self) -> Option<Module> {
        let path = self.process.exe.clone()?;
        let file = open_regular(&self.process.dir.join("exe"))?;
        let first = self.mappings.iter().find(|m| Path::new(&m.path) == path)?;
        let elf = Elf::open(file)?;
        let base = first.start.checked_sub(elf.address_of(first.offset)?)?;
        Some(Module { path, elf, base })
    }

    fn module_at(&self, mapping: &Mapping) -> Option<Module> {
        let path = PathBuf::from(&mapping.path);
        let elf = Elf::open(open_regular(&self.process.reach(&path))?)?;
        let base = mapping.start.checked_sub(elf.address_of(mapping.offset)?)?;
        Some(Module { path, elf, base })
    }

    /// The executable, as its mappings name it.
    pub fn executable_path(&self) -> Option<&str> {
        self.process.exe.as_ref()?.to_str()
    }

    /// What the process's epoll instances keep for the sockets that they watch (`epoll_event.data`), for at most `max` of them.
    pub fn watched_sockets(&self, max: usize) -> Vec<u64> {
        let descriptors = self.process.dir.join("fd");
        let target = |fd: &str| std::fs::read_link(descriptors.join(fd)).unwrap_or_default();
        let mut watched = Vec::new();
        for entry in std::fs::read_dir(&descriptors).into_iter().flatten().flatten() {
            let Ok(name) = entry.file_name().into_string() else {
                continue;
            };
            if target(&name).as_os_str() != "anon_inode:[eventpoll]" {
                continue;
            }
            let info =
                std::fs::read_to_string(self.process.dir.join("fdinfo").join(&name)).unwrap_or_default();
            for (fd, data) in info.lines().filter_map(watch) {
                if watched.len() >= max {
                    return watched;
                }
                if target(fd).to_string_lossy().starts_with("socket:") {
                    watched.push(data);
                }
            }
        }
        watched
    }

    /// Exactly `len` bytes of its memory.
    pub fn read(&self, address: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.memory.read_exact_at(&mut bytes, address).ok()?;
        Some(bytes)
    }

    /// A 64-bit word of its memory.
    pub fn word(&self, address: u64) -> Option<u64> {
        let mut bytes = [0; 8];
        self.memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u64::from_ne_bytes(bytes))
    }

    /// A 32-bit word of its memory.
    pub fn half(&self, address: u64) -> Option<u32> {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, address).ok()?;
        Some(u32::from_ne_bytes(bytes))
    }
}

/// A line of an epoll instance's `/proc/PID/fdinfo/FD` (fs/eventpoll.c: ep_show_fdinfo): the watched descriptor, and what is kept for it.
fn watch(line: &str) -> Option<(&str, u64)> {
    let mut fields = line.strip_prefix("tfd:")?.split_ascii_whitespace();
    let fd = fields.next()?;
    let data = fields.skip_while(|field| *field != "data:").nth(1)?;
    Some((fd, u64::from_str_radix(data, 16).ok()?))
}

/// A line of `/proc/PID/maps`: `start-end permissions offset device inode path`.
fn mapping(line: &str) -> Option<Mapping> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let permissions = fields.next()?.to_owned();
    let offset = u64::from_str_radix(fields.next()?, 16).ok()?;
    // The path comes last and may hold spaces.
    let path = line.splitn(6, ' ').nth(5).unwrap_or_default().trim_start();
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        offset,
        permissions,
        path: path.strip_suffix(" (deleted)").unwrap_or(path).to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This test's own process, whose statics and functions are at known addresses.
    #[test]
    fn reads_a_live_process() {
        static KNOWN: u64 = 0x0123_4567_89ab_cdef;
        let process = Snapshot::read(Path::new("/proc"), std::process::id()).unwrap();
        let live = Live::open(&process).unwrap();
        let address = (&raw const KNOWN).addr() as u64;
        assert_eq!(live.word(address), Some(KNOWN));
        assert_eq!(live.half(address), Some(0x89ab_cdef));
        assert_eq!(live.word(8), None);
        let executable = live.executable().unwrap();
        let own = live
            .mappings()
            .iter()
            .find(|m| m.start <= address && address < m.end);
        assert_eq!(own.map(|m| Path::new(&m.path)), Some(executable.path.as_path()));
        let main = executable.elf.symbol("main", 1 << 30).unwrap();
        let code = executable.base + main;
        assert!(
            live.mappings()
                .iter()
                .any(|m| m.permissions.contains('x') && m.start <= code && code < m.end)
        );
        let libc = live.module(|name| name.starts_with("libc.so")).unwrap();
        assert!(libc.elf.dynamic_symbol("malloc").is_some());
        assert!(libc.elf.dynamic_symbol("no_such_function").is_none());
    }

    #[test]
    fn watches_are_read_as_the_kernel_writes_them() {
        let line = "tfd:        7 events: 80002019 data:     7fb9a000a000  pos:0 ino:3 sdev:8";
        assert_eq!(watch(line), Some(("7", 0x7fb9_a000_a000)));
        for other in [
            "pos:\t0",
            "tfd:",
            "tfd: 7 events: 1 data:",
            "tfd: 7 events: 1 data: x",
        ] {
            assert_eq!(watch(other), None, "{other}");
        }
    }

    #[test]
    fn lines_are_read_as_the_kernel_writes_them() {
        let line = "7f00-7f10 r-xp 0000a000 fd:01 42                   /opt/a b/lib.so (deleted)";
        let read = mapping(line).unwrap();
        assert_eq!((read.start, read.end, read.offset), (0x7f00, 0x7f10, 0xa000));
        assert_eq!((&*read.permissions, &*read.path), ("r-xp", "/opt/a b/lib.so"));
        assert_eq!(mapping("7f00-7f10 rw-p 00000000 00:00 0").unwrap().path, "");
        for broken in ["", "7f00 r-xp 0 0 0", "x-y r-xp 0 0 0", "1-2 r-xp z 0 0"] {
            assert_eq!(mapping(broken), None, "{broken}");
        }
    }
}
