//! What is remembered from the entry of a call to its exit, by thread.
//!
//! While a thread is in a call, another one may close the descriptor or put a new socket in its place (`close`, `dup2`): the call
//! goes on with the file that it found on entry, and so do we. A process with one thread needs no memory. The file outlives the
//! exit's program: the call's own reference is dropped after it (fs/file_table.c: `fput` queues task work).

use aya_ebpf::{helpers::generated::bpf_ktime_get_ns, macros::map, maps::LruHashMap};

use crate::descriptor::{File, Files};
use crate::{
    calls::{Call, Kind},
    unit::Thread,
};

/// Threads that are in a call at the same time. Where one is forgotten, the descriptor is looked up at the exit.
const MAX_ENTRIES: u32 = 16_384;

/// By thread.
#[map]
static ENTRIES: LruHashMap<u32, Entry> = LruHashMap::with_max_entries(MAX_ENTRIES, 0);

/// What a thread's last call was found with.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Entry {
    /// Address of the `struct file`; 0 if it was none, or has been used.
    file: u64,
    /// When a connect began.
    begun: u64,
}

/// A thread enters a call.
#[inline(always)]
pub fn enter(call: &Call) -> Option<()> {
    let connects = matches!(call.kind, Kind::CONNECT | Kind::SOCKETPAIR);
    let files = Files::of_current();
    if !connects && !files.shared {
        return None;
    }
    let mut entry = Entry { file: 0, begun: 0 };
    if connects {
        // SAFETY: no arguments.
        entry.begun = unsafe { bpf_ktime_get_ns() };
    } else if let Some(file) = files.get(call.arguments[0]) {
        entry.file = file.0;
    }
    let thread = Thread::current().tid;
    match ENTRIES.get_ptr_mut(thread) {
        // SAFETY: only this thread uses its entry.
        Some(found) => unsafe { *found = entry },
        None => {
            let _ = ENTRIES.insert(thread, &entry, 0);
        }
    }
    Some(())
}

/// The file that the current thread's call began with, if that was remembered.
#[inline(always)]
pub fn file(files: &Files) -> Option<File> {
    if !files.shared {
        return None;
    }
    // SAFETY: only this thread uses its entry.
    let entry = unsafe { &*ENTRIES.get_ptr(Thread::current().tid)? };
    (entry.file != 0).then_some(File(entry.file))
}

impl Entry {
    /// When the current thread's connect began.
    #[inline(always)]
    pub fn begun() -> Option<u64> {
        // SAFETY: only this thread uses its entry.
        let entry = unsafe { &*ENTRIES.get_ptr(Thread::current().tid)? };
        (entry.begun != 0).then_some(entry.begun)
    }
}
