//! E1: trace context in the request.

use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::record::Parent;
use crate::model::{Confidence, Evidence, SpanId, TraceId};

/// Names a context inside one process.
pub(in crate::correlate) type ContextId = (u32, TraceId, Option<SpanId>);

/// The open requests of a process that carry one context.
#[derive(Default)]
pub(in crate::correlate) struct Carriers {
    count: u32,
    /// The only one, [`Key::NONE`] if there are more or it has ended.
    only: Key,
}

const CERTAIN: Option<(Evidence, Confidence)> = Some((Evidence::Header, Confidence::Certain));

impl Correlator {
    fn context_id(&self, key: Key) -> Option<ContextId> {
        let record = self.records.get(key)?;
        let context = record.begin.context.as_ref()?;
        let tgid = self.units.processes.get(record.process)?.tgid;
        Some((tgid, context.trace_id, context.span_id))
    }

    /// A request with a context has come in: calls that carry the very same one are its own.
    pub(in crate::correlate) fn context_arrived(&mut self, key: Key) {
        if let Some(id) = self.context_id(key) {
            let carriers = self.contexts.entry(id).or_default();
            carriers.only = if carriers.count == 0 { key } else { Key::NONE };
            carriers.count += 1;
        }
    }

    /// The request is over.
    pub(in crate::correlate) fn context_left(&mut self, key: Key) {
        if let Some(id) = self.context_id(key)
            && let Some(carriers) = self.contexts.get_mut(&id)
        {
            carriers.count -= 1;
            if carriers.only == key {
                carriers.only = Key::NONE;
            }
            if carriers.count == 0 {
                self.contexts.remove(&id);
            }
        }
    }

    /// A call that carries a context. Forwarded from exactly one open request: that request's span is its parent. New
    /// to this process: an SDK inside the application made it, and its span is the parent. Undecided if several
    /// requests carry it, or if it names a trace but no span.
    pub(in crate::correlate) fn context_called(&mut self, key: Key) {
        let Some(id) = self.context_id(key) else {
            return;
        };
        match self.contexts.get(&id) {
            Some(carriers) if carriers.only != Key::NONE => {
                let request = carriers.only;
                self.decide(key, Parent::Local(request), CERTAIN);
            }
            None if id.2.is_some() => self.decide(key, Parent::Context, CERTAIN),
            Some(_) | None => {}
        }
    }

    /// A request that came in, and whose sender is not on this host.
    pub(in crate::correlate) fn sender_unseen(&mut self, key: Key) {
        let Some(record) = self.records.get(key) else {
            return;
        };
        if record.begin.context.is_some() {
            self.decide(key, Parent::Context, CERTAIN);
        } else {
            self.decide(key, Parent::Root, None);
        }
    }

    /// Whether the call's own context, if it has one, agrees that it belongs to the request.
    pub(in crate::correlate) fn contexts_agree(&self, call: Key, request: Key) -> bool {
        let (Some(call), Some(request)) = (self.records.get(call), self.records.get(request)) else {
            return false;
        };
        match (&call.begin.context, &request.begin.context) {
            (None, _) => true,
            (Some(a), Some(b)) => a.trace_id == b.trace_id,
            (Some(_), None) => false,
        }
    }
}
