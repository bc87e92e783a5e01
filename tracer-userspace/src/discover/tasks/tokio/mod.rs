//! Tasks of Rust's tokio: everything is found in the live process, by shapes that have not changed from tokio 1.30 to 1.54 (the sources
//! of nine of these releases were compared: `Header`, `Vtable`, `Cell`, `Trailer`, `ScheduledIo`, `oneshot::Inner`).
//!
//! - What epoll keeps for a socket is the address of its `ScheduledIo`. The waker in there that leads to a task shows where wakers lie,
//!   and tokio's own `WAKER_VTABLE`.
//! - The id of the running task lies somewhere in the program's thread-local storage. The kernel side finds out where: it is the one word
//!   that holds the id of the socket's task while that task moves bytes, for several tasks.
//! - Where the future that serves a client's connection keeps the channel to its caller belongs to the future's type, so to the program:
//!   [`sample`] finds it while requests are under way.
//! - Where a task has those that it awaits one after the other belongs to the program, too: [`list`] finds it where the kernel side asks.
//!
//! Symbols only make the start quicker: stripped programs are read too.

mod list;
mod sample;
mod shape;

use tracer_common::{RuntimeEntry, RuntimeKind, TokioOffsets};

use super::live::Live;
use super::{Subject, halves};
use crate::discover::elf::Elf;

pub use sample::Samples;

/// Bytes of read-only data searched for the paths that panics would name.
const MAX_RODATA: u64 = 32 << 20;
const MAX_SYMBOLS: u64 = 128 << 20;
/// Parts of symbols' names, alike in both of Rust's manglings.
const CONTEXT: &str = "5tokio7runtime7context7CONTEXT";
const WAKER_VTABLE: &str = "5tokio7runtime4task5waker12WAKER_VTABLE";
/// Where `ScheduledIo` has its reader's waker, in all programs seen so far.
const IO_WAKER: u32 = 0x30;
/// Words of thread-local storage that the kernel side looks through.
const WINDOW: u64 = 64;
const WORD: u64 = 8;

/// What an executable says about tokio.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokioBinary {
    /// `1.54.1`, from the paths of its sources; empty if these were left out.
    pub version: String,
    /// Where the id of the running task is to be looked for: first byte relative to the thread pointer, and words; or why nowhere.
    storage: Result<(i32, u32), String>,
    /// Address of tokio's `WAKER_VTABLE` in the file, unless it is stripped.
    waker_vtable: Option<u64>,
}

impl TokioBinary {
    /// `None` if the program has no tokio.
    #[must_use]
    pub fn read(elf: &Elf) -> Option<Self> {
        let data = elf.section(".rodata", MAX_RODATA)?;
        let version = version(&data);
        // Its worker threads' name, for programs whose paths were remapped.
        if version.is_none() && memchr::memmem::find(&data, b"tokio-rt-worker").is_none() {
            return None;
        }
        Some(Self {
            version: version.unwrap_or_default(),
            storage: storage(elf),
            waker_vtable: elf.symbol_by(|name| name.contains(WAKER_VTABLE), MAX_SYMBOLS),
        })
    }
}

/// The version in `…/tokio-1.54.1/src/…`.
fn version(data: &[u8]) -> Option<String> {
    const BEFORE: &[u8] = b"/tokio-";
    memchr::memmem::find_iter(data, BEFORE).find_map(|at| {
        let rest = data.get(at.checked_add(BEFORE.len())?..)?;
        let end = rest
            .iter()
            .take(24)
            .position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
        let (version, rest) = rest.split_at_checked(end)?;
        let is_one = version.first().is_some_and(u8::is_ascii_digit) && rest.starts_with(b"/src/");
        is_one.then(|| String::from_utf8(version.to_vec()).ok()).flatten()
    })
}

/// The program's thread-local segment ends at the thread pointer (x86_64: variant II of the ELF specification of such storage).
fn storage(elf: &Elf) -> Result<(i32, u32), String> {
    if elf.machine() != object::elf::EM_X86_64.0 {
        return Err("tokio's tasks are read on x86_64 only".to_owned());
    }
    let (size, align) = elf.tls().ok_or("the program has no thread-local storage")?;
    let from = if size <= WINDOW * WORD {
        0
    } else {
        let context = |name: &str| name.contains(CONTEXT) && name.contains("VAL");
        elf.symbol_by(context, MAX_SYMBOLS)
            .ok_or("the program is stripped, and has too much thread-local storage to look through")?
    };
    let end = size
        .checked_next_multiple_of(align.max(1))
        .ok_or("its thread-local storage is malformed")?;
    let start = (|| i32::try_from(i64::try_from(from).ok()?.checked_sub(i64::try_from(end).ok()?)?).ok())()
        .ok_or("its thread-local storage is malformed")?;
    let words = size.saturating_sub(from).min(WINDOW * WORD) / WORD;
    Ok((start, u32::try_from(words).unwrap_or(0)))
}

/// The recipe. The entry is complete once [`Samples::look`] has seen callers that wait (and, in stripped programs, a socket).
pub fn find(subject: &Subject) -> Option<Result<RuntimeEntry, String>> {
    let tokio = subject.tokio?;
    Some(tokio.storage.clone().map(|(tls_start, tls_words)| {
        let vtable = tokio.waker_vtable.and_then(|in_file| {
            let executable = Live::open(subject.process)?.executable()?;
            executable.base.checked_add(in_file)
        });
        RuntimeEntry {
            kind: RuntimeKind::TOKIO.0,
            tokio: TokioOffsets {
                tls_start,
                tls_words,
                waker_vtable: halves(vtable.unwrap_or(0)),
                io_waker: IO_WAKER,
                ..TokioOffsets::default()
            },
            ..RuntimeEntry::default()
        }
    }))
}

/// Looks once more at a process whose entry is not complete. Whether there is something new.
pub fn look(subject: &Subject, samples: &mut Samples, entry: &mut RuntimeEntry) -> bool {
    Live::open(subject.process).is_some_and(|live| samples.look(&live, &mut entry.tokio))
}

/// Where a task has those that it awaits, the type of which is named by `vtable`. Whether that is new.
pub fn seek(
    subject: &Subject,
    samples: &mut Samples,
    entry: &mut RuntimeEntry,
    vtable: u64,
    by: u64,
) -> bool {
    Live::open(subject.process).is_some_and(|live| samples.seek(&live, &mut entry.tokio, vtable, by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_paths() {
        for (data, expected) in [
            (
                "\0/root/.cargo/registry/src/index/tokio-1.54.1/src/runtime/x.rs",
                Some("1.54.1"),
            ),
            (
                "/tokio-util-0.7.1/src/lib.rs /tokio-1.30.0/src/lib.rs",
                Some("1.30.0"),
            ),
            ("/tokio-util-0.7.1/src/lib.rs", None),
            ("/tokio-1.30.0", None),
            ("/tokio-/src/", None),
            ("", None),
        ] {
            assert_eq!(version(data.as_bytes()).as_deref(), expected, "{data}");
        }
    }
}
