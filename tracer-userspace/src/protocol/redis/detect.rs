//! Is this Redis?
//!
//! A command is an array of bulk strings whose first is a name; an array of a reply may look the same, so in the middle of
//! a connection the name must be one that Redis has. Inline commands are words that other protocols use too: they never
//! decide. Of replies, those decide that neither POP3 nor NATS could send.

use super::command::{MAX_WORD, Upper, known};
use super::resp::{Line, Value, line, number, value};
use crate::protocol::{Detect, Prefix, Side};

const CLIENT: Detect = Detect::Yes { sender: Side::Client };
const SERVER: Detect = Detect::Yes { sender: Side::Server };
/// Longest line that holds a length.
const MAX_LENGTH_LINE: usize = 16;
/// Bytes of a longer bulk string that suffice.
const LONG: u64 = 64;
/// Kinds of errors that no other protocol has.
const ERRORS: [&[u8]; 12] = [
    b"WRONGTYPE",
    b"NOAUTH",
    b"WRONGPASS",
    b"READONLY",
    b"LOADING",
    b"NOSCRIPT",
    b"EXECABORT",
    b"CROSSSLOT",
    b"CLUSTERDOWN",
    b"MASTERDOWN",
    b"MOVED",
    b"BUSYGROUP",
];

/// Whether `prefix` is Redis.
#[must_use]
pub fn detect(prefix: Prefix<'_>) -> Detect {
    let bytes = prefix.bytes;
    match bytes.first() {
        None => Detect::NeedMore,
        Some(b'*') => array(bytes, prefix.from_start),
        Some(b'+' | b'-') => simple(bytes),
        Some(b':') => match value(bytes) {
            (Value::Incomplete, _) if bytes.len() < 24 => Detect::NeedMore,
            (Value::Line(text), _) => {
                let digits = text.strip_prefix(b"-").unwrap_or(text);
                let integer = (1..20).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
                if integer { SERVER } else { Detect::No }
            }
            _ => Detect::No,
        },
        Some(b'$') => bulk(bytes),
        Some(b'%' | b'~' | b'>') => match value(bytes) {
            (Value::Incomplete, _) if bytes.len() < MAX_LENGTH_LINE => Detect::NeedMore,
            (Value::Aggregate(n), len) => match bytes.get(len..) {
                _ if n == 0 => Detect::NeedMore,
                None | Some([]) => Detect::NeedMore,
                rest if typed(rest) => SERVER,
                _ => Detect::No,
            },
            _ => Detect::No,
        },
        Some(_) => inline(bytes),
    }
}

/// Whether what follows, if anything does, may begin a value.
fn typed(rest: Option<&[u8]>) -> bool {
    rest.and_then(|rest| rest.first())
        .is_none_or(|b| b"+-:$*_#,(!=%~|>".contains(b))
}

fn array(bytes: &[u8], from_start: bool) -> Detect {
    let (n, at) = match line(bytes.get(1..).unwrap_or_default(), MAX_LENGTH_LINE) {
        // IMAP's untagged responses begin with `* `.
        Line::Incomplete
            if bytes
                .iter()
                .skip(1)
                .all(|b| b.is_ascii_digit() || matches!(b, b'-' | b'\r')) =>
        {
            return Detect::NeedMore;
        }
        Line::Incomplete | Line::TooLong => return Detect::No,
        Line::Text(text, len) => match number(text) {
            Some(n) => (n, len + 1),
            None => return if text == b"-1" { SERVER } else { Detect::No },
        },
    };
    let rest = bytes.get(at..).unwrap_or_default();
    if rest.is_empty() {
        return Detect::NeedMore;
    }
    if !typed(Some(rest)) {
        return Detect::No;
    }
    let (Value::Bulk(len), header) = value(rest) else {
        return match value(rest) {
            (Value::Incomplete, _) => Detect::NeedMore,
            (Value::Invalid, _) => Detect::No,
            // Only replies hold anything but bulk strings.
            _ => SERVER,
        };
    };
    let len = len.saturating_sub(2);
    if n == 0 {
        return Detect::No;
    }
    if len > MAX_WORD as u64 {
        return SERVER;
    }
    let Some(word) = rest.get(header..).and_then(|body| body.get(..len as usize)) else {
        return Detect::NeedMore;
    };
    match Upper::new(word) {
        Some(upper) if known(upper.as_str()).is_some() => {
            // A confirmation begins with the command's own name and ends with a number.
            let enough = if upper.as_str().ends_with("SUBSCRIBE") {
                3
            } else {
                2
            };
            only_bulks(rest, n, enough)
        }
        // Commands of modules: `JSON.GET`.
        Some(upper) if from_start && upper.as_str().contains('.') => CLIENT,
        Some(_) => Detect::NeedMore,
        None => SERVER,
    }
}

/// Commands hold bulk strings alone. Of an array of `n` values, whether `enough` of them, or all, are such.
fn only_bulks(values: &[u8], n: u64, enough: u64) -> Detect {
    let mut rest = values;
    for _ in 0..n.min(enough) {
        rest = match value(rest) {
            (Value::Incomplete, _) => return Detect::NeedMore,
            (Value::Bulk(len), header) if rest.starts_with(b"$") => {
                // The rest of a value that was cut is as good as there.
                rest.get(header.saturating_add(len as usize)..)
                    .unwrap_or_default()
            }
            (Value::Invalid, _) => return Detect::No,
            _ => return SERVER,
        };
    }
    CLIENT
}

fn simple(bytes: &[u8]) -> Detect {
    let text = match line(bytes.get(1..).unwrap_or_default(), 256) {
        Line::Incomplete => return Detect::NeedMore,
        Line::TooLong => return Detect::No,
        Line::Text(text, _) => text,
    };
    let word = text.split(|b| *b == b' ').next().unwrap_or_default();
    let decides = match bytes.first() {
        Some(b'+') => matches!(text, b"PONG" | b"QUEUED") || text.starts_with(b"FULLRESYNC "),
        _ => ERRORS.contains(&word),
    };
    if decides { SERVER } else { Detect::NeedMore }
}

fn bulk(bytes: &[u8]) -> Detect {
    let (first, header) = value(bytes);
    let len = match first {
        Value::Incomplete => return Detect::NeedMore,
        Value::Line(_) => return SERVER,
        Value::Bulk(len) => len,
        _ => return Detect::No,
    };
    let body = bytes.get(header..).unwrap_or_default();
    match body.get(..len.min(LONG) as usize) {
        None => Detect::NeedMore,
        Some(_) if len > LONG => SERVER,
        Some(whole) if whole.ends_with(b"\r\n") => SERVER,
        Some(_) => Detect::No,
    }
}

fn inline(bytes: &[u8]) -> Detect {
    let word = bytes
        .split(|b| b.is_ascii_whitespace())
        .next()
        .unwrap_or_default();
    if word.len() == bytes.len() && word.len() < 16 && word.iter().all(u8::is_ascii_alphabetic) {
        return Detect::NeedMore;
    }
    match Upper::new(word) {
        Some(upper) if known(upper.as_str()).is_some() => Detect::NeedMore,
        _ => Detect::No,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], from_start: bool, expected: Detect) {
        let prefix = Prefix { bytes, from_start };
        assert_eq!(detect(prefix), expected, "{} {from_start}", bytes.escape_ascii());
    }

    #[test]
    fn commands_and_replies() {
        for late in [true, false] {
            check(b"*1\r\n$4\r\nPING\r\n", !late, CLIENT);
            check(b"*2\r\n$3\r\nget\r\n$1\r\na\r\n", !late, CLIENT);
            check(b"*2\r\n$3\r\nGE", !late, Detect::NeedMore);
            check(b"*1", !late, Detect::NeedMore);
            check(b"+PONG\r\n", !late, SERVER);
            check(b"+OK\r\n", !late, Detect::NeedMore);
            check(b":12\r\n", !late, SERVER);
            check(b"$5\r\nhello\r\n", !late, SERVER);
            check(b"$-1\r\n", !late, SERVER);
            check(b"*-1\r\n", !late, SERVER);
            check(b"*2\r\n:1\r\n:2\r\n", !late, SERVER);
            check(b"%7\r\n$6\r\nserver\r\n", !late, SERVER);
            check(b"-WRONGTYPE Operation\r\n", !late, SERVER);
            check(b"PING\r\n", !late, Detect::NeedMore);
        }
        check(b"*2\r\n$8\r\nJSON.GET\r\n", true, CLIENT);
        check(b"*2\r\n$8\r\nJSON.GET\r\n", false, Detect::NeedMore);
        check(b"*2\r\n$5\r\na b c\r\n", false, SERVER);
    }

    #[test]
    fn others_are_not_claimed() {
        for bytes in [
            &b"* OK IMAP4rev1 ready\r\n"[..],
            b"+OK POP3 ready\r\n",
            b"-ERR 'Unknown Protocol Operation'\r\n",
            b"+OK\r\nMSG a 1 5\r\nhello\r\n",
            b"INFO {\"server_id\":\"x\"}\r\n",
            b":irc.example 001 nick :Welcome\r\n",
            b"HTTP/1.1 200 OK\r\n\r\n",
            b"VALUE a 0 5\r\nhello\r\nEND\r\n",
            b"220 smtp ESMTP\r\n",
            b"\x16\x03\x01\x02\0\x01",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b"Q\0\0\0\x0dSELECT 1\0",
            b"$2y$10$abcdefghijklmnopqrstuv",
            b"% comment\r\n",
        ] {
            for from_start in [true, false] {
                let prefix = Prefix { bytes, from_start };
                let yes = matches!(detect(prefix), Detect::Yes { .. });
                assert!(!yes, "{}", bytes.escape_ascii());
            }
        }
    }
}
