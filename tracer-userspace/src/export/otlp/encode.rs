//! Spans -> the bytes of one `ExportTraceServiceRequest`, grouped by resource.
//!
//! The messages of `opentelemetry-proto` would cost an allocation for every attribute's key and value, so the bytes are
//! written directly; tests decode them with those messages.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use opentelemetry_semantic_conventions::SCHEMA_URL;
use prost::encoding::{WireType, encoded_len_varint};

use super::wire::{delimited, delimited_len, fixed64, message, number, tag, varint};
use crate::export::accounts::{Share, TicketId};
use crate::export::clock::Clock;
use crate::export::shape::{Addresses, Item, LINK_REASON, attributes, duration};
use crate::model::{Outcome, Role, Service, Span, Value};

/// Services whose buffers are kept between requests.
const KEPT_SERVICES: usize = 256;
/// Bytes of buffer that one service keeps between requests.
const KEPT_BYTES: usize = 128 << 10;

// `Span.flags`, trace.proto `SpanFlags`.
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// One request, ready to be sent, and whose spans it carries.
pub(super) struct Request {
    /// `ExportTraceServiceRequest`.
    pub body: Bytes,
    /// Number of spans.
    pub spans: usize,
    /// The spans, by hand-over and service.
    pub shares: Vec<Share>,
}

struct Group {
    service: Arc<Service>,
    /// `ResourceSpans.resource`, with its key.
    resource: Vec<u8>,
    /// `ScopeSpans.spans`, each with its key.
    spans: Vec<u8>,
    shares: Vec<(TicketId, u32)>,
}

/// Collects spans until a request is full.
pub(super) struct Encoder {
    clock: Clock,
    addresses: Addresses,
    groups: Vec<Group>,
    /// Where the group of the service at that address is.
    index: HashMap<usize, usize>,
    /// `ScopeSpans.scope`, with its key.
    scope: Vec<u8>,
    last: usize,
    spans: usize,
    bytes: usize,
}

impl Encoder {
    pub fn new(clock: Clock) -> Self {
        let mut inner = Vec::new();
        delimited(&mut inner, 1, b"tracer");
        delimited(&mut inner, 2, env!("CARGO_PKG_VERSION").as_bytes());
        let mut scope = Vec::new();
        delimited(&mut scope, 1, &inner);
        Self {
            clock,
            addresses: Addresses::default(),
            groups: Vec::new(),
            index: HashMap::new(),
            scope,
            last: 0,
            spans: 0,
            bytes: 0,
        }
    }

    /// Spans collected since the last request.
    pub fn spans(&self) -> usize {
        self.spans
    }

    /// Their bytes, resources not counted.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a span that was handed over as part of `ticket`.
    pub fn push(&mut self, ticket: TicketId, span: &Span) {
        let at = self.group_of(&span.service);
        let Self {
            clock,
            addresses,
            groups,
            ..
        } = self;
        let Some(group) = groups.get_mut(at) else { return };
        let before = group.spans.len();
        write_span(&mut group.spans, span, clock, addresses);
        self.spans += 1;
        self.bytes += group.spans.len() - before;
        match group.shares.last_mut() {
            Some((last, n)) if *last == ticket => *n += 1,
            _ => group.shares.push((ticket, 1)),
        }
    }

    fn group_of(&mut self, service: &Arc<Service>) -> usize {
        if self
            .groups
            .get(self.last)
            .is_some_and(|group| Arc::ptr_eq(&group.service, service))
        {
            return self.last;
        }
        let groups = &mut self.groups;
        self.last = *self
            .index
            .entry(Arc::as_ptr(service) as usize)
            .or_insert_with(|| {
                groups.push(Group {
                    service: Arc::clone(service),
                    resource: resource(service),
                    spans: Vec::new(),
                    shares: Vec::new(),
                });
                groups.len() - 1
            });
        self.last
    }

    /// The request of everything collected; `None` if there is nothing.
    pub fn finish(&mut self) -> Option<Request> {
        if self.spans == 0 {
            return None;
        }
        let schema = delimited_len(SCHEMA_URL.len());
        let scope_len = |group: &Group| self.scope.len() + group.spans.len() + schema;
        let group_len = |group: &Group| group.resource.len() + delimited_len(scope_len(group)) + schema;
        let live = || self.groups.iter().filter(|group| !group.shares.is_empty());
        // Exact, so that a request that waits for a dead backend holds no spare memory.
        let mut body = Vec::with_capacity(live().map(|group| delimited_len(group_len(group))).sum());
        let mut shares = Vec::with_capacity(live().map(|group| group.shares.len()).sum());
        for group in live() {
            body.push(tag(1, WireType::LengthDelimited)); // resource_spans
            varint(&mut body, group_len(group) as u64);
            body.extend_from_slice(&group.resource);
            body.push(tag(2, WireType::LengthDelimited)); // scope_spans
            varint(&mut body, scope_len(group) as u64);
            body.extend_from_slice(&self.scope);
            body.extend_from_slice(&group.spans);
            delimited(&mut body, 3, SCHEMA_URL.as_bytes());
            delimited(&mut body, 3, SCHEMA_URL.as_bytes());
            shares.extend(group.shares.iter().map(|&(ticket, spans)| Share {
                ticket,
                service: Arc::clone(&group.service),
                spans,
            }));
        }
        let request = Request {
            body: body.into(),
            spans: self.spans,
            shares,
        };
        self.clear();
        Some(request)
    }

    fn clear(&mut self) {
        self.spans = 0;
        self.bytes = 0;
        self.last = 0;
        if self.groups.len() > KEPT_SERVICES {
            self.groups.clear();
            self.index.clear();
        }
        for group in &mut self.groups {
            group.shares.clear();
            group.spans.clear();
            group.spans.shrink_to(KEPT_BYTES);
        }
    }
}

/// `ResourceSpans.resource`, with its key.
fn resource(service: &Service) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let resource = &service.resource;
    message(&mut out, 1, |out| {
        for (key, value) in &resource.text {
            text(out, 1, key, value);
        }
        for (key, value) in &resource.ints {
            integer(out, 1, key, *value);
        }
        for (key, values) in &resource.lists {
            message(out, 1, |out| {
                delimited(out, 1, key.as_bytes());
                message(out, 2, |out| {
                    // AnyValue.array_value, ArrayValue.values
                    message(out, 5, |out| {
                        for value in values {
                            message(out, 1, |out| delimited(out, 1, value.as_bytes()));
                        }
                    });
                });
            });
        }
    });
    out
}

/// `ScopeSpans.spans`, one entry.
fn write_span(out: &mut Vec<u8>, span: &Span, clock: &Clock, addresses: &mut Addresses) {
    let exchange = &*span.exchange;
    let start = clock.unix(exchange.start.ts);
    message(out, 2, |out| {
        delimited(out, 1, &span.trace_id.0);
        delimited(out, 2, &span.span_id.0);
        if !span.trace_state.is_empty() {
            delimited(out, 3, span.trace_state.as_bytes());
        }
        let mut flags = SAMPLED | HAS_IS_REMOTE;
        if let Some(parent) = span.parent {
            delimited(out, 4, &parent.0);
            if span.parent_is_remote {
                flags |= IS_REMOTE;
            }
        }
        if !exchange.name.is_empty() {
            delimited(out, 5, exchange.name.as_bytes());
        }
        // trace.proto `SpanKind`.
        let kind = match exchange.role {
            Role::Server => 2,
            Role::Client => 3,
            Role::Producer => 4,
            Role::Consumer => 5,
        };
        number(out, 6, kind);
        fixed64(out, 7, start);
        fixed64(out, 8, start.saturating_add(duration(span)));
        attributes(span, addresses, |key, item| match item {
            Item::Plain(Value::Str(value)) => text(out, 9, key, value),
            Item::Plain(Value::Int(value)) => integer(out, 9, key, value),
            Item::Plain(Value::Double(value)) => double(out, 9, key, value),
            Item::Plain(Value::Bool(value)) => boolean(out, 9, key, value),
            Item::Millis(nanos) => double(out, 9, key, nanos as f64 / 1e6),
        });
        for link in &span.links {
            message(out, 13, |out| {
                delimited(out, 1, &link.trace_id.0);
                delimited(out, 2, &link.span_id.0);
                text(out, 4, LINK_REASON, link.reason);
            });
        }
        if let Outcome::Error {
            message: description, ..
        } = &exchange.outcome
        {
            message(out, 15, |out| {
                if !description.is_empty() {
                    delimited(out, 2, description.as_bytes());
                }
                number(out, 3, 2); // STATUS_CODE_ERROR
            });
        }
        // `flags` has field number 16: the key takes two bytes.
        out.extend_from_slice(&[0x85, 0x01]);
        out.extend_from_slice(&flags.to_le_bytes());
    });
}

/// `KeyValue` up to the value, whose `AnyValue` has `value_len` bytes.
#[inline]
fn key_value(out: &mut Vec<u8>, field: u8, key: &str, value_len: usize) {
    let len = delimited_len(key.len()) + delimited_len(value_len);
    out.reserve(1 + 10 + len);
    out.push(tag(field, WireType::LengthDelimited));
    varint(out, len as u64);
    delimited(out, 1, key.as_bytes());
    out.push(tag(2, WireType::LengthDelimited));
    varint(out, value_len as u64);
}

#[inline]
fn text(out: &mut Vec<u8>, field: u8, key: &str, value: &str) {
    key_value(out, field, key, delimited_len(value.len()));
    delimited(out, 1, value.as_bytes());
}

#[inline]
fn integer(out: &mut Vec<u8>, field: u8, key: &str, value: i64) {
    key_value(out, field, key, 1 + encoded_len_varint(value as u64));
    number(out, 3, value as u64);
}

#[inline]
fn double(out: &mut Vec<u8>, field: u8, key: &str, value: f64) {
    key_value(out, field, key, 9);
    fixed64(out, 4, value.to_bits());
}

#[inline]
fn boolean(out: &mut Vec<u8>, field: u8, key: &str, value: bool) {
    key_value(out, field, key, 2);
    number(out, 2, value.into());
}

#[cfg(test)]
mod tests;
