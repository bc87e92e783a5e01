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
    /// CPython: the asyncio Task that runs, or for which an executor's thread works, and the chain of those that await it.
    pub const PYTHON: Self = Self(3);
    /// Programs without tasks: who wakes whom is told.
    pub const THREADS: Self = Self(4);

    /// The bit that stands for it in a set of kinds.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 31)
    }
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
    /// Who waits for what a thread works on.
    pub futures: JavaFutures,
}

/// Where objects of `java.util.concurrent` lie that somebody waits for: addresses of classes (HotSpot's `Klass`; 0 = not loaded, or not
/// known), and offsets of fields in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct JavaFutures {
    /// The heap's first byte, and the one behind its last.
    pub heap: [Address; 2],
    /// A byte that is not 0 while objects are moved; 0 = not known.
    pub moving: Address,
    /// Counts how often objects were moved (32 bits).
    pub collections: Address,
    /// What is added to a compressed reference, shifted by `reference_shift`.
    pub reference_base: Address,
    /// What is added to the number of a class, shifted by `class_shift`.
    pub class_base: Address,
    /// `CompletableFuture`.
    pub future: Address,
    /// `CompletableFuture.AsyncRun` and `AsyncSupply`: what a pool runs to complete one.
    pub runs: [Address; 2],
    /// `CompletableFuture.Completion`: what is to be done when one is complete.
    pub completion: Address,
    /// `CompletableFuture.UniCompletion`: completes another.
    pub dependent: Address,
    /// `CompletableFuture.CoCompletion`: stands for one that depends on two.
    pub second: Address,
    /// `CompletableFuture.Signaller`: wakes a thread.
    pub signaller: Address,
    /// `FutureTask`.
    pub task: Address,
    /// `java.lang.Thread`; 0 = nothing of all this is read.
    pub thread: Address,
    /// `java.lang.VirtualThread`.
    pub virtual_thread: Address,
    /// What leads to an array of futures, in at most [`JAVA_LIST_STEPS`] steps: lists, and the iterators that are all that compiled code keeps of
    /// them.
    pub lists: [Address; JAVA_LISTS],
    /// Classes of servers' objects, each of which leads by one field to another one of these, and in the end to a channel.
    pub servers: [Address; JAVA_SERVERS],
    /// `sun.nio.ch.SocketChannelImpl`; 0 = none of these classes is known.
    pub channel: Address,
    /// `SynchronousQueue.TransferStack.SNode`: somebody who waits for work, or has some; 0 = not loaded, or none in this version.
    pub offer: Address,
    /// Whether references are compressed (32 bits).
    pub compressed: u32,
    /// Bits by which they are shifted.
    pub reference_shift: u32,
    /// Where an object has the number of its class (32 bits).
    pub class_at: u32,
    /// Its lowest bits that do not belong to it.
    pub class_low: u32,
    /// Bits by which that is shifted.
    pub class_shift: u32,
    /// `Klass._primary_supers`: the class's ancestors, `Object` first.
    pub supers: u32,
    /// `CompletableFuture.result`.
    pub result: u32,
    /// `CompletableFuture.stack`.
    pub stack: u32,
    /// `dep` of `AsyncRun` and of `AsyncSupply`.
    pub run_dependent: [u32; 2],
    /// `Completion.next`.
    pub next: u32,
    /// `UniCompletion.dep`.
    pub dependent_at: u32,
    /// `UniCompletion.src`.
    pub source: u32,
    /// `UniWhenComplete.fn`: what is called then.
    pub function: u32,
    /// `CoCompletion.base`.
    pub base: u32,
    /// `Signaller.thread`.
    pub signalled: u32,
    /// `FutureTask.state`.
    pub state: u32,
    /// `FutureTask.runner`.
    pub runner: u32,
    /// `FutureTask.waiters`.
    pub waiters: u32,
    /// `FutureTask.WaitNode.thread`.
    pub waiting: u32,
    /// `FutureTask.WaitNode.next`.
    pub waiting_next: u32,
    /// `Thread.eetop`.
    pub native: u32,
    /// `Thread.tid`.
    pub thread_id: u32,
    /// `VirtualThread.carrierThread`: the thread on which it runs, if it does.
    pub carrier: u32,
    /// `VirtualThread.cont`.
    pub continuation: u32,
    /// `jdk.internal.vm.Continuation.tail`.
    pub chunk: u32,
    /// `jdk.internal.vm.StackChunk.sp`: where the innermost frame begins, in words from where the stack does.
    pub chunk_top: u32,
    /// Where a `StackChunk` has its stack: behind its fields; 0 = not known.
    pub chunk_stack: u32,
    /// `Thread.target`, or `FieldHolder.task` behind `Thread.holder`: what the thread was made to run.
    pub target: u32,
    /// `Thread.holder`; 0 where there is none (before JDK 19).
    pub holder: u32,
    /// `JavaThread::_threadObj`: handle of its `Thread`.
    pub object: u32,
    /// `JavaThread::_osthread`.
    pub system: u32,
    /// `OSThread::_pthread_id`: the thread pointer.
    pub control: u32,
    /// `JavaThread::_anchor` with `JavaFrameAnchor::_last_Java_sp`: where the stack of a thread that waits begins.
    pub last_frame: u32,
    /// `Klass._layout_helper` (32 bits): says of an array what it has.
    pub layout: u32,
    /// Where an array has its length.
    pub length: u32,
    /// Where those have what they lead to.
    pub elements: [u32; JAVA_LISTS],
    /// Where the servers' objects have what they lead to.
    pub server_fields: [u32; JAVA_SERVERS],
    /// `SocketChannelImpl.fdVal`.
    pub channel_descriptor: u32,
    /// `SNode.next`: with whom who has work tries to agree.
    pub offer_next: u32,
    /// `SNode.match`: with whom it has agreed.
    pub offer_match: u32,
    /// `SNode.waiter`: the thread that sleeps until then.
    pub offer_waiter: u32,
    /// Bytes of an `SNode`.
    pub offer_size: u32,
    /// `JavaThread::_tlab` with `ThreadLocalAllocBuffer::_top`: behind the latest object that the thread has made.
    pub made: u32,
    /// Likewise with `_start` and `_end`: the memory that the thread has for objects.
    pub buffer: [u32; 2],
    /// 0.
    pub padding: u32,
}

/// Classes in [`JavaFutures::lists`].
pub const JAVA_LISTS: usize = 6;
/// Classes in [`JavaFutures::servers`].
pub const JAVA_SERVERS: usize = 9;
/// An iterator leads to a list, that to an array.
pub const JAVA_LIST_STEPS: usize = 2;

/// Types of futures that serve a client's connection, at most.
pub const MAX_TOKIO_CLIENTS: usize = 2;
/// Most types of tasks that are awaited one after the other.
pub const MAX_TOKIO_LISTS: usize = 4;

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
    /// Where tasks that await others one after the other have those whose turn is still to come.
    pub lists: [TokioList; MAX_TOKIO_LISTS],
    /// The kernel side's own: where the id of the running task was found, relative to the thread pointer; 0 = not yet.
    pub task_id: i32,
    /// The kernel side's own: words of the storage that have held the task's id each time so far, one bit each.
    pub candidates: [u32; 2],
    /// The kernel side's own: how often that was; once the place is found, how often in a row it did not hold the id of the socket's task.
    pub agreed: u32,
    /// The kernel side's own: the lower half of the id that was compared last.
    pub last_id: u32,
}

impl TokioOffsets {
    /// Takes over what the kernel side has found by itself, if it was looking in the same place.
    pub fn keep_found(&mut self, before: &Self) {
        if (self.tls_start, self.tls_words) == (before.tls_start, before.tls_words) {
            self.task_id = before.task_id;
            self.candidates = before.candidates;
            self.agreed = before.agreed;
            self.last_id = before.last_id;
        }
    }
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

/// Most steps from a task to what a future in it has on the heap.
pub const MAX_TOKIO_STEPS: usize = 4;

/// Where a task has the `JoinHandle` of the one that it awaits, and those of others of the same type that it has not awaited yet: what an
/// iterator has still to give (`std::vec::IntoIter`, `std::slice::Iter`, `std::vec::Drain`: pointers to the first and behind the last).
/// Offsets in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct TokioList {
    /// Address of the `Vtable` of the tasks that are awaited; 0 = none.
    pub vtable: [u32; 2],
    /// From the waiting task's `Header`: where the pointer to the next block of memory lies, block by block.
    pub steps: [u32; MAX_TOKIO_STEPS],
    /// How many steps there are.
    pub count: u32,
    /// In the last block: the handle of the task that is awaited.
    pub handle: u32,
    /// After so many steps: the block that has the iterator.
    pub depth: u32,
    /// In that block: the iterator's pointer to its first element.
    pub first: u32,
    /// The one behind its last element.
    pub last: u32,
    /// Bytes from one element to the next.
    pub stride: u32,
    /// In an element: the handle.
    pub element: u32,
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
    /// Who waits for the response to a request.
    pub heap: NodeHeap,
}

/// Where JavaScript's objects lie that lead from a client's request to who waits for its response: offsets in bytes from an object's first
/// byte, and numbers of types (V8's `InstanceType`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct NodeHeap {
    /// `owner_symbol` in the array of properties of a `TCP`: the `net.Socket`.
    pub owner: u32,
    /// `async_id_symbol` in a `net.Socket`; 0 = nothing of all this is read.
    pub socket_id: u32,
    /// `kHandle` in a `net.Socket`: the `TCP`.
    pub handle: u32,
    /// `server` in a `net.Socket`.
    pub server: u32,
    /// `_events` in a `net.Socket`.
    pub socket_events: u32,
    /// In a `net.Socket`: the first of the words one of which is `_httpMessage`.
    pub message: u32,
    /// The `net.Socket` in an `OutgoingMessage`.
    pub message_socket: u32,
    /// `JSFunction.context`.
    pub function_context: u32,
    /// `JS_OBJECT_TYPE`.
    pub object: u32,
    /// `JS_FUNCTION_TYPE`.
    pub function: u32,
    /// `JS_BOUND_FUNCTION_TYPE`.
    pub bound: u32,
    /// `JS_ARRAY_TYPE`.
    pub array: u32,
    /// `FIXED_ARRAY_TYPE`.
    pub fixed_array: u32,
    /// `JS_PROMISE_TYPE`.
    pub promise: u32,
    /// `PROMISE_REACTION_TYPE`.
    pub reaction: u32,
    /// `PROMISE_CAPABILITY_TYPE`.
    pub capability: u32,
    /// `JS_ASYNC_FUNCTION_OBJECT_TYPE`.
    pub async_function: u32,
    /// The first and the last type of contexts; the first is that of what awaits.
    pub contexts: [u32; 2],
}

/// Bit of a task's identity that says: an address, which another task may have later. Identities without it are never given
/// twice in a process.
pub const REUSED_TASK: u64 = 1 << 63;

/// How CPython keeps the attributes of an instance ([`PythonOffsets::attributes`]).
pub mod attributes {
    /// In a dictionary, at `tp_dictoffset` (before 3.11).
    pub const DICTIONARY: u32 = 0;
    /// A pointer to an array of values, 32 bytes before the object (3.11).
    pub const POINTER: u32 = 1;
    /// A pointer to an array of values, less 1, 24 bytes before the object (3.12).
    pub const TAGGED: u32 = 2;
    /// Behind the object's own fields (from 3.13 on).
    pub const INLINE: u32 = 3;
}

/// An address in a process, in two halves, so that what holds it is aligned like its offsets.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct Address {
    low: u32,
    high: u32,
}

impl Address {
    /// From a number.
    #[must_use]
    pub const fn new(address: u64) -> Self {
        Self {
            low: address as u32,
            high: (address >> 32) as u32,
        }
    }

    /// As a number.
    #[inline(always)]
    #[must_use]
    pub const fn get(self) -> u64 {
        (self.high as u64) << 32 | self.low as u64
    }
}

/// Where CPython keeps asyncio's Tasks: addresses of objects, and offsets into its structures in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct PythonOffsets {
    /// The dictionary of running Tasks by event loop (`_asyncio._current_tasks`); not used where [`Self::running_task`] is.
    pub current_tasks: Address,
    /// `_asyncio.Task`.
    pub task_type: Address,
    /// `_asyncio.Future`.
    pub future_type: Address,
    /// Type of the callback that wakes a Task (`PyCFunction_Type`); 0 = not known, the Task that it names suffices (3.9).
    pub wakeup_type: Address,
    /// `PyFunction_Type`.
    pub function_type: Address,
    /// `PyMethod_Type`.
    pub method_type: Address,
    /// `PyTuple_Type`.
    pub tuple_type: Address,
    /// `PyLong_Type`.
    pub int_type: Address,
    /// `PyCoro_Type`; 0 = the frames of coroutines are not read (before 3.11).
    pub coroutine_type: Address,
    /// `PyList_Type`.
    pub list_type: Address,
    /// `PyListIter_Type`.
    pub list_iterator_type: Address,
    /// `PyDict_Type`.
    pub dictionary_type: Address,
    /// The function by which work is put into a queue (`_queue.SimpleQueue.put`), where a probe tells who submits; 0 = none.
    pub queue_put: Address,
    /// The thread's `PyThreadState` lies at its thread pointer plus this.
    pub thread_state: u32,
    /// `PyThreadState.context`.
    pub context: u32,
    /// `PyDictKeysObject.dk_indices`.
    pub keys_indices: u32,
    /// Whether a byte at 9 in `PyDictKeysObject` is the binary logarithm of the indices' size; else a word at 8 is their number.
    pub keys_logarithm: u32,
    /// `PyDictKeysObject.dk_nentries`.
    pub keys_entries: u32,
    /// The Task in the callback that wakes it.
    pub wakeup_task: u32,
    /// `TaskObj.task_name`.
    pub task_name: u32,
    /// `TaskObj.task_context`.
    pub task_context: u32,
    /// The characters of an ASCII string (size of `PyASCIIObject`).
    pub text: u32,
    /// `PyFunctionObject.func_closure`.
    pub closure: u32,
    /// [`attributes`].
    pub attributes: u32,
    /// `PyThreadState.datastack_chunk`; 0 = the frames of threads are not read (before 3.11).
    pub data_stack: u32,
    /// `_PyInterpreterFrame`'s code object.
    pub frame_code: u32,
    /// `PyCodeObject.co_nlocalsplus`.
    pub code_locals: u32,
    /// `PyCodeObject.co_stacksize`.
    pub code_stack: u32,
    /// `PyCoroObject.cr_iframe`.
    pub coroutine_frame: u32,
    /// `PyTupleObject.ob_item`.
    pub tuple_items: u32,
    /// `_done_callbacks` among the attributes of a `concurrent.futures.Future`.
    pub done_callbacks: u32,
    /// `_PyInterpreterFrame.localsplus`.
    pub frame_locals: u32,
    /// Whether `_PyInterpreterFrame` has a pointer to the top of its stack (from 3.14 on), and not the number of words in use.
    pub frame_pointer: u32,
    /// `_PyThreadStateImpl.asyncio_running_task`; 0 = it has none (before 3.14).
    pub running_task: u32,
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
    /// Offsets for [`RuntimeKind::PYTHON`].
    pub python: PythonOffsets,
}

const _: () = assert!(core::mem::size_of::<PythonOffsets>() == 13 * 8 + 21 * 4);
const _: () = assert!(core::mem::size_of::<JavaFutures>() == 33 * 8 + 60 * 4);
const _: () = assert!(
    core::mem::size_of::<RuntimeEntry>()
        == 188
            + 19 * 4
            + MAX_TOKIO_LISTS * 52
            + core::mem::size_of::<PythonOffsets>()
            + core::mem::size_of::<JavaFutures>()
);
