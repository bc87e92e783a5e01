//! One event as it lies in a ring buffer: a header of 152 bytes, then the captured bytes.

/// What an event states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct EventKind(pub u8);

impl EventKind {
    /// Bytes were moved over a socket.
    pub const DATA: Self = Self(1);
    /// A receive returned 0: the peer has closed its sending side.
    pub const EOF: Self = Self(2);
    /// The TCP state machine moved (`sock:inet_sock_set_state`): [`EventHeader::old_state`] to
    /// [`EventHeader::state`].
    pub const STATE: Self = Self(3);
    /// A TCP reset was received or sent.
    pub const RESET: Self = Self(4);
    /// A thread did something that moves no bytes: [`ActKind`] in [`EventHeader::state`]. Only of processes whose runtime
    /// makes use of it.
    pub const ACT: Self = Self(5);
    /// A TCP segment was sent again.
    pub const RETRANSMIT: Self = Self(6);
    /// A receive found nothing, on a connection whose last bytes had come in and were read by another thread: what a client
    /// does that takes a connection from a pool. Told where [`EventFlags::TAKEN`] is; see there for the fields.
    pub const PROBE: Self = Self(7);
    /// A thread that has just received woke another of its process that has, too ([`EventHeader::len`]: its id). No
    /// connection is named; the thread that woke it is the event's own. [`EventHeader::creator`]: the thread that had woken that one
    /// last, since it was told so the last time (0: nobody that is known). [`EventHeader::arrival`]: when the woken one was last known to run.
    pub const WAKE: Self = Self(8);
    /// A process uses a socket for the first time, or replaced its program after it had: see [`crate::ProcessFacts`]. Of the header:
    /// [`EventHeader::len`] its parent, [`EventHeader::arrival`] when it started, [`EventHeader::task`] its control group,
    /// [`EventHeader::pos`] and [`EventHeader::peer_pos`] the bytes of its arguments and of its environment,
    /// [`EventHeader::state`] whether it replaced its program. No connection is named.
    pub const PROCESS: Self = Self(9);
    /// A process that was told by [`Self::PROCESS`] has ended.
    pub const EXIT: Self = Self(10);
    /// A thread of such a process has ended, and others live. [`EventHeader::creator`]: the thread that made it,
    /// [`EventHeader::arrival`]: when.
    pub const THREAD_END: Self = Self(11);
}

/// What a thread did, where no bytes were moved.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct ActKind(pub u8);

impl ActKind {
    /// It looks for events (`epoll_pwait` was entered).
    pub const WAITS: Self = Self(1);
    /// It reads the eventfd by which other threads wake it.
    pub const WOKEN: Self = Self(2);
    /// Another task than the one that runs: [`EventHeader::task`], which has moved bytes though nobody awaited it, is found to be held by
    /// the first of the [`EventHeader::awaiters`] ([`EventFlags::HELD`]).
    pub const HELD: Self = Self(3);
    /// A task awaits another one, and where it has those that it awaits next is not known. The first of the [`EventHeader::awaiters`]: the address of
    /// the one that waits; [`EventHeader::creator`]: that of the structure which names the type of the one that is awaited. Told the
    /// first times that this happens, then ever more seldom.
    pub const SOUGHT: Self = Self(4);
}

/// Which way bytes went, seen from the socket that the event names.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Direction {
    /// The process wrote.
    Send = 0,
    /// The process read.
    Recv = 1,
}

impl Direction {
    /// The other direction.
    #[must_use]
    pub const fn reverse(self) -> Self {
        match self {
            Self::Send => Self::Recv,
            Self::Recv => Self::Send,
        }
    }
}

/// Socket address family (`AF_*`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(transparent)]
pub struct Family(pub u16);

impl Family {
    /// `AF_UNIX`.
    pub const UNIX: Self = Self(1);
    /// `AF_INET`.
    pub const INET: Self = Self(2);
    /// `AF_INET6`.
    pub const INET6: Self = Self(10);
}

/// Bits of [`EventHeader::flags`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct EventFlags(pub u16);

impl EventFlags {
    /// [`EventHeader::pos`] and [`EventHeader::peer_pos`] hold stream positions.
    pub const HAS_POSITION: u16 = 1;
    /// Payload could not be read although the policy asked for it.
    pub const PAYLOAD_MISSING: u16 = 2;
    /// The socket is a datagram socket (each event is one whole message).
    pub const DATAGRAM: u16 = 4;
    /// An event loop's callback ran: [`EventHeader::awaiters`] and [`EventHeader::task`] hold [`Turn`], and name no tasks.
    pub const TURN: u16 = 8;
    /// The thread takes the connection for what follows on it (a probe, a connect), in a process whose hand-offs are followed. Then these
    /// fields tell who handed it its work: [`EventHeader::len`] the thread (0: not known), [`EventHeader::creator`] that thread's
    /// task, [`EventHeader::arrival`] when; and `awaiters` the thread and its task that had woken it before that (0: none), if nothing shows
    /// that this work was done, and the unit that waits for what the thread works on (0: none that is known; with
    /// [`Self::CLIENT_THREAD`] for what the one completed that handed it over), as [`Submitters::by`] names it, and since when it is known to.
    pub const TAKEN: u16 = 16;
    /// The thread belongs to a client library's own pool (by its name), whatever it works for.
    pub const CLIENT_THREAD: u16 = 32;
    /// The thread works off what others have submitted: [`EventHeader::awaiters`] holds [`Submitters`], and names no tasks.
    pub const SUBMITTED: u16 = 64;
    /// Not all of [`EventHeader::awaiters`] wait: one of them was seen to hold the one before it among its variables while it waited
    /// for something else. [`EventHeader::creator`] tells when that was seen first.
    pub const HELD: u16 = 128;

    /// Whether every bit of `bits` is set.
    #[must_use]
    pub const fn has(self, bits: u16) -> bool {
        self.0 & bits == bits
    }
}

/// Most tasks told that wait for the running one.
pub const MAX_AWAITERS: usize = 4;

/// Bit of a unit's identity in [`Submitters`] that says: a thread's id, and no task's.
pub const THREAD_UNIT: u64 = 1 << 62;

/// Bit of one of [`EventHeader::awaiters`] that says: no task, but the address of a place (a channel, a semaphore) where the result of the one
/// before it is awaited. The task behind it waits there; where none follows, somebody will, at one of those that are told.
pub const PLACE_UNIT: u64 = 1 << 61;

/// Bit of a place that says: a server's connection, named by its cookie (the bits below), on which what is worked on will be answered.
pub const CONNECTION_UNIT: u64 = 1 << 60;

/// Bit of the time since when something is worked on for a connection: it is not known whether that was made after what was read there last.
pub const UNSURE: u64 = 1 << 63;
/// Likewise: nothing is known but that an event loop had read from the connection last before it handed the work on.
pub const BY_LOOP: u64 = 1 << 62;
/// Instead of that time: it was made before what was read there last, and so for an earlier request.
pub const STALE: u64 = 1;

/// Who gave a thread the work that it does, as it lies in [`EventHeader::awaiters`] if [`EventFlags::SUBMITTED`] is set: the one who
/// submitted it, and when; and who had submitted what that one did then, and when. 0 = not known.
///
/// [`Self::by`] may be a place ([`PLACE_UNIT`]): nobody is known to wait for the work yet, but its outcome will lie there. [`Self::at`]: since
/// when it is worked on, if that is known.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(C)]
pub struct Submitters {
    /// A task's identity, or with [`THREAD_UNIT`] a thread's id.
    pub by: u64,
    /// When (CLOCK_MONOTONIC nanoseconds).
    pub at: u64,
    /// Likewise, for what [`Self::by`] worked off; or a place where [`Self::by`] takes an outcome, too.
    pub before: u64,
    /// When; or another such place.
    pub before_at: u64,
}

impl Submitters {
    /// As words of the header.
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> [u64; MAX_AWAITERS] {
        [self.by, self.at, self.before, self.before_at]
    }

    /// From the words of a header.
    #[inline(always)]
    #[must_use]
    pub const fn unpack([by, at, before, before_at]: [u64; MAX_AWAITERS]) -> Self {
        Self {
            by,
            at,
            before,
            before_at,
        }
    }
}

/// Where an event loop stands, as it lies in [`EventHeader::awaiters`] and [`EventHeader::task`] if [`EventFlags::TURN`] is set. Ids are modulo 2^32 those that
/// the runtime gives to asynchronous resources, 0 = none.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Turn {
    /// The resource whose callback runs.
    pub execution: u32,
    /// The resource that caused it.
    pub trigger: u32,
    /// The id that was given last.
    pub counter: u32,
    /// The id of the socket whose bytes move, and of the resource that caused the socket.
    pub socket: [u32; 2],
    /// Changes when the loop is done with what one look for events gave it.
    pub dispatch: u32,
    /// The loop's time, milliseconds modulo 2^32.
    pub time: u32,
    /// When its first timer is due, likewise.
    pub timer: u32,
    /// The id of the socket on which the response will be written that waits for what is written now; 0 = none that is known.
    pub request: u32,
}

impl Turn {
    /// [`EventHeader::awaiters`].
    #[inline(always)]
    #[must_use]
    pub const fn pack(self) -> [u64; MAX_AWAITERS] {
        [
            both(self.execution, self.trigger),
            both(self.counter, self.dispatch),
            both(self.socket[0], self.socket[1]),
            both(self.time, self.timer),
        ]
    }

    /// [`EventHeader::task`].
    #[inline(always)]
    #[must_use]
    pub const fn task(self) -> u64 {
        self.request as u64
    }

    /// From the words of a header.
    #[inline(always)]
    #[must_use]
    pub const fn unpack([ids, counts, socket, times]: [u64; MAX_AWAITERS], task: u64) -> Self {
        Self {
            execution: ids as u32,
            trigger: (ids >> 32) as u32,
            counter: counts as u32,
            dispatch: (counts >> 32) as u32,
            socket: [socket as u32, (socket >> 32) as u32],
            time: times as u32,
            timer: (times >> 32) as u32,
            request: task as u32,
        }
    }
}

const fn both(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Header of every event. Times are CLOCK_MONOTONIC nanoseconds (`bpf_ktime_get_ns`), numbers are in
/// host byte order, addresses and Unix identities as described at each field.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct EventHeader {
    /// When the system call had moved the bytes.
    pub ts: u64,
    /// Socket cookie (`bpf_get_socket_cookie`): unique for the life of the kernel.
    pub cookie: u64,
    /// When the first byte that this receive could see arrived in the socket buffer
    /// (`sk_data_ready`), 0 if not known.
    pub arrival: u64,
    /// Identity of the running task inside its runtime (a goroutine's `goid`), 0 if none is known.
    pub task: u64,
    /// The task that created the outermost of [`Self::awaiters`], or [`Self::task`] if there is none; 0 if not known.
    pub creator: u64,
    /// The tasks that wait for [`Self::task`] to move these bytes, the nearest first (a goroutine that waits for its
    /// connection's `writeLoop`; a coroutine that awaits another); 0 ends the list.
    pub awaiters: [u64; MAX_AWAITERS],
    /// Process (thread group).
    pub tgid: u32,
    /// Thread.
    pub tid: u32,
    /// Bytes that the system call moved.
    pub len: u32,
    /// Bytes captured from the start of the chunk; they follow the header.
    pub captured: u32,
    /// Stream position of the chunk's first byte in its own direction, modulo 2^32: the TCP sequence
    /// number, or a byte count on Unix sockets.
    pub pos: u32,
    /// Stream position of the other direction at that moment, modulo 2^32.
    pub peer_pos: u32,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// [`EventFlags`].
    pub flags: u16,
    /// [`EventKind`].
    pub kind: u8,
    /// [`Direction`] as a number.
    pub dir: u8,
    /// [`Family`].
    pub family: u16,
    /// Local port.
    pub lport: u16,
    /// Remote port.
    pub rport: u16,
    /// TCP state after the event (`TCP_ESTABLISHED` = 1 …), 0 for other families. For [`EventKind::ACT`]: [`ActKind`].
    pub state: u8,
    /// For [`EventKind::STATE`]: the state before.
    pub old_state: u8,
    /// Local address: 16 bytes, IPv4 mapped into IPv6 (RFC 4291 section 2.5.5.2). Unix: this socket's cookie
    /// in the first 8 bytes (native order).
    pub laddr: [u8; 16],
    /// Remote address, likewise. Unix: the peer socket's cookie.
    pub raddr: [u8; 16],
    /// Bytes captured from the end of the chunk; they follow the bytes from its start. 0 unless `captured < len`.
    pub tail: u32,
    /// Error number of the socket (`sk_err`) for [`EventKind::STATE`] and [`EventKind::RESET`], else 0.
    pub error: u32,
}

impl EventHeader {
    /// Bytes of a header in the ring.
    pub const SIZE: usize = 152;

    /// Nothing: what an event that is not about a connection fills in.
    pub const EMPTY: Self = Self {
        ts: 0,
        cookie: 0,
        arrival: 0,
        task: 0,
        creator: 0,
        awaiters: [0; MAX_AWAITERS],
        tgid: 0,
        tid: 0,
        len: 0,
        captured: 0,
        pos: 0,
        peer_pos: 0,
        netns: 0,
        flags: 0,
        kind: 0,
        dir: 0,
        family: 0,
        lport: 0,
        rport: 0,
        state: 0,
        old_state: 0,
        laddr: [0; 16],
        raddr: [0; 16],
        tail: 0,
        error: 0,
    };

    /// Splits one ring record into its header, the bytes from the chunk's start and the bytes from its
    /// end. `None` if the record is shorter than it says (a record of another ABI).
    #[inline]
    #[must_use]
    pub fn decode(record: &[u8]) -> Option<(Self, &[u8], &[u8])> {
        // One check of the length; each field then lies at a place that the compiler knows.
        let (fixed, payload) = record.split_first_chunk::<{ Self::SIZE }>()?;
        let header = Self::of(fixed);
        let (head, rest) = payload.split_at_checked(header.captured as usize)?;
        let tail = rest.get(..header.tail as usize)?;
        Some((header, head, tail))
    }

    #[inline]
    fn of(fixed: &[u8; Self::SIZE]) -> Self {
        macro_rules! field {
            ($kind:ty, $name:ident) => {
                <$kind>::from_ne_bytes(take(fixed, core::mem::offset_of!(Self, $name)))
            };
        }
        Self {
            ts: field!(u64, ts),
            cookie: field!(u64, cookie),
            arrival: field!(u64, arrival),
            task: field!(u64, task),
            creator: field!(u64, creator),
            awaiters: [
                u64::from_ne_bytes(take(fixed, AWAITERS)),
                u64::from_ne_bytes(take(fixed, AWAITERS + 8)),
                u64::from_ne_bytes(take(fixed, AWAITERS + 16)),
                u64::from_ne_bytes(take(fixed, AWAITERS + 24)),
            ],
            tgid: field!(u32, tgid),
            tid: field!(u32, tid),
            len: field!(u32, len),
            captured: field!(u32, captured),
            pos: field!(u32, pos),
            peer_pos: field!(u32, peer_pos),
            netns: field!(u32, netns),
            flags: field!(u16, flags),
            kind: field!(u8, kind),
            dir: field!(u8, dir),
            family: field!(u16, family),
            lport: field!(u16, lport),
            rport: field!(u16, rport),
            state: field!(u8, state),
            old_state: field!(u8, old_state),
            laddr: take(fixed, core::mem::offset_of!(Self, laddr)),
            raddr: take(fixed, core::mem::offset_of!(Self, raddr)),
            tail: field!(u32, tail),
            error: field!(u32, error),
        }
    }
}

const AWAITERS: usize = core::mem::offset_of!(EventHeader, awaiters);

/// `N` bytes from `at` on. All places are constants, so no check is left of this.
#[inline(always)]
fn take<const N: usize>(fixed: &[u8; EventHeader::SIZE], at: usize) -> [u8; N] {
    match fixed.get(at..).and_then(<[u8]>::first_chunk) {
        Some(bytes) => *bytes,
        None => [0; N],
    }
}

const _: () = assert!(core::mem::size_of::<EventHeader>() == EventHeader::SIZE);
const _: () = assert!(core::mem::align_of::<EventHeader>() == 8);
// The last field ends where the struct ends: no padding at the end, and 8-byte fields come first.
const _: () = assert!(core::mem::offset_of!(EventHeader, error) + 4 == EventHeader::SIZE);
const _: () = assert!(core::mem::offset_of!(EventHeader, laddr) == 112);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_survives_the_header() {
        let turn = Turn {
            execution: 1,
            trigger: u32::MAX,
            counter: 3,
            socket: [4, 5],
            dispatch: 6,
            time: 7,
            timer: 8,
            request: 9,
        };
        assert_eq!(Turn::unpack(turn.pack(), turn.task()), turn);
    }

    #[test]
    fn a_short_record_is_refused_at_every_length() {
        let mut record = [0u8; EventHeader::SIZE + 8];
        let captured = core::mem::offset_of!(EventHeader, captured);
        record[captured..captured + 4].copy_from_slice(&6u32.to_ne_bytes());
        let tail = core::mem::offset_of!(EventHeader, tail);
        record[tail..tail + 4].copy_from_slice(&2u32.to_ne_bytes());
        for n in 0..record.len() {
            assert!(EventHeader::decode(&record[..n]).is_none(), "length {n}");
        }
        let (header, head, tail) = EventHeader::decode(&record).unwrap();
        assert_eq!((header.captured, head.len(), tail.len()), (6, 6, 2));
    }
}
