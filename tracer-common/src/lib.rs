//! What crosses the boundary between the BPF programs and the daemon.
//!
//! Only `repr(C)` structs of integers, newtypes and arrays live here. Sizes are asserted at compile
//! time and there is no implicit padding, so that the bytes which the kernel side writes are the
//! bytes which the daemon decodes ([`EventHeader::decode`] splits slices, it never transmutes).
#![no_std]
#![forbid(unsafe_code)]

mod constants;
mod event;
mod limits;
mod policy;
mod process;
mod runtime;

pub use constants::{CONSTANTS, OFFSET_MARK, OFFSET_REACH, VALUE_MARK, constant};
pub use event::{
    ActKind, BY_LOOP, CONNECTION_UNIT, Direction, EventFlags, EventHeader, EventKind, Family, MAX_AWAITERS,
    PLACE_UNIT, STALE, Submitters, THREAD_UNIT, Turn, UNSURE,
};
pub use limits::*;
pub use policy::{ConnState, Limits, MAX_POLICIES, PolicyNumber, decision, owner, place};
pub use process::{
    PROCESS_ARGUMENTS, PROCESS_BYTES, PROCESS_COMM, PROCESS_ENVIRONMENT, PROCESS_EXECUTABLE, PROCESS_PATH,
    ProcessFacts,
};
pub use runtime::{
    Address, GoOffsets, JAVA_LIST_STEPS, JAVA_LISTS, JAVA_SERVERS, JavaFutures, JavaOffsets,
    MAX_TOKIO_CLIENTS, MAX_TOKIO_LISTS, MAX_TOKIO_STEPS, NodeHeap, NodeOffsets, PythonOffsets, REUSED_TASK,
    RuntimeEntry, RuntimeKind, TokioClient, TokioList, TokioOffsets, attributes,
};

/// Version of every struct in this crate. The objects carry it in the global `ABI_VERSION`; the daemon
/// refuses an object whose version differs.
pub const ABI_VERSION: u32 = 13;
