//! Whether bytes begin like a message: for detection, and to go on after bytes were lost.

use memchr::memchr;

use super::line::{KNOWN_METHODS, MAX_METHOD, is_method, is_token};

/// Whether bytes are the start of a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Looks {
    /// They can't be.
    No,
    /// They could be, with more behind them.
    Maybe,
    /// They are.
    Yes,
}

/// Whether `bytes` begin with a request line. Stricter than [`super::line::RequestLine`]: one space on either side of the target,
/// which holds no white space or control characters.
pub fn looks_like_request(bytes: &[u8]) -> Looks {
    let window = bytes.get(..=MAX_METHOD).unwrap_or(bytes);
    let Some(space) = memchr(b' ', window) else {
        let fits = bytes.len() <= MAX_METHOD && bytes.iter().all(|b| is_token(*b));
        return if fits { Looks::Maybe } else { Looks::No };
    };
    let (method, rest) = bytes.split_at_checked(space).unwrap_or_default();
    if !is_method(method) {
        return Looks::No;
    }
    let rest = rest.get(1..).unwrap_or_default();
    let end = rest.iter().position(|b| *b <= b' ' || *b == 0x7f);
    let Some((target, version)) = end.and_then(|end| rest.split_at_checked(end)) else {
        return Looks::Maybe;
    };
    if target.is_empty() {
        return Looks::No;
    }
    match version {
        [b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', digit, rest @ ..] => match rest {
            _ if !digit.is_ascii_digit() => Looks::No,
            [] | [b'\r'] => Looks::Maybe,
            [b'\n', ..] | [b'\r', b'\n', ..] => Looks::Yes,
            _ => Looks::No,
        },
        short if b" HTTP/1.".starts_with(short) => Looks::Maybe,
        _ => Looks::No,
    }
}

/// The same, where the method must be a known one: for places where other bytes are likely.
pub fn looks_like_known_request(bytes: &[u8]) -> Looks {
    let end = memchr(b' ', bytes).map_or(bytes.len(), |space| space + 1);
    let method = bytes.get(..end).unwrap_or_default();
    let spaced = |known: &str| {
        known
            .bytes()
            .chain([b' '])
            .take(method.len())
            .eq(method.iter().copied())
    };
    match KNOWN_METHODS.iter().any(|known| spaced(known)) {
        true => looks_like_request(bytes),
        false => Looks::No,
    }
}

/// Whether `bytes` begin with a status line.
pub fn looks_like_response(bytes: &[u8]) -> Looks {
    const PREFIX: &[u8] = b"HTTP/1.";
    let Some(rest) = bytes.strip_prefix(PREFIX) else {
        return if PREFIX.starts_with(bytes) {
            Looks::Maybe
        } else {
            Looks::No
        };
    };
    let shape = |(index, byte): (usize, &u8)| match index {
        1 => *byte == b' ',
        5 => matches!(byte, b' ' | b'\r' | b'\n'),
        2 => (b'1'..=b'9').contains(byte),
        _ => byte.is_ascii_digit(),
    };
    match rest.iter().take(6).enumerate().all(shape) {
        false => Looks::No,
        true if rest.len() < 6 => Looks::Maybe,
        true => Looks::Yes,
    }
}
