//! The connection tables shared by both sides, and what user space has decided about each connection.
//!
//! A connection has the place in the table `CONNS` that its identity (the socket cookie) chooses, if nobody has it yet: cookies are
//! counted, so that places are seldom wanted twice. What finds its place taken, and what tells nobody that it ends (sockets other
//! than TCP's), is in the table `MORE_CONNS`, by identity.
//!
//! [`ConnState::owner`] holds the identity and the decision in one word, so that user space, which has the table in its memory,
//! changes the decision in one step and never that of another connection.

use crate::MAX_CONNS;

/// What user space has decided about a connection: the number of an entry in the table `POLICIES`, and two that have none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(transparent)]
pub struct PolicyNumber(pub u16);

impl PolicyNumber {
    /// No events at all.
    pub const IGNORE: Self = Self(1);
    /// Nothing is decided: [`Limits::UNDECIDED`].
    pub const UNDECIDED: Self = Self(2);
    /// The first that user space may give away; every chunk makes an event, whose payload has the [`Limits`] of the entry.
    pub const FIRST: Self = Self(3);
}

/// Entries of `POLICIES`.
pub const MAX_POLICIES: u32 = 16_384;

/// How much is captured of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(C)]
pub struct Limits {
    /// Most bytes of one run: [send, receive].
    pub run: [u32; 2],
    /// Most bytes of one chunk: [send, receive]. 0 also asks for no tail.
    pub chunk: [u32; 2],
}

impl Limits {
    /// While nobody has decided.
    pub const UNDECIDED: Self = Self {
        run: [crate::UNDECIDED_RUN; 2],
        chunk: [crate::UNDECIDED_CHUNK; 2],
    };
}

/// Value of the connection tables. User space writes the decision in `owner`, and 0 to `run_bytes`; the kernel side keeps the rest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct ConnState {
    /// Whose place this is, and the decision ([`owner`]); 0 if it is nobody's.
    pub owner: u64,
    /// When data arrived first since the last receive, 0 if none waits.
    pub arrival: u64,
    /// Direction of the current run.
    pub run_dir: u32,
    /// Bytes of the current run that passed.
    pub run_bytes: u32,
    /// The process that used the socket last: it is another than the tracer, and known to user space. 0 before its first message.
    pub checked: u32,
    /// The thread that received last.
    pub reader: u32,
}

const _: () = assert!(core::mem::size_of::<ConnState>() == 32 && core::mem::size_of::<Limits>() == 16);

impl ConnState {
    /// That of a new connection.
    #[must_use]
    pub const fn new(conn: u64, decision: PolicyNumber) -> Self {
        Self {
            owner: owner(conn, decision),
            arrival: 0,
            run_dir: 0,
            run_bytes: 0,
            checked: 0,
            reader: 0,
        }
    }
}

/// What of an identity does not follow from its place.
const IDENTITY: u64 = !0xffff;

const _: () = assert!(MAX_CONNS == 1 << 16);

/// The place of a connection in `CONNS`. One to one for identities that differ in the last 16 bits only; those that the programs make
/// themselves (`tracer-ebpf/src/identity.rs`) have too little in them, and the next 8 are mixed in.
#[inline(always)]
#[must_use]
pub const fn place(conn: u64) -> u32 {
    ((conn ^ conn >> 8) & !IDENTITY) as u32
}

/// The word of a connection about which that is decided; never 0.
#[inline(always)]
#[must_use]
pub const fn owner(conn: u64, decision: PolicyNumber) -> u64 {
    conn & IDENTITY | decision.0 as u64
}

/// The decision, if the word at the connection's place is its own.
#[inline(always)]
#[must_use]
pub const fn decision(word: u64, conn: u64) -> Option<PolicyNumber> {
    let rest = word ^ (conn & IDENTITY);
    // One comparison for both: 0 is no decision.
    if rest.wrapping_sub(1) < 0xffff {
        Some(PolicyNumber(rest as u16))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_belongs_to_one_connection() {
        let conns = [1, 2, 0xffff, 0x1_0000, 0x1_0001, 77 << 40 | 5, 1 << 63 | 9];
        for conn in conns {
            for number in [
                PolicyNumber::IGNORE,
                PolicyNumber::UNDECIDED,
                PolicyNumber(16_383),
            ] {
                let word = owner(conn, number);
                assert_ne!(word, 0);
                assert_eq!(decision(word, conn), Some(number), "{conn:x}");
                for other in conns {
                    let same = decision(word, other).is_some() && place(conn) == place(other);
                    assert_eq!(same, conn == other, "{conn:x} {other:x}");
                }
            }
            assert_eq!(decision(0, conn), None, "nobody's place");
        }
    }

    #[test]
    fn neighbours_have_places_of_their_own() {
        for first in [0, 0x1_0000, 0xabcd_0000] {
            let mut taken = [false; MAX_CONNS as usize];
            for conn in first..first + u64::from(MAX_CONNS) {
                let taken = &mut taken[place(conn) as usize];
                assert!(!*taken, "{conn:x}");
                *taken = true;
            }
        }
    }
}
