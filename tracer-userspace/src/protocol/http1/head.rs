//! Message heads: start line and fields (RFC 9112 sections 2 to 5), read in one pass.

use std::ops::Range;

use memchr::memchr;

use super::feeds::Feeds;
use super::lengths::{ContentLength, TransferEncoding};
use super::line::StartLine;
use crate::protocol::context::Carrier;

/// Most bytes of a head. RFC 9112 sets no bound; servers refuse far less than this.
pub const MAX_HEAD: usize = 96 * 1024;

/// What a head's fields say that matters here.
#[derive(Clone, Default, Debug)]
pub struct Fields<'a> {
    /// Length of the body.
    pub content_length: ContentLength,
    /// Framing of the body.
    pub transfer_encoding: TransferEncoding,
    /// `Host`.
    pub host: Option<&'a [u8]>,
    /// `User-Agent`.
    pub user_agent: Option<&'a [u8]>,
    /// `Upgrade`.
    pub upgrade: Option<&'a [u8]>,
    /// `Expect: 100-continue`.
    pub expects_continue: bool,
    /// A framing field with white space before its colon, which makes readers disagree (RFC 9112 section 5.1).
    pub ambiguous: bool,
    /// Where the value of the last `Date` stands, counted from the head's first byte; empty without one.
    pub date: Range<usize>,
    /// Trace context.
    pub trace: Carrier<'a>,
}

/// How reading a head went.
#[derive(Debug)]
pub enum Parsed<T> {
    /// The head is whole and this many bytes long, its empty line included.
    Whole(T, usize),
    /// More bytes are needed.
    Incomplete,
    /// This is no such message.
    Bad,
}

/// Reads a head whose first `searched` bytes are known not to hold its end: a head that comes byte by byte is read once.
pub fn read_on<'a, L: StartLine<'a>>(bytes: &'a [u8], searched: usize) -> Parsed<(L, Fields<'a>)> {
    if searched == 0 {
        return read(bytes);
    }
    match find_end(bytes, searched).and_then(|end| bytes.get(..end)) {
        Some(whole) => read(whole),
        None => Parsed::Incomplete,
    }
}

/// Reads as much as there is of a head that was cut: its start line, if it is whole, and its whole fields.
pub fn read_cut<'a, L: StartLine<'a>>(bytes: &'a [u8]) -> Option<(L, Fields<'a>)> {
    let mut feeds = Feeds::new(bytes);
    let end = feeds.next()?;
    let line = L::parse(without_return(bytes.get(..end)?))?;
    let mut fields = Fields::default();
    fields.read::<L>(bytes, end + 1, feeds);
    Some((line, fields))
}

fn read<'a, L: StartLine<'a>>(bytes: &'a [u8]) -> Parsed<(L, Fields<'a>)> {
    let mut feeds = Feeds::new(bytes);
    let Some(end) = feeds.next() else {
        return Parsed::Incomplete;
    };
    let Some(line) = L::parse(without_return(bytes.get(..end).unwrap_or_default())) else {
        return Parsed::Bad;
    };
    let mut fields = Fields::default();
    match fields.read::<L>(bytes, end + 1, feeds) {
        Some(len) => Parsed::Whole((line, fields), len),
        None => Parsed::Incomplete,
    }
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// Where the head that starts at the first byte ends, looking at bytes from `from` on (those before it were looked at already).
fn find_end(bytes: &[u8], from: usize) -> Option<usize> {
    // The empty line is at most CR LF behind an LF that was the last byte then.
    let mut at = from.saturating_sub(2);
    loop {
        at += memchr(b'\n', bytes.get(at..)?)? + 1;
        match bytes.get(at..)? {
            [b'\n', ..] => return Some(at + 1),
            [b'\r', b'\n', ..] => return Some(at + 2),
            _ => {}
        }
    }
}

impl<'a> Fields<'a> {
    /// Reads field lines from `start` on; returns where the head ends, `None` if the bytes end before that.
    fn read<L: StartLine<'a>>(
        &mut self,
        bytes: &'a [u8],
        mut start: usize,
        feeds: Feeds<'a>,
    ) -> Option<usize> {
        for feed in feeds {
            let first = *bytes.get(start)?;
            if feed == start || (first == b'\r' && feed == start + 1) {
                return Some(feed + 1);
            }
            // A folded value (RFC 9112 section 5.2) goes on in lines that begin with white space.
            if let Some(b' ' | b'\t') = bytes.get(feed + 1) {
                continue;
            }
            let letter = first | 0x20;
            if L::LETTERS
                .checked_shr(u32::from(letter.wrapping_sub(b'a')))
                .unwrap_or(0)
                & 1
                == 1
            {
                let line = without_return(bytes.get(start..feed)?);
                match letter {
                    b'd' if value(line, b"date").is_some() => {
                        self.date = start + b"date:".len()..start + line.len();
                    }
                    _ => self.field(line, letter),
                }
            }
            start = feed + 1;
        }
        None
    }

    fn field(&mut self, line: &'a [u8], first: u8) {
        match first {
            b'c' => match value(line, b"content-length") {
                Some(length) => self.content_length.add(length),
                None => self.ambiguous |= is_spaced(line, b"content-length"),
            },
            b'h' => {
                if let Some(host) = value(line, b"host") {
                    self.host.get_or_insert(host);
                }
            }
            b'u' => {
                if let Some(agent) = value(line, b"user-agent") {
                    self.user_agent.get_or_insert(agent);
                } else if let Some(upgrade) = value(line, b"upgrade") {
                    self.upgrade.get_or_insert(upgrade);
                } else {
                    self.trace(line);
                }
            }
            b'e' => match value(line, b"expect") {
                Some(expect) => self.expects_continue |= expect.eq_ignore_ascii_case(b"100-continue"),
                None => self.trace(line),
            },
            b't' => match value(line, b"transfer-encoding") {
                Some(codings) => self.transfer_encoding.add(codings),
                None if is_spaced(line, b"transfer-encoding") => self.ambiguous = true,
                None => self.trace(line),
            },
            _ => self.trace(line),
        }
    }

    fn trace(&mut self, line: &'a [u8]) {
        if let Some((name, value)) = memchr(b':', line).and_then(|colon| line.split_at_checked(colon)) {
            self.trace
                .offer(name, value.get(1..).unwrap_or_default().trim_ascii());
        }
    }
}

/// The value of `line` if it is the field `name` (lower case).
fn value<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    if line.get(name.len()) != Some(&b':') || !is_named(line.get(..name.len())?, name) {
        return None;
    }
    Some(line.get(name.len() + 1..)?.trim_ascii())
}

/// Whether `found`, as long as `name`, is `name` in any case.
fn is_named(found: &[u8], name: &[u8]) -> bool {
    let word =
        |bytes: Option<&[u8; 8]>| bytes.map(|bytes| u64::from_le_bytes(*bytes) | 0x2020_2020_2020_2020);
    match (word(found.first_chunk()), word(found.last_chunk())) {
        // Names of up to 16 bytes in two overlapping words; letters and hyphens are all that names here hold.
        (Some(first), Some(last)) if found.len() <= 16 => {
            Some(first) == word(name.first_chunk()) && Some(last) == word(name.last_chunk())
        }
        _ => found.eq_ignore_ascii_case(name),
    }
}

fn is_spaced(line: &[u8], name: &[u8]) -> bool {
    let Some((start, rest)) = line.split_at_checked(name.len()) else {
        return false;
    };
    matches!(rest.first(), Some(b' ' | b'\t'))
        && rest.trim_ascii_start().first() == Some(&b':')
        && start.eq_ignore_ascii_case(name)
}
