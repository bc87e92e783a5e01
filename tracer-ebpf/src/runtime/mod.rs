//! Tasks of language runtimes: what runs on the thread that moves bytes, and who waits for it. One file per runtime.
//!
//! Everything is read from the process's own memory, at offsets that user space verified for that process (`RUNTIMES`). A
//! step that fails or finds nothing plausible leaves zeros.

mod go;
pub mod hand_off;
mod held;
pub mod java;
mod node;
pub mod python;
mod replies;
mod tokio;

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_user},
    macros::map,
    maps::{HashMap, PerCpuArray},
};
use tracer_common::{
    Direction, EventFlags, MAX_AWAITERS, MAX_RUNTIMES, RuntimeEntry, RuntimeKind, Submitters, THREAD_UNIT,
    Turn,
};

use crate::{
    access::{Typed, Untyped, load},
    buffers::{Find, read_user},
    flag::Flag,
    layout, relay,
    unit::Thread,
};

/// By tgid.
#[map]
static RUNTIMES: HashMap<u32, RuntimeEntry> = HashMap::with_max_entries(MAX_RUNTIMES, 0);

/// How many entries `RUNTIMES` has: nobody is looked up while there is none.
#[unsafe(link_section = ".data.runtimes")]
#[unsafe(no_mangle)]
static RUNTIMES_IN_USE: Flag = Flag::new();

/// What [`read_tasks`] found. By [`crate::message::Moved::scratch`], like the scratch memory of payloads.
#[map]
static TASKS: PerCpuArray<Tasks> = PerCpuArray::with_max_entries(2, 0);

/// The running task and those that wait for it, as [`tracer_common::EventHeader`] tells them; zeros if not known.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tasks {
    pub task: u64,
    pub creator: u64,
    pub awaiters: [u64; MAX_AWAITERS],
    /// Address of the socket.
    socket: u64,
    /// Address of what `creator` created.
    outermost: u64,
    /// Where the part of its stack lies that is in use.
    stack: [u64; 2],
    /// Address of the place where the one that waits for it was found, if that one has not created it; 0 = none.
    place: u64,
    /// Addresses where somebody may wait or will, what is there (one number for each type), and who waits there (0: nobody yet).
    places: [u64; PLACES],
    kinds: [u64; PLACES],
    waiting: [u64; PLACES],
    /// Bytes of a value of the channel that was found last.
    size: u64,
    /// 1: there are too many of them.
    many: u64,
    /// Who sent the job that is worked on (its id), and when it was first seen to.
    sent_by: [u64; 2],
    /// Who waits to send the next job (a `sudog`), the size of jobs, and that of what they point to if they are pointers.
    sender: u64,
    job: u64,
    pointed: u64,
    /// What was read last.
    words: [u64; WORDS],
    /// A part of a stack.
    frame: [u64; FRAME],
    /// An object.
    object: [u64; OBJECT],
    /// Addresses of objects.
    held: [u64; HELD],
    /// 0: they lie in the frame. Else objects of the frame hold them.
    members: u64,
    /// [`EventFlags::TURN`], [`EventFlags::SUBMITTED`], [`EventFlags::HELD`], or nothing.
    pub flags: u64,
}

/// Words of a process's memory that are read at once.
const WORDS: usize = 4;
/// Words at the top of a stack that are looked at: the frame of the task's own function.
const FRAME: usize = 32;
/// Places that are looked at.
const PLACES: usize = 3;
/// Words of an object that are looked at.
const OBJECT: usize = 8;
/// Objects that are looked at.
const HELD: usize = 2 * FRAME;

impl Tasks {
    /// Forgets what was found.
    #[inline(always)]
    fn clear(&mut self) {
        self.task = 0;
        self.creator = 0;
        self.awaiters = [0; MAX_AWAITERS];
        self.flags = 0;
    }

    /// Reads words of the current process's memory without taking any of the stack.
    #[inline(always)]
    fn read<const N: usize>(&mut self, address: u64) -> Option<[u64; N]> {
        const { assert!(N <= WORDS) };
        // SAFETY: there is room for so many words; the helper refuses bad addresses.
        let failed =
            unsafe { bpf_probe_read_user(self.words.as_mut_ptr().cast(), 8 * N as u32, address as *const _) };
        (failed == 0).then(|| core::array::from_fn(|word| self.words[word]))
    }

    #[inline(always)]
    fn turn(&mut self, turn: Turn) {
        self.awaiters = turn.pack();
        self.flags = u64::from(EventFlags::TURN);
    }

    #[inline(always)]
    fn held(&mut self, since: u64) {
        if self.flags == 0 || since < self.creator {
            self.creator = since;
        }
        self.flags = u64::from(EventFlags::HELD);
    }

    /// A unit waits for what the thread works on, as [`Submitters`] names it; 0 = none that is known. `at`: it did so then. `before`: it was
    /// seen to have what lies there, too.
    #[inline(always)]
    fn awaited(&mut self, by: u64, at: u64, [before, before_at]: [u64; 2]) {
        if by == 0 {
            return;
        }
        if self.task == 0 {
            self.submitted(Submitters {
                by,
                at,
                before,
                before_at,
            });
        } else if by & THREAD_UNIT == 0 {
            self.awaiters[0] = by;
        }
    }

    #[inline(always)]
    fn submitted(&mut self, by: Submitters) {
        self.awaiters = by.pack();
        self.flags = u64::from(EventFlags::SUBMITTED);
    }
}

/// Whether any process has a runtime that is known.
#[inline(always)]
pub fn in_use() -> bool {
    // Where nothing is read, the verifier need not walk what would.
    layout::RECIPES.load() != 0 && RUNTIMES_IN_USE.is_set()
}

#[inline(always)]
/// Whether its tasks are read. The verifier does not walk what a constant rules out: user space leaves out what this kernel's does not take.
fn has_recipe(kind: RuntimeKind) -> bool {
    layout::RECIPES.load() & kind.bit() != 0
}

/// The entry of a process; `None` as well if nothing is read of that runtime, so that the verifier does not walk what follows.
#[inline(always)]
fn entry(tgid: u64, kind: RuntimeKind) -> Option<&'static RuntimeEntry> {
    if !has_recipe(kind) {
        return None;
    }
    // SAFETY: as in `read_tasks`.
    unsafe { RUNTIMES.get(tgid as u32) }
}

/// The runtime's tasks on this thread, which is the current one and has moved bytes over that socket; `None` if it has no runtime
/// that is known.
#[inline(always)]
pub fn tasks<P: Find>(thread: Thread, scratch: u32, sk: *const u8, cookie: u64) -> Option<&'static Tasks> {
    if !in_use() {
        return None;
    }
    // SAFETY: as in `read_tasks`.
    let tasks = unsafe { &mut *TASKS.get_ptr_mut(scratch)? };
    // The verifier knows this as a pointer, which a function of numbers does not take, until it has been in a map.
    // SAFETY: a field of the entry.
    unsafe { core::ptr::write_volatile(&raw mut tasks.socket, sk as u64) };
    // SAFETY: as above.
    let sk = unsafe { core::ptr::read_volatile(&raw const tasks.socket) };
    let both = u64::from(thread.tgid) << 32 | u64::from(thread.tid);
    let scratch = u64::from(scratch);
    let found = match read_tasks(both, scratch) {
        // Not from there: the stacks of all that are called would be too large together.
        OF_GO => go::find(both >> 32, scratch, cookie, P::FOLLOWS_WAITERS),
        OF_TOKIO => tokio::find(both, scratch, sk, cookie),
        OF_PYTHON if P::FOLLOWS_WAITERS => python::find(both, scratch, cookie),
        OF_PYTHON => 0,
        OF_JAVA => {
            // A client's own threads work for whoever asks.
            if P::FOLLOWS_WAITERS && !hand_off::current_is_client_thread() {
                let by = java::waits::java_waiter(both, scratch);
                tasks.awaited(by, java::waits::since(scratch), java::held::places(scratch));
                if by == 0 && tasks.task == 0 {
                    let (place, since) = java::jobs::place_of_current(both, scratch);
                    tasks.awaited(place, since, [0; 2]);
                }
                if relay::direction(scratch) == Direction::Recv as u64 {
                    java::reads::java_read(both, scratch, cookie);
                }
            }
            1
        }
        OF_NODE => {
            if P::FOLLOWS_WAITERS && relay::direction(scratch) == Direction::Send as u64 {
                tasks.task = node::node_waiting(both >> 32, scratch);
            }
            1
        }
        found => found,
    };
    (found != 0).then_some(tasks)
}

/// The turn of the current thread's event loop, if its process is one whose loops are watched; without the socket, as it moves no
/// bytes.
#[inline(always)]
pub fn turn(thread: Thread) -> Option<Turn> {
    if !in_use() {
        return None;
    }
    // SAFETY: as in `read_tasks`.
    let entry = unsafe { RUNTIMES.get(thread.tgid) }?;
    if !has_recipe(RuntimeKind::NODE) || entry.kind != RuntimeKind::NODE.0 {
        return None;
    }
    node::read(&entry.node, false).map(|(turn, _)| turn)
}

/// What [`read_tasks`] leaves to other functions.
const OF_GO: u64 = 2;
const OF_TOKIO: u64 = 3;
const OF_PYTHON: u64 = 4;
const OF_JAVA: u64 = 5;
const OF_NODE: u64 = 6;

/// Reads the tasks on the current thread into [`TASKS`]: 0 if there are none, one of the `OF_` constants if another function has to read
/// them. `thread` is its thread group and its own id, as `bpf_get_current_pid_tgid` tells them. A function of its own, whose
/// arguments are numbers and all used: the verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_tasks(thread: u64, scratch: u64) -> u64 {
    // SAFETY: entries are replaced as a whole by user space; a torn one gives an offset that leads nowhere, and every
    // read through it is checked.
    let Some(entry) = (unsafe { RUNTIMES.get((thread >> 32) as u32) }) else {
        return 0;
    };
    // SAFETY: this CPU's slot; no program that uses it runs while another one does (`crate::relay::scratch`).
    let Some(tasks) = TASKS
        .get_ptr_mut(scratch as u32)
        .map(|tasks| unsafe { &mut *tasks })
    else {
        return 0;
    };
    tasks.clear();
    if entry.kind == RuntimeKind::GO.0 {
        return OF_GO;
    }
    if has_recipe(RuntimeKind::JAVA) && entry.kind == RuntimeKind::JAVA.0 {
        tasks.task = java::virtual_thread(&entry.java);
        return OF_JAVA;
    }
    if entry.kind == RuntimeKind::TOKIO.0 {
        return OF_TOKIO;
    }
    if has_recipe(RuntimeKind::NODE)
        && entry.kind == RuntimeKind::NODE.0
        && let Some((turn, origin)) = node::read(&entry.node, true)
    {
        tasks.turn(turn);
        if entry.node.heap.socket_id == 0 || origin.wrap == 0 {
            return 1;
        }
        tasks.stack = [origin.wrap, origin.id];
        tasks.place = origin.native;
        return OF_NODE;
    }
    if entry.kind == RuntimeKind::PYTHON.0 {
        python::prepare(&entry.python, scratch);
        return OF_PYTHON;
    }
    u64::from(entry.kind == RuntimeKind::THREADS.0)
}

/// The current thread's pointer to its thread-local storage (`task_struct.thread.fsbase` on x86_64).
#[inline(always)]
fn thread_pointer() -> u64 {
    if layout::HAS_TASK_BTF.load() != 0 {
        // SAFETY: no arguments.
        let task: *const u8 = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
        // SAFETY: the current task is typed.
        unsafe { load::<Typed, _, _>(task, layout::TASK__THREAD_POINTER) }
    } else {
        // SAFETY: no arguments.
        let task = unsafe { bpf_get_current_task() } as *const u8;
        // SAFETY: any address will do.
        unsafe { load::<Untyped, _, _>(task, layout::TASK__THREAD_POINTER) }
    }
}

/// A pointer to 8-byte aligned user memory. Whatever else lies there is no pointer to what we look for.
#[inline(always)]
fn pointer(address: u64) -> Option<u64> {
    let value = read_user::<u64>(address)?;
    (value >= 4096 && value >> 56 == 0 && value % 8 == 0).then_some(value)
}

/// A 64-bit value told as halves, the lower one first.
#[inline(always)]
fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}
