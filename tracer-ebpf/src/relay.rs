//! Stand-ins for programs that are preempted.
//!
//! The kernel does not run a program on a CPU where it is under way already (`prog->active` in include/linux/bpf.h:
//! `bpf_prog_get_recursion_context`; asked by kernel/trace/bpf_trace.c: `__bpf_trace_run` and kernel/bpf/trampoline.c:
//! `__bpf_prog_enter_recur`). Where a program can be preempted, the messages of every thread that runs there meanwhile would be
//! lost: those of a whole time slice. That is so at the ends of functions if the kernel preempts itself, and since Linux 7.0 at
//! tracepoints too (include/linux/tracepoint.h guards the call by SRCU, and no longer by disabling preemption).
//!
//! So there each program that sees messages has stand-ins, attached so that they are called after it: the first of them that is not
//! under way itself does the work. That of a thread's message has been done stands in [`TOLD`], by thread: the thread may
//! move to another CPU between two of them. Elsewhere nothing of all this is attached, and the programs do not ask.

use aya_ebpf::{macros::map, maps::Array};
use tracer_common::Direction;

use crate::{layout, unit::Thread};

/// By thread: itself from the moment when its message is told until the last stand-in has been called. User space makes it as
/// large as [`SLOTS`] if there are stand-ins.
#[map]
static TOLD: Array<u32> = Array::with_max_entries(1, 0);

/// Threads that share a slot take each other for untold at worst, and only while both are between two programs.
const SLOTS: u32 = tracer_common::TOLD_SLOTS;

/// Which of the programs at a hook this is, in the order in which they are called.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Place {
    First = 0,
    Second = 1,
    Last = 2,
}

impl Place {
    /// Whether the program at this place does the work; notes that it will.
    #[inline(always)]
    pub fn takes_over(self) -> bool {
        if !is_preempted() {
            return self == Self::First;
        }
        let thread = Thread::current().tid;
        let Some(slot) = TOLD.get_ptr_mut(slot(thread)) else {
            return self == Self::First;
        };
        // SAFETY: an element of the array, as below. Only this thread writes itself into it.
        let told = unsafe { slot.read_volatile() } == thread;
        let (due, after) = match self {
            Self::First => (true, thread),
            Self::Second => (!told, thread),
            Self::Last => (!told, 0),
        };
        // SAFETY: as above.
        unsafe { slot.write_volatile(after) };
        due
    }
}

/// Neighbours, which are often threads of one process, lie in different cache lines.
#[inline(always)]
fn slot(thread: u32) -> u32 {
    const LINES: u32 = SLOTS / 8;
    (thread % LINES) * 8 + thread / LINES % 8
}

/// The number of a program's scratch memory: programs that may run while another one is preempted have scratch memory of their own.
/// Where none is preempted, those of one direction share one. `number`: of the program, among those of its direction.
#[inline(always)]
pub fn scratch(number: u32, direction: Direction) -> u32 {
    if is_preempted() {
        number * 2 + direction as u32
    } else {
        direction as u32
    }
}

/// The direction of which that is the number.
#[inline(always)]
pub fn direction(scratch: u64) -> u64 {
    scratch & 1
}

/// Whether programs are preempted.
#[inline(always)]
pub fn is_preempted() -> bool {
    layout::HAS_STAND_INS.load() != 0
}
