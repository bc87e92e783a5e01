//! What the kernel side tells of a process ([`EventKind::PROCESS`]): enough to name it when it is gone.
//!
//! Told in the context of the process itself, before the first message that it moves (and before its first connect), and again
//! when it replaces its program while it is known. The payload has fixed places, so that the verifier sees constants; what a place
//! does not hold is cut off.

use crate::EventHeader;

/// Name of the thread (`comm`), ended by a zero byte.
pub const PROCESS_COMM: usize = 0;
/// File name of the executable without its folders, ended by a zero byte.
pub const PROCESS_EXECUTABLE: usize = 16;
/// The path that `exec` was given, ended by a zero byte: may be relative, or that of a script.
pub const PROCESS_PATH: usize = 64;
/// Arguments, each ended by a zero byte.
pub const PROCESS_ARGUMENTS: usize = 256;
/// Environment, likewise.
pub const PROCESS_ENVIRONMENT: usize = 1_280;
/// All of it: a size class of events.
pub const PROCESS_BYTES: usize = 4_096;

const _: () = assert!(PROCESS_BYTES == crate::SIZE_CLASSES[4]);

/// A process as it was told. Texts are bytes of the process's own memory: it may have overwritten them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProcessFacts<'a> {
    /// Process.
    pub tgid: u32,
    /// Its parent when it was told.
    pub parent: u32,
    /// When it started: nanoseconds after boot (CLOCK_BOOTTIME).
    pub started: u64,
    /// Its control group in the unified hierarchy: the inode number of its directory.
    pub cgroup: u64,
    /// It has just replaced its program.
    pub is_exec: bool,
    /// See the constants of the same names.
    pub comm: &'a [u8],
    /// File name of its executable.
    pub executable: &'a [u8],
    /// What `exec` was given.
    pub path: &'a [u8],
    /// Arguments.
    pub arguments: &'a [u8],
    /// Environment.
    pub environment: &'a [u8],
}

impl<'a> ProcessFacts<'a> {
    /// From an event of that kind and its payload. `None` if the payload is shorter than it must be.
    #[must_use]
    pub fn decode(header: &EventHeader, payload: &'a [u8]) -> Option<Self> {
        let payload = payload.get(..PROCESS_BYTES)?;
        let text = |from: usize, to: usize| {
            let field = payload.get(from..to)?;
            field.split(|&byte| byte == 0).next()
        };
        let list = |from: usize, len: u32, to: usize| {
            let field = payload.get(from..to)?;
            field.get(..len as usize)
        };
        Some(Self {
            tgid: header.tgid,
            parent: header.len,
            started: header.arrival,
            cgroup: header.task,
            is_exec: header.state != 0,
            comm: text(PROCESS_COMM, PROCESS_EXECUTABLE)?,
            executable: text(PROCESS_EXECUTABLE, PROCESS_PATH)?,
            path: text(PROCESS_PATH, PROCESS_ARGUMENTS)?,
            arguments: list(PROCESS_ARGUMENTS, header.pos, PROCESS_ENVIRONMENT)?,
            environment: list(PROCESS_ENVIRONMENT, header.peer_pos, PROCESS_BYTES)?,
        })
    }
}
