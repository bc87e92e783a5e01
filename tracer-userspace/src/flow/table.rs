//! The connections of one worker.

use std::sync::Arc;

use hashbrown::HashMap;

use super::Stream;
use crate::model::{Conn, ConnId, Nanos};

/// One connection with what the next stage keeps for it.
pub struct Flow<C> {
    /// Who talks to whom.
    pub conn: Arc<Conn>,
    /// Positions: [send, receive].
    pub streams: [Stream; 2],
    /// When it last moved.
    pub last_seen: Nanos,
    /// The next stage's own.
    pub consumer: C,
}

/// A bounded table of flows.
pub struct Table<C> {
    flows: HashMap<ConnId, Flow<C>>,
    bound: usize,
}

impl<C> Table<C> {
    /// A table of at most `bound` flows.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            flows: HashMap::new(),
            bound,
        }
    }

    /// The flow of `id`, if it is known.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Flow<C>> {
        self.flows.get_mut(&id)
    }

    /// Adds a flow. When the table is full, the longest idle of a sample of flows comes back: its consumer must be closed.
    pub fn insert(&mut self, conn: Arc<Conn>, now: Nanos, consumer: C) -> Option<Flow<C>> {
        let evicted = if self.flows.len() >= self.bound {
            self.evict()
        } else {
            None
        };
        let flow = Flow {
            conn,
            streams: Default::default(),
            last_seen: now,
            consumer,
        };
        self.flows.insert(flow.conn.id, flow);
        evicted
    }

    /// Forgets a flow.
    pub fn remove(&mut self, id: ConnId) -> Option<Flow<C>> {
        self.flows.remove(&id)
    }

    /// Takes out the flows that have not moved since `before` and that `expire` names.
    pub fn expire(
        &mut self,
        before: Nanos,
        mut expire: impl FnMut(&Flow<C>) -> bool,
    ) -> impl Iterator<Item = Flow<C>> {
        self.flows
            .extract_if(move |_, flow| flow.last_seen < before && expire(flow))
            .map(|(_, flow)| flow)
    }

    /// Takes out every flow.
    pub fn drain(&mut self) -> impl Iterator<Item = Flow<C>> {
        self.flows.drain().map(|(_, flow)| flow)
    }

    /// Number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The table's iteration order is arbitrary, so its first entries are a sample; a full scan would cost every new connection
    /// the whole table.
    fn evict(&mut self) -> Option<Flow<C>> {
        const SAMPLE: usize = 16;
        let oldest = self
            .flows
            .values()
            .take(SAMPLE)
            .min_by_key(|flow| flow.last_seen)?
            .conn
            .id;
        self.flows.remove(&oldest)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;
    use crate::model::{Address, Endpoint};

    fn conn(id: u64) -> Arc<Conn> {
        let end = Endpoint {
            address: Address::Ip(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            port: 1,
        };
        Arc::new(Conn {
            id: ConnId(id),
            local: end,
            remote: end,
            netns: 0,
            tgid: 1,
            joined_late: false,
        })
    }

    #[test]
    fn a_full_table_gives_back_its_longest_idle_flow() {
        let mut table = Table::new(3);
        for (id, now) in [(1, 30), (2, 10), (3, 20)] {
            assert!(table.insert(conn(id), now, ()).is_none());
        }
        let evicted = table.insert(conn(4), 40, ()).expect("the table was full");
        assert_eq!((evicted.conn.id, table.len()), (ConnId(2), 3));
    }

    #[test]
    fn expiry_takes_idle_flows_that_the_caller_names() {
        let mut table = Table::new(10);
        for id in 1..=4 {
            table.insert(conn(id), id, ());
        }
        let gone: Vec<_> = table
            .expire(4, |flow| flow.conn.id.0 != 2)
            .map(|flow| flow.conn.id.0)
            .collect();
        assert_eq!((gone.len(), table.len()), (2, 2));
        assert!(table.get_mut(ConnId(2)).is_some() && table.get_mut(ConnId(4)).is_some());
    }
}
