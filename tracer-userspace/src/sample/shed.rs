//! Leaves whole traces out while the tracer is above its budget of processor time.
//!
//! First a share of the traces, by their ids and with the sampler's own rule, so that tracers on several hosts keep the same ones.
//! Then also a share of the connections, in the kernel: only such as bring requests from outside, at ports where no request had a
//! traced caller. No trace loses a part by that, for each of theirs would have begun there; what their processes call meanwhile
//! begins traces that are no whole ones, and these are left out too.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};

use super::head::by_threshold;
use super::threshold::Threshold;
use super::verdict::{Verdict, Verdicts};
use crate::model::{Conn, Nanos, Span, TraceId};
use crate::telemetry::{Ledger, Reason};

/// Spans that wait for the root of their trace, and how long.
const MAX_WAITING: usize = 20_000;
const WAIT: Nanos = 1_000_000_000;
/// Ports and processes that are kept in mind.
const MAX_PORTS: usize = 4_096;
const MAX_PROCESSES: usize = 16_384;

/// What is kept: shares from 0 to 1.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Shed {
    /// Of the traces.
    pub traces: f64,
    /// Of the connections that bring requests from outside.
    pub connections: f64,
}

impl Shed {
    /// Everything is kept.
    pub const NOTHING: Self = Self {
        traces: 1.0,
        connections: 1.0,
    };
}

/// What is shed at the moment, shared by who decides that and who does it.
#[derive(Clone)]
pub struct Shedding(Arc<Shared>);

struct Shared {
    traces: AtomicU64,
    connections: AtomicU64,
    known: Mutex<Known>,
}

/// What was seen of the host while something was shed.
#[derive(Default)]
struct Known {
    /// By network namespace and port: whether a request came there from a traced caller.
    ports: HashMap<(u32, u16), bool>,
    /// Processes of which connections were shed.
    partly_seen: HashSet<u32>,
}

impl Default for Shedding {
    fn default() -> Self {
        let all = || AtomicU64::new(1.0f64.to_bits());
        Self(Arc::new(Shared {
            traces: all(),
            connections: all(),
            known: Mutex::default(),
        }))
    }
}

impl Shedding {
    /// From now on.
    pub fn set(&self, shed: Shed) {
        self.0.traces.store(shed.traces.to_bits(), Relaxed);
        self.0.connections.store(shed.connections.to_bits(), Relaxed);
        if shed == Shed::NOTHING {
            *self.known() = Known::default();
        }
    }

    /// What is kept now.
    #[must_use]
    pub fn get(&self) -> Shed {
        Shed {
            traces: f64::from_bits(self.0.traces.load(Relaxed)),
            connections: f64::from_bits(self.0.connections.load(Relaxed)),
        }
    }

    /// Whether this connection is shed. Its process is then known to be seen in part only.
    #[must_use]
    pub fn sheds(&self, conn: &Conn) -> bool {
        let kept = self.get().connections;
        // Socket cookies count upwards: a multiplication spreads them.
        let place = conn.id.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 11;
        if kept >= 1.0 || (place as f64) < kept * (1u64 << 53) as f64 {
            return false;
        }
        let mut known = self.known();
        let is_edge = known.ports.get(&(conn.netns, conn.local.port)) == Some(&false);
        if is_edge && known.partly_seen.len() < MAX_PROCESSES {
            known.partly_seen.insert(conn.tgid);
            return true;
        }
        false
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The stage.
pub struct Shedder {
    shedding: Shedding,
    verdicts: Verdicts,
    waiting: HashMap<TraceId, Vec<Span>>,
    order: VecDeque<(Nanos, TraceId)>,
    held: usize,
}

impl Shedder {
    /// Sheds what that handle says.
    #[must_use]
    pub fn new(shedding: Shedding, ledger: Arc<Ledger>) -> Self {
        Self {
            shedding,
            verdicts: Verdicts::new(ledger, Reason::Shed),
            waiting: HashMap::new(),
            order: VecDeque::new(),
            held: 0,
        }
    }

    /// Takes finished spans; those of traces that are kept go to `kept`, now or later. Leaves `spans` empty.
    pub fn offer(&mut self, spans: &mut Vec<Span>, now: Nanos, kept: &mut Vec<Span>) {
        let shed = self.shedding.get();
        let mut may_be_fragments = false;
        if shed != Shed::NOTHING {
            may_be_fragments = self.note_ports(spans) || shed.connections < 1.0;
        }
        for span in spans.drain(..) {
            let trace = span.trace_id;
            let is_root = span.parent.is_none();
            if let Some(verdict) = self.verdicts.of(trace) {
                self.verdicts.carry_out(vec![span], verdict, kept);
            } else if !may_be_fragments && !self.waiting.contains_key(&trace) {
                self.decide(trace, vec![span], shed, kept);
            } else {
                self.hold(span, now);
                if is_root {
                    self.release(trace, shed, kept);
                }
            }
        }
        while let Some(&(due, trace)) = self.order.front()
            && (due <= now || self.held > MAX_WAITING)
        {
            self.order.pop_front();
            self.release(trace, shed, kept);
        }
    }

    /// Decides on everything that still waits.
    pub fn finish(&mut self, kept: &mut Vec<Span>) {
        let shed = self.shedding.get();
        while let Some((_, trace)) = self.order.pop_front() {
            self.release(trace, shed, kept);
        }
    }

    /// Whether processes are known that are seen in part.
    fn note_ports(&self, spans: &[Span]) -> bool {
        let mut known = self.shedding.known();
        for span in spans.iter().filter(|span| span.exchange.role.is_inbound()) {
            let conn = &span.exchange.conn;
            let room = known.ports.len() < MAX_PORTS;
            let port = (conn.netns, conn.local.port);
            let has_caller = span.parent.is_some();
            match known.ports.get_mut(&port) {
                Some(known) => *known |= has_caller,
                None if room => _ = known.ports.insert(port, has_caller),
                None => {}
            }
        }
        !known.partly_seen.is_empty()
    }

    fn hold(&mut self, span: Span, now: Nanos) {
        let trace = span.trace_id;
        self.held += 1;
        let waiting = self.waiting.entry(trace).or_default();
        if waiting.is_empty() {
            self.order.push_back((now.saturating_add(WAIT), trace));
        }
        waiting.push(span);
    }

    fn release(&mut self, trace: TraceId, shed: Shed, kept: &mut Vec<Span>) {
        if let Some(spans) = self.waiting.remove(&trace) {
            self.held -= spans.len();
            self.decide(trace, spans, shed, kept);
        }
    }

    fn decide(&mut self, trace: TraceId, spans: Vec<Span>, shed: Shed, kept: &mut Vec<Span>) {
        let verdict = if self.is_fragment(&spans, shed) {
            Verdict::Leave
        } else if shed.traces < 1.0 {
            by_threshold(&spans, Threshold::of(shed.traces))
        } else {
            Verdict::Keep(None)
        };
        self.verdicts.decide(trace, spans, verdict, kept);
    }

    /// Whether the trace may have begun with a request that was not seen.
    fn is_fragment(&self, spans: &[Span], shed: Shed) -> bool {
        if shed == Shed::NOTHING {
            return false;
        }
        let root = spans.iter().find(|span| span.parent.is_none());
        root.is_some_and(|root| {
            let process = root.exchange.conn.tgid;
            !root.exchange.role.is_inbound() && self.shedding.known().partly_seen.contains(&process)
        })
    }
}
