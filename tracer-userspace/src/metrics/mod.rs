//! Metrics of every exchange, before any sampling.
//!
//! The correlation stage's thread counts ([`Metrics::record`]), once a batch under one lock; exporters copy what stands there now and
//! then ([`Gather`]). What makes the cost small: an exchange whose connection said the same last time belongs to the endpoint it
//! belonged to then, and everything that is counted of it lies there together.

mod config;
mod connections;
mod endpoints;
mod graph;
mod health;
mod histogram;
mod instruments;
mod recent;
mod services;
mod shape;

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use self::connections::Connections;
use self::endpoints::{Endpoints, Limits};
use self::graph::{Graph, Half, Link};
use self::recent::{Recent, Sizes, Slot};
use self::services::Services;
use self::shape::{Attribute, Facts};
use crate::model::{
    Address, Conn, Exchange, Exemplar, Family, Gather, Instrument, Nanos, Outcome, Point, Reading, Service,
    Span, Value,
};

pub use self::config::Config;
pub use self::connections::{Event, Side};
pub use self::health::Own;

/// Every metric there is.
pub fn instruments() -> impl Iterator<Item = &'static Instrument> {
    instruments::ALL.iter().chain(health::ALL).copied()
}

/// The exchange of a connect that failed (agent/connect.rs).
const CONNECT: &str = "connect";

/// All metrics of exchanges; copies share them.
#[derive(Clone)]
pub struct Metrics {
    state: Arc<Mutex<State>>,
}

struct State {
    config: Config,
    exponential: bool,
    services: Services,
    endpoints: Endpoints,
    recent: Recent,
    graph: Option<Graph>,
    connections: Connections,
    overflowed: u64,
    start: Nanos,
}

impl Metrics {
    /// Nothing is counted yet. `exponential` keeps exponential buckets beside the explicit ones.
    #[must_use]
    pub fn new(config: Config, exponential: bool, now: Nanos) -> Self {
        let limits = Limits {
            service: config.max_series_per_service.max(1),
            total: config.max_series.max(1),
            exponential,
        };
        let services = Services::new(config.max_instances_per_service);
        let graph = config.service_graph.then(|| Graph::new(exponential, now));
        Self {
            state: Arc::new(Mutex::new(State {
                config,
                exponential,
                services,
                endpoints: Endpoints::new(limits),
                recent: Recent::default(),
                graph,
                connections: Connections::default(),
                overflowed: 0,
                start: now,
            })),
        }
    }

    /// Counts finished exchanges. With `exemplars`, their spans stand for their buckets (all of them will be exported).
    pub fn record(&self, spans: &[Span], exemplars: bool) {
        let mut state = self.lock();
        for span in spans {
            state.record(span, exemplars);
        }
    }

    /// Lets spans that were counted before stand for their buckets: those that sampling kept.
    pub fn exemplify<'a>(&self, spans: impl IntoIterator<Item = &'a Span>) {
        let mut state = self.lock();
        for span in spans {
            state.exemplify(span);
        }
    }

    /// Counts what happened to a connection.
    pub fn connection(
        &self,
        event: Event,
        side: Option<Side>,
        conn: &Conn,
        service: &Arc<Service>,
        now: Nanos,
    ) {
        let mut state = self.lock();
        let id = state.services.intern(service, now);
        state.connections.record(event, side, conn, id, now);
    }

    /// These processes have ended: the series of their services expire.
    pub fn ended(&self, tgids: &[u32], now: Nanos) {
        if !tgids.is_empty() {
            self.lock().services.ended(tgids, now);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gather for Metrics {
    fn gather(&self, now: Nanos) -> Vec<Family> {
        let mut state = self.lock();
        state.expire(now);
        let mut families = Vec::new();
        state.endpoints.gather(&state.services, &mut families);
        if let Some(graph) = &state.graph {
            graph.gather(&mut families);
        }
        state.connections.gather(&state.services, &mut families);
        add(
            &mut families,
            &instruments::OVERFLOWED,
            own(state.overflowed, state.start),
        );
        let series = state.endpoints.len() as u64;
        add(&mut families, &instruments::SERIES, own(series, state.start));
        drop(state);
        let place = |family: &Family| {
            let same = |other: &&Instrument| std::ptr::eq(*other, family.instrument);
            instruments::ALL.iter().position(same)
        };
        families.sort_by_key(place);
        families
    }
}

impl State {
    fn record(&mut self, span: &Span, exemplars: bool) {
        let exchange = &*span.exchange;
        if exchange.protocol == CONNECT {
            return self.connect_failed(span);
        }
        let Self {
            recent,
            services,
            endpoints,
            graph,
            ..
        } = self;
        let now = exchange.end.ts;
        let duration = now.saturating_sub(exchange.start.ts);
        let slot = recent.slot(span);
        let is_there = |id| endpoints.get(id).is_some();
        let sizes = match slot.recall(span) {
            Some(sizes) if slot.endpoint.is_none_or(is_there) => sizes,
            _ => look_up(services, endpoints, span, slot),
        };
        if let Some(endpoint) = slot.endpoint.and_then(|id| endpoints.get(id)) {
            endpoint.last_seen = now;
            let bucket = endpoint.duration.record(duration);
            if let Some([request, response]) = endpoint.sizes.as_deref_mut() {
                if let Some(size) = sizes.request {
                    request.record(size);
                }
                if let Some(size) = sizes.response {
                    response.record(size);
                }
            }
            if let Some(wait) = exchange.queue_time {
                endpoint.waited(wait, self.exponential);
            }
            if exemplars {
                endpoint.duration.exemplify(bucket, exemplar(span, duration));
            }
            self.overflowed += u64::from(endpoint.is_overflow);
        }
        let Some(service) = services.get_mut(slot.service) else {
            return;
        };
        service.last_seen = now;
        if let Some(graph) = graph {
            let is_server = exchange.role.is_inbound();
            let half = Half {
                conn: exchange.conn.id,
                service: &service.name,
                client_span: if is_server {
                    span.parent
                } else {
                    Some(span.span_id)
                },
                is_server,
                link: slot.link,
                failed: exchange.outcome != Outcome::Unset,
                duration,
                now,
            };
            slot.peer = graph.record(&half, slot.peer, || target(exchange));
        }
    }

    fn exemplify(&mut self, span: &Span) {
        let exchange = &*span.exchange;
        if exchange.protocol == CONNECT {
            return;
        }
        let Self {
            recent,
            services,
            endpoints,
            ..
        } = self;
        let slot = recent.slot(span);
        if slot.recall(span).is_none() {
            look_up(services, endpoints, span, slot);
        }
        if let Some(endpoint) = slot.endpoint.and_then(|id| endpoints.get(id)) {
            let duration = exchange.end.ts.saturating_sub(exchange.start.ts);
            let bucket = endpoint.duration.bucket(duration);
            endpoint.duration.exemplify(bucket, exemplar(span, duration));
        }
    }

    fn connect_failed(&mut self, span: &Span) {
        let exchange = &*span.exchange;
        let now = exchange.end.ts;
        let error = match &exchange.outcome {
            Outcome::Error { kind, .. } => kind.clone(),
            Outcome::Unset => Box::default(),
        };
        let service = self.services.intern(&span.service, now);
        self.connections.record(
            Event::Failed(error),
            Some(Side::Client),
            &exchange.conn,
            service,
            now,
        );
    }

    fn expire(&mut self, now: Nanos) {
        let before = now.saturating_sub(self.config.expire_after.as_nanos() as Nanos);
        let gone = self.services.expire(before);
        self.endpoints.expire(&gone, before, &mut self.services);
        self.connections.expire(&gone);
        if !gone.is_empty() {
            // Their numbers will be given to others.
            self.recent = Recent::default();
        }
        if let Some(graph) = &mut self.graph {
            graph.expire_pending(now);
            let services = &self.services;
            graph.expire(&|name| services.has_name(name), before);
        }
    }
}

/// The long way to the endpoint of an exchange that is not what its connection said last.
#[inline(never)]
fn look_up(services: &mut Services, endpoints: &mut Endpoints, span: &Span, slot: &mut Slot) -> Sizes {
    let exchange = &*span.exchange;
    let now = exchange.end.ts;
    let service = services.intern(&span.service, now);
    let mut facts = Facts::read(&exchange.attributes);
    let is_inbound = exchange.role.is_inbound();
    let server = if is_inbound {
        exchange.conn.local
    } else {
        exchange.conn.remote
    };
    let address;
    if let (None, Address::Ip(ip)) = (facts.get(Attribute::ServerAddress), server.address) {
        address = slot.address(ip);
        facts.set(Attribute::ServerAddress, Value::Str(&address));
    }
    if facts.get(Attribute::ServerPort).is_none() && server.port != 0 {
        facts.set(Attribute::ServerPort, Value::Int(server.port.into()));
    }
    if let Outcome::Error { kind, .. } = &exchange.outcome
        && facts.get(Attribute::ErrorType).is_none()
    {
        facts.set(Attribute::ErrorType, Value::Str(kind));
    }
    let link = if facts.get(Attribute::DbSystem).is_some() {
        Link::Database
    } else if facts.get(Attribute::MessagingSystem).is_some() {
        Link::Messaging
    } else {
        Link::Plain
    };
    let kind = facts.kind(exchange.role);
    let endpoint = kind.and_then(|kind| endpoints.find(service, kind, &facts, services, now));
    let sizes = Sizes {
        request: facts.number(Attribute::RequestSize),
        response: facts.number(Attribute::ResponseSize),
    };
    slot.remember(span, sizes, service, endpoint, link);
    sizes
}

/// Where a client's request went, for servers that are not traced.
fn target(exchange: &Exchange) -> Box<str> {
    let attributes = &exchange.attributes;
    match attributes.get_str(Attribute::ServerAddress.key()) {
        Some(address) => match attributes.get_int(Attribute::ServerPort.key()) {
            Some(port) => format!("{address}:{port}").into(),
            None => address.into(),
        },
        None => connections::place(&exchange.conn.remote).into(),
    }
}

fn exemplar(span: &Span, value: u64) -> Exemplar {
    Exemplar {
        trace_id: span.trace_id,
        span_id: span.span_id,
        value,
        ts: span.exchange.end.ts,
    }
}

/// Appends a point to its instrument's family.
fn add(families: &mut Vec<Family>, instrument: &'static Instrument, point: Point) {
    // Points of one instrument come in runs, or a few instruments take turns.
    let family = families
        .iter_mut()
        .rev()
        .find(|family| std::ptr::eq(family.instrument, instrument));
    match family {
        Some(family) => family.points.push(point),
        None => families.push(Family {
            instrument,
            points: vec![point],
        }),
    }
}

/// A number of the tracer itself, without attributes.
fn own(number: u64, start: Nanos) -> Point {
    Point {
        series: 0,
        service: None,
        labels: Arc::new([]),
        start,
        value: Reading::Number(number),
    }
}
