//! What the client says.

use super::exchange::{Item, Open, Prepared};
use super::message::{Cursor, Header, MAX_STARTUP};
use super::session::{Framing, Named, Phase, PostgresqlSession};
use crate::model::Mark;
use crate::protocol::sql::{self, Dialect, MAX_TEXT};
use crate::protocol::{Output, Side};

/// Most bytes of a name that are looked at.
const MAX_NAME: usize = 256;
/// Codes of `CancelRequest`, `SSLRequest` and `GSSENCRequest`.
const CANCEL: u32 = 80_877_102;
const SSL: u32 = 80_877_103;
const GSSENC: u32 = 80_877_104;

impl PostgresqlSession {
    /// A packet without a type.
    pub fn startup(&mut self, bytes: &[u8], out: &mut Output<'_>) -> Option<usize> {
        if bytes.first() != Some(&0) {
            // No type byte is 0: start-up is over, or was not seen.
            self.phase = Phase::Running;
            return Some(0);
        }
        let mut cursor = Cursor(bytes);
        let len = cursor.u32()?;
        if !(8..=MAX_STARTUP).contains(&len) {
            self.phase = Phase::Running;
            self.framing[Side::Client as usize] = Framing::Lost { since: out.now };
            return Some(0);
        }
        let packet = bytes.get(..len as usize)?;
        match cursor.u32()? {
            SSL | GSSENC => self.phase = Phase::Negotiating,
            CANCEL => out.switch_to(None),
            _ => {
                self.phase = Phase::Running;
                self.parameters(packet.get(8..).unwrap_or_default());
                self.capture(out);
            }
        }
        Some(packet.len())
    }

    /// The user names the database if nothing else does.
    fn parameters(&mut self, body: &[u8]) {
        let mut cursor = Cursor(body);
        let (mut user, mut database) = (None, None);
        while let Some(name) = cursor.text().filter(|name| !name.is_empty()) {
            let Some(value) = cursor.text() else { break };
            match name {
                b"user" => user = Some(value),
                b"database" => database = Some(value),
                _ => {}
            }
        }
        let name = database.filter(|d| !d.is_empty()).or(user);
        self.namespace = name.map(|name| String::from_utf8_lossy(name).into_owned().into_boxed_str());
    }

    /// How much of a message's body is needed to understand it; `None` if clients send no such message.
    pub fn wanted_of_request(Header { kind, body }: Header) -> Option<usize> {
        let most = match kind {
            b'Q' => MAX_TEXT,
            b'P' => MAX_NAME + MAX_TEXT,
            b'B' => 2 * MAX_NAME,
            b'D' | b'C' | b'E' => MAX_NAME,
            b'S' | b'H' | b'X' | b'c' if body != 0 => return None,
            b'S' | b'H' | b'X' | b'c' | b'd' | b'f' | b'F' | b'p' => 0,
            _ => return None,
        };
        Some(most.min(body as usize))
    }

    /// A message; `body` is all of it that was captured.
    pub fn request(&mut self, message: Header, body: &[u8], mark: &Mark, open: bool, out: &mut Output<'_>) {
        let bytes = (super::message::HEADER as u64).saturating_add(body.len() as u64);
        let mut cursor = Cursor(body);
        match message.kind {
            b'Q' | b'F' => {
                self.building = None;
                let text = if message.kind == b'Q' {
                    cursor.text_or_rest()
                } else {
                    &[]
                };
                let context = sql::trace_context(text);
                let started = out.begin(self.role, mark, context.clone());
                let statement = (!text.is_empty()).then(|| sql::statement(text, Dialect::PostgreSql));
                let query = Item::Query(Open::new(started, context, statement, bytes));
                self.request_open = self.push(query, out);
            }
            b'P' => {
                let name = cursor.text_or_rest();
                let text = cursor.text_or_rest();
                let statement = (!text.is_empty()).then(|| sql::statement(text, Dialect::PostgreSql));
                self.names.set(Named::Statement, name, statement.clone());
                let context = sql::trace_context(text);
                let prepared = self.prepare(mark, bytes);
                prepared.statement = statement;
                prepared.context = context;
            }
            b'B' => {
                let (portal, name) = (cursor.text_or_rest(), cursor.text_or_rest());
                let statement = self.names.get(Named::Statement, name);
                self.names.set(Named::Portal, portal, statement.clone());
                self.prepare(mark, bytes).statement = statement;
            }
            b'D' => {
                let of = cursor.byte();
                let statement = match of {
                    Some(b'S') => self.names.get(Named::Statement, cursor.text_or_rest()),
                    _ => self.names.get(Named::Portal, cursor.text_or_rest()),
                };
                let prepared = self.prepare(mark, bytes);
                prepared.statement = prepared.statement.take().or(statement);
            }
            b'C' => {
                self.prepare(mark, bytes);
            }
            b'E' => {
                let statement = self.names.get(Named::Portal, cursor.text_or_rest());
                self.prepare(mark, bytes);
                let Some(prepared) = self.building.take() else {
                    return;
                };
                let context = prepared.context;
                let started = out.begin(self.role, &prepared.mark, context.clone());
                let execute = Item::Execute(Open::new(started, context, statement, prepared.bytes));
                self.request_open = self.push(execute, out);
            }
            b'S' => {
                let prepared = self.building.take();
                if prepared.is_none() {
                    // The Sync is the end of the last Execute's request.
                    self.count_request(bytes);
                }
                self.push(Item::Sync(prepared), out);
                return;
            }
            b'c' | b'f' => {
                self.copying_in = false;
                self.count_request(bytes);
            }
            _ => self.count_request(bytes),
        }
        if !open && self.building.is_none() {
            self.end_request(mark.stamp, out);
        }
    }

    /// What is being prepared, begun at `mark` if nothing was; counts `bytes`.
    fn prepare(&mut self, mark: &Mark, bytes: u64) -> &mut Prepared {
        let prepared = self.building.get_or_insert(Prepared {
            mark: *mark,
            bytes: 0,
            statement: None,
            context: None,
            error: None,
            first_byte: None,
            response_bytes: 0,
        });
        prepared.bytes = prepared.bytes.saturating_add(bytes);
        prepared
    }
}
