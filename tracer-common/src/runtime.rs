//! Where the kernel side finds the execution unit of a process's runtime (`RUNTIMES`, keyed by tgid).

/// Which recipe reads the execution unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct RuntimeKind(pub u32);

impl RuntimeKind {
    /// Go: `g` from thread-local storage, goroutine ids from `g`.
    pub const GO: Self = Self(1);
    /// Java on HotSpot: the `JavaThread` from thread-local storage, the virtual thread mounted on it from there.
    pub const JAVA: Self = Self(2);
}

/// Offsets into Go's runtime structures, all in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct GoOffsets {
    /// `g` lies at the thread pointer plus this (negative on x86_64).
    pub g_tls: i32,
    /// `runtime.g.goid`.
    pub goid: u32,
    /// `runtime.g.parentGoid`; 0 where the version has none (before Go 1.21).
    pub parent_goid: u32,
    /// `runtime.g.stack.hi`.
    pub stack_hi: u32,
    /// The write-error channel of `net/http.(*persistConn).writeLoop` lies this far below `stack.hi`; 0 = not known.
    pub write_loop_chan: u32,
    /// `runtime.hchan.recvq.first`.
    pub chan_recvq: u32,
}

/// Offsets into HotSpot's structures, all in bytes. A virtual thread is told by [`Self::owner_id`] or else, if
/// [`Self::tid`] is not 0, by the two objects of its thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct JavaOffsets {
    /// The pointer to libjvm's thread-local storage lies this far into the thread's vector of such pointers (its `dtv`).
    pub tls_block: u32,
    /// `Thread::_thr_current` in libjvm's thread-local storage.
    pub thread: u32,
    /// `JavaThread::_cont_entry`: not 0 while a continuation runs (from JDK 24 on).
    pub continuation: u32,
    /// `JavaThread::_monitor_owner_id`: `threadId()` of what is mounted; 0 where the version has none.
    pub owner_id: u32,
    /// `JavaThread::_vthread`: handle of the thread that Java code sees as the current one.
    pub current: u32,
    /// `JavaThread::_threadObj`: handle of the platform thread.
    pub carrier: u32,
    /// `java.lang.Thread.tid` in its objects; 0 if not used.
    pub tid: u32,
}

/// Value of the runtime table: the kind, and the offsets for that kind; those for the others are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RuntimeEntry {
    /// [`RuntimeKind`].
    pub kind: u32,
    /// Offsets for [`RuntimeKind::GO`].
    pub go: GoOffsets,
    /// Offsets for [`RuntimeKind::JAVA`]; all 0 where there are no virtual threads.
    pub java: JavaOffsets,
}

const _: () = assert!(core::mem::size_of::<RuntimeEntry>() == 56);
