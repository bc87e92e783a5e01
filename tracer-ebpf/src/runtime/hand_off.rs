//! Who hands work to whom, in processes that ask for it (`RuntimeEntry::hand_offs`): pools whose threads call for others.
//!
//! Hooks, as BTF tracepoints (include/trace/events/sched.h): `sched_waking(struct task_struct *p)` and
//! `sched_wakeup_new(struct task_struct *p)`, in the context of the thread that wakes; attached only while such a process is known, on
//! kernels that tell a thread's registers (Linux 5.15). A
//! thread of a client's own pool (java.net.http.HttpClient, whose executor hands each task to a waiting thread directly) works for
//! the one that woke it last, and a new thread for the one that made it: that is kept here until it takes a connection.
//! Emits `WAKE` only for a thread that has just received or had taken a connection, and wakes another such one: one that has finished a
//! call and one that may wait for it. Of programs that have nothing but threads this alone is told, and only where a thread is known to wait for
//! replies ([`replies`]).

use aya_ebpf::{
    helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_ktime_get_ns},
    macros::{btf_tracepoint, map},
    maps::LruHashMap,
    programs::BtfTracePointContext,
};
use tracer_common::{EventFlags, EventHeader, EventKind, MAX_THREADS, RuntimeEntry, RuntimeKind};

use super::{
    RUNTIMES, in_use,
    java::{self, offers},
    replies,
};
use crate::{
    access::{Access, Typed, Untyped, load},
    buffers::read_user,
    emit, layout,
    registers::Registers,
    unit::Thread,
};

/// By thread id: threads of processes whose hand-offs are followed.
#[map]
static THREADS: LruHashMap<u32, State> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// What a thread did last, and for whom it works.
#[derive(Clone, Copy)]
#[repr(C)]
struct State {
    /// The connection (socket cookie) that it has received from; 0 if it has sent since.
    received: u64,
    /// When it was last known to run: it moved bytes, woke another thread or was woken.
    ran_at: u64,
    work: Work,
    /// The work for which it took a connection last, and its own task then.
    told: Work,
    told_task: u64,
    /// It was made by the one it works for and has done nothing yet.
    is_new: u32,
    /// It has taken a connection since it was last told that it woke somebody.
    has_taken: u32,
    /// Who has woken it last since then.
    woken_by: u32,
    /// It has received from several connections in a row.
    is_loop: u32,
}

/// Where a thread's work came from.
#[derive(Clone, Copy)]
#[repr(C)]
struct Work {
    /// That one's task, and when it handed the work over.
    task: u64,
    at: u64,
    /// The thread that handed it over (0: nobody that is known).
    by: u32,
    /// Who had handed over work before that was not seen to be used up (0: nobody), and that one's task. A wake is not always work: locks
    /// wake, too.
    before: u32,
    before_task: u64,
    /// The unit for which that one worked when it handed this over (0: none that is known), as [`tracer_common::Submitters`] names it, and since when.
    waiter: u64,
    since: u64,
}

const NO_WORK: Work = Work {
    task: 0,
    at: 0,
    by: 0,
    before: 0,
    before_task: 0,
    waiter: 0,
    since: 0,
};

/// Not a constant: that would be made on the stack wherever it is used.
#[unsafe(no_mangle)]
static NOTHING: State = State {
    received: 0,
    ran_at: 0,
    work: NO_WORK,
    told: NO_WORK,
    told_task: 0,
    is_new: 0,
    has_taken: 0,
    woken_by: 0,
    is_loop: 0,
};

/// Number of the system call `futex`.
#[cfg(bpf_target_arch = "x86_64")]
const FUTEX: u64 = 202;
#[cfg(bpf_target_arch = "aarch64")]
const FUTEX: u64 = 98;

/// Nanoseconds; no monitor of HotSpot is waited for longer at once (`MAX_RECHECK_INTERVAL`).
const LONGEST_LOCK_WAIT: u64 = 1_000_000_000;

/// How the names of the client's threads begin.
const CLIENT_THREADS: [u8; 8] = *b"HttpClie";

#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    woken(ctx.arg(0), false);
    0
}

#[btf_tracepoint(function = "sched_wakeup_new")]
pub fn sched_wakeup_new(ctx: BtfTracePointContext) -> i32 {
    woken(ctx.arg(0), true);
    0
}

/// Whether the process asks for its hand-offs.
#[inline(always)]
pub fn followed(tgid: u32) -> bool {
    entry(tgid).is_some()
}

#[inline(always)]
fn entry(tgid: u32) -> Option<&'static RuntimeEntry> {
    if !can_follow() || !in_use() {
        return None;
    }
    // SAFETY: as in `read_tasks`.
    unsafe { RUNTIMES.get(tgid) }.filter(|entry| entry.hand_offs != 0)
}

/// The current thread moved bytes: `received` is the connection they came from, 0 if they were sent.
#[inline(always)]
pub fn moved(tid: u32, received: u64, ts: u64) {
    if can_follow() {
        hand_off_moved(u64::from(tid), received, ts);
    }
}

/// A function of its own, so that its stack is not that of every program which tells of bytes.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hand_off_moved(tid: u64, received: u64, ts: u64) -> u64 {
    let tid = tid as u32;
    let known = find(tid);
    if known.is_none() && received == 0 {
        return 0;
    }
    if let Some(state) = known.or_else(|| add(tid)) {
        if state.received != 0 && received != 0 && state.received != received {
            state.is_loop = 1;
        }
        state.received = received;
        state.ran_at = ts;
    }
    0
}

/// Whether this kernel has what [`woken`] needs. Where it does not (before Linux 5.15), verifiers do not get through all of this either.
#[inline(always)]
fn can_follow() -> bool {
    layout::HAS_TASK_REGISTERS.load() != 0
}

/// The current thread takes a connection: tells who handed it its work, which is used up by that. Returns flags.
#[inline(always)]
pub fn take(thread: Thread, fields: &mut EventHeader) -> u16 {
    if !can_follow() {
        return 0;
    }
    let flags = hand_off_take(u64::from(thread.tgid) << 32 | u64::from(thread.tid)) as u16;
    if flags != 0
        && let Some(state) = find(thread.tid)
    {
        let work = &state.told;
        fields.task = state.told_task;
        fields.len = work.by;
        fields.creator = work.task;
        fields.arrival = work.at;
        fields.awaiters = [u64::from(work.before), work.before_task, work.waiter, work.since];
    }
    flags
}

/// Does that, but for the header; 0 if the process does not ask for its hand-offs. `thread` is its thread group and its own id.
///
/// A function of its own, whose argument is a number: the verifier walks it once, not for every way in which it is reached.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn hand_off_take(thread: u64) -> u64 {
    if !can_follow() {
        return 0;
    }
    // SAFETY: as in `read_tasks`.
    let Some(entry) = (unsafe { RUNTIMES.get((thread >> 32) as u32) }) else {
        return 0;
    };
    if entry.hand_offs == 0 || entry.kind == RuntimeKind::THREADS.0 {
        return 0;
    }
    let tid = thread as u32;
    if let Some(state) = find(tid).or_else(|| add(tid)) {
        state.told = state.work;
        state.told_task = java::virtual_thread(&entry.java);
        used_up(state);
        state.has_taken = 1;
    }
    if current_is_client_thread() {
        u64::from(EventFlags::TAKEN | EventFlags::CLIENT_THREAD)
    } else {
        u64::from(EventFlags::TAKEN)
    }
}

#[inline(always)]
fn find(tid: u32) -> Option<&'static mut State> {
    // SAFETY: an entry stays memory of this map while the program runs; fields may change under us, and each is a fact
    // of its own.
    THREADS.get_ptr_mut(tid).map(|state| unsafe { &mut *state })
}

/// A thread of which nothing is known yet.
#[inline(always)]
fn add(tid: u32) -> Option<&'static mut State> {
    let _ = THREADS.insert(tid, &NOTHING, 0);
    find(tid)
}

#[inline(always)]
fn used_up(state: &mut State) {
    state.work = NO_WORK;
    state.is_new = 0;
}

/// `task` is typed, if `A` is.
#[inline(always)]
fn is_client_thread<A: Access>(task: *const u8) -> bool {
    // SAFETY: the first half of the name of a task, which is typed if it has to be.
    let name: u64 = unsafe { load::<A, _, _>(task, layout::TASK__COMM) };
    name == u64::from_ne_bytes(CLIENT_THREADS)
}

#[inline(always)]
pub fn current_is_client_thread() -> bool {
    if layout::HAS_TASK_BTF.load() != 0 {
        // SAFETY: no arguments.
        is_client_thread::<Typed>(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    } else {
        // SAFETY: no arguments.
        is_client_thread::<Untyped>(unsafe { bpf_get_current_task() } as *const u8)
    }
}

#[inline(always)]
fn woken(target: *const u8, is_new: bool) -> Option<()> {
    let thread = Thread::current();
    // SAFETY: the argument of both prototypes, typed.
    let tgid: u32 = unsafe { load::<Typed, _, _>(target, layout::TASK__TGID) };
    if thread.tgid != tgid {
        return None;
    }
    let only_threads = entry(tgid)?.kind == RuntimeKind::THREADS.0;
    // SAFETY: as above.
    let tid: u32 = unsafe { load::<Typed, _, _>(target, layout::TASK__PID) };
    if tid == thread.tid {
        return None;
    }
    // An interrupt that wakes a thread knows nothing of the one that it interrupted.
    if !is_new && Registers::current().number() != FUTEX {
        return None;
    }
    if only_threads {
        return if is_new {
            None
        } else {
            replied(thread, tid, target)
        };
    }
    let client = is_client_thread::<Typed>(target);
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let client_wakes = current_is_client_thread();
    let known = find(tid);
    let starts = known
        .as_ref()
        .is_some_and(|state| state.is_new != 0 && state.work.by == thread.tid);
    if is_new || starts {
        return hand_over(thread, tid, is_new, now);
    }
    if client && waits_for_work(target, now) {
        // SAFETY: as above.
        let control: u64 = unsafe { load::<Typed, _, _>(target, layout::TASK__THREAD_POINTER) };
        return match offers::java_offers(u64::from(tgid), control) {
            offers::UNKNOWN => hand_over(thread, tid, false, now),
            offers::OWN => {
                if let Some(state) = known {
                    used_up(state); // the work before is done, else it would not wait
                }
                hand_over(thread, tid, false, now)
            }
            _ => {
                if let Some(state) = known {
                    used_up(state);
                }
                None
            }
        };
    }
    if client {
        return None;
    }
    let waker = find(thread.tid)?;
    let may_wait = known
        .as_ref()
        .is_some_and(|state| state.received != 0 || state.has_taken != 0);
    let (before, asleep_since) = run(waker, thread.tid, known, now);
    if client_wakes {
        // What it was woken for is done.
        used_up(waker);
        return None;
    }
    if waker.received == 0 && waker.has_taken == 0 || !may_wait {
        return None;
    }
    tell(thread, tid, before, asleep_since, now)
}

/// One thread of a program that has nothing but threads wakes another.
#[inline(always)]
fn replied(thread: Thread, tid: u32, target: *const u8) -> Option<()> {
    // SAFETY: the typed argument of the tracepoint.
    let registers = unsafe { Registers::of(target) };
    let is_reply =
        registers.number() == FUTEX && replies::is_reply(thread.tgid, registers.argument::<0>(), tid);
    let waker = find(thread.tid)?;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    let (before, asleep_since) = run(waker, thread.tid, find(tid), now);
    if !is_reply || waker.received == 0 {
        return None;
    }
    tell(thread, tid, before, asleep_since, now)
}

/// Notes that a thread wakes another one, given by what is known of both. Returns who had woken the first one before, and since when the other
/// one slept.
#[inline(always)]
fn run(waker: &mut State, tid: u32, woken: Option<&mut State>, now: u64) -> (u32, u64) {
    let before = waker.woken_by;
    waker.ran_at = now;
    let mut asleep_since = 0;
    if let Some(state) = woken {
        asleep_since = state.ran_at;
        state.ran_at = now;
        state.woken_by = tid;
    }
    (before, asleep_since)
}

/// Whether a thread of the client's pool waits for work: for up to a minute (`keepAliveTime` of `Executors.newCachedThreadPool`), where for
/// locks threads wait without end, or look again within a second (HotSpot's monitors).
#[inline(always)]
fn waits_for_work(target: *const u8, now: u64) -> bool {
    // SAFETY: the typed argument of the tracepoint.
    let registers = unsafe { Registers::of(target) };
    if registers.number() != FUTEX {
        return false;
    }
    // A `struct timespec` on the monotonic clock, in memory that the two threads share.
    let Some([seconds, nanoseconds]) = read_user::<[u64; 2]>(registers.argument::<3>()) else {
        return false;
    };
    let until = seconds.wrapping_mul(1_000_000_000).wrapping_add(nanoseconds);
    until.wrapping_sub(now.wrapping_add(LONGEST_LOCK_WAIT)) <= i64::MAX as u64
}

/// The current thread hands work to the thread `tid`; one that it has just made it wakes once more, to start.
#[inline(always)]
fn hand_over(thread: Thread, tid: u32, is_new: bool, now: u64) -> Option<()> {
    // SAFETY: as in `read_tasks`.
    let entry = unsafe { RUNTIMES.get(thread.tgid) }?;
    let mut work = Work {
        task: java::virtual_thread(&entry.java),
        at: now,
        by: thread.tid,
        ..NO_WORK
    };
    // A virtual thread has a stack of its own, and who has read from a connection serves requests, as far as is known: their work is their own.
    if work.task == 0 {
        let both = u64::from(thread.tgid) << 32 | u64::from(thread.tid);
        let waker = find(thread.tid);
        let received = waker.as_ref().map_or(0, |waker| waker.received);
        let is_loop = waker.is_some_and(|waker| waker.is_loop != 0) && !current_is_client_thread();
        (work.waiter, work.since) = if is_loop {
            java::stages::served_by_loop(both, received)
        } else {
            java::stages::served(both, received != 0)
        };
    }
    if let Some(target) = find(tid).or_else(|| add(tid)) {
        let former = &target.work;
        (work.before, work.before_task) = if former.by != 0 && former.by != thread.tid {
            (former.by, former.task)
        } else {
            (former.before, former.before_task)
        };
        target.work = work;
        target.is_new = u32::from(is_new);
    }
    Some(())
}

#[inline(always)]
fn tell(thread: Thread, woken: u32, before: u32, asleep_since: u64, now: u64) -> Option<()> {
    let waker = find(thread.tid)?;
    waker.has_taken = 0;
    waker.woken_by = 0;
    let mut record = emit::reserve(0)?;
    let fields = record.blank();
    fields.ts = now;
    fields.tgid = thread.tgid;
    fields.tid = thread.tid;
    fields.len = woken;
    fields.creator = u64::from(before);
    fields.arrival = asleep_since;
    fields.kind = EventKind::WAKE.0;
    record.submit();
    Some(())
}
