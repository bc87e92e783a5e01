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
    /// Rust's tokio: task ids from thread-local storage, waiting tasks from their wakers.
    pub const TOKIO: Self = Self(5);
    /// Node.js: the ids of asynchronous resources, from the environment of the thread's isolate.
    pub const NODE: Self = Self(6);
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
    /// The address that a semaphore's waiter waits for, in `runtime.sudog`.
    pub sudog_elem: u32,
    /// Address of `runtime.semtable`, the lower half first; 0 = not known.
    pub semtable: [u32; 2],
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

/// Types of futures that serve a client's connection, at most.
pub const MAX_TOKIO_CLIENTS: usize = 2;

/// Where tokio's tasks lie, in all versions from 1.30 to 1.54 alike as far as it is not told here. 64-bit values are told as halves,
/// the lower one first.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct TokioOffsets {
    /// Thread-local storage in which the id of the running task is looked for: first byte, relative to the thread pointer.
    pub tls_start: i32,
    /// 64-bit words of it, at most 64.
    pub tls_words: u32,
    /// Address of `tokio::runtime::task::waker::WAKER_VTABLE`; 0 = not known yet.
    pub waker_vtable: [u32; 2],
    /// The reader's `Option<Waker>` in `ScheduledIo`, which is what epoll keeps for a socket.
    pub io_waker: u32,
    /// Where tasks that serve a client's connection find who asked.
    pub clients: [TokioClient; MAX_TOKIO_CLIENTS],
    /// The kernel side's own: where the id of the running task was found, relative to the thread pointer; 0 = not yet.
    pub task_id: i32,
    /// The kernel side's own: words of the storage that have held the task's id each time so far, one bit each.
    pub candidates: [u32; 2],
    /// The kernel side's own: how often that was.
    pub agreed: u32,
    /// The kernel side's own: the lower half of the id that was compared last.
    pub last_id: u32,
}

/// A type of future that serves a client's connection: it keeps the sending half of a `tokio::sync::oneshot`, for whose other half
/// the caller waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct TokioClient {
    /// Address of the vtable by which the type is known; 0 = none.
    pub vtable: [u32; 2],
    /// Where a task has this address: [`TokioClient::OF_TASK`], or behind the pointer to its boxed future.
    pub vtable_at: u32,
    /// Where the future (or the task) has the pointer to the channel.
    pub channel: u32,
    /// The receiver's waker in the channel.
    pub waker: u32,
    /// The channel's state, whose lowest bit says that there is a waker; 0 = not known.
    pub state: u32,
}

impl TokioClient {
    /// The vtable of the task itself: the future is a part of it.
    pub const OF_TASK: u32 = 16;
}

/// Offsets into V8's and Node's structures, in bytes (x86_64).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct NodeOffsets {
    /// The pointer to the thread's `v8::internal::Isolate` lies at the thread pointer plus this.
    pub isolate_tls: i32,
    /// In the isolate: the current context.
    pub context: u32,
    /// In the tagged native context: the array of embedder data (the tag taken off).
    pub embedder_data: u32,
    /// In this array: `node::Environment *`, likewise.
    pub environment: u32,
    /// In the environment: `AsyncHooks`' pointer to its ids (four doubles: execution, trigger, counter, default trigger).
    pub ids: u32,
    /// In the environment: `timer_handle_` (`uv_timer_t`).
    pub timer: u32,
    /// In the object behind a `uv_stream_t`: `AsyncWrap::async_id_` (a double, then that of its trigger); 0 = not known.
    pub wrap_id: u32,
}

/// Value of the runtime table: the kind, and the offsets for that kind; those for the others are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RuntimeEntry {
    /// [`RuntimeKind`].
    pub kind: u32,
    /// 1: who takes connections and who wakes whom is told.
    pub hand_offs: u32,
    /// Offsets for [`RuntimeKind::GO`].
    pub go: GoOffsets,
    /// Offsets for [`RuntimeKind::JAVA`]; all 0 where there are no virtual threads.
    pub java: JavaOffsets,
    /// Offsets for [`RuntimeKind::TOKIO`].
    pub tokio: TokioOffsets,
    /// Offsets for [`RuntimeKind::NODE`].
    pub node: NodeOffsets,
}

const _: () = assert!(core::mem::size_of::<RuntimeEntry>() == 188);
