//! Sizes that both sides of the kernel boundary agree on.

/// Ring buffers, one for each CPU modulo this number (`RING0` … `RING7`).
pub const RING_SHARDS: usize = 8;

/// Payload capacity of each event size class, in bytes. An event takes the smallest class that holds
/// what it captures, so that a 40-byte message does not cost a 4 KiB slot.
pub const SIZE_CLASSES: [usize; 7] = [0, 128, 512, 1_536, 4_096, 16_384, 65_536];

/// Bytes kept from the end of a chunk whose head alone was captured. Enough for the end of a chunked
/// body (RFC 9112 section 7.1) and for PostgreSQL's CommandComplete with ReadyForQuery.
pub const TAIL_BYTES: usize = 32;

/// Most bytes captured of one chunk while user space has not decided about the connection yet.
pub const UNDECIDED_CHUNK: u32 = 16_384;

/// Most bytes captured of one run while user space has not decided about the connection yet.
pub const UNDECIDED_RUN: u32 = 65_536;

/// Places of the connection table in the kernel (`CONNS`).
pub const MAX_CONNS: u32 = 65_536;

/// Connections that have no place there (`MORE_CONNS`, least recently used ones leave first).
pub const MAX_MORE_CONNS: u32 = 32_768;

/// Processes with a runtime whose execution unit is read in the kernel (`RUNTIMES`).
pub const MAX_RUNTIMES: u32 = 4_096;

/// Processes that were told to user space (`INTRODUCED`, least recently used ones leave first).
pub const MAX_INTRODUCED: u32 = 16_384;

/// Sockets whose task is remembered (`TOKIO_SOCKETS`, least recently used ones leave first).
pub const MAX_TOKIO_SOCKETS: u32 = 16_384;

/// Connections whose calling goroutine is remembered, and kinds of goroutines (`GO_CALLERS`, `GO_READERS`; least recently used
/// ones leave first).
pub const MAX_GO_CALLERS: u32 = 8_192;
/// Threads whose maker is remembered (`BIRTHS`, least recently used ones leave first).
pub const MAX_BIRTHS: u32 = 16_384;
/// Work of executors whose submitter is remembered (`SUBMITTED`, least recently used ones leave first).
pub const MAX_SUBMITTED: u32 = 16_384;
/// Threads of processes whose hand-offs are followed (`THREADS`, least recently used ones leave first).
pub const MAX_THREADS: u32 = 16_384;

/// Input/output vectors that the kernel side follows for one message. The kernel itself allows
/// 1,024 (`UIO_MAXIOV`); what lies in vectors beyond these is counted, not captured.
pub const MAX_IOVECS: usize = 32;

/// Indexes of the per-CPU counter array `COUNTERS`.
pub mod counter {
    /// Events that found their ring full.
    pub const RING_FULL: u32 = 0;
    /// Chunks whose connection state could not be stored.
    pub const MAP_FULL: u32 = 1;
    /// Chunks whose payload the user's memory did not give (page not present, foreign buffer).
    pub const PAYLOAD_FAULT: u32 = 2;
    /// Chunks moved by a mechanism that has no user buffer to read (splice, io_uring worker, multi-message calls).
    pub const PAYLOAD_UNAVAILABLE: u32 = 3;
    /// Events made: handed to user space, or lost to [`RING_FULL`].
    pub const EVENTS: u32 = 4;
    /// Messages on connections that the policy ignores.
    pub const IGNORED: u32 = 5;
    /// Calls of `io_uring_enter`, which may have moved messages that the back end does not see. Only `syscall` counts them.
    pub const RING_CALLS: u32 = 6;
    /// Runs of probes in traced processes.
    pub const PROBED: u32 = 7;
    /// Number of counters.
    pub const COUNT: u32 = 8;
}

/// Threads that stand-ins tell apart at a time (`tracer-ebpf/src/relay.rs`): elements of `TOLD`, a power of two.
pub const TOLD_SLOTS: u32 = 65_536;

/// Programs of a back end that see messages, of which each may be preempted: each has a number below this one.
pub const MESSAGE_PROGRAMS: u32 = 36;

/// Bytes of a thread's name with its terminating zero (`TASK_COMM_LEN`): the payload of a connect's event.
pub const COMM_BYTES: u64 = 16;
