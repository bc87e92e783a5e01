//! The connection table shared by both sides (`CONNS`, keyed by socket cookie).

/// What user space has decided about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PolicyMode(pub u32);

impl PolicyMode {
    /// Nothing decided: the undecided limits hold.
    pub const UNDECIDED: Self = Self(0);
    /// No events at all.
    pub const IGNORE: Self = Self(1);
    /// Every chunk makes an event; the limits of [`ConnState`] say how much of it is captured.
    pub const CAPTURE: Self = Self(2);
}

/// Value of the connection table. The daemon writes the policy fields; the kernel side keeps the rest.
/// A policy change rewrites the whole value: the kernel's fields are facts about the current run and heal
/// with the next one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ConnState {
    /// [`PolicyMode`].
    pub mode: u32,
    /// Most bytes captured of one run: [send, receive].
    pub run_limit: [u32; 2],
    /// Most bytes captured of one chunk: [send, receive]. 0 also asks for no tail.
    pub chunk_limit: [u32; 2],
    /// Direction of the current run (kernel).
    pub run_dir: u32,
    /// Bytes of the current run that passed (kernel).
    pub run_bytes: u32,
    /// The process that used the socket last: it is another than the tracer, and known to user space (kernel). 0 before its first
    /// message. What turns out to be the tracer's own, or the kernel's, is ignored.
    pub checked: u32,
    /// When data arrived first since the last receive, 0 if none waits (kernel).
    pub arrival: u64,
    /// The thread that received last (kernel).
    pub reader: u32,
    /// Always 0.
    pub padding: u32,
}

const _: () = assert!(core::mem::size_of::<ConnState>() == 48);

impl ConnState {
    /// The state of a connection that nobody has decided about.
    #[must_use]
    pub const fn undecided() -> Self {
        Self {
            mode: PolicyMode::UNDECIDED.0,
            run_limit: [crate::UNDECIDED_RUN; 2],
            chunk_limit: [crate::UNDECIDED_CHUNK; 2],
            run_dir: 0,
            run_bytes: 0,
            checked: 0,
            arrival: 0,
            reader: 0,
            padding: 0,
        }
    }
}
