//! Spans -> the bytes of one `ExportTraceServiceRequest`, grouped by resource.
//!
//! The messages of `opentelemetry-proto` would cost an allocation for every attribute's key and value, so the bytes are
//! written directly; tests decode them with those messages.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use opentelemetry_semantic_conventions::SCHEMA_URL;

use super::wire::{
    boolean, delimited, delimited_len, double, fixed64, id, integer, long_text, message, small, text, varint,
    written,
};
use crate::export::accounts::{Share, TicketId};
use crate::export::body::{Body, Pool};
use crate::export::buffer::{Buffer, Cursor};
use crate::export::clock::Clock;
use crate::export::delivery::Request;
use crate::export::shape::{Form, Item, LINK_REASON, Shape, duration};
use crate::model::{Key, Outcome, Role, Service, Span, Value};

/// Services whose buffers are kept between requests.
const KEPT_SERVICES: usize = 256;

/// Bytes of a group beside what stands before its spans: the schemas behind them.
const GROUP_OVERHEAD: usize = 128;
/// Most bytes of a field's key and length.
const LONGEST_KEY: usize = 11;
/// Keys of fields 1 and 2 with a length.
const LENGTH_1: u8 = 0x0a;
const LENGTH_2: u8 = 0x12;

// `Span.flags`, trace.proto `SpanFlags`.
const SAMPLED: u32 = 1;
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The exporter's encoding without the exporter, for benches: spans -> `ExportTraceServiceRequest`.
pub struct Encoding(Encoder);

impl Encoding {
    /// Nothing collected yet.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self(Encoder::new(clock))
    }

    /// Adds a span to the request.
    pub fn push(&mut self, span: &Span) {
        self.0.push(0, span);
    }

    /// The request of the spans since the last call, in pieces that follow each other; none without any.
    pub fn finish(&mut self) -> Vec<Bytes> {
        let body = self.0.finish().map(|request| request.body).unwrap_or_default();
        body.pieces().cloned().collect()
    }
}

struct Group {
    service: Arc<Service>,
    /// `ResourceSpans.resource`, with its key.
    resource: Buffer,
    /// Room for everything that stands before the spans of a `ResourceSpans`.
    head: usize,
    /// That room, then `ScopeSpans.spans`, each with its key. No memory without spans.
    spans: Buffer,
    shares: Vec<(TicketId, u32)>,
}

/// Collects spans until a request is full.
pub(in crate::export) struct Encoder {
    clock: Clock,
    extra: Vec<(Box<str>, Box<str>)>,
    aliases: &'static [(Key, Key)],
    shape: Shape,
    groups: Vec<Group>,
    /// Where the group of the service at that address is.
    index: HashMap<usize, usize>,
    /// `ScopeSpans.scope`, with its key.
    scope: Buffer,
    pool: Pool,
    last: usize,
    spans: usize,
    bytes: usize,
}

impl Encoder {
    pub fn new(clock: Clock) -> Self {
        let scope = written(|out| {
            message(out, 1, |out| {
                delimited(out, 1, b"tracer")?;
                delimited(out, 2, env!("CARGO_PKG_VERSION").as_bytes())
            })
        });
        Self {
            clock,
            extra: Vec::new(),
            aliases: &[],
            shape: Shape::default(),
            groups: Vec::new(),
            index: HashMap::new(),
            scope,
            pool: Pool::default(),
            last: 0,
            spans: 0,
            bytes: 0,
        }
    }

    /// Adds attributes to every resource, and second names to attributes of spans.
    pub fn with(mut self, resource: Vec<(Box<str>, Box<str>)>, aliases: &'static [(Key, Key)]) -> Self {
        (self.extra, self.aliases) = (resource, aliases);
        self
    }

    /// Spans collected since the last request.
    pub fn spans(&self) -> usize {
        self.spans
    }

    /// Their bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a span that was handed over as part of `ticket`.
    pub fn push(&mut self, ticket: TicketId, span: &Span) {
        let at = self.group_of(&span.service);
        let Self {
            clock,
            shape,
            groups,
            pool,
            aliases,
            ..
        } = self;
        let Some(group) = groups.get_mut(at) else { return };
        if group.shares.is_empty() {
            group.spans = pool.buffer();
            let head = group.head;
            group.spans.append(|out| out.room(head).map(|_| ()));
            self.bytes += head + GROUP_OVERHEAD;
        }
        let before = group.spans.len();
        group
            .spans
            .append(|out| write_span(out, span, clock, shape, aliases));
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
        let (groups, extra) = (&mut self.groups, &self.extra);
        self.last = *self
            .index
            .entry(Arc::as_ptr(service) as usize)
            .or_insert_with(|| {
                let resource = resource(service, extra);
                groups.push(Group {
                    service: Arc::clone(service),
                    head: resource.len() + self.scope.len() + 2 * LONGEST_KEY,
                    resource,
                    spans: Buffer::default(),
                    shares: Vec::new(),
                });
                groups.len() - 1
            });
        self.last
    }

    /// The request of everything collected; `None` if there is nothing. Spans stay where they were written.
    pub fn finish(&mut self) -> Option<Request> {
        if self.spans == 0 {
            return None;
        }
        let (mut pieces, mut shares) = (Vec::new(), Vec::new());
        for group in self.groups.iter_mut().filter(|group| !group.shares.is_empty()) {
            let mut spans = std::mem::take(&mut group.spans);
            let from = enclose(&mut spans, group.head, &group.resource, &self.scope);
            pieces.push(self.pool.piece(spans, from));
            shares.extend(group.shares.drain(..).map(|(ticket, spans)| Share {
                ticket,
                service: Arc::clone(&group.service),
                spans,
            }));
        }
        let request = Request {
            body: Body::new(pieces),
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
    }
}

/// Makes a `ResourceSpans` with its key of the spans that stand behind `head` bytes of room. Returns where it begins.
fn enclose(spans: &mut Buffer, head: usize, resource: &Buffer, scope: &Buffer) -> usize {
    let schema = delimited_len(SCHEMA_URL.len());
    let scope_len = scope.len() + spans.len() - head + schema;
    let group_len = resource.len() + delimited_len(scope_len) + schema;
    let before = written(|out| {
        out.put(&[LENGTH_1])?; // resource_spans
        varint(out, group_len as u64)?;
        out.copy(resource.as_slice())?;
        out.put(&[LENGTH_2])?; // scope_spans
        varint(out, scope_len as u64)?;
        out.copy(scope.as_slice())
    });
    let from = head - before.len();
    if let Some(room) = spans.as_mut_slice().get_mut(from..head) {
        room.copy_from_slice(before.as_slice());
    }
    spans.append(|out| {
        // The scope's schema and the resource's.
        delimited(out, 3, SCHEMA_URL.as_bytes())?;
        delimited(out, 3, SCHEMA_URL.as_bytes())
    });
    from
}

/// `ResourceSpans.resource`, with its key.
fn resource(service: &Service, extra: &[(Box<str>, Box<str>)]) -> Buffer {
    let resource = &service.resource;
    written(|out| {
        message(out, 1, |out| {
            for (key, value) in resource.text.iter().chain(extra) {
                long_text(out, 1, key.as_bytes(), value.as_bytes())?;
            }
            for (key, value) in &resource.ints {
                integer(out, 1, key, *value)?;
            }
            resource.lists.iter().try_for_each(|(key, values)| {
                message(out, 1, |out| {
                    delimited(out, 1, key.as_bytes())?;
                    message(out, 2, |out| list(out, values))
                })
            })
        })
    })
}

/// `AnyValue.array_value`
fn list(out: &mut Cursor<'_>, values: &[Box<str>]) -> Option<()> {
    message(out, 5, |out| {
        values
            .iter()
            .try_for_each(|value| message(out, 1, |out| delimited(out, 1, value.as_bytes())))
    })
}

/// `ScopeSpans.spans`, one entry.
#[inline(always)]
fn write_span(
    out: &mut Cursor<'_>,
    span: &Span,
    clock: &Clock,
    shape: &mut Shape,
    aliases: &[(Key, Key)],
) -> Option<()> {
    let exchange = &*span.exchange;
    let start = clock.unix(exchange.start.ts);
    message(out, 2, |out| {
        id(out, 1, &span.trace_id.0)?;
        id(out, 2, &span.span_id.0)?;
        if !span.trace_state.is_empty() {
            delimited(out, 3, span.trace_state.as_bytes())?;
        }
        let mut flags = SAMPLED | HAS_IS_REMOTE;
        if let Some(parent) = span.parent {
            id(out, 4, &parent.0)?;
            if span.parent_is_remote {
                flags |= IS_REMOTE;
            }
        }
        if !exchange.name.is_empty() {
            delimited(out, 5, exchange.name.as_bytes())?;
        }
        // trace.proto `SpanKind`.
        let kind = match exchange.role {
            Role::Server => 2,
            Role::Client => 3,
            Role::Producer => 4,
            Role::Consumer => 5,
        };
        small(out, 6, kind)?;
        fixed64(out, 7, start)?;
        fixed64(out, 8, start.saturating_add(duration(span)))?;
        shape.attributes(out, span, &mut Protobuf)?;
        for (name, alias) in aliases {
            if let Some(value) = exchange.attributes.get(name) {
                Protobuf.write(out, alias, Item::Plain(value))?;
            }
        }
        if !span.links.is_empty() || exchange.outcome != Outcome::Unset {
            out.call(|out| links_and_status(out, span))?;
        }
        // `flags` has field number 16: the key takes two bytes.
        out.put(&[0x85, 0x01])?;
        out.put(&flags.to_le_bytes())
    })
}

#[inline(never)]
fn links_and_status(out: &mut Cursor<'_>, span: &Span) -> Option<()> {
    for link in &span.links {
        message(out, 13, |out| {
            id(out, 1, &link.trace_id.0)?;
            id(out, 2, &link.span_id.0)?;
            text(out, 4, LINK_REASON, link.reason)
        })?;
    }
    if let Outcome::Error {
        message: description, ..
    } = &span.exchange.outcome
    {
        message(out, 15, |out| {
            if !description.is_empty() {
                delimited(out, 2, description.as_bytes())?;
            }
            small(out, 3, 2) // STATUS_CODE_ERROR
        })?;
    }
    Some(())
}

struct Protobuf;

impl Form for Protobuf {
    #[inline(always)]
    fn write(&mut self, out: &mut Cursor<'_>, key: Key, item: Item<'_>) -> Option<()> {
        match item {
            Item::Plain(Value::Str(value)) => text(out, 9, key, value),
            Item::Plain(Value::Int(value)) => integer(out, 9, key, value),
            Item::Plain(Value::Double(value)) => double(out, 9, key, value),
            Item::Plain(Value::Bool(value)) => boolean(out, 9, key, value),
            Item::Millis(nanos) => double(out, 9, key, nanos as f64 / 1e6),
        }
    }
}

#[cfg(test)]
mod tests;
