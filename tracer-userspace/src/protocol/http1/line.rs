//! Start lines (RFC 9112 sections 3 and 4).

use memchr::memchr;

/// Longest method that is taken for one. The longest registered is 17 bytes (`UPDATEREDIRECTREF`).
pub const MAX_METHOD: usize = 32;

/// Methods of RFC 9110, PATCH (RFC 5789) and QUERY: what the semantic conventions call known.
pub const KNOWN_METHODS: &[&str] = &[
    "GET", "POST", "PUT", "HEAD", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "QUERY",
];

/// A request line (RFC 9112 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RequestLine<'a> {
    /// Any token.
    pub method: &'a [u8],
    /// The target in any of its four forms.
    pub target: &'a [u8],
    /// Minor version: 0 or 1 (others are taken for 1).
    pub minor: u8,
}

/// A status line (RFC 9112 section 4).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StatusLine {
    /// 100 to 999.
    pub status: u16,
    /// Minor version.
    pub minor: u8,
}

/// A start line: what reads it, and which fields matter behind it.
pub trait StartLine<'a>: Sized {
    /// First letters of the names of fields that matter, as a set made by [`letters`].
    const LETTERS: u32;

    /// Reads a whole line without its end.
    fn parse(line: &'a [u8]) -> Option<Self>;
}

/// A set of small letters: bit 0 is `a`.
const fn letters(of: &[u8]) -> u32 {
    let mut set = 0;
    let mut at = 0;
    while at < of.len() {
        set |= 1 << (of[at] - b'a');
        at += 1;
    }
    set
}

/// Whether `byte` may occur in a token (RFC 9110 section 5.6.2).
pub const fn is_token(byte: u8) -> bool {
    matches!(
        byte,
        b'!' | b'#'
            | b'$'
            | b'%'
            | b'&'
            | b'\''
            | b'*'
            | b'+'
            | b'-'
            | b'.'
            | b'^'
            | b'_'
            | b'`'
            | b'|'
            | b'~'
    ) || byte.is_ascii_alphanumeric()
}

impl<'a> StartLine<'a> for RequestLine<'a> {
    const LETTERS: u32 = letters(b"bcehtux");

    fn parse(line: &'a [u8]) -> Option<Self> {
        let line = line.trim_ascii_end();
        let version = line.len().checked_sub(b" HTTP/1.1".len())?;
        let (rest, version) = line.split_at_checked(version)?;
        let &[digit] = version.strip_prefix(b" HTTP/1.")? else {
            return None;
        };
        let (method, target) = rest.split_at_checked(memchr(b' ', rest)?)?;
        let target = target.trim_ascii();
        (is_method(method) && !target.is_empty() && digit.is_ascii_digit()).then_some(Self {
            method,
            target,
            minor: u8::from(digit != b'0'),
        })
    }
}

impl<'a> RequestLine<'a> {
    /// Reads the start of a line whose end was not captured.
    pub fn parse_cut(line: &'a [u8]) -> Option<Self> {
        let (method, target) = line.split_at_checked(memchr(b' ', line)?)?;
        let target = target.trim_ascii();
        let target = target.split(|b| *b == b' ').next()?;
        (is_method(method) && !target.is_empty()).then_some(Self {
            method,
            target,
            minor: 1,
        })
    }
}

/// Whether these bytes are a method: a token of bounded length.
pub fn is_method(method: &[u8]) -> bool {
    !method.is_empty() && method.len() <= MAX_METHOD && method.iter().all(|b| is_token(*b))
}

impl StartLine<'_> for StatusLine {
    const LETTERS: u32 = letters(b"cdtu");

    /// Reads the start of a line, too.
    fn parse(line: &[u8]) -> Option<Self> {
        let &[digit, b' ', a, b, c, ref rest @ ..] = line.strip_prefix(b"HTTP/1.")? else {
            return None;
        };
        if !matches!(rest, [] | [b' ' | b'\t' | b'\r', ..]) || !digit.is_ascii_digit() {
            return None;
        }
        let status = number(&[a, b, c])? as u16;
        (status >= 100).then_some(Self {
            status,
            minor: u8::from(digit != b'0'),
        })
    }
}

/// A decimal number.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, digit| {
        let digit = digit.wrapping_sub(b'0');
        n.checked_mul(10)?
            .checked_add((digit < 10).then_some(u64::from(digit))?)
    })
}
