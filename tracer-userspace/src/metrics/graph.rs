//! The service graph: who calls whom, how often, how long, and how often it fails.
//!
//! Names, labels and meaning are those of the OpenTelemetry Collector's service graph connector, which are Grafana Tempo's. A request is
//! an edge once both its spans were seen: a server span's parent is the client's span. Both ends of a connection stay who they are,
//! so what one pair told is remembered for the connection, and its next requests wait for nobody.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry as Place;

use super::histogram::Histogram;
use super::instruments as all;
use crate::model::{ConnId, Family, Label, Labels, Nanos, Point, Reading, SpanId};

/// Spans that wait for their other end.
const MAX_PENDING: usize = 16_384;
/// How long they wait. Both ends of a request end at about the same time.
const WAIT: Nanos = 10_000_000_000;
/// Ends of connections whose peer is remembered.
const MAX_PEERS: usize = 65_536;
/// How long it is believed that the peer of a connection is not traced.
const STRANGER: Nanos = 60_000_000_000;
/// Edges kept; further ones are left out and counted.
const MAX_EDGES: usize = 5_000;

/// The caller where it is nobody that is traced, by the connector's convention.
const USER: &str = "user";

/// What joins two services.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Link {
    /// Requests.
    #[default]
    Plain,
    /// Messages.
    Messaging,
    /// Queries.
    Database,
    /// One end is not traced here.
    Virtual,
}

impl Link {
    /// Value of `connection_type`.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Messaging => "messaging_system",
            Self::Database => "database",
            Self::Virtual => "virtual_node",
        }
    }
}

/// Place of an edge, and the series that must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EdgeId {
    place: u32,
    series: u64,
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Peer {
    /// Not known yet.
    #[default]
    Unknown,
    /// Requests belong to this edge.
    Edge(EdgeId),
    /// Nobody that is traced here; requests of a client belong to this edge, until then.
    Stranger(Option<EdgeId>, Nanos),
}

/// One end of a request.
pub struct Half<'a> {
    pub conn: ConnId,
    pub service: &'a Arc<str>,
    /// The client's span: its own id, or the server's parent.
    pub client_span: Option<SpanId>,
    pub is_server: bool,
    pub link: Link,
    pub failed: bool,
    pub duration: Nanos,
    pub now: Nanos,
}

struct Pending {
    conn: ConnId,
    service: Arc<str>,
    is_server: bool,
    link: Link,
    failed: bool,
    duration: Nanos,
    /// Where the client's request went.
    target: Box<str>,
}

struct Edge {
    series: u64,
    labels: Labels,
    start: Nanos,
    last_seen: Nanos,
    total: u64,
    failed: u64,
    server: Histogram,
    client: Histogram,
}

type Name = (Arc<str>, Arc<str>, Link);

/// All edges.
pub struct Graph {
    exponential: bool,
    names: HashMap<Name, u32>,
    edges: Vec<Option<Edge>>,
    free: Vec<u32>,
    next_series: u64,
    peers: HashMap<(ConnId, bool), (Peer, Nanos)>,
    pending: HashMap<SpanId, Pending>,
    order: VecDeque<(Nanos, SpanId)>,
    user: Arc<str>,
    unpaired: u64,
    dropped: u64,
    start: Nanos,
}

impl Graph {
    pub fn new(exponential: bool, start: Nanos) -> Self {
        Self {
            exponential,
            names: HashMap::new(),
            edges: Vec::new(),
            free: Vec::new(),
            next_series: 0,
            peers: HashMap::new(),
            pending: HashMap::new(),
            order: VecDeque::new(),
            user: USER.into(),
            unpaired: 0,
            dropped: 0,
            start,
        }
    }

    /// Counts one end of a request, and returns what is known now about its connection. `peer` is what was known before;
    /// `target` says where the client's request went, for servers that are not traced.
    #[inline]
    pub fn record(&mut self, half: &Half<'_>, peer: Peer, target: impl FnOnce() -> Box<str>) -> Peer {
        match peer {
            Peer::Edge(id) if self.count(id, half) => return peer,
            Peer::Stranger(edge, until) if half.now < until => match edge {
                Some(id) if self.count(id, half) => return peer,
                Some(_) => {}
                None => {
                    self.unpaired += 1;
                    return peer;
                }
            },
            _ => {}
        }
        self.search(half, target)
    }

    /// Counts at an edge that is known. False if it is there no longer.
    #[inline]
    fn count(&mut self, id: EdgeId, half: &Half<'_>) -> bool {
        let edge = self.edges.get_mut(id.place as usize).and_then(Option::as_mut);
        let Some(edge) = edge.filter(|edge| edge.series == id.series) else {
            return false;
        };
        edge.last_seen = half.now;
        if half.is_server {
            edge.server.record(half.duration);
        } else {
            // The client's end stands for the request: it knows of all failures.
            edge.total += 1;
            edge.failed += u64::from(half.failed);
            edge.client.record(half.duration);
        }
        true
    }

    #[cold]
    fn search(&mut self, half: &Half<'_>, target: impl FnOnce() -> Box<str>) -> Peer {
        self.expire_pending(half.now);
        if let Some(&(peer, _)) = self.peers.get(&(half.conn, half.is_server)) {
            match peer {
                Peer::Edge(id) if self.count(id, half) => return peer,
                Peer::Stranger(Some(id), until) if half.now < until && self.count(id, half) => return peer,
                Peer::Stranger(None, until) if half.now < until => {
                    self.unpaired += 1;
                    return peer;
                }
                _ => {}
            }
        }
        let Some(client_span) = half.client_span else {
            // A request that nobody traced sent: the connector's "user". The next one may have a parent.
            if let Some(id) = self.edge(&Arc::clone(&self.user), half.service, Link::Virtual, half.now) {
                self.both(id, half.now, half.failed, Some(half.duration), None);
            }
            return Peer::Unknown;
        };
        let full = self.pending.len() >= MAX_PENDING;
        match self.pending.entry(client_span) {
            Place::Occupied(other) if other.get().is_server != half.is_server => {
                let other = other.remove();
                self.pair(half, &other)
            }
            // The same end twice: a server's second exchange with one parent. The first one waits on.
            Place::Occupied(_) => {
                self.unpaired += 1;
                Peer::Unknown
            }
            Place::Vacant(_) if full => {
                self.dropped += 1;
                Peer::Unknown
            }
            Place::Vacant(place) => {
                place.insert(Pending {
                    conn: half.conn,
                    service: Arc::clone(half.service),
                    is_server: half.is_server,
                    link: half.link,
                    failed: half.failed,
                    duration: half.duration,
                    target: if half.is_server { Box::default() } else { target() },
                });
                self.order.push_back((half.now.saturating_add(WAIT), client_span));
                Peer::Unknown
            }
        }
    }

    fn pair(&mut self, half: &Half<'_>, other: &Pending) -> Peer {
        let (client, server) = if half.is_server {
            (&other.service, half.service)
        } else {
            (half.service, &other.service)
        };
        let (client_time, server_time) = if half.is_server {
            (other.duration, half.duration)
        } else {
            (half.duration, other.duration)
        };
        let Some(id) = self.edge(client, server, half.link, half.now) else {
            return Peer::Unknown;
        };
        self.both(
            id,
            half.now,
            half.failed || other.failed,
            Some(server_time),
            Some(client_time),
        );
        let peer = Peer::Edge(id);
        self.remember(half.conn, half.is_server, peer, half.now);
        self.remember(other.conn, other.is_server, peer, half.now);
        peer
    }

    /// Counts a request as a whole.
    fn both(&mut self, id: EdgeId, now: Nanos, failed: bool, server: Option<Nanos>, client: Option<Nanos>) {
        let Some(edge) = self.edges.get_mut(id.place as usize).and_then(Option::as_mut) else {
            return;
        };
        edge.last_seen = now;
        edge.total += 1;
        edge.failed += u64::from(failed);
        if let Some(time) = server {
            edge.server.record(time);
        }
        if let Some(time) = client {
            edge.client.record(time);
        }
    }

    fn remember(&mut self, conn: ConnId, is_server: bool, peer: Peer, now: Nanos) {
        if self.peers.len() >= MAX_PEERS {
            // Rare, and cheaper than an order of use: those of the longest past go.
            let mut ages: Vec<Nanos> = self.peers.values().map(|&(_, seen)| seen).collect();
            let middle = ages.len() / 2;
            let (_, &mut oldest, _) = ages.select_nth_unstable(middle);
            self.peers.retain(|_, (_, seen)| *seen > oldest);
        }
        self.peers.insert((conn, is_server), (peer, now));
    }

    /// Takes those out that waited for nothing.
    pub fn expire_pending(&mut self, now: Nanos) {
        while let Some(&(deadline, span)) = self.order.front()
            && deadline <= now
        {
            self.order.pop_front();
            // An id may have come again after its pair was found: then a later deadline follows.
            if let Some(half) = self.pending.remove(&span) {
                self.alone(half, now);
            }
        }
    }

    fn alone(&mut self, half: Pending, now: Nanos) {
        let known = self
            .peers
            .get(&(half.conn, half.is_server))
            .map(|&(peer, _)| peer);
        if let Some(Peer::Edge(id)) = known {
            // Its other end was counted at the edge already.
            let half = Half {
                conn: half.conn,
                service: &half.service,
                client_span: None,
                is_server: half.is_server,
                link: half.link,
                failed: half.failed,
                duration: half.duration,
                now,
            };
            self.count(id, &half);
            return;
        }
        let until = now.saturating_add(STRANGER);
        if half.is_server {
            self.unpaired += 1;
            self.remember(half.conn, true, Peer::Stranger(None, until), now);
            return;
        }
        let link = match half.link {
            Link::Plain => Link::Virtual,
            link => link,
        };
        let server: Arc<str> = half.target.into();
        if let Some(id) = self.edge(&half.service, &server, link, now) {
            self.both(id, now, half.failed, None, Some(half.duration));
            self.remember(half.conn, false, Peer::Stranger(Some(id), until), now);
        }
    }

    fn edge(&mut self, client: &Arc<str>, server: &Arc<str>, link: Link, now: Nanos) -> Option<EdgeId> {
        let name = (Arc::clone(client), Arc::clone(server), link);
        if let Some(&place) = self.names.get(&name) {
            let series = self.edges.get(place as usize)?.as_ref()?.series;
            return Some(EdgeId { place, series });
        }
        if self.names.len() >= MAX_EDGES {
            self.dropped += 1;
            return None;
        }
        self.next_series += 1;
        let edge = Edge {
            series: self.next_series,
            labels: Arc::new([
                ("client", Label::Text((&**client).into())),
                ("server", Label::Text((&**server).into())),
                ("connection_type", Label::Static(link.as_str())),
            ]),
            start: now,
            last_seen: now,
            total: 0,
            failed: 0,
            server: Histogram::new(&all::EDGE_SERVER, self.exponential),
            client: Histogram::new(&all::EDGE_CLIENT, self.exponential),
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.edges.push(None);
            self.edges.len() as u32 - 1
        });
        *self.edges.get_mut(place as usize)? = Some(edge);
        self.names.insert(name, place);
        Some(EdgeId {
            place,
            series: self.next_series,
        })
    }

    /// Forgets edges that nothing has used since `before` and one of whose services has gone.
    pub fn expire(&mut self, is_alive: &dyn Fn(&str) -> bool, before: Nanos) {
        let edges = &mut self.edges;
        let free = &mut self.free;
        self.names.retain(|(client, server, link), &mut place| {
            let Some(slot) = edges.get_mut(place as usize) else {
                return false;
            };
            let by_user = **client == *USER;
            let lives =
                (by_user || is_alive(client)) && (is_alive(server) || (!by_user && *link != Link::Plain));
            if !lives && slot.take_if(|edge| edge.last_seen < before).is_some() {
                free.push(place);
                return false;
            }
            true
        });
    }

    /// Appends what was counted. Everything belongs to the tracer: an edge is nobody's own.
    pub fn gather(&self, into: &mut Vec<Family>) {
        for edge in self.edges.iter().flatten() {
            let mut tell = |instrument, value| {
                let point = Point {
                    series: edge.series,
                    service: None,
                    labels: Arc::clone(&edge.labels),
                    start: edge.start,
                    value,
                };
                super::add(into, instrument, point);
            };
            tell(&all::EDGE_TOTAL, Reading::Number(edge.total));
            tell(&all::EDGE_FAILED, Reading::Number(edge.failed));
            for (instrument, histogram) in [
                (&all::EDGE_SERVER, &edge.server),
                (&all::EDGE_CLIENT, &edge.client),
            ] {
                let told = histogram.distribution();
                // One end of a virtual edge is never seen.
                if told.count() > 0 {
                    tell(instrument, Reading::Distribution(Box::new(told)));
                }
            }
        }
        for (instrument, total) in [
            (&all::EDGE_UNPAIRED, self.unpaired),
            (&all::EDGE_DROPPED, self.dropped),
        ] {
            super::add(into, instrument, super::own(total, self.start));
        }
    }
}
