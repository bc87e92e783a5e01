//! Java on HotSpot: where libjvm keeps the thread that runs, and the virtual thread mounted on it.
//!
//! libjvm describes its own structures in an exported table (`gHotSpotVMStructs`, runtime/vmStructs.cpp), so no version is
//! listed here. Where its thread-local storage lies is found by looking, in the storage of live threads, for the `JavaThread`
//! that the table leads to: what is found so is verified by the same, on every thread. Virtual threads tell their id
//! - from JDK 24 on in `JavaThread::_monitor_owner_id`;
//! - before (JDK 21 to 23) in `java.lang.Thread.tid`, which lies behind `eetop` (the object's own `JavaThread`).
//!
//! Older versions have none. In [`futures`]: how it is found for whom a pool's thread works.

mod futures;
mod table;

use tracer_common::{Address, JavaOffsets, RuntimeEntry, RuntimeKind};

use self::table::Table;
use super::Subject;
use super::live::{Live, Module};
use crate::model::Language;

/// Most threads that are looked at, and the least that must agree.
const MAX_THREADS: u64 = 64;
const MIN_THREADS: usize = 3;
/// Bytes searched: of a thread's vector of thread-local blocks, of each block, and of a thread's object.
const MAX_VECTOR: usize = 1_024;
const MAX_BLOCK: usize = 256;
const MAX_OBJECT: usize = 192;

/// The recipe.
pub fn find(subject: &Subject) -> Option<Result<RuntimeEntry, String>> {
    if subject.language != Language::Java {
        return None;
    }
    let live = Live::open(subject.process)?;
    let libjvm = live.module(|name| name == "libjvm.so")?;
    Some(offsets(&live, &libjvm).map(|java| RuntimeEntry {
        kind: RuntimeKind::JAVA.0,
        hand_offs: 1,
        java,
        ..RuntimeEntry::default()
    }))
}

/// Whether classes may still be loaded that are looked for, or were missed: others are loaded and unloaded while they are gone through.
pub fn is_incomplete(entry: &RuntimeEntry) -> bool {
    entry.kind == RuntimeKind::JAVA.0 && !known(entry).iter().all(|&is_known| is_known)
}

/// Whether something is missing that was known before.
pub fn is_worse(found: &RuntimeEntry, before: &RuntimeEntry) -> bool {
    std::iter::zip(known(before), known(found)).any(|(was_known, is_known)| was_known && !is_known)
}

/// What is known of what comes late, one by one.
fn known(entry: &RuntimeEntry) -> [bool; 7] {
    let futures = &entry.java.futures;
    let is_known = |class: Address| class != Address::default();
    [
        is_known(futures.thread),
        is_known(futures.signaller),
        is_known(futures.task),
        is_known(futures.offer),
        is_known(futures.channel),
        futures.waiting != 0,
        futures.function != 0,
    ]
}

fn offsets(live: &Live, libjvm: &Module) -> Result<JavaOffsets, String> {
    if libjvm.elf.machine() != object::elf::EM_X86_64.0 {
        return Err("threads are read on x86_64 only".to_owned());
    }
    let table = Table::read(live, libjvm).ok_or("libjvm's table of structures can't be read")?;
    let threads = table.threads(live);
    if threads.len() < MIN_THREADS {
        return Err("it has hardly any threads yet".to_owned());
    }
    let (tls_block, thread) = thread_local(live, &threads).ok_or("its thread-local storage is not found")?;
    let mut offsets = JavaOffsets {
        tls_block,
        thread,
        futures: futures::find(live, &table, &threads).unwrap_or_default(),
        ..JavaOffsets::default()
    };
    let Some(current) = table.offset("JavaThread", "_vthread") else {
        return Ok(offsets); // no virtual threads
    };
    let told = table
        .offset("JavaThread", "_monitor_owner_id")
        .zip(table.offset("JavaThread", "_cont_entry"));
    if let Some((owner_id, continuation)) = told {
        (offsets.owner_id, offsets.continuation) = (owner_id, continuation);
        verify_ids(live, &threads, |thread| {
            live.word(thread.address + u64::from(owner_id))
        })?;
        return Ok(offsets);
    }
    let carrier = table
        .offset("JavaThread", "_threadObj")
        .ok_or("its threads have no objects")?;
    let tid = thread_id(live, &threads, carrier).ok_or("java.lang.Thread.tid is not found")?;
    (offsets.current, offsets.carrier, offsets.tid) = (current, carrier, tid);
    for handle in [current, carrier] {
        verify_ids(live, &threads, |thread| {
            live.word(object(live, thread, handle)? + u64::from(tid))
        })?;
    }
    Ok(offsets)
}

/// Ids are small, not 0, and no two threads have the same.
fn verify_ids(live: &Live, threads: &[Thread], id: impl Fn(&Thread) -> Option<u64>) -> Result<(), String> {
    let mut ids: Vec<u64> = threads
        .iter()
        .filter(|thread| thread.is_there(live))
        .filter_map(id)
        .collect();
    let read = ids.len();
    ids.sort_unstable();
    ids.dedup();
    let plausible = read >= MIN_THREADS && ids.len() == read && !ids.contains(&0);
    if plausible && ids.iter().all(|&id| id < 1 << 48) {
        Ok(())
    } else {
        Err("what should be the ids of threads is not".to_owned())
    }
}

/// A Java thread: its `JavaThread`, and the control block of its thread (`pthread_t`: what the thread pointer holds on x86_64).
struct Thread {
    address: u64,
    control: u64,
    /// Where its control block is told.
    control_at: u64,
}

impl Thread {
    /// Whether it still is what it was when it was read.
    fn is_there(&self, live: &Live) -> bool {
        live.word(self.control_at) == Some(self.control)
    }
}

/// The object behind one of the thread's handles.
fn object(live: &Live, thread: &Thread, handle: u32) -> Option<u64> {
    let handle = live.word(thread.address.checked_add(u64::from(handle))?)?;
    live.word(handle).filter(|&object| object != 0)
}

/// Where, in the threads' vectors of thread-local blocks and in the block, the `JavaThread` is.
fn thread_local(live: &Live, threads: &[Thread]) -> Option<(u32, u32)> {
    let first = threads.first()?;
    let vector = live.word(first.control.checked_add(8)?)?;
    for (slot, block) in words(&live.read(vector, MAX_VECTOR)?) {
        // The first is a count, and what is not allocated is marked with all bits set.
        if slot == 0 || block < 4096 || block % 8 != 0 || block >> 56 != 0 {
            continue;
        }
        let Some(bytes) = live.read(block, MAX_BLOCK) else {
            continue;
        };
        for (at, word) in words(&bytes) {
            if word == first.address && agree(live, threads, slot, at) {
                return Some((slot, at));
            }
        }
    }
    None
}

fn agree(live: &Live, threads: &[Thread], slot: u32, at: u32) -> bool {
    let found = |thread: &Thread| {
        let vector = live.word(thread.control.checked_add(8)?)?;
        let block = live.word(vector.checked_add(u64::from(slot))?)?;
        live.word(block.checked_add(u64::from(at))?)
    };
    let mut agreed = 0;
    for thread in threads {
        if found(thread) == Some(thread.address) {
            agreed += 1;
        } else if thread.is_there(live) {
            return false;
        }
    }
    agreed >= MIN_THREADS
}

/// `java.lang.Thread.tid`: the field behind `eetop`, which holds the address of the `JavaThread`. Both are of the type `long`, and
/// fields of one size are laid out in their order (classfile/fieldLayoutBuilder.cpp).
fn thread_id(live: &Live, threads: &[Thread], handle: u32) -> Option<u32> {
    let first = threads.first()?;
    let bytes = live.read(object(live, first, handle)?, MAX_OBJECT)?;
    let eetop = |at: u32| {
        threads
            .iter()
            .filter(|thread| thread.is_there(live))
            .all(|thread| {
                object(live, thread, handle)
                    .and_then(|object| live.word(object.checked_add(u64::from(at))?))
                    .is_some_and(|word| word == thread.address)
            })
    };
    words(&bytes)
        .find(|&(at, word)| word == first.address && eetop(at))
        .map(|(at, _)| at + 8)
}

/// The words of a piece of memory, with their offsets.
fn words(bytes: &[u8]) -> impl Iterator<Item = (u32, u64)> {
    let (words, _) = bytes.as_chunks::<8>();
    (0..)
        .step_by(8)
        .zip(words.iter().map(|word| u64::from_ne_bytes(*word)))
}
