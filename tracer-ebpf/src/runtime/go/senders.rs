//! Who sends jobs for which workers are not free yet (runtime/chan.go: hchan.sendq). A job has the place in it where its sender will wait for the
//! reply, but may do so only when the reply is there already: then nobody is ever seen at that place. While the sender waits for room in the
//! queue, its job and the place in it are seen by a worker that is busy with another job.
//!
//! The worker that has such a place next works for that sender. As an address may be used again, what was seen counts once, and for that
//! worker alone.

use aya_ebpf::{
    helpers::generated::{bpf_ktime_get_ns, bpf_probe_read_user},
    macros::map,
    maps::LruHashMap,
};
use tracer_common::{MAX_GO_CALLERS, RuntimeKind};

use super::{entry, id, in_heap, tasks, waits};
use crate::runtime::{OBJECT, PLACES, Tasks};

/// By process and place.
#[map]
static GO_SENDERS: LruHashMap<[u64; 2], Sender> = LruHashMap::with_max_entries(MAX_GO_CALLERS, 0);

/// Who was seen to send a job with that place in it.
#[derive(Clone, Copy)]
#[repr(C)]
struct Sender {
    /// Its id; 0 if several were at once.
    goid: u64,
    /// When it was seen first and last, in nanoseconds (CLOCK_MONOTONIC).
    since: u64,
    seen: u64,
    /// The id of the goroutine that has taken the job; 0 if none was seen to.
    worker: u64,
}

/// Senders that are looked at, from the one whose job is taken next.
pub const SENDERS: usize = 6;
/// Two that send the same place within that time (in nanoseconds) share it; after it, its address is used again.
const SHARED: u64 = 1_000_000_000;

/// internal/abi.Type: `Kind_` and its value for pointers; behind a pointer's type lies that of what it points to (`PtrType.Elem`).
const KIND: u64 = 23;
const KIND_MASK: u64 = 31;
const POINTER: u64 = 22;
const ELEM: u64 = 48;

/// Remembers who waits first to send jobs of that type.
#[inline(always)]
pub fn queue(tasks: &mut Tasks, sender: u64, kind: u64) {
    tasks.sender = sender;
    // Its first field is its size.
    tasks.job = tasks.read(kind).map_or(0, |[size]| size);
    tasks.pointed = 0;
    if tasks.job == 8
        && let Some([flags]) = tasks.read(kind.wrapping_add(KIND / 8 * 8))
        && flags >> (8 * (KIND % 8)) & KIND_MASK == POINTER
        && let Some([elem]) = tasks.read(kind.wrapping_add(ELEM))
    {
        tasks.pointed = tasks.read(elem).map_or(0, |[size]| size);
    }
}

/// Notes the places in the job that the next sender waits to get rid of, and goes on to the one behind it: 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn go_sender(tgid: u64, scratch: u64) -> u64 {
    let (Some(entry), Some(tasks)) = (entry(tgid, RuntimeKind::GO), tasks(scratch)) else {
        return 0;
    };
    let sudog = tasks.sender;
    tasks.sender = 0;
    // runtime.sudog: g, next.
    let Some([g, next]) = tasks.read(sudog) else {
        return 0;
    };
    let Some([job]) = tasks.read(sudog.wrapping_add(u64::from(entry.go.sudog_elem))) else {
        return 0;
    };
    let size = tasks.job;
    let goid = id(g, &entry.go);
    if goid == 0 || size < 8 || size % 8 != 0 || !read_job(tasks, job, size) {
        return 0;
    }
    let mut found = 0;
    for word in 0..OBJECT {
        found |= sends(tgid, scratch, tasks, word, goid);
    }
    let (pointed, size) = (tasks.object[0], tasks.pointed);
    if found == 0 && size != 0 && in_heap(tasks, pointed) && read_job(tasks, pointed, size) {
        for word in 0..OBJECT {
            sends(tgid, scratch, tasks, word, goid);
        }
    }
    tasks.sender = next;
    next
}

/// Notes that the goroutine sends that word of a job, if that is a channel: 1 if it is.
#[inline(always)]
fn sends(tgid: u64, scratch: u64, tasks: &Tasks, word: usize, goid: u64) -> u64 {
    let held = tasks.object[word];
    if !in_heap(tasks, held) {
        return 0;
    }
    if go_sends_still(tgid, held, goid) != 0 {
        return 1;
    }
    go_sends(tgid, scratch, held, goid)
}

/// Reads a job, or as much of it as is looked at.
#[inline(always)]
fn read_job(tasks: &mut Tasks, job: u64, size: u64) -> bool {
    // SAFETY: there is room for so many words; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            tasks.object.as_mut_ptr().cast(),
            8 * OBJECT as u32,
            job as *const _,
        )
    };
    for word in 0..OBJECT {
        if 8 * word as u64 >= size {
            tasks.object[word] = 0;
        }
    }
    failed == 0
}

/// Whether it is known already that the goroutine sends a job with that in it: most are looked at more than once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_sends_still(tgid: u64, held: u64, goid: u64) -> u64 {
    let Some(known) = GO_SENDERS.get_ptr_mut([tgid, held]) else {
        return 0;
    };
    // SAFETY: an entry stays memory of this map while the program runs; what two CPUs lose of each other names nobody, or is seen again.
    let known = unsafe { &mut *known };
    if known.goid != goid || known.worker != 0 {
        return 0;
    }
    // SAFETY: no arguments.
    known.seen = unsafe { bpf_ktime_get_ns() };
    1
}

/// Notes that the goroutine sends a job with that in it, if that is a channel: 1 if it is.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn go_sends(tgid: u64, scratch: u64, held: u64, goid: u64) -> u64 {
    if waits::go_channel(tgid, scratch, held) == 0 {
        return 0;
    }
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let new = Sender {
        goid,
        since: now,
        seen: now,
        worker: 0,
    };
    let key = [tgid, held];
    let Some(known) = GO_SENDERS.get_ptr_mut(key) else {
        let _ = GO_SENDERS.insert(key, new, 0);
        return 1;
    };
    // SAFETY: as above.
    let known = unsafe { &mut *known };
    let is_recent = now.wrapping_sub(known.seen) < SHARED;
    if known.goid == 0 && is_recent {
        known.seen = now;
    } else if known.worker == 0 && is_recent {
        (known.goid, known.seen) = (0, now);
    } else {
        *known = new;
    }
    1
}

/// Whether a sender of the job is known that the goroutine, given with its process, has taken: told in [`Tasks::sent_by`], unless somebody waits for
/// that job (`is_awaited`). `before`: where its last job was awaited.
#[inline(always)]
pub fn jobs_taken(tasks: &mut Tasks, [tgid, worker]: [u64; 2], before: [u64; 2], is_awaited: bool) {
    for at in 0..PLACES {
        let place = tasks.places[at];
        if place == 0 {
            continue;
        }
        let Some(known) = GO_SENDERS.get_ptr_mut([tgid, place]) else {
            continue;
        };
        // SAFETY: as above.
        let known = unsafe { &mut *known };
        let is_same = before[0] == place | waits::LAST || before[1] == place | waits::LAST;
        if is_same != (known.worker == worker) || !is_same && known.worker != 0 {
            continue;
        }
        known.worker = worker;
        if !is_awaited && known.goid != 0 {
            let is_other = tasks.sent_by[0] != 0 && tasks.sent_by[0] != known.goid;
            tasks.sent_by = if is_other {
                [0; 2]
            } else {
                [known.goid, known.since]
            };
        }
    }
}
