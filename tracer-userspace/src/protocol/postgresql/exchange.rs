//! Exchanges that are open on a connection, in the order in which the server will answer them.

use std::sync::Arc;

use super::NAME;
use super::message::{ServerError, rows};
use super::sqlstate::condition;
use crate::model::{Attributes, Exchange, Mark, Outcome, Role, Stamp, TraceContext};
use crate::protocol::sql::{Statement, key};
use crate::protocol::{Output, Started};

/// Something that the server will answer.
pub enum Item {
    /// A simple query or function call: answered up to `ReadyForQuery`.
    Query(Open),
    /// An `Execute`.
    Execute(Open),
    /// A `Sync`, answered by `ReadyForQuery`; with what was prepared and not executed before it.
    Sync(Option<Prepared>),
}

/// `Parse`, `Bind`, `Describe` and the like, not executed yet.
pub struct Prepared {
    /// The place of their first byte.
    pub mark: Mark,
    /// Their bytes so far.
    pub bytes: u64,
    /// The statement, if known.
    pub statement: Option<Arc<Statement>>,
    /// Trace context in the statement's comment.
    pub context: Option<Arc<TraceContext>>,
    /// What the server answered.
    pub error: Option<ServerError>,
    /// When the server began to answer.
    pub first_byte: Option<Stamp>,
    /// Bytes of that answer.
    pub response_bytes: u64,
}

/// An exchange that has begun.
pub struct Open {
    pub started: Started,
    pub context: Option<Arc<TraceContext>>,
    pub statement: Option<Arc<Statement>>,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub first_byte: Option<Stamp>,
    /// Rows that its complete commands returned.
    pub rows: Option<u64>,
    /// Whether the current command shows rows: a `RowDescription` or `DataRow` came.
    pub shows_rows: bool,
    /// Rows of the current command that were seen.
    pub counted: u64,
    pub error: Option<ServerError>,
    /// Whether its command is complete, and its end waits for `ReadyForQuery`.
    pub complete: bool,
}

impl Open {
    pub fn new(
        started: Started,
        context: Option<Arc<TraceContext>>,
        statement: Option<Arc<Statement>>,
        request_bytes: u64,
    ) -> Self {
        Self {
            started,
            context,
            statement,
            request_bytes,
            response_bytes: 0,
            first_byte: None,
            rows: None,
            shows_rows: false,
            counted: 0,
            error: None,
            complete: false,
        }
    }

    /// A command is complete, with this tag. What a statement without rows to show counts are rows that it changed.
    pub fn completed(&mut self, tag: &[u8]) {
        if let Some((number, always)) = rows(tag)
            && (self.shows_rows || (always && number == 0))
        {
            self.add_rows(number);
        }
        self.shows_rows = false;
        self.counted = 0;
    }

    /// The portal has more rows than were asked for: those that came are all that is known.
    pub fn suspended(&mut self) {
        let counted = self.counted;
        self.add_rows(counted);
    }

    fn add_rows(&mut self, number: u64) {
        self.rows = Some(self.rows.unwrap_or(0).saturating_add(number));
    }

    /// The first byte of the response came.
    pub fn respond(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        if self.first_byte.is_none() {
            self.first_byte = Some(stamp);
            out.respond(self.started.id, stamp);
        }
    }

    /// How it failed, if it did.
    fn outcome(&self) -> Outcome {
        match &self.error {
            None => Outcome::Unset,
            Some(error) => failure(error),
        }
    }

    /// Ends it with what the server said.
    pub fn end(self, role: Role, namespace: Option<&str>, end: Stamp, out: &mut Output<'_>) {
        let outcome = self.outcome();
        self.end_as(outcome, role, namespace, end, out);
    }

    /// Ends it with this outcome.
    pub fn end_as(
        self,
        outcome: Outcome,
        role: Role,
        namespace: Option<&str>,
        end: Stamp,
        out: &mut Output<'_>,
    ) {
        let statement = self.statement.as_deref();
        let text = statement.map_or(0, |s| s.text.len() + s.summary.len() + 64);
        let mut attributes = Attributes::with_capacity(8, text + 16);
        attributes.push_static(key::SYSTEM, NAME);
        if let Some(namespace) = namespace {
            attributes.push_str(key::NAMESPACE, namespace);
        }
        if let Some(statement) = statement {
            let optional = [
                (key::OPERATION, statement.operation.as_deref()),
                (key::COLLECTION, statement.collection.as_deref()),
                (key::QUERY_SUMMARY, Some(&*statement.summary)),
                (key::QUERY_TEXT, Some(&*statement.text)),
            ];
            for (key, value) in optional {
                if let Some(value) = value.filter(|v| !v.is_empty()) {
                    attributes.push_str(key, value);
                }
            }
        }
        if let Some(code) = self.error.as_ref().and_then(ServerError::sqlstate) {
            attributes.push_str(key::STATUS_CODE, code);
        }
        if let Some(rows) = self.rows {
            attributes.push_int(key::RETURNED_ROWS, i64::try_from(rows).unwrap_or(i64::MAX));
        }
        let name = statement
            .map(|s| &*s.name)
            .filter(|name| !name.is_empty())
            .unwrap_or(NAME);
        out.end(Exchange {
            first_byte: self.first_byte,
            end,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            outcome,
            attributes,
            context: self.context,
            ..self.started.exchange(out.conn, NAME, role, name.into())
        });
    }
}

/// The outcome of a server's error.
pub fn failure(error: &ServerError) -> Outcome {
    let code = error.sqlstate();
    Outcome::Error {
        kind: code.unwrap_or("_OTHER").into(),
        message: code.map(condition).unwrap_or_default().into(),
    }
}

/// An outcome that no server's error names.
pub fn failed(kind: &str) -> Outcome {
    Outcome::Error {
        kind: kind.into(),
        message: "".into(),
    }
}
