//! Processes that use sockets: who they are, told while they are alive.
//!
//! Hooks, as BTF tracepoints (include/trace/events/sched.h, Linux 5.5 as BTF): `sched_process_exec(struct task_struct *p, ...)`, from
//! `exec_binprm` when the new program is in place, `sched_process_exit(struct task_struct *p, ...)`, from `do_exit`, and
//! `sched_process_fork(struct task_struct *parent, struct task_struct *child)`, from `kernel_clone` before the child runs. All run in
//! the process itself. Of forks only those that make threads are noted: a child process that uses a socket is told by [`introduce`] like any
//! other.
//!
//! Emits `PROCESS`, `EXIT` and `THREAD_END`. A process that never uses a socket makes no event, and costs one look-up when it makes
//! a thread, starts a program and ends.

use aya_ebpf::{
    helpers::generated::{
        bpf_get_current_cgroup_id, bpf_get_current_comm, bpf_get_current_task, bpf_ktime_get_ns,
        bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_probe_read_user_str,
    },
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use tracer_common::{
    COMM_BYTES, EventKind, MAX_BIRTHS, MAX_INTRODUCED, PROCESS_ARGUMENTS, PROCESS_BYTES, PROCESS_COMM,
    PROCESS_ENVIRONMENT, PROCESS_EXECUTABLE, PROCESS_PATH,
};

use crate::{
    access::{Untyped, load},
    emit::{self, Record},
    layout,
    opaque::at_most,
    unit::Thread,
};

/// Processes that user space was told of, by tgid: when they started.
#[map]
static INTRODUCED: LruHashMap<u32, u64> = LruHashMap::with_max_entries(MAX_INTRODUCED, 0);

#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(_ctx: BtfTracePointContext) -> i32 {
    let thread = Thread::current();
    if is_introduced(thread.tgid) {
        introduce(u64::from(thread.tgid), 1);
    }
    0
}

/// When a thread was made, and by which.
#[derive(Clone, Copy)]
struct Birth {
    at: u64,
    tgid: u32,
    creator: u32,
}

/// Threads of processes that were told, by tid.
#[map]
static BIRTHS: LruHashMap<u32, Birth> = LruHashMap::with_max_entries(MAX_BIRTHS, 0);

#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let creator = Thread::current();
    if is_introduced(creator.tgid) {
        born(ctx.arg(1), creator);
    }
    0
}

#[inline(always)]
fn born(child: *const u8, creator: Thread) {
    // SAFETY: the task that the tracepoint gives; the offsets are those of the fields' rows in the layout table. So below.
    let tgid: u32 = unsafe { load::<Untyped, _, _>(child, layout::TASK__TGID) };
    if tgid != creator.tgid {
        return;
    }
    // SAFETY: as above.
    let tid: u32 = unsafe { load::<Untyped, _, _>(child, layout::TASK__PID) };
    let birth = Birth {
        // SAFETY: no arguments.
        at: unsafe { bpf_ktime_get_ns() },
        tgid,
        creator: creator.tid,
    };
    let _ = BIRTHS.insert(tid, birth, 0);
}

#[btf_tracepoint(function = "sched_process_exit")]
pub fn sched_process_exit(_ctx: BtfTracePointContext) -> i32 {
    let thread = Thread::current();
    if !is_introduced(thread.tgid) {
        return 0;
    }
    if is_last_thread() {
        let _ = INTRODUCED.remove(thread.tgid);
        ended(thread, None);
        return 0;
    }
    // SAFETY: written once, before the thread ran.
    let birth = unsafe { BIRTHS.get(thread.tid) }.copied();
    if let Some(birth) = birth
        && birth.tgid == thread.tgid
    {
        let _ = BIRTHS.remove(thread.tid);
        ended(thread, Some(birth));
    }
    0
}

/// Tells user space who this process is, unless it knows. `tgid`: the current one. `exec`: 1 if it has just replaced its program.
///
/// A function of its own, whose arguments are numbers and all used: the verifier walks it once.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn introduce(tgid: u64, exec: u64) -> u64 {
    if layout::TASK__MM.load() == 0 {
        return 0; // this host's structs are not known
    }
    let tgid = tgid as u32;
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    // SAFETY: the current task; the offsets are those of the fields' rows in the layout table. The same holds below.
    let leader: *const u8 = unsafe { load::<Untyped, _, _>(task, layout::TASK__LEADER) };
    // SAFETY: as above.
    let started: u64 = unsafe { load::<Untyped, _, _>(leader, layout::TASK__STARTED) };
    // SAFETY: an entry stays memory of this map while the program runs, and is written once.
    if exec == 0 && unsafe { INTRODUCED.get(tgid) }.copied() == Some(started) {
        return 0;
    }
    // SAFETY: as above.
    let mm: *const u8 = unsafe { load::<Untyped, _, _>(task, layout::TASK__MM) };
    if mm.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let parent: *const u8 = unsafe { load::<Untyped, _, _>(leader, layout::TASK__PARENT) };
    // SAFETY: as above.
    let parent: u32 = unsafe { load::<Untyped, _, _>(parent, layout::TASK__TGID) };
    // SAFETY: no arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    let Some(mut record) = emit::reserve(PROCESS_BYTES as u64) else {
        return 0;
    };
    let arguments = texts(&record, mm);
    write(&mut record, EventKind::PROCESS, ts, Thread { tgid, tid: tgid });
    // SAFETY: ring memory reserved for a whole header, and written above.
    let fields = unsafe { &mut *record.header() };
    fields.arrival = started;
    // SAFETY: no arguments.
    fields.task = unsafe { bpf_get_current_cgroup_id() };
    fields.len = parent;
    fields.captured = PROCESS_BYTES as u32;
    fields.pos = arguments as u32;
    fields.peer_pos = (arguments >> 32) as u32;
    fields.state = exec as u8;
    record.submit();
    let _ = INTRODUCED.insert(tgid, started, 0);
    1
}

/// Writes the payload; the bytes of the arguments, and above them those of the environment.
#[inline(always)]
fn texts(record: &Record, mm: *const u8) -> u64 {
    const PLACES: [usize; 3] = [
        PROCESS_PATH - PROCESS_EXECUTABLE,
        PROCESS_ARGUMENTS - PROCESS_PATH,
        PROCESS_ENVIRONMENT - PROCESS_ARGUMENTS,
    ];
    const ENVIRONMENT: u64 = (PROCESS_BYTES - PROCESS_ENVIRONMENT) as u64;
    let [executable, path, arguments] = PLACES;
    let payload = record.payload();
    // SAFETY: the constants lie inside of the record; each place is as large as the size that goes with it. So below.
    unsafe { bpf_get_current_comm(payload.add(PROCESS_COMM).cast(), COMM_BYTES as u32) };
    // SAFETY: see `introduce`. So below.
    let file: *const u8 = unsafe { load::<Untyped, _, _>(mm, layout::MM__FILE) };
    // SAFETY: as above.
    let dentry: *const u8 = unsafe { load::<Untyped, _, _>(file, layout::FILE__DENTRY) };
    // SAFETY: as above.
    let name: u64 = unsafe { load::<Untyped, _, _>(dentry, layout::DENTRY__NAME) };
    // SAFETY: as above.
    let place = unsafe { payload.add(PROCESS_EXECUTABLE) };
    // SAFETY: as above.
    if unsafe { bpf_probe_read_kernel_str(place.cast(), executable as u32, name as *const _) } < 0 {
        // SAFETY: as above.
        unsafe { place.write(0) };
    }
    // SAFETY: as above.
    let start: u64 = unsafe { load::<Untyped, _, _>(mm, layout::MM__ARG_START) };
    // SAFETY: as above.
    let end: u64 = unsafe { load::<Untyped, _, _>(mm, layout::MM__ARG_END) };
    // SAFETY: as above.
    let given = list(
        unsafe { payload.add(PROCESS_ARGUMENTS) },
        start,
        end,
        arguments as u64,
    );
    // SAFETY: as above.
    let start: u64 = unsafe { load::<Untyped, _, _>(mm, layout::MM__ENV_START) };
    // SAFETY: as above.
    let end: u64 = unsafe { load::<Untyped, _, _>(mm, layout::MM__ENV_END) };
    // SAFETY: as above.
    let set = list(
        unsafe { payload.add(PROCESS_ENVIRONMENT) },
        start,
        end,
        ENVIRONMENT,
    );
    // The path lies behind the environment (fs/exec.c: `bprm_execve` and its callers copy it first, downwards from the stack's end).
    // SAFETY: as above.
    let place = unsafe { payload.add(PROCESS_PATH) };
    // SAFETY: as above.
    if unsafe { bpf_probe_read_user_str(place.cast(), path as u32, end as *const _) } < 0 {
        // SAFETY: as above.
        unsafe { place.write(0) };
    }
    given | set << 32
}

/// Copies what lies between two addresses of the process, at most so many bytes; how many that were.
#[inline(always)]
fn list(to: *mut u8, start: u64, end: u64, most: u64) -> u64 {
    if end <= start {
        return 0;
    }
    let len = at_most(end - start, most);
    // SAFETY: the verifier proves that `to` has room for `len` bytes.
    let failed = unsafe { bpf_probe_read_user(to.cast(), len as u32, start as *const _) };
    if failed == 0 { len } else { 0 }
}

#[inline(always)]
fn is_introduced(tgid: u32) -> bool {
    // SAFETY: only whether there is one.
    tgid != layout::OWN_TGID.load() && unsafe { INTRODUCED.get(tgid) }.is_some()
}

/// Whether no other thread of the process lives (kernel/exit.c: `do_exit` counts this one off before it tells).
#[inline(always)]
fn is_last_thread() -> bool {
    // SAFETY: no arguments.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    // SAFETY: as in `introduce`.
    let signal: *const u8 = unsafe { load::<Untyped, _, _>(task, layout::TASK__SIGNAL) };
    // SAFETY: as in `introduce`.
    let live: u32 = unsafe { load::<Untyped, _, _>(signal, layout::SIGNAL__LIVE) };
    live == 0
}

/// The thread has ended, or with it its process.
#[inline(always)]
fn ended(thread: Thread, birth: Option<Birth>) -> Option<()> {
    // SAFETY: no arguments.
    let ts = unsafe { bpf_ktime_get_ns() };
    let mut record = emit::reserve(0)?;
    match birth {
        None => write(&mut record, EventKind::EXIT, ts, thread),
        Some(birth) => {
            write(&mut record, EventKind::THREAD_END, ts, thread);
            // SAFETY: ring memory reserved for a whole header, and written above.
            let fields = unsafe { &mut *record.header() };
            fields.creator = u64::from(birth.creator);
            fields.arrival = birth.at;
        }
    }
    record.submit();
    Some(())
}

#[inline(always)]
fn write(record: &mut Record, kind: EventKind, ts: u64, thread: Thread) {
    let fields = record.blank();
    fields.ts = ts;
    fields.tgid = thread.tgid;
    fields.tid = thread.tid;
    fields.kind = kind.0;
}
