//! What is counted for each endpoint: one look-up finds all its histograms.

use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::histogram::Histogram;
use super::instruments::QUEUE;
use super::services::{ServiceId, Services};
use super::shape::{Facts, Kind};
use crate::model::{Family, Instrument, Label, Labels, Nanos, Point, Reading};

/// The attribute of the series that counts what found no place (OpenTelemetry metrics SDK, "Cardinality limits").
const OVERFLOW: &str = "otel.metric.overflow";

/// Place of an endpoint, and the series that must be there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndpointId {
    place: u32,
    series: u64,
}

/// The histograms of one endpoint.
pub struct Endpoint {
    series: u64,
    hash: u64,
    service: ServiceId,
    kind: Kind,
    labels: Labels,
    start: Nanos,
    /// When it was last counted at.
    pub last_seen: Nanos,
    /// How long exchanges took.
    pub duration: Histogram,
    /// Bytes of request and response.
    pub sizes: Option<Box<[Histogram; 2]>>,
    /// How long requests waited before the server read them; made when the first one did.
    pub queue: Option<Box<Histogram>>,
    /// Stands for endpoints beyond the limit.
    pub is_overflow: bool,
}

impl Endpoint {
    /// Counts how long a request waited.
    pub fn waited(&mut self, time: Nanos, exponential: bool) {
        self.queue
            .get_or_insert_with(|| Box::new(Histogram::new(&QUEUE, exponential)))
            .record(time);
    }
}

/// How many there may be.
#[derive(Clone, Copy)]
pub struct Limits {
    pub service: usize,
    pub total: usize,
    pub exponential: bool,
}

/// All endpoints.
pub struct Endpoints {
    places: Vec<Option<Endpoint>>,
    free: Vec<u32>,
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    limits: Limits,
    next_series: u64,
    live: usize,
}

impl Endpoints {
    pub fn new(limits: Limits) -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            limits,
            next_series: 0,
            live: 0,
        }
    }

    /// Endpoints there are now.
    pub fn len(&self) -> usize {
        self.live
    }

    /// An endpoint that was found before, unless it has expired since.
    #[inline]
    pub fn get(&mut self, id: EndpointId) -> Option<&mut Endpoint> {
        let endpoint = self.places.get_mut(id.place as usize)?.as_mut()?;
        (endpoint.series == id.series).then_some(endpoint)
    }

    /// The endpoint that an exchange belongs to; a new one if there is room, else the one that stands for all others.
    pub fn find(
        &mut self,
        service: ServiceId,
        kind: Kind,
        facts: &Facts<'_>,
        services: &mut Services,
        now: Nanos,
    ) -> Option<EndpointId> {
        let hash = facts.hash(kind, &self.hasher) ^ salt(service, kind);
        let places = &self.places;
        let found = self.index.find(hash, |&place| {
            let endpoint = places.get(place as usize).and_then(Option::as_ref);
            endpoint.is_some_and(|endpoint| {
                endpoint.hash == hash
                    && endpoint.service == service
                    && endpoint.kind == kind
                    && !endpoint.is_overflow
                    && facts.are(kind, &endpoint.labels)
            })
        });
        if let Some(&place) = found {
            return self.id(place);
        }
        let has_room = match services.get(service) {
            Some(entry) => entry.series < self.limits.service && self.live < self.limits.total,
            // Nobody's series are one for each kind.
            None => false,
        };
        if has_room {
            let labels = facts.labels(kind).into();
            return self.add(service, kind, labels, hash, false, services, now);
        }
        self.overflow(service, kind, services, now)
    }

    fn overflow(
        &mut self,
        service: ServiceId,
        kind: Kind,
        services: &mut Services,
        now: Nanos,
    ) -> Option<EndpointId> {
        // Nothing hashes to this by its attributes but by chance, and then the flag tells.
        let hash = salt(service, kind);
        let places = &self.places;
        let found = self.index.find(hash, |&place| {
            let endpoint = places.get(place as usize).and_then(Option::as_ref);
            endpoint.is_some_and(|endpoint| {
                endpoint.is_overflow && endpoint.service == service && endpoint.kind == kind
            })
        });
        if let Some(&place) = found {
            return self.id(place);
        }
        let labels: Labels = Arc::new([(OVERFLOW, Label::Bool(true))]);
        self.add(service, kind, labels, hash, true, services, now)
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of an endpoint")]
    fn add(
        &mut self,
        service: ServiceId,
        kind: Kind,
        labels: Labels,
        hash: u64,
        is_overflow: bool,
        services: &mut Services,
        now: Nanos,
    ) -> Option<EndpointId> {
        self.next_series += 1;
        let exponential = self.limits.exponential;
        let new = |instrument| Histogram::new(instrument, exponential);
        let endpoint = Endpoint {
            series: self.next_series,
            hash,
            service,
            kind,
            labels,
            start: now,
            last_seen: now,
            duration: new(kind.duration()),
            sizes: kind.sizes().map(|sizes| Box::new(sizes.map(new))),
            queue: None,
            is_overflow,
        };
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() as u32 - 1
        });
        *self.places.get_mut(place as usize)? = Some(endpoint);
        let places = &self.places;
        let hash_of = |&place: &u32| {
            places
                .get(place as usize)
                .and_then(Option::as_ref)
                .map_or(0, |endpoint| endpoint.hash)
        };
        self.index.insert_unique(hash, place, hash_of);
        self.live += 1;
        if let Some(entry) = services.get_mut(service) {
            entry.series += 1;
        }
        self.id(place)
    }

    fn id(&self, place: u32) -> Option<EndpointId> {
        let endpoint = self.places.get(place as usize)?.as_ref()?;
        Some(EndpointId {
            place,
            series: endpoint.series,
        })
    }

    /// Forgets the endpoints of services that have gone. Under pressure, also those that nobody has used since `before`.
    pub fn expire(&mut self, gone: &[ServiceId], before: Nanos, services: &mut Services) {
        let pressed = self.live >= self.limits.total;
        for (place, slot) in self.places.iter_mut().enumerate() {
            let is_over = |endpoint: &Endpoint| {
                let pressed = pressed
                    || services
                        .get(endpoint.service)
                        .is_some_and(|entry| entry.series > self.limits.service);
                gone.contains(&endpoint.service) || (pressed && endpoint.last_seen < before)
            };
            let Some(endpoint) = slot.take_if(|endpoint| is_over(endpoint)) else {
                continue;
            };
            let place = place as u32;
            if let Ok(found) = self.index.find_entry(endpoint.hash, |&other| other == place) {
                found.remove();
            }
            self.free.push(place);
            self.live -= 1;
            if let Some(entry) = services.get_mut(endpoint.service) {
                entry.series -= 1;
            }
        }
    }

    /// Appends one family for each instrument that has series.
    pub fn gather(&self, services: &Services, into: &mut Vec<Family>) {
        for endpoint in self.places.iter().flatten() {
            let service = services.of(endpoint.service);
            let mut tell = |instrument: &'static Instrument, histogram: &Histogram| {
                let point = Point {
                    series: endpoint.series,
                    service: service.clone(),
                    labels: Arc::clone(&endpoint.labels),
                    start: endpoint.start,
                    value: Reading::Distribution(Box::new(histogram.distribution())),
                };
                super::add(into, instrument, point);
            };
            tell(endpoint.kind.duration(), &endpoint.duration);
            if let Some(queue) = &endpoint.queue {
                tell(&QUEUE, queue);
            }
            if let (Some(instruments), Some(sizes)) = (endpoint.kind.sizes(), &endpoint.sizes) {
                for (instrument, histogram) in instruments.into_iter().zip(&**sizes) {
                    tell(instrument, histogram);
                }
            }
        }
    }
}

/// Tells the hashes of different services and kinds apart.
fn salt(service: ServiceId, kind: Kind) -> u64 {
    (u64::from(service) << 8 | kind as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
