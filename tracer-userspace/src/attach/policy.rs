//! What is captured of each connection.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, MapError},
};
use tracer_common::{ConnState, PolicyMode};

use crate::model::ConnId;

/// Most bytes captured in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limit {
    /// Of one run.
    pub run: u32,
    /// Of one chunk; 0 also means no tail.
    pub chunk: u32,
}

/// [`ConnState`] as a map value.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Value(ConnState);

// SAFETY: `ConnState` is `repr(C)`, holds integers only and has no padding (its size is asserted).
unsafe impl Pod for Value {}

/// Handle on the connection table of the programs. Clones share it.
#[derive(Clone)]
pub struct Policy(Arc<Mutex<HashMap<MapData, u64, Value>>>);

impl Policy {
    pub(super) fn new(map: Map) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(
            HashMap::try_from(map).context("CONNS")?,
        ))))
    }

    /// From now on captures so much of the connection.
    pub fn set_policy(&self, conn: ConnId, send: Limit, recv: Limit) -> anyhow::Result<()> {
        self.change(conn, |state| {
            state.mode = PolicyMode::CAPTURE.0;
            state.run_limit = [send.run, recv.run];
            state.chunk_limit = [send.chunk, recv.chunk];
        })
    }

    /// No events of this connection any more.
    pub fn ignore(&self, conn: ConnId) -> anyhow::Result<()> {
        self.change(conn, |state| state.mode = PolicyMode::IGNORE.0)
    }

    /// Forgets what was decided: if the connection goes on, it is new.
    pub fn forget(&self, conn: ConnId) -> anyhow::Result<()> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match map.remove(&conn.0) {
            Ok(()) => Ok(()),
            Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(libc::ENOENT) => {
                Ok(())
            }
            Err(error) => Err(error).context("forgetting a connection"),
        }
    }

    fn change(&self, conn: ConnId, edit: impl FnOnce(&mut ConnState)) -> anyhow::Result<()> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut state = match map.get(&conn.0, 0) {
            Ok(Value(state)) => state,
            Err(MapError::KeyNotFound) => ConnState::undecided(),
            Err(error) => return Err(error).context("reading a connection's state"),
        };
        edit(&mut state);
        // The kernel side may have moved on since the read. A stale count would cut the next capture short and a stale arrival would
        // be told as queueing that never was; zeros only capture more, and leave one queue time out.
        state.run_bytes = 0;
        state.arrival = 0;
        map.insert(conn.0, Value(state), 0)
            .context("storing a connection's policy")
    }
}
