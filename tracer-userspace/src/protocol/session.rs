//! What a protocol implements.

use std::sync::Arc;

use super::Output;
use crate::model::{Chunk, Close, Conn, Mark, Role, Stamp};

/// Which end of the connection sent bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// The end that sends requests.
    Client,
    /// The end that answers.
    Server,
}

impl Side {
    /// The part that this end plays in its exchanges.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Client => Role::Client,
            Self::Server => Role::Server,
        }
    }
}

/// Answer of a detector. There is no "probably": bytes that two protocols could have sent are `NeedMore` for both.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Detect {
    /// These bytes cannot be this protocol.
    No,
    /// They could be: ask again with more.
    NeedMore,
    /// They are. `sender` is the side that sent the bytes in question.
    Yes {
        /// Which side of the protocol sent the prefix.
        sender: Side,
    },
}

/// What detection may look at: the first bytes seen of one direction.
#[derive(Clone, Copy, Debug)]
pub struct Prefix<'a> {
    /// The first bytes that were captured of this direction's current run.
    pub bytes: &'a [u8],
    /// Whether they start where the connection started (else the tracer joined late, in the middle of anything).
    pub from_start: bool,
}

/// What a protocol's messages travel in.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Transport {
    /// Two streams of bytes.
    Streams,
    /// Datagrams, each of which is whole messages.
    Datagrams,
}

/// A protocol: how to recognise it and how to follow a connection that speaks it.
pub trait Protocol: Sync {
    /// Registry name (`http1`); also the name of its captures' folder.
    fn name(&self) -> &'static str;

    /// What its messages travel in: it is not asked about anything else.
    fn transport(&self) -> Transport {
        Transport::Streams
    }

    /// Whether these bytes are this protocol. Called with the first bytes of each direction until one protocol says yes,
    /// all say no, or the bounds of `flow/` are reached. Must be cheap and must not depend on other protocols.
    fn detect(&self, prefix: Prefix<'_>) -> Detect;

    /// Starts to follow one connection. `client` tells whether the local end (the one whose socket we watch) is the
    /// client.
    fn open(&self, conn: &Arc<Conn>, local: Side) -> Box<dyn Session>;
}

/// When and by whom the bytes handed to [`Session::bytes`] were moved.
///
/// The buffer may hold bytes left over from earlier chunks (`carried` of them) before those of the current chunk. A
/// session consumes whole messages, so a message that starts inside the carried bytes starts at their first byte.
#[derive(Clone, Copy, Debug)]
pub struct Marks<'a> {
    /// The place of the buffer's first byte.
    pub first: &'a Mark,
    /// The current chunk: the place of the byte at `carried`.
    pub now: &'a Mark,
    /// Bytes left over from earlier chunks.
    pub carried: usize,
}

impl<'a> Marks<'a> {
    /// The mark of the byte at `offset`, its stream position included.
    #[inline]
    #[must_use]
    pub fn at(&self, offset: usize) -> Mark {
        let (base, from) = if offset < self.carried {
            (self.first, 0)
        } else {
            (self.now, self.carried)
        };
        Mark {
            pos: base.pos.wrapping_add((offset - from) as u32),
            ..*base
        }
    }

    /// When and by whom the byte at `offset` was moved.
    #[inline]
    #[must_use]
    pub fn stamp(&self, offset: usize) -> &'a Stamp {
        if offset < self.carried {
            &self.first.stamp
        } else {
            &self.now.stamp
        }
    }
}

/// Follows one connection. Never panics, whatever the bytes; bounds every size that the peer controls.
pub trait Session: Send {
    /// A chunk that begins where everything before it was consumed. True if the session has taken all of it at once, captured or not;
    /// false if it wants it piece by piece, with [`Self::bytes`] and [`Self::skipped`], and has done nothing yet. What it tells is the
    /// same either way.
    fn whole(&mut self, _side: Side, _chunk: &Chunk<'_>, _out: &mut Output<'_>) -> bool {
        false
    }

    /// `bytes` are the next bytes that `side` sent, from the first not yet consumed. Returns how many were consumed;
    /// the rest comes again, with more behind it. A session that needs more than [`MAX_BUFFER`] bytes at once
    /// must consume and remember instead.
    fn bytes(&mut self, side: Side, bytes: &[u8], marks: &Marks<'_>, out: &mut Output<'_>) -> usize;

    /// `len` bytes follow whose contents were not captured. `partial` are the bytes before them that the session had
    /// not consumed: they are gone after this call.
    fn skipped(&mut self, side: Side, partial: &[u8], len: u64, marks: &Marks<'_>, out: &mut Output<'_>);

    /// An unknown number of bytes of `side` was lost, or the tracer joined here. The session forgets what it cannot know and looks for the
    /// next place to continue; exchanges that can't be told truthfully are dropped (and thereby counted).
    fn lost(&mut self, side: Side, mark: &Mark, out: &mut Output<'_>);

    /// The stream ended. After [`Close::Reset`], [`Close::Closed`] and [`Close::Forgotten`] the session is dropped: every open
    /// exchange must be ended or dropped here.
    fn close(&mut self, how: Close, mark: &Mark, out: &mut Output<'_>);
}

/// Most bytes that `flow/` keeps for one direction between two calls of [`Session::bytes`]; a message that would need more is
/// given up as lost. RFC 9112 sets no bound for header blocks; servers refuse more than 64 KiB.
pub const MAX_BUFFER: usize = 128 * 1024;
