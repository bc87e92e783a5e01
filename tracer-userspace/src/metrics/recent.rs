//! What connections said last: most exchanges of a connection belong to the endpoint of the last one of their name.

use std::net::IpAddr;
use std::sync::Arc;

use super::endpoints::EndpointId;
use super::graph::{Link, Peer};
use super::services::{NOBODY, ServiceId};
use super::shape::Attribute;
use crate::model::{Attributes, Conn, Key, Outcome, Service, Span, Value};

/// Names on connections that are remembered. Two that fall on one place only cost each other the short way.
const SLOTS: usize = 2_048;

/// Bytes of request and response, where the protocol knows them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sizes {
    pub request: Option<u64>,
    pub response: Option<u64>,
}

impl Sizes {
    /// Takes a value that is a size. False if it is none.
    fn take(&mut self, key: Key, value: Value<'_>) -> bool {
        let place = match key.len() {
            22 if key == Attribute::RequestSize.key() => &mut self.request,
            23 if key == Attribute::ResponseSize.key() => &mut self.response,
            _ => return false,
        };
        if let Value::Int(size) = value {
            *place = u64::try_from(size).ok();
        }
        true
    }
}

/// The last exchange of one end of a connection.
#[derive(Default)]
pub struct Slot {
    conn: Option<Arc<Conn>>,
    is_inbound: bool,
    described: Option<Arc<Service>>,
    error: Option<Box<str>>,
    attributes: Attributes,
    sizes: Sizes,
    /// The server's address, where it was needed.
    address: Option<(IpAddr, Arc<str>)>,
    /// Whose it was.
    pub service: ServiceId,
    /// Where it was counted.
    pub endpoint: Option<EndpointId>,
    /// What kind of call it was.
    pub link: Link,
    /// Who is at the other end.
    pub peer: Peer,
}

impl Slot {
    /// The sizes of an exchange that belongs where the last one did; `None` if it may not.
    #[inline]
    pub fn recall(&self, span: &Span) -> Option<Sizes> {
        let exchange = &*span.exchange;
        let same = |conn: &Arc<Conn>| Arc::ptr_eq(conn, &exchange.conn);
        let same_service = |service: &Arc<Service>| Arc::ptr_eq(service, &span.service);
        if !self.conn.as_ref().is_some_and(same)
            || self.is_inbound != exchange.role.is_inbound()
            || !self.described.as_ref().is_some_and(same_service)
        {
            return None;
        }
        let same_outcome = match (&exchange.outcome, &self.error) {
            (Outcome::Unset, None) => true,
            (Outcome::Error { kind, .. }, Some(error)) => kind == error,
            _ => false,
        };
        if !same_outcome {
            return None;
        }
        let mut sizes = self.sizes;
        let differs = |key, value: Value<'_>| !sizes.take(key, value) && Attribute::of(key).is_some();
        exchange
            .attributes
            .is_like(&self.attributes, differs)
            .then_some(sizes)
    }

    /// An address as text.
    pub fn address(&mut self, ip: IpAddr) -> Arc<str> {
        match &self.address {
            Some((last, text)) if *last == ip => Arc::clone(text),
            _ => {
                let text: Arc<str> = ip.to_string().into();
                self.address = Some((ip, Arc::clone(&text)));
                text
            }
        }
    }

    /// From now on this is the last exchange.
    pub fn remember(
        &mut self,
        span: &Span,
        sizes: Sizes,
        service: ServiceId,
        endpoint: Option<EndpointId>,
        link: Link,
    ) {
        let exchange = &*span.exchange;
        let is_inbound = exchange.role.is_inbound();
        let same_conn = |conn: &Arc<Conn>| Arc::ptr_eq(conn, &exchange.conn);
        if self.is_inbound != is_inbound || !self.conn.as_ref().is_some_and(same_conn) {
            self.conn = Some(Arc::clone(&exchange.conn));
            self.is_inbound = is_inbound;
            self.peer = Peer::Unknown;
        }
        self.described = Some(Arc::clone(&span.service));
        self.error = match &exchange.outcome {
            Outcome::Unset => None,
            Outcome::Error { kind, .. } => Some(kind.clone()),
        };
        self.attributes.copy_from(&exchange.attributes);
        self.sizes = sizes;
        (self.service, self.endpoint, self.link) = (service, endpoint, link);
    }
}

/// The first and the last bytes of a name, mixed: enough to tell those of one connection apart.
#[inline]
fn ends(name: &[u8]) -> u64 {
    let word = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => word(first) ^ word(last).rotate_left(29) ^ (name.len() as u64) << 40,
        _ => name.iter().fold(0, |mixed, &byte| mixed << 8 | u64::from(byte)),
    }
    .wrapping_mul(0xff51_afd7_ed55_8ccd)
}

/// The last exchanges of many connections.
pub struct Recent {
    slots: Box<[Slot]>,
}

impl Default for Recent {
    fn default() -> Self {
        let empty = || Slot {
            service: NOBODY,
            ..Slot::default()
        };
        Self {
            slots: std::iter::repeat_with(empty).take(SLOTS).collect(),
        }
    }
}

impl Recent {
    /// The place of exchanges of this name on this end of a connection.
    #[inline]
    pub fn slot(&mut self, span: &Span) -> &mut Slot {
        let exchange = &*span.exchange;
        let conn = Arc::as_ptr(&exchange.conn) as usize as u64 ^ u64::from(exchange.role.is_inbound());
        let mixed = (conn ^ ends(exchange.name.as_bytes())).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = (mixed >> 48) as usize % SLOTS;
        // The remainder keeps the place in bounds.
        &mut self.slots[at]
    }
}
