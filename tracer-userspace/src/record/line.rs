//! One line of a recorded run, as JSON.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::names::Names;
use crate::model::{
    Act, Attributes, Begin, Conn, Exchange, ExchangeId, Job, Language, MessageIdentity, Nanos, Outcome, Role,
    Service, Signal, SignalKind, SpanId, Stamp, Taken, ThreadEnd, TraceContext, TraceId, Wake,
};
use crate::telemetry::Reason;

/// Version of the format.
pub const VERSION: u32 = 1;

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// The first one.
    Start {
        /// [`VERSION`].
        version: u32,
        /// The settings of the correlation stage.
        correlate: Value,
    },
    /// Who is behind a process id from now on.
    Service(Who),
    /// The stage was told this.
    Signal {
        /// When it became known.
        ts: Nanos,
        /// What happened.
        #[serde(flatten)]
        kind: Box<Kind>,
    },
    /// And that time has come that far.
    Advance(Nanos),
}

/// What the correlation stage asks of a service.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Who {
    pub tgid: u32,
    pub name: Box<str>,
    pub language: Language,
    pub selected: bool,
    pub tasks_move: bool,
}

/// [`SignalKind`].
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Act(Act),
    Begin(Begun),
    RequestEnd(ExchangeId, Stamp),
    Respond(ExchangeId, Stamp),
    End(Box<Ended>),
    Drop(ExchangeId, String),
    Job(ExchangeId, Job),
    Wake(Wake),
    ThreadEnd(ThreadEnd),
    Replaced(u32),
}

/// [`Begin`].
#[derive(Serialize, Deserialize)]
pub struct Begun {
    id: ExchangeId,
    conn: Conn,
    role: Role,
    start: Stamp,
    identity: Option<MessageIdentity>,
    context: Option<Context>,
    taken: Option<Box<Taken>>,
}

/// [`TraceContext`] without what vendors say in it.
#[derive(Serialize, Deserialize)]
struct Context {
    trace_id: TraceId,
    span_id: Option<SpanId>,
    sampled: Option<bool>,
    format: String,
}

/// [`Exchange`] without attributes and messages: nothing of what the traffic says is recorded but its spans' names.
#[derive(Serialize, Deserialize)]
pub struct Ended {
    id: ExchangeId,
    conn: Conn,
    protocol: String,
    role: Role,
    start: Stamp,
    first_byte: Option<Stamp>,
    end: Stamp,
    name: String,
    /// `error.type`.
    failed: Option<Box<str>>,
    context: Option<Context>,
}

impl Who {
    pub fn of(tgid: u32, service: &Service) -> Self {
        Self {
            tgid,
            name: service.name.clone(),
            language: service.language,
            selected: service.selected,
            tasks_move: service.tasks_move,
        }
    }

    /// Without a resource.
    pub fn service(self) -> Service {
        Service {
            name: self.name,
            tgid: self.tgid,
            language: self.language,
            selected: self.selected,
            tasks_move: self.tasks_move,
            ..Service::default()
        }
    }
}

impl Context {
    fn of(context: &TraceContext) -> Self {
        Self {
            trace_id: context.trace_id,
            span_id: context.span_id,
            sampled: context.sampled,
            format: context.format.to_owned(),
        }
    }

    fn context(self, names: &mut Names) -> Arc<TraceContext> {
        Arc::new(TraceContext {
            trace_id: self.trace_id,
            span_id: self.span_id,
            sampled: self.sampled,
            trace_state: Box::default(),
            format: names.get(&self.format),
        })
    }
}

impl Line {
    pub fn of(signal: &Signal) -> Self {
        let kind = match &signal.kind {
            SignalKind::Act(act) => Kind::Act(*act),
            SignalKind::Begin(begin) => Kind::Begin(Begun::of(begin)),
            SignalKind::RequestEnd(id, stamp) => Kind::RequestEnd(*id, *stamp),
            SignalKind::Respond(id, stamp) => Kind::Respond(*id, *stamp),
            SignalKind::End(exchange) => Kind::End(Box::new(Ended::of(exchange))),
            SignalKind::Drop(id, reason) => Kind::Drop(*id, reason.as_str().to_owned()),
            SignalKind::Job(id, job) => Kind::Job(*id, *job),
            SignalKind::Wake(wake) => Kind::Wake(*wake),
            SignalKind::ThreadEnd(end) => Kind::ThreadEnd(*end),
            SignalKind::Replaced(tgid) => Kind::Replaced(*tgid),
        };
        Self::Signal {
            ts: signal.ts,
            kind: Box::new(kind),
        }
    }
}

impl Kind {
    pub fn signal(self, names: &mut Names) -> SignalKind {
        match self {
            Self::Act(act) => SignalKind::Act(act),
            Self::Begin(begun) => SignalKind::Begin(begun.begin(names)),
            Self::RequestEnd(id, stamp) => SignalKind::RequestEnd(id, stamp),
            Self::Respond(id, stamp) => SignalKind::Respond(id, stamp),
            Self::End(ended) => SignalKind::End(Box::new(ended.exchange(names))),
            Self::Drop(id, reason) => {
                let mut all = Reason::ALL.iter().copied();
                let reason = all.find(|known| known.as_str() == reason);
                SignalKind::Drop(id, reason.unwrap_or(Reason::BytesLost))
            }
            Self::Job(id, job) => SignalKind::Job(id, job),
            Self::Wake(wake) => SignalKind::Wake(wake),
            Self::ThreadEnd(end) => SignalKind::ThreadEnd(end),
            Self::Replaced(tgid) => SignalKind::Replaced(tgid),
        }
    }
}

impl Begun {
    fn of(begin: &Begin) -> Self {
        Self {
            id: begin.id,
            conn: (*begin.conn).clone(),
            role: begin.role,
            start: begin.start,
            identity: begin.identity,
            context: begin.context.as_deref().map(Context::of),
            taken: begin.taken.clone(),
        }
    }

    fn begin(self, names: &mut Names) -> Begin {
        Begin {
            id: self.id,
            conn: Arc::new(self.conn),
            role: self.role,
            start: self.start,
            identity: self.identity,
            context: self.context.map(|context| context.context(names)),
            taken: self.taken,
        }
    }
}

impl Ended {
    fn of(exchange: &Exchange) -> Self {
        Self {
            id: exchange.id,
            conn: (*exchange.conn).clone(),
            protocol: exchange.protocol.to_owned(),
            role: exchange.role,
            start: exchange.start,
            first_byte: exchange.first_byte,
            end: exchange.end,
            name: exchange.name.to_string(),
            failed: match &exchange.outcome {
                Outcome::Unset => None,
                Outcome::Error { kind, .. } => Some(kind.clone()),
            },
            context: exchange.context.as_deref().map(Context::of),
        }
    }

    fn exchange(self, names: &mut Names) -> Exchange {
        Exchange {
            id: self.id,
            conn: Arc::new(self.conn),
            protocol: names.get(&self.protocol),
            role: self.role,
            start: self.start,
            first_byte: self.first_byte,
            end: self.end,
            queue_time: None,
            request_bytes: 0,
            response_bytes: 0,
            name: self.name.into(),
            outcome: self.failed.map_or(Outcome::Unset, |kind| Outcome::Error {
                kind,
                message: Box::default(),
            }),
            attributes: Attributes::default(),
            context: self.context.map(|context| context.context(names)),
        }
    }
}
