//! What the server says.

use super::exchange::{Item, Open, failed};
use super::message::{Cursor, HEADER, Header, READY, ServerError, completion_at_end};
use super::session::{Framing, Phase, PostgresqlSession};
use crate::model::Stamp;
use crate::protocol::{Output, Side};
use crate::telemetry::Reason;

/// How much of an error is looked at: severity and code come first.
const MAX_ERROR: usize = 256;
/// Longest command tag that is looked at (`COMPLETION_TAG_BUFSIZE`).
const MAX_TAG: usize = 64;
/// Bytes of a stream that lost its framing kept to find its end in: a `CommandComplete` and a `ReadyForQuery`.
const LOOK_BACK: usize = HEADER + MAX_TAG + READY.len() + 1;

impl PostgresqlSession {
    /// The server's answer to a request for encryption.
    pub fn negotiated(&mut self, bytes: &[u8], out: &mut Output<'_>) -> Option<usize> {
        match bytes.first()? {
            b'S' | b'G' => {
                out.switch_to(None);
                self.phase = Phase::Running;
                Some(1)
            }
            b'N' => {
                self.phase = Phase::Startup;
                Some(1)
            }
            // Servers that know no encryption answer with an error message.
            _ => {
                self.phase = Phase::Running;
                Some(0)
            }
        }
    }

    /// How much of a message's body is needed to understand it; `None` if servers send no such message.
    pub fn wanted_of_response(Header { kind, body }: Header) -> Option<usize> {
        let most = match kind {
            b'E' => MAX_ERROR,
            b'C' => MAX_TAG,
            b'Z' if body == 1 => 1,
            b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' if body == 0 => 0,
            b'R' | b'K' | b'S' | b'N' | b'A' | b'v' | b'T' | b'D' | b'G' | b'H' | b'W' | b'V' | b'd'
            | b't' => 0,
            _ => return None,
        };
        Some(most.min(body as usize))
    }

    /// A message; `body` is all of it that was captured.
    pub fn response(&mut self, message: Header, body: &[u8], stamp: Stamp, out: &mut Output<'_>) {
        if matches!(message.kind, b'R' | b'K' | b'S' | b'N' | b'A' | b'v') {
            // Start-up, and what may come at any time.
            return;
        }
        self.count_response((HEADER as u64).saturating_add(body.len() as u64), stamp, out);
        match message.kind {
            b'Z' => self.ready(stamp, out),
            b'C' => self.complete(Cursor(body).text_or_rest(), stamp, out),
            b'I' => self.complete(b"", stamp, out),
            b's' => {
                if let Some(open) = self.queue.front_mut().and_then(Item::open_mut) {
                    open.suspended();
                }
                self.complete(b"", stamp, out);
            }
            b'E' => self.error(ServerError::parse(body)),
            b'T' | b'D' => {
                if let Some(open) = self.queue.front_mut().and_then(Item::open_mut) {
                    open.shows_rows = true;
                    open.counted = open.counted.saturating_add(u64::from(message.kind == b'D'));
                }
            }
            b'1' | b'2' if matches!(self.queue.front(), Some(Item::Query(_))) => {
                // No answer to a simple query: we are out of step.
                self.drop_all(Reason::BytesLost, out);
                self.lose(Side::Server, stamp, out);
            }
            b'G' | b'W' => {
                self.copying_in = true;
                // A Sync sent before the data is ignored by the server.
                if matches!(self.queue.front(), Some(Item::Execute(_)))
                    && matches!(self.queue.get(1), Some(Item::Sync(None)))
                {
                    self.queue.remove(1);
                }
            }
            _ => {}
        }
    }

    /// A command is complete, an empty one too, or its portal is suspended.
    fn complete(&mut self, tag: &[u8], stamp: Stamp, out: &mut Output<'_>) {
        self.copying_in = false;
        let last = matches!(self.queue.get(1), Some(Item::Sync(_)));
        match self.queue.front_mut() {
            Some(Item::Query(open)) => open.completed(tag),
            Some(Item::Execute(open)) => {
                open.completed(tag);
                open.complete = true;
                if !last && let Some(Item::Execute(open)) = self.queue.pop_front() {
                    open.end(self.role, self.namespace.as_deref(), stamp, out);
                }
            }
            _ => {}
        }
    }

    fn error(&mut self, error: ServerError) {
        self.copying_in = false;
        match self.queue.front_mut() {
            Some(Item::Query(open) | Item::Execute(open)) => open.error = Some(error),
            Some(Item::Sync(Some(prepared))) => prepared.error = Some(error),
            Some(Item::Sync(None)) | None => {
                // Execute and its Sync may be known, what failed before them may not.
                if let Some(prepared) = &mut self.building {
                    prepared.error = Some(error);
                }
            }
        }
    }

    /// `ReadyForQuery`: everything up to the next `Sync`, or one simple query, is over.
    fn ready(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        self.copying_in = false;
        let mut failing = false;
        while let Some(item) = self.queue.pop_front() {
            match item {
                Item::Query(open) => {
                    self.finish(open, stamp, out);
                    break;
                }
                Item::Execute(open) => {
                    failing |= open.error.is_some();
                    if open.error.is_some() || open.complete {
                        self.finish(open, stamp, out);
                    } else if failing {
                        let outcome = failed("pipeline_aborted");
                        open.end_as(outcome, self.role, self.namespace.as_deref(), stamp, out);
                    } else {
                        out.drop_exchange(open.started.id, Reason::BytesLost);
                    }
                }
                Item::Sync(prepared) => {
                    if let Some(prepared) = prepared.filter(|p| p.error.is_some()) {
                        let started = out.begin(self.role, &prepared.mark, prepared.context.clone());
                        let mut open =
                            Open::new(started, prepared.context, prepared.statement, prepared.bytes);
                        open.response_bytes = prepared.response_bytes;
                        open.error = prepared.error;
                        if let Some(first) = prepared.first_byte {
                            open.respond(first, out);
                        }
                        self.finish(open, stamp, out);
                    }
                    break;
                }
            }
        }
        if self.queue.is_empty() && matches!(self.framing[Side::Client as usize], Framing::Lost { .. }) {
            // The client has its answers: what it sends next begins with a message.
            self.framing[Side::Client as usize] = Framing::Aligned;
        }
    }

    fn finish(&self, open: Open, stamp: Stamp, out: &mut Output<'_>) {
        open.end(self.role, self.namespace.as_deref(), stamp, out);
    }

    /// Looks for the end of the response in `bytes`, whose beginning is not known to be that of a message. Returns the bytes
    /// that are done with.
    pub fn resynchronise(&mut self, bytes: &[u8], since: u64, now: Stamp, out: &mut Output<'_>) -> usize {
        let ready = bytes
            .split_last()
            .filter(|(status, before)| b"ITE".contains(status) && before.ends_with(&READY))
            .and_then(|(_, before)| before.strip_suffix(&READY));
        let Some(before) = ready else {
            // What is kept may turn out to be the beginning of the end.
            let done = bytes.len().saturating_sub(LOOK_BACK);
            self.count_response(done as u64, now, out);
            return done;
        };
        self.framing[Side::Server as usize] = Framing::Aligned;
        let groups = self
            .queue
            .iter()
            .filter(|i| !matches!(i, Item::Execute(_)))
            .count();
        if groups > 1 {
            // Which of them is answered can't be known.
            self.drop_all(Reason::BytesLost, out);
            self.framing[Side::Server as usize] = Framing::Lost { since: now.ts };
            return bytes.len();
        }
        let tag = completion_at_end(before);
        // Fields of an error end with two NULs; a command tag with one.
        let failed = tag.is_none() && before.ends_with(b"\0\0");
        let executes = self
            .queue
            .iter()
            .filter(|i| matches!(i, Item::Execute(_)))
            .count();
        let last = executes.saturating_sub(1);
        let mut index = 0;
        let mut kept = std::collections::VecDeque::with_capacity(self.queue.len());
        for mut item in std::mem::take(&mut self.queue) {
            match &mut item {
                Item::Query(open) => answered(open, tag, failed),
                Item::Execute(open) if index == last && !failed => {
                    open.respond(now, out);
                    answered(open, tag, false);
                    index += 1;
                }
                // All of them were answered in this very chunk, and well, or the last would not be.
                Item::Execute(open) if since == now.ts && !failed => {
                    open.respond(now, out);
                    open.complete = true;
                    index += 1;
                }
                Item::Execute(open) if executes == 1 => answered(open, tag, failed),
                Item::Execute(open) => {
                    out.drop_exchange(open.started.id, Reason::BytesLost);
                    index += 1;
                    continue;
                }
                Item::Sync(_) => {}
            }
            kept.push_back(item);
        }
        self.queue = kept;
        self.count_response(bytes.len() as u64, now, out);
        self.ready(now, out);
        bytes.len()
    }
}

fn answered(open: &mut Open, tag: Option<&[u8]>, failed: bool) {
    open.complete = true;
    // Only results of rows are long enough to lose the framing in.
    open.shows_rows = true;
    open.completed(tag.unwrap_or_default());
    if failed {
        open.error = Some(ServerError::UNKNOWN);
    }
}
