//! Messages of protocol version 3 (PostgreSQL manual, chapter "Frontend/Backend Protocol", "Message Formats"): a type byte,
//! a length that counts itself, a body. The client's first message has no type byte.

/// Bytes of type and length.
pub const HEADER: usize = 5;
/// Longest body that either side may send: PostgreSQL allocates at most 1 GiB - 1 (`MaxAllocSize`).
const MAX_BODY: u32 = 0x3fff_ffff;
/// Longest start-up packet (`MAX_STARTUP_PACKET_LENGTH`).
pub const MAX_STARTUP: u32 = 10_000;

/// `ReadyForQuery` but for its last byte.
pub const READY: [u8; 5] = [b'Z', 0, 0, 0, 5];

/// Type and body length of the message that begins here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The type byte.
    pub kind: u8,
    /// Bytes behind the header.
    pub body: u32,
}

/// What a message's beginning says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed {
    /// Fewer bytes than a header.
    Incomplete,
    /// No message has such a length.
    Invalid,
    /// A message.
    Message(Header),
}

/// Reads the header at the start of `bytes`.
#[must_use]
pub fn header(bytes: &[u8]) -> Framed {
    let Some((&[kind, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER>() else {
        return Framed::Incomplete;
    };
    match u32::from_be_bytes([a, b, c, d]).checked_sub(4) {
        Some(body) if body <= MAX_BODY => Framed::Message(Header { kind, body }),
        _ => Framed::Invalid,
    }
}

/// A body being read.
#[derive(Clone, Copy, Debug)]
pub struct Cursor<'a>(pub &'a [u8]);

impl<'a> Cursor<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(first)
    }

    /// The bytes before the next NUL.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.0)?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..)?;
        Some(text)
    }

    /// The bytes before the next NUL, or all there are if the body was cut.
    pub fn text_or_rest(&mut self) -> &'a [u8] {
        let rest = self.0;
        self.text().unwrap_or(rest)
    }

    /// A big-endian number.
    pub fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }
}

/// Rows that a `CommandComplete` tag counts, if it is the tag of a statement that may return rows: `SELECT 5`,
/// `INSERT 0 5`, `FETCH 2`. The flag tells whether these rows were returned for certain (else only with RETURNING).
#[must_use]
pub fn rows(tag: &[u8]) -> Option<(u64, bool)> {
    let tag = tag.strip_suffix(b"\0").unwrap_or(tag);
    let mut words = tag.split(|&b| b == b' ');
    let always = match words.next()? {
        b"SELECT" | b"FETCH" => true,
        b"INSERT" | b"UPDATE" | b"DELETE" | b"MERGE" => false,
        _ => return None,
    };
    let number = std::str::from_utf8(words.next_back()?).ok()?.parse().ok()?;
    Some((number, always))
}

/// If `bytes` end with `CommandComplete`, its tag.
#[must_use]
pub fn completion_at_end(bytes: &[u8]) -> Option<&[u8]> {
    (0..bytes.len().saturating_sub(HEADER)).rev().find_map(|at| {
        let rest = bytes.get(at..)?;
        let Framed::Message(Header { kind: b'C', body }) = header(rest) else {
            return None;
        };
        let tag = rest.get(HEADER..)?;
        let text = tag.strip_suffix(b"\0")?;
        let plain = text
            .iter()
            .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ');
        (tag.len() == body as usize && plain).then_some(text)
    })
}

/// Code and severity of an `ErrorResponse`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ServerError {
    /// SQLSTATE; `_OTHER` if it could not be read.
    pub code: [u8; 5],
    /// Whether the session ends with it (FATAL, PANIC).
    pub fatal: bool,
}

impl ServerError {
    /// An error whose code was not captured.
    pub const UNKNOWN: Self = Self {
        code: *b"?????",
        fatal: false,
    };

    /// Reads the fields of an `ErrorResponse`, as many as were captured.
    #[must_use]
    pub fn parse(body: &[u8]) -> Self {
        let mut cursor = Cursor(body);
        let mut error = Self::UNKNOWN;
        while let Some(field) = cursor.byte().filter(|&f| f != 0) {
            let Some(value) = cursor.text() else { break };
            match field {
                b'V' => error.fatal = matches!(value, b"FATAL" | b"PANIC"),
                b'C' if value.iter().all(u8::is_ascii_alphanumeric) => {
                    if let Ok(code) = value.try_into() {
                        error.code = code;
                    }
                }
                _ => {}
            }
        }
        error
    }

    /// SQLSTATE, if it was read.
    #[must_use]
    pub fn sqlstate(&self) -> Option<&str> {
        std::str::from_utf8(&self.code)
            .ok()
            .filter(|code| *code != "?????")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        for (bytes, expected) in [
            (&b""[..], Framed::Incomplete),
            (b"Q\0\0\0", Framed::Incomplete),
            (b"Q\0\0\0\x03", Framed::Invalid),
            (b"Q\xff\0\0\0", Framed::Invalid),
            (b"S\0\0\0\x04", Framed::Message(Header { kind: b'S', body: 0 })),
            (b"Z\0\0\0\x05I", Framed::Message(Header { kind: b'Z', body: 1 })),
        ] {
            assert_eq!(header(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn tags() {
        for (tag, expected) in [
            (&b"SELECT 5\0"[..], Some((5, true))),
            (b"FETCH 0\0", Some((0, true))),
            (b"INSERT 0 12\0", Some((12, false))),
            (b"UPDATE 3\0", Some((3, false))),
            (b"DELETE 3", Some((3, false))),
            (b"COPY 3\0", None),
            (b"BEGIN\0", None),
            (b"SELECT\0", None),
            (b"SELECT x\0", None),
            (b"SELECT 99999999999999999999999\0", None),
            (b"", None),
        ] {
            assert_eq!(rows(tag), expected, "{}", tag.escape_ascii());
        }
    }

    #[test]
    fn a_completion_is_found_at_the_end_alone() {
        for (bytes, expected) in [
            (&b"xxxxC\0\0\0\x0dSELECT 5\0"[..], Some(&b"SELECT 5"[..])),
            (b"C\0\0\0\x0dSELECT 5\0", Some(b"SELECT 5")),
            (b"C\0\0\0\x0dSELECT 5\0x", None),
            (b"\0\0\x0dSELECT 5\0", None),
            (b"FATAL\0CXX000\0\0", None),
            (b"", None),
        ] {
            assert_eq!(completion_at_end(bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn errors() {
        for (body, code, fatal) in [
            (
                &b"SERROR\0VERROR\0C42P01\0Mrelation\0\0"[..],
                Some("42P01"),
                false,
            ),
            (b"SFATAL\0VFATAL\0C57P01\0\0", Some("57P01"), true),
            (b"SERROR\0VERROR\0C42P", None, false),
            (b"SERROR\0C12\0\0", None, false),
            (b"", None, false),
        ] {
            let error = ServerError::parse(body);
            assert_eq!(
                (error.sqlstate(), error.fatal),
                (code, fatal),
                "{}",
                body.escape_ascii()
            );
        }
    }
}
