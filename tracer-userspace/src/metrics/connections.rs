//! Connections that open, fail to, are reset, and send again.

use std::sync::Arc;

use hashbrown::HashMap;

use super::instruments as all;
use super::services::{ServiceId, Services};
use crate::model::{Address, Conn, Endpoint, Family, Instrument, Label, Labels, Nanos, Point, Reading};

/// Sets of attributes kept.
const MAX_SERIES: usize = 4_096;

/// What happened to a connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Event {
    /// It opened, and its first bytes were moved.
    Opened,
    /// It was reset.
    Reset,
    /// A segment was sent again.
    Retransmitted,
    /// It failed to open: the name of the error.
    Failed(Box<str>),
}

/// Which end this is. Where the opening was not seen, nobody knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Side {
    /// It connected.
    Client,
    /// It accepted.
    Server,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    instrument: &'static str,
    service: ServiceId,
    side: Option<Side>,
    /// Where the server is.
    server: Option<(Option<Address>, u16)>,
    error: Option<Box<str>>,
}

struct Counter {
    instrument: &'static Instrument,
    series: u64,
    labels: Labels,
    start: Nanos,
    total: u64,
}

/// Counters of connections.
#[derive(Default)]
pub struct Connections {
    counters: HashMap<Key, Counter>,
    next_series: u64,
}

impl Connections {
    /// Counts one event.
    pub fn record(&mut self, event: Event, side: Option<Side>, conn: &Conn, service: ServiceId, now: Nanos) {
        let (instrument, error) = match event {
            Event::Opened => (&all::OPENED, None),
            Event::Reset => (&all::RESET, None),
            Event::Retransmitted => (&all::RETRANSMITTED, None),
            Event::Failed(error) => (&all::FAILED, Some(error)),
        };
        let server = side.map(|side| match side {
            Side::Client => (Some(conn.remote.address), conn.remote.port),
            // A server's own address tells little, and there are many where it has one for each network.
            Side::Server => (None, conn.local.port),
        });
        let full = self.counters.len() >= MAX_SERIES;
        let mut key = Key {
            instrument: instrument.name,
            service,
            side,
            server,
            error,
        };
        let is_overflow = full && !self.counters.contains_key(&key);
        if is_overflow {
            (key.side, key.server, key.error) = (None, None, None);
            key.service = super::services::NOBODY;
        }
        let next_series = &mut self.next_series;
        let counter = self.counters.entry(key).or_insert_with_key(|key| {
            *next_series += 1;
            Counter {
                instrument,
                series: *next_series,
                labels: labels(key, is_overflow),
                start: now,
                total: 0,
            }
        });
        counter.total += 1;
    }

    /// Forgets services that have gone.
    pub fn expire(&mut self, gone: &[ServiceId]) {
        self.counters.retain(|key, _| !gone.contains(&key.service));
    }

    /// Appends what was counted.
    pub fn gather(&self, services: &Services, into: &mut Vec<Family>) {
        for (key, counter) in &self.counters {
            let point = Point {
                series: counter.series,
                service: services.of(key.service),
                labels: Arc::clone(&counter.labels),
                start: counter.start,
                value: Reading::Number(counter.total),
            };
            super::add(into, counter.instrument, point);
        }
    }
}

fn labels(key: &Key, is_overflow: bool) -> Labels {
    let mut labels = Vec::new();
    if is_overflow {
        labels.push(("otel.metric.overflow", Label::Bool(true)));
    }
    if let Some(side) = key.side {
        let name = match side {
            Side::Client => "client",
            Side::Server => "server",
        };
        labels.push(("tracer.connection.side", Label::Static(name)));
    }
    if let Some((address, port)) = key.server {
        match address {
            Some(Address::Ip(ip)) => labels.push(("server.address", Label::Text(ip.to_string().into()))),
            Some(Address::Unix(_)) => labels.push(("network.transport", Label::Static("unix"))),
            None => {}
        }
        if port != 0 {
            labels.push(("server.port", Label::Int(port.into())));
        }
    }
    if let Some(error) = &key.error {
        labels.push(("error.type", Label::Text(error.clone())));
    }
    labels.into()
}

/// The server's end of a connection as its address and port, for people.
pub fn place(end: &Endpoint) -> String {
    match end.address {
        Address::Ip(ip) if ip.is_ipv6() => format!("[{ip}]:{}", end.port),
        Address::Ip(ip) => format!("{ip}:{}", end.port),
        Address::Unix(_) => "unix".to_owned(),
    }
}
