//! What every exporter says about a span, whatever the protocol: its kind, its addresses, its times, its parent's evidence.
//! The protocol's own attributes come first and win.

use std::fmt::Write as _;
use std::net::IpAddr;

use opentelemetry_semantic_conventions::attribute as semconv;

use crate::model::{Address, Confidence, Key, Nanos, Outcome, Role, Span, Value};

/// Milliseconds from the request's first byte to the response's first byte.
pub(super) const TIME_TO_FIRST_BYTE: Key = "tracer.time_to_first_byte";
/// Milliseconds that the request waited in the socket buffer before its first read.
pub(super) const QUEUE_TIME: Key = "tracer.queue_time";
/// `likely` or `inferred`, where the parent is not certain.
pub(super) const PARENT_CONFIDENCE: Key = "tracer.parent.confidence";
/// The rule that chose the parent.
pub(super) const PARENT_EVIDENCE: Key = "tracer.parent.evidence";
/// Bytes of the request on the wire, where the protocol gives no size of its own.
pub(super) const REQUEST_BYTES: Key = "tracer.request.bytes";
/// Bytes of the response on the wire, where the protocol gives no size of its own.
pub(super) const RESPONSE_BYTES: Key = "tracer.response.bytes";
/// Why a span is linked.
pub(super) const LINK_REASON: Key = "tracer.link.reason";

/// An attribute's value; times stay whole numbers for exporters that write text.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Item<'a> {
    /// As the model has it.
    Plain(Value<'a>),
    /// A time, shown in milliseconds.
    Millis(Nanos),
}

/// Text forms of addresses, remembered: a host talks to few peers. Direct-mapped, so its size is fixed.
pub(super) struct Addresses {
    slots: Box<[Option<(IpAddr, String)>]>,
}

impl Default for Addresses {
    fn default() -> Self {
        Self {
            slots: vec![None; 256].into(),
        }
    }
}

impl Addresses {
    /// Makes sure of the text of `ip` and says where it is. Two addresses may share a slot, so use it before the next call.
    fn text(&mut self, ip: IpAddr) -> &str {
        let bits = match ip {
            IpAddr::V4(v4) => u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() ^ (v6.to_bits() >> 64)) as u64,
        };
        let index = (bits.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as usize;
        let Some(slot) = self.slots.get_mut(index) else {
            return "";
        };
        match slot {
            Some((known, _)) if *known == ip => {}
            _ => {
                let mut text = slot.take().map(|(_, text)| text).unwrap_or_default();
                text.clear();
                let _ = write!(text, "{ip}");
                *slot = Some((ip, text));
            }
        }
        slot.as_ref().map_or("", |(_, text)| text)
    }
}

/// Which of the shared attributes the protocol has set.
#[derive(Default)]
struct Said {
    server_address: bool,
    server_port: bool,
    client_address: bool,
    peer_address: bool,
    peer_port: bool,
    transport: bool,
    network_type: bool,
    error_type: bool,
    request_size: bool,
    response_size: bool,
}

impl Said {
    /// Lengths differ for nearly all of these names, so most keys cost one comparison.
    #[inline]
    fn note(&mut self, key: Key) {
        match key.len() {
            10 => self.error_type |= key == semconv::ERROR_TYPE,
            11 => self.server_port |= key == semconv::SERVER_PORT,
            12 => self.network_type |= key == semconv::NETWORK_TYPE,
            14 => {
                self.server_address |= key == semconv::SERVER_ADDRESS;
                self.client_address |= key == semconv::CLIENT_ADDRESS;
            }
            17 => {
                self.transport |= key == semconv::NETWORK_TRANSPORT;
                self.peer_port |= key == semconv::NETWORK_PEER_PORT;
            }
            20 => self.peer_address |= key == semconv::NETWORK_PEER_ADDRESS,
            22 => self.request_size |= key == semconv::HTTP_REQUEST_BODY_SIZE,
            23 => self.response_size |= key == semconv::HTTP_RESPONSE_BODY_SIZE,
            27 => self.request_size |= key == semconv::MESSAGING_MESSAGE_BODY_SIZE,
            _ => {}
        }
    }
}

/// Calls `each` with every attribute of the span, the protocol's first; no key comes twice unless the protocol repeats it.
#[inline]
pub(super) fn attributes(span: &Span, addresses: &mut Addresses, mut each: impl FnMut(Key, Item<'_>)) {
    let exchange = &*span.exchange;
    let mut said = Said::default();
    for (key, value) in exchange.attributes.iter() {
        said.note(key);
        each(key, Item::Plain(value));
    }
    let mut text = |key, value: &str| each(key, Item::Plain(Value::Str(value)));
    let conn = &*exchange.conn;
    let server = if exchange.role.is_inbound() {
        conn.local
    } else {
        conn.remote
    };
    if let (false, Address::Ip(ip)) = (said.server_address, server.address) {
        text(semconv::SERVER_ADDRESS, addresses.text(ip));
    }
    if let Address::Ip(ip) = conn.remote.address {
        let peer = addresses.text(ip);
        if exchange.role.is_inbound() && !said.client_address {
            text(semconv::CLIENT_ADDRESS, peer);
        }
        if !said.peer_address {
            text(semconv::NETWORK_PEER_ADDRESS, peer);
        }
        if !said.network_type {
            text(semconv::NETWORK_TYPE, if ip.is_ipv4() { "ipv4" } else { "ipv6" });
        }
    } else if !said.transport {
        // Over IP the socket's kind is the protocol's to say: DNS runs over both.
        text(semconv::NETWORK_TRANSPORT, "unix");
    }
    if let (Outcome::Error { kind, .. }, false) = (&exchange.outcome, said.error_type) {
        text(semconv::ERROR_TYPE, kind);
    }
    if let Some((evidence, confidence)) = span.evidence {
        if let Some(confidence) = confidence_name(confidence) {
            text(PARENT_CONFIDENCE, confidence);
        }
        text(PARENT_EVIDENCE, evidence.as_str());
    }
    let mut int = |key, value: u64| {
        each(
            key,
            Item::Plain(Value::Int(i64::try_from(value).unwrap_or(i64::MAX))),
        )
    };
    // Port 0 stands for "none": Unix sockets, and ends that were not seen.
    if !said.server_port && server.port != 0 {
        int(semconv::SERVER_PORT, server.port.into());
    }
    if !said.peer_port && conn.remote.port != 0 {
        int(semconv::NETWORK_PEER_PORT, conn.remote.port.into());
    }
    if !said.request_size && exchange.request_bytes != 0 {
        int(REQUEST_BYTES, exchange.request_bytes);
    }
    if !said.response_size && exchange.response_bytes != 0 {
        int(RESPONSE_BYTES, exchange.response_bytes);
    }
    if let Some(first) = exchange.first_byte {
        each(
            TIME_TO_FIRST_BYTE,
            Item::Millis(first.ts.saturating_sub(exchange.start.ts)),
        );
    }
    if let Some(wait) = exchange.queue_time {
        each(QUEUE_TIME, Item::Millis(wait));
    }
}

/// Nanoseconds from the first byte to the last, by the kernel's clock alone.
pub(super) fn duration(span: &Span) -> Nanos {
    span.exchange.end.ts.saturating_sub(span.exchange.start.ts)
}

/// `tracer.parent.confidence`; nothing where the parent is certain.
pub(super) const fn confidence_name(confidence: Confidence) -> Option<&'static str> {
    match confidence {
        Confidence::Inferred => Some("inferred"),
        Confidence::Likely => Some("likely"),
        Confidence::Certain => None,
    }
}

/// The span kind in lower case.
pub(super) const fn kind_name(role: Role) -> &'static str {
    match role {
        Role::Client => "client",
        Role::Server => "server",
        Role::Producer => "producer",
        Role::Consumer => "consumer",
    }
}
