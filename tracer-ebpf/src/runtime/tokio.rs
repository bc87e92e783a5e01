//! Tasks of Rust's tokio (tokio/src/runtime/task/core.rs: Cell, Header, Vtable, Trailer).
//!
//! The running task's id lies in thread-local storage; where, the kernel side finds itself, by comparing it with the ids of the tasks
//! that wait for the sockets which are read and written. What epoll keeps for a socket is tokio's `ScheduledIo`, whose waker names the
//! task that serves the socket. A client's connection is served by a task of its own; it holds the sending half of a oneshot channel,
//! and the waker in there is that of the task which asked. A task that somebody waits for has that one's waker in its trailer.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::{MAX_AWAITERS, MAX_TOKIO_SOCKETS, RuntimeKind, TokioClient, TokioOffsets};

use super::{RUNTIMES, TASKS, Tasks, has_recipe, pointer, thread_pointer, whole};
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
const WINDOW: u64 = 64;
const STEP: u64 = 8;

/// `Header.vtable`, and `Trailer.waker`.
const HEADER_VTABLE: u64 = 16;
const TRAILER_WAKER: u64 = 16;
/// `Vtable.trailer_offset`; `scheduler_offset` and `id_offset` follow.
const VTABLE_OFFSETS: u64 = 56;
/// `JOIN_WAKER` in `Header.state` (tokio/src/runtime/task/state.rs).
const JOIN_WAKER: u64 = 1 << 4;

/// Reads the tasks into [`TASKS`]: 0 if there are none.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn read_tokio(tgid: u64, scratch: u64, sk: u64, cookie: u64) -> u64 {
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
    // SAFETY: this CPU's slot; no program that uses it runs while another one does (`crate::relay::scratch`).
    let Some(tasks) = TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })
    else {
        return 0;
    };
    tasks.task = id;
    let header = served(sk, cookie, id, offsets);
    if header != 0 {
        awaiters(header, offsets, vtable, tasks);
    }
    1
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

/// Who waits for the running task, the nearest first.
#[inline(always)]
fn awaiters(header: u64, offsets: &TokioOffsets, vtable: u64, tasks: &mut Tasks) {
    let mut next = NOT_A_CLIENT;
    for client in &offsets.clients {
        if next == NOT_A_CLIENT && client.vtable[0] != 0 {
            next = caller(header, client, vtable);
        }
    }
    if next == NOT_A_CLIENT {
        next = joiner(header, vtable);
    }
    for place in 0..MAX_AWAITERS {
        if next == 0 {
            return;
        }
        let id = task_id(next);
        if id == 0 {
            return;
        }
        tasks.awaiters[place] = id;
        next = joiner(next, vtable);
    }
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
