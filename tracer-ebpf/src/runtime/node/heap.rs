//! V8's heap, which stands still while its thread is in a system call: from functions that will be called back to the response that
//! waits for them.
//!
//! Only what is called back later is followed: a closure's variables (but not those of modules), promises that its variables resolve, the
//! reactions of promises, the async functions that await them, and their promises; until a `ServerResponse` is among the variables.
//!
//! What is no such object fails a comparison on the way: types are V8's own numbers.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::PerCpuArray};
use tracer_common::{NodeHeap, RuntimeKind};

use super::{TAG, command::Place};
use crate::{
    buffers::read_user,
    layout,
    runtime::{FRAME, RUNTIMES, TASKS, Tasks, has_recipe},
};

/// Objects looked at, at most.
pub(super) const STEPS: u64 = 112;
/// Addresses kept of objects that were or are to be looked at.
pub(super) const QUEUE: usize = 128;
/// Objects remembered as looked at, and the bits of their addresses.
const SEEN: usize = 256;
const ADDRESS_BITS: u32 = 48;
/// Words of an object that are looked at.
const WORDS: usize = 16;
/// A mark on an address in the queue (whose lowest bits are 0): what the object has is looked at, too.
pub(super) const OPEN: u64 = 2;
/// In an object: its properties; in a map: its instances' size in words (8 bits), 4 bytes behind it the number of its type (16 bits).
pub(super) const PROPERTIES: u64 = 8;
const SIZE_AND_TYPE: u64 = 8;
/// The first value in a dictionary's array, and words from one to the next.
const FIRST_VALUE: u64 = 9;
const ENTRY: u64 = 3;
/// An array's length.
pub(super) const LENGTH: u64 = 8;
/// More than one response waits.
pub(super) const SEVERAL: u64 = u64::MAX;

/// An object's first byte; 0 for what is none.
#[inline(always)]
pub(super) fn object(tagged: u64) -> u64 {
    if tagged & 3 == TAG && tagged > 4096 && tagged >> 56 == 0 {
        tagged.wrapping_sub(TAG)
    } else {
        0
    }
}

/// The object that a word points to; 0 for what is none.
#[inline(always)]
pub(super) fn follow(address: u64) -> u64 {
    read_user::<u64>(address).map_or(0, object)
}

/// Number of an object's type, and its size in words; zeros if it has none.
#[inline(always)]
pub(super) fn kind(at: u64) -> [u32; 2] {
    kind_by(follow(at))
}

/// The same by the object's map.
#[inline(always)]
fn kind_by(map: u64) -> [u32; 2] {
    if map == 0 {
        return [0; 2];
    }
    let [size, kind] = read_user::<[u32; 2]>(map.wrapping_add(SIZE_AND_TYPE)).unwrap_or_default();
    [kind & 0xffff, size & 0xff]
}

/// A small integer's value, if it is positive.
#[inline(always)]
pub(super) fn small(tagged: u64) -> u64 {
    if tagged & 0xffff_ffff == 0 && tagged >> 63 == 0 {
        tagged >> 32
    } else {
        0
    }
}

/// Reads so many words of an object, or those that there is room for; the others are 0.
#[inline(always)]
pub(super) fn read_words<const N: usize>(words: &mut [u64; N], at: u64, many: u64) {
    let many = if many < N as u64 { many } else { N as u64 };
    *words = [0; N];
    // SAFETY: there is room for so many words; the helper refuses bad addresses, and fills with zeros.
    unsafe { bpf_probe_read_user(words.as_mut_ptr().cast(), 8 * many as u32, at as *const _) };
}

/// What a walk works on besides [`Tasks`], whose `members` counts the objects in the queue.
pub(super) struct Work {
    /// Of the process whose heap it is.
    pub(super) heap: NodeHeap,
    pub(super) place: Place,
    queue: [u64; QUEUE],
    /// Objects that were looked at, by their addresses, and in which walk.
    seen: [u64; SEEN],
    walks: u64,
}

/// By [`crate::message::Moved::scratch`], like [`TASKS`].
#[map]
static NODE_WORK: PerCpuArray<Work> = PerCpuArray::with_max_entries(2, 0);

pub(super) struct Walk {
    pub(super) tasks: &'static mut Tasks,
    pub(super) work: &'static mut Work,
}

impl Walk {
    /// Puts an object behind those that are to be looked at.
    #[inline(always)]
    pub(super) fn push(&mut self, tagged: u64, mark: u64) {
        let at = object(tagged);
        let tail = self.tasks.members;
        if at == 0 {
            return;
        }
        // Closures that were made together have one context.
        if tail != 0 && self.work.queue[(tail as usize - 1) % QUEUE] == at | mark {
            return;
        }
        if tail < QUEUE as u64 {
            self.work.queue[tail as usize % QUEUE] = at | mark;
        }
        self.tasks.members = tail + 1;
    }

    /// Nothing was found, and nothing is to be looked at.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.tasks.members = 0;
        self.tasks.size = 0;
        self.work.walks = self.work.walks.wrapping_add(1);
    }

    /// Whether the object was looked at in this walk, unless that is forgotten; it is now.
    #[inline(always)]
    fn was_seen(&mut self, at: u64) -> bool {
        let entry = at | self.work.walks << ADDRESS_BITS;
        // Objects are aligned to words.
        let slot = &mut self.work.seen[(at >> 3) as usize % SEEN];
        core::mem::replace(slot, entry) == entry
    }

    /// The object with that number among those that are to be looked at; 0 if there are not so many.
    #[inline(always)]
    pub(super) fn at(&self, number: u64) -> u64 {
        match number < self.tasks.members {
            true => self.work.queue[number as usize % QUEUE] & !OPEN,
            false => 0,
        }
    }

    /// Pushes the values of an object whose properties are in a dictionary.
    #[inline(always)]
    pub(super) fn push_dictionary(&mut self, at: u64, entries: u64, mark: u64) {
        let table = follow(at.wrapping_add(PROPERTIES));
        if at == 0 || table == 0 {
            return;
        }
        let length = small(read_user(table.wrapping_add(LENGTH)).unwrap_or(0)).wrapping_add(2);
        let mut at = FIRST_VALUE;
        while at < FIRST_VALUE + entries * ENTRY {
            if at < length {
                self.push(read_user(table.wrapping_add(8 * at)).unwrap_or(0), mark);
            }
            at += ENTRY;
        }
    }

    /// Pushes what words of the frame name.
    #[inline(always)]
    pub(super) fn push_frame(&mut self, first: usize, many: usize) {
        let mut at = first;
        while at < first + many {
            self.push(self.tasks.frame[at % FRAME], 0);
            at += 1;
        }
    }

    /// Pushes what words name of the object that was read last.
    #[inline(always)]
    fn push_words(&mut self, first: usize, end: usize, mark: u64) {
        let mut at = first;
        // An object that ends before is followed by the next one's map.
        while at < end && at < self.tasks.words[0] as usize {
            self.push(self.tasks.frame[at % FRAME], mark);
            at += 1;
        }
    }
}

/// What the walk works on, which [`begin`] has prepared.
#[inline(always)]
pub(super) fn walk(scratch: u64) -> Option<Walk> {
    // Without them no socket is found: the verifier need not walk what would follow.
    if !has_recipe(RuntimeKind::NODE) || layout::HAS_TASK_REGISTERS.load() == 0 {
        return None;
    }
    // SAFETY: as in `read_tasks`.
    let tasks = TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })?;
    // SAFETY: likewise.
    let work = NODE_WORK
        .get_ptr_mut(scratch as u32)
        .map(|work| unsafe { &mut *work })?;
    Some(Walk { tasks, work })
}

/// Begins in the heap of that process.
#[inline(always)]
pub(super) fn begin(tgid: u64, scratch: u64) -> Option<Walk> {
    let mut walk = walk(scratch)?;
    // SAFETY: as in `read_tasks`.
    walk.work.heap = unsafe { RUNTIMES.get(tgid as u32) }?.node.heap;
    walk.clear();
    Some(walk)
}

/// Looks at the next object, and puts what it has behind those that are to be looked at: 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn node_step(scratch: u64, number: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    if number >= walk.tasks.members || number >= QUEUE as u64 {
        return 0;
    }
    let marked = walk.work.queue[number as usize % QUEUE];
    let (at, open) = (marked & !OPEN, marked & OPEN);
    if walk.was_seen(at) {
        return 1;
    }
    // SAFETY: there is room for so many words; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            walk.tasks.frame.as_mut_ptr().cast(),
            8 * WORDS as u32,
            at as *const _,
        )
    };
    let [kind, size] = match failed {
        0 => kind_by(object(walk.tasks.frame[0])),
        _ => return 1,
    };
    let o = &walk.work.heap;
    let [first, last] = o.contexts;
    let is_context = kind >= first && kind <= last;
    walk.tasks.words[0] = match is_context || kind == o.fixed_array {
        true => small(walk.tasks.frame[1]).wrapping_add(2),
        false => u64::from(size),
    };
    if kind == o.function {
        let context = read_user(at.wrapping_add(u64::from(o.function_context))).unwrap_or(0);
        walk.push(context, 0);
    } else if is_context {
        // The context around it, then variables. Modules are in the native context; so is what awaits, and so are the functions that
        // resolve a promise where compiled code has made them.
        const OUTER: usize = 3;
        let [outer, variable, other] = [
            walk.tasks.frame[OUTER],
            walk.tasks.frame[OUTER + 1],
            walk.tasks.frame[OUTER + 2],
        ];
        if kind == first {
            walk.push(variable, 0);
        } else if outer != walk.tasks.place && at.wrapping_add(TAG) != walk.tasks.place {
            walk.push_words(OUTER, WORDS, 0);
        } else if self::kind(object(variable))[0] == o.promise {
            walk.push(variable, 0);
        } else if self::kind(object(other))[0] == o.capability {
            walk.push(other, 0);
        }
    } else if kind == o.promise {
        // Its reactions, and whether it is pending still.
        if walk.tasks.frame[4] >> 32 & 3 == 0 {
            walk.push(walk.tasks.frame[3], 0);
        }
    } else if kind == o.reaction {
        walk.push_words(1, 6, 0);
    } else if kind == o.capability {
        walk.push_words(1, 3, 0);
    } else if kind == o.async_function {
        // Its context, its arguments and variables, its promise.
        walk.push(walk.tasks.frame[4], 0);
        walk.push(walk.tasks.frame[9], OPEN);
        walk.push(walk.tasks.frame[10], 0);
    } else if kind == o.bound {
        // Its function, `this`, arguments.
        walk.push_words(3, 6, OPEN);
    } else if open != 0 && kind == o.fixed_array {
        walk.push_words(2, WORDS, 0);
    } else if open != 0 && kind == o.array {
        walk.push(walk.tasks.frame[2], OPEN);
    } else if kind == o.object {
        let id = response(o, at, size);
        if id != 0 {
            let known = walk.tasks.size;
            walk.tasks.size = if known == 0 || known == id { id } else { SEVERAL };
        } else if open != 0 {
            walk.push_words(3, 8, 0);
        }
    }
    1
}

/// The id of the socket on which that response will be written; 0 if it is no response.
#[inline(always)]
fn response(o: &NodeHeap, at: u64, size: u32) -> u64 {
    if 8 * size <= o.message_socket {
        return 0;
    }
    let socket = follow(at.wrapping_add(u64::from(o.message_socket)));
    if socket == 0 || kind(socket)[0] != o.object {
        return 0;
    }
    let server = follow(socket.wrapping_add(u64::from(o.server)));
    if server == 0 || kind(server)[0] != o.object {
        return 0;
    }
    small(read_user(socket.wrapping_add(u64::from(o.socket_id))).unwrap_or(0))
}
