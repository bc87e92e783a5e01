//! What the protocol stage tells the correlation stage, in time order.

use serde::{Deserialize, Serialize};

use std::sync::Arc;

use super::{Conn, ConnId, Exchange, ExchangeId, MessageIdentity, Nanos, Role, Stamp, TraceContext, Unit};

/// An exchange has begun: its request was recognised.
#[derive(Clone, Debug)]
pub struct Begin {
    /// The exchange.
    pub id: ExchangeId,
    /// The connection's end that saw it.
    pub conn: Arc<Conn>,
    /// Which part this end plays.
    pub role: Role,
    /// First byte of the request.
    pub start: Stamp,
    /// Where the request's first byte stands in the stream, if the socket tells.
    pub identity: Option<MessageIdentity>,
    /// Trace context that the request carries.
    pub context: Option<Arc<TraceContext>>,
    /// Who took the connection for it, where that is told.
    pub taken: Option<Box<Taken>>,
}

/// A client took a connection, from a pool or a new one, for the exchange that begins on it next: often the caller does that
/// itself where a thread of the client's own writes the request.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Taken {
    /// When, and who did.
    pub stamp: Stamp,
    /// It is a thread of the client library's own pool.
    pub by_client_thread: bool,
    /// Who handed that thread its work, and when: the one that woke it last, or made it.
    pub handed: Option<Stamp>,
    /// Who had woken it before that, if nothing shows that this work was done: a wake may mean a lock and no work.
    pub before: Option<Unit>,
    /// The unit that waits for what the thread works on, as [`Submitters::by`](super::Submitters) names it, and since when it is known to; of a
    /// client's own thread, that waits for what the one completed which handed it its work.
    #[serde(default)]
    pub waiter: Option<(u64, Nanos)>,
}

/// Who woke whom, by the ids of the process's threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Wake {
    /// When, and who.
    pub waker: Stamp,
    /// Whom.
    pub woken: u32,
    /// Who had woken the waker, if anybody did since it last woke one: where its work may come from.
    pub before: Option<u32>,
    /// When the woken one was last known to run: it moved bytes, woke somebody or was woken.
    pub asleep_since: Nanos,
}

/// A thread that others of its process outlive has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ThreadEnd {
    /// When, and which.
    pub stamp: Stamp,
    /// The thread that made it.
    pub creator: u32,
    /// When that was.
    pub born: Nanos,
}

/// A thread did something that tells who causes what, whether or not bytes of an exchange moved. Told only of processes whose runtime
/// makes use of it, and before what the protocol stage says of the same moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Act {
    /// When, and by whom.
    pub stamp: Stamp,
    /// What.
    pub deed: Deed,
}

/// What a thread did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Deed {
    /// An event loop goes to look for events.
    Waits,
    /// An event loop takes notice that another thread has work for it, or has done some (reads its eventfd).
    Woken,
    /// Opens a connection.
    Connects(ConnId),
    /// Sends bytes, of whatever protocol.
    Sends(ConnId),
    /// Receives bytes, of whatever protocol.
    Receives(ConnId),
    /// Finds that the peer sends no more (a receive returns 0). Told after what that means for the exchanges there.
    ReadsEnd(ConnId),
    /// Of the task: who it is held by is known only now, after it has called ([`super::Task::held_since`]).
    Held,
}

/// What an exchange does with work that one process puts off and another does later (an element of a list in Redis). Told before the end
/// of the exchange, at the end that asked the store.
///
/// A job's number tells its bytes and the place where they were put, by a hash with a key of this run of the daemon: equal numbers mean
/// the same bytes in the same place, and say nothing of what they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Job {
    /// Asks for work: what its unit did before is over.
    Asks,
    /// Puts it there. Told with the request.
    Puts(u64),
    /// Takes it: nobody else gets it.
    Takes(u64),
    /// Gets it as others may (an entry of a stream).
    Reads(u64),
}

/// One signal. Signals of one exchange come in order: one `Begin`, at most one `RequestEnd` and one `Respond`, one `End` or `Drop`.
///
/// What one system call moved is told once: a request that ends with the bytes that began it has no `RequestEnd`, and a response
/// that ends so no `Respond`; the `End` tells ([`Exchange::first_byte`]).
#[derive(Clone, Debug)]
pub struct Signal {
    /// When it became known: the time of the chunk that told. Signals are ordered by this.
    pub ts: Nanos,
    /// What happened.
    pub kind: SignalKind,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum SignalKind {
    /// A thread did something.
    Act(Act),
    /// A request was recognised.
    Begin(Begin),
    /// The request's last byte has been moved (it may come after `Respond`).
    RequestEnd(ExchangeId, Stamp),
    /// The first byte of the response was moved.
    Respond(ExchangeId, Stamp),
    /// The exchange is over.
    End(Box<Exchange>),
    /// The exchange is over and nothing true can be said about it (its bytes were lost); it was counted.
    Drop(ExchangeId, crate::telemetry::Reason),
    /// The exchange puts work off, or takes what was put off.
    Job(ExchangeId, Job),
    /// A thread that has just received woke another thread of its process that has received, too.
    Wake(Wake),
    /// A thread has ended.
    ThreadEnd(ThreadEnd),
    /// The process runs another program from now on, or its id is another process's.
    Replaced(u32),
}
