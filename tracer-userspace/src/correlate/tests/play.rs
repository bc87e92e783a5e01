//! Builds signals, feeds them to a correlator, and checks what must hold whatever the signals are.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use crate::correlate::{Config, Correlator};
use crate::model::{
    Act, Address, Attributes, Begin, Conn, ConnId, Deed, Endpoint, Exchange, ExchangeId, Job, Language,
    MessageIdentity, Nanos, Outcome, Role, Service, Signal, SignalKind, Span, SpanId, Stamp, ThreadEnd,
    TraceContext, Unit, Wake,
};
use crate::telemetry::{Ledger, Reason};

/// How an end differs from an ordinary one.
#[derive(Clone, Copy, Default)]
pub struct Variant {
    /// Addresses of a Unix socket.
    pub unix: bool,
    /// This end sees its peer behind NAT, from another network namespace.
    pub nat: bool,
    /// The socket tells no positions.
    pub no_position: bool,
    /// The ends disagree on how far the other direction had come (pipelining).
    pub peer_pos: u32,
}

/// The socket at one end of a connection.
pub fn conn_id(conn: u32, inbound: bool) -> ConnId {
    ConnId(u64::from(conn) * 2 + u64::from(inbound))
}

/// The exchange's end at one process. Ends of one message have the same `conn` and the same `nth`, from 1.
pub fn begin(
    id: u64,
    role: Role,
    conn: u32,
    nth: u32,
    start: Stamp,
    context: Option<TraceContext>,
    variant: Variant,
) -> Begin {
    let inbound = role.is_inbound();
    let ip = |last: u8, port: u16| Endpoint {
        address: Address::Ip(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last))),
        port,
    };
    let unix = |cookie: u32| Endpoint {
        address: Address::Unix(u64::from(cookie)),
        port: 0,
    };
    let (client, server) = match variant {
        Variant { unix: true, .. } => (unix(conn * 2), unix(conn * 2 + 1)),
        Variant { nat: true, .. } => (ip(9, 50_000 + conn as u16), ip(2, 8000)),
        _ => (ip(1, 10_000 + conn as u16), ip(1, 8000)),
    };
    let (local, remote) = if inbound {
        (server, client)
    } else {
        (client, server)
    };
    let base = if variant.unix {
        0
    } else {
        conn.wrapping_mul(0x1234_5677)
    };
    let identity = (!variant.no_position).then_some(MessageIdentity {
        pos: base.wrapping_add(nth.saturating_sub(1) * 1000),
        peer_pos: base.wrapping_mul(3).wrapping_add(nth * 500 + variant.peer_pos),
    });
    Begin {
        id: ExchangeId(id),
        conn: Arc::new(Conn {
            id: conn_id(conn, inbound),
            local,
            remote,
            netns: if variant.nat { 2 } else { 1 },
            tgid: start.unit.tgid,
            joined_late: false,
        }),
        role,
        start,
        identity,
        context: context.map(Arc::new),
        taken: None,
    }
}

/// A thread of a process without runtime tasks.
pub fn thread(tgid: u32, tid: u32) -> Unit {
    Unit {
        tgid,
        tid,
        ..Unit::default()
    }
}

/// A correlator at work.
pub struct Player {
    pub correlator: Correlator,
    pub ledger: Arc<Ledger>,
    pub services: HashMap<u32, Arc<Service>>,
    pub spans: HashMap<u64, Span>,
    begins: HashMap<u64, Begin>,
    responded: HashMap<u64, Stamp>,
    ends: HashMap<u64, Nanos>,
    /// The last read or write of an event loop.
    moved: Option<(Stamp, Deed)>,
    out: Vec<Span>,
}

impl Player {
    pub fn new(config: Config) -> Self {
        let ledger = Arc::new(Ledger::default());
        Self {
            correlator: Correlator::new(config, Arc::clone(&ledger)),
            ledger,
            services: HashMap::new(),
            spans: HashMap::new(),
            begins: HashMap::new(),
            responded: HashMap::new(),
            ends: HashMap::new(),
            moved: None,
            out: Vec::new(),
        }
    }

    pub fn service(&mut self, tgid: u32, language: Language, selected: bool) {
        let service = Service {
            name: format!("service-{tgid}").into(),
            tgid,
            language,
            selected,
            ..Service::default()
        };
        self.services.insert(tgid, Arc::new(service));
    }

    fn signal(&mut self, ts: Nanos, kind: SignalKind) {
        let services = &mut self.services;
        self.correlator.signal(Signal { ts, kind }, &mut |tgid| {
            Arc::clone(services.entry(tgid).or_insert_with(|| {
                Arc::new(Service {
                    name: format!("service-{tgid}").into(),
                    tgid,
                    selected: true,
                    ..Service::default()
                })
            }))
        });
    }

    pub fn act(&mut self, stamp: Stamp, deed: Deed) {
        self.signal(stamp.ts, SignalKind::Act(Act { stamp, deed }));
    }

    /// What an event loop moves is told before what it means.
    fn moved(&mut self, id: u64, stamp: Stamp, is_request: bool) {
        let Some(begin) = self.begins.get(&id) else { return };
        if stamp.unit.turn().is_some() {
            let conn = begin.conn.id;
            let receives = begin.role.is_inbound() == is_request;
            let deed = if receives { Deed::Receives } else { Deed::Sends };
            let act = (stamp, deed(conn));
            // One read may have several messages.
            if self.moved != Some(act) {
                self.moved = Some(act);
                self.act(stamp, deed(conn));
            }
        }
    }

    pub fn begin(&mut self, begin: Begin) {
        self.ledger.seen(1);
        self.begins.insert(begin.id.0, begin.clone());
        self.moved(begin.id.0, begin.start, true);
        self.signal(begin.start.ts, SignalKind::Begin(begin));
    }

    pub fn request_end(&mut self, id: u64, stamp: Stamp) {
        self.signal(stamp.ts, SignalKind::RequestEnd(ExchangeId(id), stamp));
    }

    pub fn respond(&mut self, id: u64, stamp: Stamp) {
        self.moved(id, stamp, false);
        self.responded.insert(id, stamp);
        self.signal(stamp.ts, SignalKind::Respond(ExchangeId(id), stamp));
    }

    pub fn end(&mut self, id: u64, stamp: Stamp) {
        if self.responded.get(&id) != Some(&stamp) {
            self.moved(id, stamp, false);
        }
        let begin = &self.begins[&id];
        self.ends.insert(id, stamp.ts);
        let exchange = Exchange {
            id: begin.id,
            conn: Arc::clone(&begin.conn),
            protocol: "http1",
            role: begin.role,
            start: begin.start,
            first_byte: self.responded.get(&id).copied(),
            end: stamp,
            queue_time: None,
            request_bytes: 1,
            response_bytes: 1,
            name: "GET".into(),
            outcome: Outcome::Unset,
            attributes: Attributes::default(),
            context: begin.context.clone(),
        };
        self.signal(stamp.ts, SignalKind::End(Box::new(exchange)));
    }

    pub fn done(&mut self, id: u64, stamp: Stamp) {
        self.respond(id, stamp);
        self.end(id, stamp);
    }

    pub fn wake(&mut self, wake: Wake) {
        self.signal(wake.waker.ts, SignalKind::Wake(wake));
    }

    pub fn end_thread(&mut self, end: ThreadEnd) {
        self.signal(end.stamp.ts, SignalKind::ThreadEnd(end));
    }

    pub fn job(&mut self, id: u64, ts: Nanos, job: Job) {
        self.signal(ts, SignalKind::Job(ExchangeId(id), job));
    }

    pub fn lose(&mut self, id: u64, ts: Nanos) {
        self.ledger.dropped(None, Reason::BytesLost, 1);
        self.signal(ts, SignalKind::Drop(ExchangeId(id), Reason::BytesLost));
    }

    pub fn advance(&mut self, now: Nanos) {
        self.correlator.advance(now, &mut self.out);
        self.correlator.answer_all();
        self.take();
    }

    pub fn finish(&mut self) {
        self.correlator.ask_all();
        self.correlator.answer_all();
        self.correlator.finish(&mut self.out);
        self.take();
    }

    fn take(&mut self) {
        for span in self.out.drain(..) {
            let id = span.exchange.id.0;
            assert!(
                self.spans.insert(id, span).is_none(),
                "exchange {id} became two spans"
            );
        }
    }

    /// What holds after [`Player::finish`] whatever was played: a span or a counted drop for every exchange, unique ids,
    /// traces that are trees of spans that exist (or carry a context).
    pub fn check(&self) -> Result<(), String> {
        let snapshot = self.ledger.snapshot();
        if snapshot.open() != self.spans.len() as i64 {
            return Err(format!("{} spans, but {snapshot}", self.spans.len()));
        }
        if let Some(id) = self.spans.keys().find(|id| !self.ends.contains_key(id)) {
            return Err(format!("exchange {id} has not ended and became a span"));
        }
        let mut by_id: HashMap<SpanId, &Span> = HashMap::new();
        for span in self.spans.values() {
            if span.span_id == SpanId([0; 8]) || by_id.insert(span.span_id, span).is_some() {
                return Err(format!("span id {:?} is zero or not unique", span.span_id));
            }
        }
        for (id, mut span) in self.spans.iter() {
            let mut depth = 0;
            while let Some(parent) = span.parent {
                if span.evidence.is_none() {
                    return Err(format!("exchange {id} has a parent without evidence"));
                }
                let Some(above) = by_id.get(&parent) else {
                    let context = span.exchange.context.as_ref().and_then(|c| c.span_id);
                    if context == Some(parent) || self.forgotten(parent) {
                        break;
                    }
                    return Err(format!("exchange {id} hangs under a span that does not exist"));
                };
                if above.trace_id != span.trace_id {
                    return Err(format!("exchange {id} and its parent are in two traces"));
                }
                depth += 1;
                if depth > self.spans.len() {
                    return Err(format!("exchange {id} is its own ancestor"));
                }
                span = above;
            }
        }
        Ok(())
    }

    /// A span may be handed on before its parent is lost.
    fn forgotten(&self, _: SpanId) -> bool {
        self.ledger
            .snapshot()
            .dropped
            .keys()
            .any(|r| matches!(r, Reason::BytesLost | Reason::Abandoned))
    }
}
