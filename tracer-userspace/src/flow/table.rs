//! The connections of one worker.

use std::hash::{BuildHasherDefault, Hasher};
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

/// Where a flow stands in its [`Table`], until the next flow is added or removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place(u32);

/// A bounded table of flows.
pub struct Table<C> {
    /// Where each flow stands in `flows`: every chunk looks here, so entries are small.
    places: HashMap<ConnId, Place, BuildHasherDefault<Spread>>,
    flows: Vec<Option<Flow<C>>>,
    free: Vec<Place>,
    /// Where the next search for an idle flow begins.
    hand: usize,
    bound: usize,
}

/// Spreads socket cookies, which the kernel gives out: nobody chooses them to collide.
#[derive(Default)]
pub struct Spread(u64);

impl Hasher for Spread {
    #[inline]
    fn write_u64(&mut self, cookie: u64) {
        // The table takes its buckets from the low bits and its tags from the high ones: both halves of the product matter.
        let product = u128::from(cookie ^ self.0) * 0x9e37_79b9_7f4a_7c15;
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u64(u64::from(byte));
        }
    }

    #[inline]
    fn finish(&self) -> u64 {
        self.0
    }
}

impl<C> Table<C> {
    /// A table of at most `bound` flows.
    #[must_use]
    pub fn new(bound: usize) -> Self {
        Self {
            places: HashMap::default(),
            flows: Vec::new(),
            free: Vec::new(),
            hand: 0,
            bound,
        }
    }

    /// Where the flow of `id` stands, if it is known.
    #[inline]
    #[must_use]
    pub fn find(&self, id: ConnId) -> Option<Place> {
        self.places.get(&id).copied()
    }

    /// The flow at a place.
    #[inline]
    pub fn at(&mut self, place: Place) -> Option<&mut Flow<C>> {
        self.flows.get_mut(place.0 as usize)?.as_mut()
    }

    /// The flow of `id`, if it is known.
    pub fn get_mut(&mut self, id: ConnId) -> Option<&mut Flow<C>> {
        let place = self.find(id)?;
        self.at(place)
    }

    /// Adds a flow that is not known yet. When the table is full, the longest idle of a sample of flows comes back: its consumer
    /// must be closed.
    pub fn insert(&mut self, conn: Arc<Conn>, now: Nanos, consumer: C) -> (Place, Option<Flow<C>>) {
        let evicted = if self.len() >= self.bound {
            self.evict()
        } else {
            None
        };
        let id = conn.id;
        let flow = Some(Flow {
            conn,
            streams: Default::default(),
            last_seen: now,
            consumer,
        });
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(empty) = self.flows.get_mut(place.0 as usize) {
                    *empty = flow;
                }
                place
            }
            None => {
                self.flows.push(flow);
                Place((self.flows.len() - 1) as u32)
            }
        };
        self.places.insert(id, place);
        (place, evicted)
    }

    /// Forgets a flow.
    pub fn remove(&mut self, id: ConnId) -> Option<Flow<C>> {
        let place = self.places.remove(&id)?;
        self.free.push(place);
        self.flows.get_mut(place.0 as usize)?.take()
    }

    /// Takes out the flows that have not moved since `before` and that `expire` names.
    pub fn expire(&mut self, before: Nanos, mut expire: impl FnMut(&Flow<C>) -> bool) -> Vec<Flow<C>> {
        let idle = self.flows.iter().flatten().filter(|flow| flow.last_seen < before);
        let gone: Vec<ConnId> = idle
            .filter(|flow| expire(flow))
            .map(|flow| flow.conn.id)
            .collect();
        gone.into_iter().filter_map(|id| self.remove(id)).collect()
    }

    /// All flows.
    pub fn iter(&self) -> impl Iterator<Item = &Flow<C>> {
        self.flows.iter().flatten()
    }

    /// Takes out every flow.
    pub fn drain(&mut self) -> impl Iterator<Item = Flow<C>> {
        self.places.clear();
        self.free.clear();
        self.flows.drain(..).flatten()
    }

    /// Number of flows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// A full scan would cost every new connection the whole table, so each eviction looks at a few flows further on.
    fn evict(&mut self) -> Option<Flow<C>> {
        const SAMPLE: usize = 16;
        let places = self.flows.len();
        let sample = (self.hand..self.hand + places).filter_map(|at| self.flows.get(at % places)?.as_ref());
        let oldest = sample.take(SAMPLE).min_by_key(|flow| flow.last_seen)?.conn.id;
        self.hand = (self.hand + SAMPLE) % places;
        self.remove(oldest)
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
            assert!(table.insert(conn(id), now, ()).1.is_none());
        }
        let evicted = table.insert(conn(4), 40, ()).1.expect("the table was full");
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
            .into_iter()
            .map(|flow| flow.conn.id.0)
            .collect();
        assert_eq!((gone.len(), table.len()), (2, 2));
        assert!(table.get_mut(ConnId(2)).is_some() && table.get_mut(ConnId(4)).is_some());
    }

    #[test]
    fn places_are_used_again_and_name_one_flow_each() {
        let mut table = Table::new(4);
        for id in 1..=100 {
            let (place, _) = table.insert(conn(id), id, ());
            assert_eq!(table.find(ConnId(id)), Some(place));
            assert_eq!(table.at(place).map(|flow| flow.conn.id), Some(ConnId(id)));
            if id % 3 == 0 {
                assert!(table.remove(ConnId(id)).is_some() && table.at(place).is_none());
                assert_eq!(table.find(ConnId(id)), None);
            }
        }
        assert!(table.len() <= 4 && table.flows.len() <= 4);
        let left = table.len();
        assert_eq!((table.drain().count(), table.len()), (left, 0));
    }
}
