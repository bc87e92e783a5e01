//! Commands that wait for their replies.

use std::borrow::Cow;

use super::NAME;
use super::command::Upper;
use super::jobs::Jobs;
use super::resp::number;
use crate::model::{Attributes, Exchange, Outcome, Role, Stamp};
use crate::protocol::sql::key;
use crate::protocol::{Output, Started};

/// Arguments shown as `?`; more are shown as `...`.
const MAX_SHOWN: u64 = 16;
/// Longest message of an error that is kept.
const MAX_MESSAGE: usize = 120;
/// Errors whose message is the server's own words; others may quote arguments.
const SPEAKING: [&str; 15] = [
    "WRONGTYPE",
    "NOAUTH",
    "WRONGPASS",
    "READONLY",
    "LOADING",
    "OOM",
    "BUSY",
    "NOSCRIPT",
    "EXECABORT",
    "CROSSSLOT",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "MOVED",
    "ASK",
];

/// What a command does to the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Selects a database, if that succeeds.
    Select(u64),
    /// Subscribes; that many confirmations come.
    Subscribe(u64),
    /// Ends subscriptions; that many confirmations come.
    Unsubscribe(u64),
    /// Back to how connections begin.
    Reset,
    /// No replies any more after this one.
    Takeover,
    /// The server closes in place of a reply.
    Shutdown,
}

impl Effect {
    /// Of the command `name` with `arguments`, the first of which is `first`.
    #[must_use]
    pub fn of(name: &str, arguments: u64, first: Option<&[u8]>) -> Self {
        match name {
            "SELECT" => first.and_then(number).map_or(Self::None, Self::Select),
            "SUBSCRIBE" | "PSUBSCRIBE" | "SSUBSCRIBE" => Self::Subscribe(arguments.max(1)),
            "UNSUBSCRIBE" | "PUNSUBSCRIBE" | "SUNSUBSCRIBE" => Self::Unsubscribe(arguments.max(1)),
            "RESET" => Self::Reset,
            "MONITOR" | "SYNC" | "PSYNC" => Self::Takeover,
            "SHUTDOWN" => Self::Shutdown,
            _ => Self::None,
        }
    }
}

/// A command that has begun.
pub struct Open {
    pub started: Started,
    /// Command and subcommand.
    pub name: Cow<'static, str>,
    /// Arguments behind the name.
    pub arguments: u64,
    pub request_bytes: u64,
    pub response_bytes: u64,
    pub first_byte: Option<Stamp>,
    pub effect: Effect,
    /// What it does with jobs, if it does something.
    pub jobs: Option<Box<Jobs>>,
    /// It was dropped already; its reply still comes.
    pub ghost: bool,
}

impl Open {
    /// The first byte of the reply came.
    pub fn respond(&mut self, stamp: Stamp, out: &mut Output<'_>) {
        if self.first_byte.is_none() && !self.ghost {
            self.first_byte = Some(stamp);
            out.respond(self.started.id, stamp);
        }
    }

    /// Ends it.
    pub fn end(self, outcome: Outcome, role: Role, namespace: Option<u64>, end: Stamp, out: &mut Output<'_>) {
        if self.ghost {
            return;
        }
        let mut attributes = Attributes::with_capacity(6, 64);
        attributes.push_static(key::SYSTEM, NAME);
        if let Some(index) = namespace {
            attributes.push_with(key::NAMESPACE, |text| {
                use std::fmt::Write;
                let _ = write!(text, "{index}");
            });
        }
        match &self.name {
            Cow::Borrowed(name) => attributes.push_static(key::OPERATION, name),
            Cow::Owned(name) => attributes.push_str(key::OPERATION, name),
        }
        attributes.push_with(key::QUERY_TEXT, |text| {
            text.push_str(&self.name);
            for _ in 0..self.arguments.min(MAX_SHOWN) {
                text.push_str(" ?");
            }
            if self.arguments > MAX_SHOWN {
                text.push_str(" ...");
            }
        });
        if let Outcome::Error { kind, .. } = &outcome
            && !kind.starts_with("connection_")
        {
            attributes.push_str(key::STATUS_CODE, kind);
        }
        out.end(Exchange {
            first_byte: self.first_byte,
            end,
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            outcome,
            attributes,
            ..self.started.exchange(out.conn, NAME, role, self.name.into())
        });
    }
}

/// The outcome of an error reply, whose first word is its kind.
#[must_use]
pub fn failure(text: &[u8]) -> Outcome {
    let (word, rest) = match memchr::memchr(b' ', text) {
        Some(at) => text.split_at(at),
        None => (text, &[][..]),
    };
    let kind = word.iter().all(|b| b.is_ascii_uppercase() || *b == b'_');
    let kind = Upper::new(word).filter(|_| kind);
    let kind = kind.as_ref().map_or("ERR", Upper::as_str);
    let message = if SPEAKING.contains(&kind) {
        let rest = rest.get(..MAX_MESSAGE).unwrap_or(rest);
        String::from_utf8_lossy(rest).trim().into()
    } else {
        "".into()
    };
    Outcome::Error {
        kind: kind.into(),
        message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_its_kind_and_quotes_nothing() {
        for (text, kind, message) in [
            ("ERR unknown command 'secret'", "ERR", ""),
            (
                "WRONGTYPE Operation against a key",
                "WRONGTYPE",
                "Operation against a key",
            ),
            ("MOVED 3999 127.0.0.1:6381", "MOVED", "3999 127.0.0.1:6381"),
            ("MY_SCRIPT_ERROR secret", "MY_SCRIPT_ERROR", ""),
            ("wrong secret", "ERR", ""),
            ("NOAUTH", "NOAUTH", ""),
            ("", "ERR", ""),
        ] {
            let Outcome::Error { kind: k, message: m } = failure(text.as_bytes()) else {
                panic!()
            };
            assert_eq!((&*k, &*m), (kind, message), "{text}");
        }
    }
}
