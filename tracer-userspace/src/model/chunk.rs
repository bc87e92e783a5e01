//! Bytes that one system call moved on one socket.

use tracer_common::Direction;

use super::Mark;

/// One chunk. `head` and `tail` are what was captured of `len` bytes; between them lie bytes whose number is
/// known and whose contents are not.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a> {
    /// Which way, seen from that socket.
    pub direction: Direction,
    /// When, by whom, and where in the stream.
    pub mark: Mark,
    /// Bytes on the wire.
    pub len: u32,
    /// Captured from the start.
    pub head: &'a [u8],
    /// Captured from the end (empty if `head` is all).
    pub tail: &'a [u8],
}

/// How a stream ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// The side named by the direction has finished sending (FIN): with [`Direction::Recv`] the peer, with
    /// [`Direction::Send`] this process.
    Finished(Direction),
    /// Reset, by either side.
    Reset,
    /// The socket is gone (`TCP_CLOSE`).
    Closed,
    /// The tracer forgets it: idle too long, the process ended, or shut-down.
    Forgotten,
}
