//! Who waits for the response to the request that a client of Node's `http` writes: followed through V8's heap, which stands still
//! while its thread is in a system call.
//!
//! The socket's `TCP` has its `net.Socket`, that has the `ClientRequest`, and the listeners of that are closures. From there on only what
//! is called back later is followed: a closure's variables (but not those of modules), promises that its variables resolve, the
//! reactions of promises, the async functions that await them, and their promises; until a `ServerResponse` is among the variables. Its
//! socket's id is told. Where two are found, or there is more to look at than there is room for, nothing is told.
//!
//! What is no such object fails a comparison on the way: types are V8's own numbers, and a socket has its `TCP`, which has its id.

use aya_ebpf::{helpers::generated::bpf_probe_read_user, macros::map, maps::PerCpuArray};
use tracer_common::{NodeHeap, RuntimeKind};

use super::{TAG, integer};
use crate::{
    buffers::read_user,
    layout,
    runtime::{FRAME, RUNTIMES, TASKS, Tasks, has_recipe, pointer},
};

/// Objects looked at, at most.
const STEPS: u64 = 112;
/// Addresses kept of objects that were or are to be looked at.
const QUEUE: usize = 128;
/// Words of an object that are looked at.
const WORDS: usize = 16;
/// A mark on an address in the queue (whose lowest bits are 0): what the object has is looked at, too.
const OPEN: u64 = 2;
/// In an object: its properties; in a map: the number of its type (16 bits) and its instances' size in words (8 bits).
const PROPERTIES: u64 = 8;
const TYPE: u64 = 12;
const SIZE: u64 = 8;
/// Where a wrap (`node::BaseObject`) has the handle of its object.
const WRAP_OBJECT: u64 = 8;
/// `EventEmitter._events`, which every emitter has first.
const EVENTS: u64 = 0x18;
/// The first value in a dictionary's array, and words from one to the next.
const FIRST_VALUE: u64 = 9;
const ENTRY: u64 = 3;
/// Listeners looked at.
const ENTRIES: u64 = 16;
/// An array's length.
const LENGTH: u64 = 8;
/// More than one response waits.
const SEVERAL: u64 = u64::MAX;

/// An object's first byte; 0 for what is none.
#[inline(always)]
fn object(tagged: u64) -> u64 {
    if tagged & 3 == TAG && tagged > 4096 && tagged >> 56 == 0 {
        tagged.wrapping_sub(TAG)
    } else {
        0
    }
}

/// The object that a word points to; 0 for what is none.
#[inline(always)]
fn follow(address: u64) -> u64 {
    read_user::<u64>(address).map_or(0, object)
}

/// Number of an object's type, and its size in words; zeros if it has none.
#[inline(always)]
fn kind(at: u64) -> [u32; 2] {
    let map = follow(at);
    if map == 0 {
        return [0; 2];
    }
    let kind = read_user::<u16>(map.wrapping_add(TYPE)).unwrap_or(0);
    let size = read_user::<u8>(map.wrapping_add(SIZE)).unwrap_or(0);
    [u32::from(kind), u32::from(size)]
}

/// A small integer's value, if it is positive.
#[inline(always)]
fn small(tagged: u64) -> u64 {
    if tagged & 0xffff_ffff == 0 && tagged >> 63 == 0 {
        tagged >> 32
    } else {
        0
    }
}

/// By [`crate::message::Moved::scratch`], like [`TASKS`], whose `members` counts them.
#[map]
static NODE_QUEUES: PerCpuArray<[u64; QUEUE]> = PerCpuArray::with_max_entries(2, 0);

/// What a walk works on.
struct Walk {
    tasks: &'static mut Tasks,
    queue: &'static mut [u64; QUEUE],
}

impl Walk {
    /// Puts an object behind those that are to be looked at.
    #[inline(always)]
    fn push(&mut self, tagged: u64, mark: u64) {
        let at = object(tagged);
        let tail = self.tasks.members;
        if at == 0 {
            return;
        }
        // Closures that were made together have one context.
        if tail != 0 && self.queue[(tail as usize - 1) % QUEUE] == at | mark {
            return;
        }
        if tail < QUEUE as u64 {
            self.queue[tail as usize % QUEUE] = at | mark;
        }
        self.tasks.members = tail + 1;
    }

    /// Likewise those that words of the object name that was read last.
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

#[inline(always)]
fn begin(tgid: u64, scratch: u64) -> Option<(&'static NodeHeap, Walk)> {
    // Without them no socket is found: the verifier need not walk what would follow.
    if !has_recipe(RuntimeKind::NODE) || layout::HAS_TASK_REGISTERS.load() == 0 {
        return None;
    }
    // SAFETY: as in `read_tasks`.
    let entry = unsafe { RUNTIMES.get(tgid as u32) }?;
    // SAFETY: as in `read_tasks`.
    let tasks = TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })?;
    // SAFETY: likewise.
    let queue = NODE_QUEUES
        .get_ptr_mut(scratch as u32)
        .map(|queue| unsafe { &mut *queue })?;
    Some((&entry.node.heap, Walk { tasks, queue }))
}

/// The id of the socket on whose response the client's request waits that is written now; 0 if that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn node_waiting(tgid: u64, scratch: u64) -> u64 {
    if node_listeners(tgid, scratch) == 0 {
        return 0;
    }
    let mut at = 0;
    while at < STEPS {
        if node_step(tgid, scratch, at) == 0 {
            break;
        }
        at += 1;
    }
    let Some((_, Walk { tasks, .. })) = begin(tgid, scratch) else {
        return 0;
    };
    if at >= STEPS || tasks.members > QUEUE as u64 || tasks.size == SEVERAL {
        return 0;
    }
    tasks.size
}

/// The listeners of the client's request on the socket that is written to: 0 if it is not a client's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_listeners(tgid: u64, scratch: u64) -> u64 {
    let Some((o, mut walk)) = begin(tgid, scratch) else {
        return 0;
    };
    walk.tasks.members = 0;
    walk.tasks.size = 0;
    let [wrap, id] = [walk.tasks.stack[0], walk.tasks.stack[1]];
    let Some(handle) = pointer(wrap.wrapping_add(WRAP_OBJECT)).map(follow) else {
        return 0;
    };
    let properties = follow(handle.wrapping_add(PROPERTIES));
    if handle == 0 || properties == 0 {
        return 0;
    }
    let socket = follow(properties.wrapping_add(u64::from(o.owner)));
    if socket == 0
        || follow(socket.wrapping_add(u64::from(o.handle))) != handle
        || small(read_user(socket.wrapping_add(u64::from(o.socket_id))).unwrap_or(0))
            != u64::from(integer(id))
    {
        return 0;
    }
    let server = follow(socket.wrapping_add(u64::from(o.server)));
    if server == 0 || kind(server)[0] == o.object {
        return 0;
    }
    // Which of them `_httpMessage` is depends on what was set before.
    const PLACES: usize = 8;
    let Some(words) = read_user::<[u64; PLACES]>(socket.wrapping_add(u64::from(o.message))) else {
        return 0;
    };
    let mut request = 0;
    for word in words {
        let message = object(word);
        if request == 0 && message != 0 && follow(message.wrapping_add(u64::from(o.message_socket))) == socket
        {
            request = message;
        }
    }
    if request == 0 {
        return 0;
    }
    let events = follow(request.wrapping_add(EVENTS));
    let table = follow(events.wrapping_add(PROPERTIES));
    if events == 0 || table == 0 {
        return 0;
    }
    let length = small(read_user(table.wrapping_add(LENGTH)).unwrap_or(0)).wrapping_add(2);
    let mut at = FIRST_VALUE;
    while at < FIRST_VALUE + ENTRIES * ENTRY {
        if at < length {
            walk.push(read_user(table.wrapping_add(8 * at)).unwrap_or(0), OPEN);
        }
        at += ENTRY;
    }
    walk.tasks.members
}

/// Looks at the next object, and puts what it has behind those that are to be looked at: 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_step(tgid: u64, scratch: u64, number: u64) -> u64 {
    let Some((o, mut walk)) = begin(tgid, scratch) else {
        return 0;
    };
    if number >= walk.tasks.members || number >= QUEUE as u64 {
        return 0;
    }
    let marked = walk.queue[number as usize % QUEUE];
    let (at, open) = (marked & !OPEN, marked & OPEN);
    let mut before = 0;
    while before < number as usize && before < QUEUE {
        if walk.queue[before % QUEUE] & !OPEN == at {
            return 1;
        }
        before += 1;
    }
    let [kind, size] = self::kind(at);
    // SAFETY: there is room for so many words; the helper refuses bad addresses.
    let failed = unsafe {
        bpf_probe_read_user(
            walk.tasks.frame.as_mut_ptr().cast(),
            8 * WORDS as u32,
            at as *const _,
        )
    };
    if failed != 0 || kind == 0 {
        return 1;
    }
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
