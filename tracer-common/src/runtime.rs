//! Where the kernel side finds the execution unit of a process's runtime (`RUNTIMES`, keyed by tgid).

/// Which recipe reads the execution unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct RuntimeKind(pub u32);

impl RuntimeKind {
    /// Go: `g` from thread-local storage, goroutine ids from `g`.
    pub const GO: Self = Self(1);
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

/// Value of the runtime table: the kind, and the offsets for that kind; those for the others are zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(C)]
pub struct RuntimeEntry {
    /// [`RuntimeKind`].
    pub kind: u32,
    /// Offsets for [`RuntimeKind::GO`].
    pub go: GoOffsets,
}

const _: () = assert!(core::mem::size_of::<RuntimeEntry>() == 28);
