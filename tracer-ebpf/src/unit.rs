//! The execution unit: the thread, and the runtime's own task where a process is known to have them.
//!
//! Everything is read from the process's own memory, at offsets that user space verified for that binary. A step that
//! fails or finds nothing plausible leaves zeros.

use aya_ebpf::{
    Global,
    helpers::generated::{bpf_get_current_pid_tgid, bpf_get_current_task, bpf_get_current_task_btf},
    macros::map,
    maps::{Array, HashMap, PerCpuArray},
};
use tracer_common::{Direction, GoOffsets, MAX_RUNTIMES, RuntimeEntry, RuntimeKind};

use crate::{
    access::{Typed, Untyped, load},
    buffers::read_user,
    layout,
};

/// Whether this kernel has `bpf_get_current_task_btf` (Linux 5.11).
#[unsafe(no_mangle)]
pub static HAS_TASK_BTF: Global<u32> = Global::new(1);

/// By tgid.
#[map]
static RUNTIMES: HashMap<u32, RuntimeEntry> = HashMap::with_max_entries(MAX_RUNTIMES, 0);

/// How many entries `RUNTIMES` has: nobody is looked up while there is none.
#[map]
static RUNTIMES_IN_USE: Array<u32> = Array::with_max_entries(1, 0);

/// Thread group and thread.
#[derive(Clone, Copy)]
pub struct Thread {
    pub tgid: u32,
    pub tid: u32,
}

/// A task of a runtime and who made it; zeros if not known.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Task {
    pub id: u64,
    pub parent: u64,
}

impl Task {
    pub const NONE: Self = Self { id: 0, parent: 0 };
}

/// The running task, and the one on whose behalf it writes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Tasks {
    pub running: Task,
    pub caller: Task,
}

impl Tasks {
    pub const NONE: Self = Self {
        running: Task::NONE,
        caller: Task::NONE,
    };
}

impl Thread {
    /// The current one.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: no arguments.
        let both = unsafe { bpf_get_current_pid_tgid() };
        Self {
            tgid: (both >> 32) as u32,
            tid: both as u32,
        }
    }

    /// The runtime's tasks on this thread, which is the current one; `None` if it has no runtime that is known.
    #[inline(always)]
    pub fn tasks(self, direction: Direction) -> Option<&'static Tasks> {
        match RUNTIMES_IN_USE.get(0) {
            Some(0) | None => return None,
            Some(_) => {}
        }
        if read_tasks(u64::from(self.tgid), direction as u64) == 0 {
            return None;
        }
        // SAFETY: as in `read_tasks`.
        TASKS.get_ptr(direction as u32).map(|tasks| unsafe { &*tasks })
    }
}

/// What [`read_tasks`] found. One for each direction: their programs may interrupt each other.
#[map]
static TASKS: PerCpuArray<Tasks> = PerCpuArray::with_max_entries(2, 0);

/// Reads the tasks on the current thread, of the process `tgid`, into [`TASKS`]: 0 if there are none. A function of its own,
/// whose arguments are numbers: the verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn read_tasks(tgid: u64, direction: u64) -> u64 {
    // SAFETY: entries are replaced as a whole by user space; a torn one gives an offset that leads nowhere, and every
    // read through it is checked.
    let Some(entry) = (unsafe { RUNTIMES.get(tgid as u32) }) else {
        return 0;
    };
    // SAFETY: this CPU's slot; only the program of that direction uses it, and a program does not interrupt itself.
    let Some(tasks) = TASKS
        .get_ptr_mut(direction as u32)
        .map(|tasks| unsafe { &mut *tasks })
    else {
        return 0;
    };
    if entry.kind != RuntimeKind::GO.0 {
        return 0;
    }
    *tasks = go(&entry.go, direction);
    1
}

/// Goroutines (runtime/runtime2.go: g, hchan, sudog). A pooled HTTP client writes on the connection's `writeLoop`; who asked
/// waits for that goroutine's write-error channel.
#[inline(always)]
fn go(offsets: &GoOffsets, direction: u64) -> Tasks {
    let thread_pointer: u64 = if HAS_TASK_BTF.load() != 0 {
        // SAFETY: no arguments.
        let task: *const u8 = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
        // SAFETY: the current task is typed.
        unsafe { load::<Typed, _>(task, &layout::TASK__THREAD_POINTER) }
    } else {
        // SAFETY: no arguments.
        let task = unsafe { bpf_get_current_task() } as *const u8;
        // SAFETY: any address will do.
        unsafe { load::<Untyped, _>(task, &layout::TASK__THREAD_POINTER) }
    };
    let slot = thread_pointer.wrapping_add_signed(i64::from(offsets.g_tls));
    let Some(g) = pointer(slot) else {
        return Tasks::NONE;
    };
    let running = goroutine(g, offsets);
    let mut caller = Task::NONE;
    if direction == Direction::Send as u64 && offsets.write_loop_chan != 0 {
        caller = waiter(g, offsets).unwrap_or(Task::NONE);
    }
    Tasks { running, caller }
}

/// The goroutine that waits to receive from the channel kept at the top of `g`'s stack.
#[inline(always)]
fn waiter(g: u64, offsets: &GoOffsets) -> Option<Task> {
    let top = pointer(g.wrapping_add(u64::from(offsets.stack_hi)))?;
    let channel = pointer(top.wrapping_sub(u64::from(offsets.write_loop_chan)))?;
    let sudog = pointer(channel.wrapping_add(u64::from(offsets.chan_recvq)))?;
    // runtime.sudog.g is its first field.
    let caller = pointer(sudog)?;
    (caller != g).then(|| goroutine(caller, offsets))
}

#[inline(always)]
fn goroutine(g: u64, offsets: &GoOffsets) -> Task {
    let id = read_user(g.wrapping_add(u64::from(offsets.goid))).unwrap_or(0);
    let parent = if offsets.parent_goid == 0 {
        0
    } else {
        read_user(g.wrapping_add(u64::from(offsets.parent_goid))).unwrap_or(0)
    };
    Task { id, parent }
}

/// A pointer to 8-byte aligned user memory. Whatever else lies there is no pointer to what we look for.
#[inline(always)]
fn pointer(address: u64) -> Option<u64> {
    let value = read_user::<u64>(address)?;
    (value >= 4096 && value >> 56 == 0 && value % 8 == 0).then_some(value)
}
