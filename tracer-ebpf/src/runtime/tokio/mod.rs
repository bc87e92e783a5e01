//! Tasks of Rust's tokio (tokio/src/runtime/task/core.rs: Cell, Header, Vtable, Trailer).
//!
//! The running task's id lies in thread-local storage; where, the kernel side finds itself, by comparing it with the ids of the tasks
//! that wait for the sockets which are read and written. What epoll keeps for a socket is tokio's `ScheduledIo`, whose waker names the
//! task that serves the socket. A client's connection is served by a task of its own; it holds the sending half of a oneshot channel,
//! and the waker in there is that of the task which asked. A task that somebody waits for has that one's waker in its trailer. One that
//! nobody waits for yet may be held by one who waits for another ([`list`]).

mod list;

use aya_ebpf::{
    macros::map,
    maps::{LruHashMap, PerCpuArray},
};
use tracer_common::{MAX_AWAITERS, MAX_TOKIO_SOCKETS, RuntimeKind, TokioClient, TokioOffsets};

use super::{RUNTIMES, TASKS, Tasks, entry, has_recipe, pointer, thread_pointer, whole};
use crate::{
    buffers::{read_kernel, read_user},
    layout,
};

/// The task that serves a socket, by the socket's cookie.
#[map]
static TOKIO_SOCKETS: LruHashMap<u64, Served> = LruHashMap::with_max_entries(MAX_TOKIO_SOCKETS, 0);

#[derive(Clone, Copy)]
#[repr(C)]
struct Served {
    /// Address of its `Header`, 0 if it is not known.
    header: u64,
    id: u64,
    /// How often it was looked for in vain.
    misses: u64,
}

/// After so many vain looks at a socket only every sixteenth event takes another.
const MAX_MISSES: u64 = 8;
/// The storage held the task's id at one place alone, for so many different tasks in a row.
const ENOUGH: u32 = 3;
/// So often in a row it may hold the id of another task than the socket's before that is doubted.
const MAX_STRANGERS: u32 = 64;
const WINDOW: u64 = 64;
const STEP: u64 = 8;

/// `Header.vtable`, and `Trailer.waker`.
const HEADER_VTABLE: u64 = 16;
const TRAILER_WAKER: u64 = 16;
/// `Vtable.trailer_offset`; `scheduler_offset` and `id_offset` follow.
const VTABLE_OFFSETS: u64 = 56;
/// `JOIN_WAKER` in `Header.state` (tokio/src/runtime/task/state.rs).
const JOIN_WAKER: u64 = 1 << 4;

/// Where a walk along those that wait is. By [`crate::message::Moved::scratch`], like [`TASKS`].
#[repr(C)]
struct Walk {
    /// The task that it has come to.
    at: u64,
    /// The one behind it, 0 if there is none, [`NOT_A_CLIENT`] if that was not looked for yet.
    next: u64,
    /// How many were found.
    found: u64,
    /// Who awaits a task whose like are in a list; that task; and the list.
    by: u64,
    awaited: u64,
    list: u64,
    /// What its iterator gives next, and where it ends; bytes from one element to the next, and where an element has the handle.
    element: u64,
    last: u64,
    stride: u64,
    handle: u64,
}

#[map]
static TOKIO_WALKS: PerCpuArray<Walk> = PerCpuArray::with_max_entries(2, 0);

/// What [`read_tokio`] says beside: nobody waits for the running task.
const ALONE: u64 = 3;
/// What [`tokio_step`] says: there may be more; and who waits has a list of others.
const MORE: u64 = 1;
const LIST: u64 = 2;

/// Reads the tasks into [`TASKS`]: 0 if there are none. `thread` is thread group and thread.
///
/// The functions that this calls work one after the other, and do not call each other where they need not: the kernel gives a program
/// and all that it calls 512 bytes of stack.
#[inline(always)]
pub fn find(thread: u64, scratch: u64, sk: u64, cookie: u64) -> u64 {
    let found = read_tokio(thread >> 32, scratch, sk, cookie);
    if found == MORE {
        for _ in 0..MAX_AWAITERS {
            match tokio_step(thread, scratch) {
                0 => break,
                LIST => _ = list::tokio_hold(thread, scratch),
                _ => {}
            }
        }
    }
    found
}

#[inline(always)]
fn walk(scratch: u64) -> Option<&'static mut Walk> {
    // SAFETY: this CPU's slot; no program that uses it runs while another one does (`crate::relay::scratch`).
    TOKIO_WALKS
        .get_ptr_mut(scratch as u32)
        .map(|slot| unsafe { &mut *slot })
}

#[inline(always)]
fn tasks(scratch: u64) -> Option<&'static mut Tasks> {
    // SAFETY: as in `walk`.
    TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })
}

/// Finds the running task, and where the walk begins: 0 if there is no task, [`MORE`] if there is something to walk along.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_tokio(tgid: u64, scratch: u64, sk: u64, cookie: u64) -> u64 {
    if !has_recipe(RuntimeKind::TOKIO) {
        return 0;
    }
    let Some(entry) = RUNTIMES.get_ptr_mut(tgid as u32) else {
        return 0;
    };
    // SAFETY: an entry stays memory of this map while the program runs. Other CPUs may write what is the kernel side's own; a
    // torn value gives an offset that leads nowhere.
    let offsets = unsafe { &mut (*entry).tokio };
    let vtable = whole(offsets.waker_vtable);
    if vtable == 0 {
        return 0;
    }
    let id = if offsets.task_id == 0 {
        narrow(offsets, task_id(watcher(sk, u64::from(offsets.io_waker), vtable)))
    } else {
        let slot = thread_pointer().wrapping_add_signed(i64::from(offsets.task_id));
        read_user::<u64>(slot).unwrap_or(0)
    };
    if id == 0 {
        return 0;
    }
    let (Some(tasks), Some(walk)) = (tasks(scratch), walk(scratch)) else {
        return 0;
    };
    tasks.task = id;
    walk.at = served(sk, cookie, id, offsets);
    walk.next = NOT_A_CLIENT;
    walk.found = 0;
    if walk.at == 0 {
        doubt(offsets);
        return ALONE;
    }
    if offsets.task_id != 0 && offsets.agreed != 0 {
        offsets.agreed = 0;
    }
    for client in &offsets.clients {
        if walk.next == NOT_A_CLIENT && client.vtable[0] != 0 {
            walk.next = caller(walk.at, client, vtable);
        }
    }
    MORE
}

/// The running task, if it is the one that serves the socket.
#[inline(always)]
fn served(sk: u64, cookie: u64, id: u64, offsets: &TokioOffsets) -> u64 {
    let mut misses = 0;
    if let Some(known) = TOKIO_SOCKETS.get_ptr_mut(cookie) {
        // SAFETY: an entry stays memory of this map while the program runs.
        let known = unsafe { &mut *known };
        if known.id == id && known.header != 0 {
            // It runs, so its memory is its own.
            return known.header;
        }
        known.misses = known.misses.wrapping_add(1);
        misses = known.misses;
        if misses > MAX_MISSES && misses % 16 != 0 {
            return 0;
        }
    }
    let header = watcher(sk, u64::from(offsets.io_waker), whole(offsets.waker_vtable));
    let is_it = header != 0 && task_id(header) == id;
    let found = Served {
        header: if is_it { header } else { 0 },
        id,
        misses,
    };
    if is_it || misses == 0 {
        let _ = TOKIO_SOCKETS.insert(cookie, found, 0);
    }
    found.header
}

/// Goes on to who waits for the task that the walk has come to: 0 if that is nobody.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn tokio_step(thread: u64, scratch: u64) -> u64 {
    let (Some(tasks), Some(walk), Some(entry)) = (
        tasks(scratch),
        walk(scratch),
        entry(thread >> 32, RuntimeKind::TOKIO),
    ) else {
        return 0;
    };
    let mut says = MORE;
    if walk.next == NOT_A_CLIENT {
        walk.next = joiner(walk.at, whole(entry.tokio.waker_vtable));
        if walk.next == 0 {
            walk.next = list::tokio_holder(thread, scratch, walk.at);
        } else {
            walk.by = walk.next;
            walk.awaited = walk.at;
            says = list::tokio_joined(thread, scratch);
        }
    }
    let id = if walk.next == 0 { 0 } else { task_id(walk.next) };
    let Some(place) = tasks.awaiters.get_mut(walk.found as usize).filter(|_| id != 0) else {
        return 0;
    };
    *place = id;
    walk.found += 1;
    walk.at = walk.next;
    walk.next = NOT_A_CLIENT;
    says
}

const NOT_A_CLIENT: u64 = 1;

/// The task that asked the client's connection which that task serves; 0 if nobody waits, [`NOT_A_CLIENT`] if it is none of that type.
#[inline(always)]
fn caller(header: u64, client: &TokioClient, vtable: u64) -> u64 {
    let place = header
        .wrapping_add(u64::from(client.vtable_at))
        .wrapping_sub(STEP);
    let Some([boxed, kind]) = read_user::<[u64; 2]>(place) else {
        return NOT_A_CLIENT;
    };
    if kind != whole(client.vtable) {
        return NOT_A_CLIENT;
    }
    let future = if client.vtable_at == TokioClient::OF_TASK {
        header
    } else {
        boxed
    };
    let Some(channel) = pointer(future.wrapping_add(u64::from(client.channel))) else {
        return 0;
    };
    // An `Arc` that two hold. What a future has taken out stays in its memory until it is overwritten.
    if read_user::<[u64; 2]>(channel) != Some([2, 1]) {
        return 0;
    }
    if client.state != 0 {
        let state = read_user::<u64>(channel.wrapping_add(u64::from(client.state))).unwrap_or(0);
        if state & 1 == 0 {
            return 0;
        }
    }
    waking(channel.wrapping_add(u64::from(client.waker)), vtable)
}

/// The task that waits for this one to end, 0 if none does.
#[inline(always)]
fn joiner(header: u64, vtable: u64) -> u64 {
    match read_user::<u64>(header) {
        Some(state) if state & JOIN_WAKER != 0 => {}
        _ => return 0,
    }
    let Some(trailer) = pointer(header.wrapping_add(HEADER_VTABLE))
        .and_then(|of_task| read_user::<u64>(of_task.wrapping_add(VTABLE_OFFSETS)))
    else {
        return 0;
    };
    waking(header.wrapping_add(trailer).wrapping_add(TRAILER_WAKER), vtable)
}

/// The task that the `Option<Waker>` there wakes, 0 if it wakes something else. Sets of futures have wakers of their own, which lead to
/// the set, and that holds the waker of the task that polls it.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn waking(place: u64, vtable: u64) -> u64 {
    let Some([own, data]) = read_user::<[u64; 2]>(place) else {
        return 0;
    };
    if own == vtable {
        return data;
    }
    if own == 0 {
        return 0;
    }
    let Some(set) = pointer(data) else { return 0 };
    let Some(words) = read_user::<[u64; 10]>(set) else {
        return 0;
    };
    // Behind the two counts of an `Arc`.
    let mut found = 0;
    for at in 2..9 {
        if words[at] == vtable && found == 0 {
            found = words[at + 1];
        }
    }
    found
}

/// The id of a task, 0 if there is none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn task_id(header: u64) -> u64 {
    if header == 0 {
        return 0;
    }
    let Some(vtable) = pointer(header.wrapping_add(HEADER_VTABLE)) else {
        return 0;
    };
    let Some([trailer, scheduler, id]) = read_user::<[u64; 3]>(vtable.wrapping_add(VTABLE_OFFSETS)) else {
        return 0;
    };
    if scheduler >= id || id >= trailer || trailer > 1 << 24 {
        return 0;
    }
    read_user(header.wrapping_add(id)).unwrap_or(0)
}

/// The task that waits to read from a socket (fs/eventpoll.c: struct epitem, hung into file.f_ep), 0 if none does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn watcher(sk: u64, io_waker: u64, vtable: u64) -> u64 {
    let link = u64::from(layout::EPITEM__LINK.load());
    if link == 0 {
        return 0;
    }
    let field = |base: u64, offset: u32| {
        (base != 0)
            .then(|| read_kernel::<u64>(base.wrapping_add(u64::from(offset))))
            .flatten()
            .unwrap_or(0)
    };
    let socket = field(sk, layout::SOCK__SOCKET.load());
    let file = field(socket, layout::SOCKET__FILE.load());
    let watches = field(file, layout::FILE__EPOLL.load());
    let first = field(watches, 0);
    if first == 0 {
        return 0;
    }
    let scheduled_io = field(first.wrapping_sub(link), layout::EPITEM__DATA.load());
    match read_user::<[u64; 2]>(scheduled_io.wrapping_add(io_waker)) {
        Some([own, header]) if own == vtable => header,
        _ => 0,
    }
}

/// Keeps the words of thread-local storage that hold this id, out of those that have held the ids before. 0 if none does: another
/// task runs than the one that serves the socket; else the id.
#[inline(always)]
fn narrow(offsets: &mut TokioOffsets, id: u64) -> u64 {
    if id == 0 {
        return 0;
    }
    let first = thread_pointer().wrapping_add_signed(i64::from(offsets.tls_start));
    let holding = holding(first, u64::from(offsets.tls_words), id);
    if holding == 0 {
        return 0;
    }
    if offsets.last_id == id as u32 {
        return id;
    }
    offsets.last_id = id as u32;
    let left = holding & whole(offsets.candidates);
    let (left, agreed) = if offsets.agreed == 0 || left == 0 {
        (holding, 1)
    } else {
        (left, offsets.agreed.wrapping_add(1))
    };
    offsets.candidates = [left as u32, (left >> 32) as u32];
    offsets.agreed = agreed;
    if agreed < ENOUGH || left & left.wrapping_sub(1) != 0 {
        return id;
    }
    let mut place = 0;
    for word in 0..WINDOW {
        if left == 1 << word {
            place = word;
        }
    }
    offsets.task_id = offsets.tls_start.wrapping_add((place * STEP) as i32);
    id
}

/// The word that was found did not hold the id of the socket's task. If it never does, it is looked for once more.
#[inline(always)]
fn doubt(offsets: &mut TokioOffsets) {
    if offsets.task_id == 0 {
        return;
    }
    offsets.agreed = offsets.agreed.wrapping_add(1);
    if offsets.agreed > MAX_STRANGERS {
        offsets.task_id = 0;
        offsets.agreed = 0;
    }
}

/// Which of the words from there on hold `value`, one bit each.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn holding(first: u64, words: u64, value: u64) -> u64 {
    let mut found = 0;
    for word in 0..WINDOW {
        if word < words && read_user::<u64>(first.wrapping_add(word * STEP)) == Some(value) {
            found |= 1 << word;
        }
    }
    found
}
