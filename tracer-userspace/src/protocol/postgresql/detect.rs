//! Is this PostgreSQL?
//!
//! From the start, the client's first packet says so: `SSLRequest`, `GSSENCRequest`, `CancelRequest` or a
//! `StartupMessage` that names its user. In the middle, a run must begin at a message, and every message that begins in
//! the prefix must be one that the side may send; at least one must be of a structure that hardly anything else has.

use super::message::{Cursor, Framed, HEADER, Header, MAX_STARTUP, header};
use crate::protocol::{Detect, Prefix, Side};

/// Major version 3 in the high half; minor versions are negotiated.
const VERSION_3: u32 = 3;
/// `CancelRequest`, `SSLRequest` and `GSSENCRequest` (`src/include/libpq/pqcomm.h`).
const REQUESTS: [(u32, u32); 3] = [(16, 80_877_102), (8, 80_877_103), (8, 80_877_104)];
/// As much of a message as is looked at. No command of MySQL that could be taken for a header has as many bytes.
const WINDOW: usize = 256;
/// Most messages of a prefix that are looked at.
const LOOK_AT: usize = 32;

/// Whether `prefix` is PostgreSQL.
#[must_use]
pub fn detect(prefix: Prefix<'_>) -> Detect {
    let bytes = prefix.bytes;
    match bytes.first() {
        None => Detect::NeedMore,
        Some(0) => startup(bytes),
        Some(_) => messages(bytes),
    }
}

fn startup(bytes: &[u8]) -> Detect {
    const YES: Detect = Detect::Yes { sender: Side::Client };
    let mut cursor = Cursor(bytes);
    let Some(len) = cursor.u32() else {
        return Detect::NeedMore;
    };
    if !(8..=MAX_STARTUP).contains(&len) {
        return Detect::No;
    }
    let Some(code) = cursor.u32() else {
        // What is there of it must be the beginning of a code that we know.
        let known = [VERSION_3 << 16, 80_877_102, 80_877_103, 80_877_104];
        let could = known.iter().any(|code| code.to_be_bytes().starts_with(cursor.0));
        return if could { Detect::NeedMore } else { Detect::No };
    };
    if REQUESTS.contains(&(len, code)) {
        return YES;
    }
    if code >> 16 != VERSION_3 {
        return Detect::No;
    }
    // Names and values, each with its NUL, then one more NUL. Kafka's requests may look alike up to here.
    let body = cursor.0;
    let wanted = (len as usize).saturating_sub(8);
    let printable = body.iter().take(wanted).all(|&b| b == 0 || b >= 0x20);
    if !printable || body.first() == Some(&0) {
        return Detect::No;
    }
    let Some(parameters) = body.get(..wanted) else {
        return Detect::NeedMore;
    };
    let mut cursor = Cursor(parameters);
    let mut user = false;
    while let Some(name) = cursor.text().filter(|name| !name.is_empty()) {
        user |= name == b"user";
        if cursor.text().is_none() {
            return Detect::No;
        }
    }
    if user && cursor.0.is_empty() {
        YES
    } else {
        Detect::No
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fit {
    No,
    Maybe,
    Yes,
}

/// Whether `bytes` begin with messages. Each is judged once, when as much of it is there as will ever be looked at, so that
/// no answer changes with what comes behind.
fn messages(bytes: &[u8]) -> Detect {
    let mut rest = bytes;
    let mut possible = [true; 2];
    for _ in 0..LOOK_AT {
        let message = match (rest.first(), header(rest)) {
            (None, _) => return Detect::NeedMore,
            (Some(kind), Framed::Incomplete) => {
                let client = possible[0] && b"QPBDECHSXFdcfp".contains(kind);
                let server = possible[1] && b"RKSZTDCEINAGHWVdc123nstv".contains(kind);
                return if client || server {
                    Detect::NeedMore
                } else {
                    Detect::No
                };
            }
            (_, Framed::Invalid) => return Detect::No,
            (_, Framed::Message(message)) => message,
        };
        let len = message.body as usize;
        let behind = rest.get(HEADER..).unwrap_or_default();
        let Some(body) = behind.get(..len.min(WINDOW)) else {
            let known = b"QPBDECHSXFdcfpRKZTINAGWV123nstv".contains(&message.kind);
            return if known { Detect::NeedMore } else { Detect::No };
        };
        let whole = body.len() == len;
        let fits = [client(message, body, whole), server(message, body, whole)];
        for (possible, fit) in possible.iter_mut().zip(fits) {
            *possible &= fit != Fit::No;
        }
        match (possible, fits) {
            ([true, _], [Fit::Yes, _]) => return Detect::Yes { sender: Side::Client },
            ([_, true], [_, Fit::Yes]) => return Detect::Yes { sender: Side::Server },
            ([false, false], _) => return Detect::No,
            _ => {}
        }
        let Some(next) = behind.get(len..) else {
            return Detect::NeedMore;
        };
        rest = next;
    }
    Detect::No
}

fn when(condition: bool, fit: Fit) -> Fit {
    if condition { fit } else { Fit::No }
}

/// Text as statements are: no control characters but blanks.
fn plain(text: &[u8]) -> bool {
    text.iter()
        .take(256)
        .all(|&b| b >= 0x20 || matches!(b, b'\t' | b'\n' | b'\r'))
}

fn client(Header { kind, body: len }: Header, body: &[u8], whole: bool) -> Fit {
    let mut cursor = Cursor(body);
    match kind {
        b'Q' => {
            let text = cursor.text_or_rest();
            let ends = !whole || text.len() as u32 + 1 == len;
            when(ends && plain(text), Fit::Yes)
        }
        b'P' => {
            let (Some(name), text) = (cursor.text(), cursor.text_or_rest()) else {
                return when(!whole && plain(body), Fit::Maybe);
            };
            when(plain(name) && plain(text), Fit::Yes)
        }
        b'B' => {
            let (Some(portal), Some(name)) = (cursor.text(), cursor.text()) else {
                return when(!whole && plain(body), Fit::Maybe);
            };
            let formats = cursor
                .0
                .first_chunk::<2>()
                .is_none_or(|n| u16::from_be_bytes(*n) < 1_024);
            when(plain(portal) && plain(name) && formats && len >= 8, Fit::Maybe)
        }
        b'D' | b'C' => {
            let what = cursor.byte().is_none_or(|b| matches!(b, b'S' | b'P'));
            let name = cursor.text_or_rest();
            when(
                what && plain(name) && len >= 2 && (!whole || cursor.0.is_empty()),
                Fit::Maybe,
            )
        }
        b'E' => {
            let portal = cursor.text_or_rest();
            when(
                plain(portal) && len >= 5 && (!whole || cursor.0.len() == 4),
                Fit::Maybe,
            )
        }
        b'S' | b'H' | b'X' | b'c' => when(len == 0, if kind == b'S' { Fit::Yes } else { Fit::Maybe }),
        b'd' | b'f' | b'p' | b'F' => Fit::Maybe,
        _ => Fit::No,
    }
}

fn server(Header { kind, body: len }: Header, body: &[u8], whole: bool) -> Fit {
    let mut cursor = Cursor(body);
    match kind {
        b'Z' => {
            let status = cursor.byte();
            when(
                len == 1 && status.is_none_or(|b| b"ITE".contains(&b)),
                if whole { Fit::Yes } else { Fit::Maybe },
            )
        }
        b'C' => {
            let tag = cursor.text_or_rest();
            let upper = tag
                .iter()
                .all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || *b == b' ');
            let ends = !whole || cursor.0.is_empty();
            when(
                upper && tag.len() > 2 && ends,
                if whole { Fit::Yes } else { Fit::Maybe },
            )
        }
        b'E' | b'N' => {
            let severity = cursor.byte().is_none_or(|b| b == b'S') && plain(cursor.text_or_rest());
            when(
                severity && len > 8,
                if whole && body.ends_with(b"\0\0") {
                    Fit::Yes
                } else {
                    Fit::Maybe
                },
            )
        }
        b'R' => when(len >= 4 && cursor.u32().is_none_or(|kind| kind <= 12), Fit::Maybe),
        b'S' => {
            let ends = cursor.text().is_some_and(plain) && cursor.text().is_some() && cursor.0.is_empty();
            when(
                len > 2 && (!whole || ends),
                if whole { Fit::Yes } else { Fit::Maybe },
            )
        }
        b'1' | b'2' | b'3' | b'n' | b's' | b'I' | b'c' => when(len == 0, Fit::Maybe),
        b'T' => when(
            len >= 2 && row_description(cursor.0, whole),
            if whole { Fit::Yes } else { Fit::Maybe },
        ),
        b'D' => when(len >= 2, Fit::Maybe),
        b'K' => when((8..=260).contains(&len), Fit::Maybe),
        b'A' | b'G' | b'H' | b'W' | b'V' | b'd' | b't' | b'v' => Fit::Maybe,
        _ => Fit::No,
    }
}

/// Whether the body holds as many columns as it says.
fn row_description(body: &[u8], whole: bool) -> bool {
    let Some((count, rest)) = body.split_first_chunk::<2>() else {
        return !whole;
    };
    let mut cursor = Cursor(rest);
    for _ in 0..u16::from_be_bytes(*count) {
        let column = cursor.text().and_then(|_| cursor.0.get(18..));
        match column {
            Some(next) => cursor.0 = next,
            None => return !whole,
        }
    }
    !whole || cursor.0.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: Detect) {
        let prefix = Prefix {
            bytes,
            from_start: false,
        };
        assert_eq!(detect(prefix), expected, "{}", bytes.escape_ascii());
    }

    const CLIENT: Detect = Detect::Yes { sender: Side::Client };
    const SERVER: Detect = Detect::Yes { sender: Side::Server };

    #[test]
    fn the_first_packet_tells() {
        check(b"\0\0\0\x08\x04\xd2\x16\x2f", CLIENT);
        check(b"\0\0\0\x08\x04\xd2\x16\x30", CLIENT);
        check(b"\0\0\0\x10\x04\xd2\x16\x2e\0\0\0\x01\0\0\0\x02", CLIENT);
        check(b"\0\0\0\x1d\0\x03\0\0user\0me\0database\0d\0\0", Detect::NeedMore);
        check(b"\0\0\0\x1c\0\x03\0\0user\0me\0database\0d\0\0", CLIENT);
        check(b"\0\0\0\x1c\0\x03\0\0usr_\0me\0database\0d\0\0", Detect::No);
        check(b"\0\0", Detect::NeedMore);
        check(b"\0\0\0\x08\x04\xd2", Detect::NeedMore);
        check(b"\0\0\0\x08\x05", Detect::No);
        // Kafka: Metadata (3), version 0, correlation id 1, client id "ab".
        check(b"\0\0\0\x10\0\x03\0\0\0\0\0\x01\0\x02ab\0\0\0\0", Detect::No);
        // PostgreSQL 2, a TLS hello, an HTTP/2 settings frame.
        check(b"\0\0\0\x10\0\x02\0\0user", Detect::No);
        check(b"\0\0\x06\x04\0\0\0\0\0", Detect::No);
    }

    #[test]
    fn messages_tell_in_the_middle() {
        check(b"Q\0\0\0\x0dSELECT 1\0", CLIENT);
        check(b"Q\0\0\x10\0SELECT something_long", Detect::NeedMore);
        check(&[&b"Q\0\0\x10\0"[..], &b"SELECT a, ".repeat(26)].concat(), CLIENT);
        check(b"Q\0\0\0\x0dSEL", Detect::NeedMore);
        check(b"H\0\0\0\x04GET /", Detect::No);
        check(b"P\0\0\0\x10\0SELECT 1\0\0\0", CLIENT);
        check(
            b"B\0\0\0\x0c\0\0\0\0\0\0\0\0E\0\0\0\x09\0\0\0\0\0S\0\0\0\x04",
            CLIENT,
        );
        check(b"S\0\0\0\x04", CLIENT);
        check(b"Z\0\0\0\x05I", SERVER);
        check(b"C\0\0\0\x0dSELECT 1\0Z\0\0\0\x05I", SERVER);
        check(
            b"1\0\0\0\x042\0\0\0\x04n\0\0\0\x04C\0\0\0\x0fINSERT 0 1\0Z\0\0\0\x05T",
            SERVER,
        );
        check(b"ESERROR\0", Detect::No);
        check(b"S\0\0\0\x17application_name\0x\0", SERVER);
    }

    #[test]
    fn others_are_not_claimed() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n\r\n"[..],
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"+PONG\r\n",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
            b"Q\0\0\0\x03SELECT 1 FROM x WHERE y",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"CONNECT {}\r\n",
            b"EHLO x\r\n",
            b"\x10\x27\0\x04MQTT\x04",
            b"Hello, world",
            b"\0\0\0\0",
        ] {
            check(bytes, Detect::No);
        }
    }
}
