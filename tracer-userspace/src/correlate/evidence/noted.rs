//! Connections of a unit on which something is bound to come (the first write, the end), and what is remembered of each until it does (E5, E7).

use std::collections::VecDeque;

use crate::model::ConnId;

/// The connections, the oldest first, and what is remembered of each.
pub(super) struct Noted<T>(VecDeque<(ConnId, T)>);

/// Most connections that are remembered of a loop.
pub(super) const MAX_NOTED: usize = 256;

impl<T> Default for Noted<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T: PartialEq> Noted<T> {
    /// Remembers one more; of so many the oldest is forgotten.
    pub fn push(&mut self, conn: ConnId, what: T, most: usize) {
        if self.0.len() >= most {
            self.0.pop_front();
        }
        self.0.push_back((conn, what));
    }

    /// What is remembered of the connection; no longer from now on.
    pub fn take(&mut self, conn: ConnId) -> Option<T> {
        let at = self.0.iter().position(|(noted, _)| *noted == conn)?;
        self.0.remove(at).map(|(_, what)| what)
    }

    /// The first connection of which that is remembered.
    pub fn find(&self, what: &T) -> Option<ConnId> {
        self.0.iter().find(|(_, is)| is == what).map(|(conn, _)| *conn)
    }

    /// Forgets those of which that is remembered.
    pub fn forget(&mut self, what: &T) {
        self.0.retain(|(_, is)| is != what);
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}
