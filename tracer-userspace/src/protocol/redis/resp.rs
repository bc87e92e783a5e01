//! RESP framing without recursion: how many values, and how many bytes, are still to come. Depth costs nothing, because
//! all that the end of a nested value depends on is the number of values left.

/// Longest line that holds a length.
const MAX_LENGTH_LINE: usize = 32;
/// Longest text of a simple string or error that is looked at.
pub const MAX_TEXT: usize = 256;
/// Streamed aggregates (`*?`) that may be open in each other.
const MAX_STREAMED: usize = 16;

/// What begins at a place of a reply stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// Not enough bytes.
    Incomplete,
    /// No type byte, or no length.
    Invalid,
    /// A value of one line; its text.
    Line(&'a [u8]),
    /// A value of one line that is longer than anybody looks at.
    LongLine,
    /// Bytes follow, their CRLF counted.
    Bulk(u64),
    /// Values follow.
    Aggregate(u64),
    /// Values follow until a `.` line.
    StreamedAggregate,
    /// Chunks (`;n`) follow until an empty one.
    StreamedString,
    /// The end of a streamed aggregate.
    End,
}

/// Reads the value's first line. Returns it and the line's bytes.
#[must_use]
pub fn value(bytes: &[u8]) -> (Value<'_>, usize) {
    let Some((&kind, rest)) = bytes.split_first() else {
        return (Value::Incomplete, 0);
    };
    match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => match line(rest, MAX_TEXT) {
            Line::Incomplete => (Value::Incomplete, 0),
            Line::TooLong => (Value::LongLine, 0),
            Line::Text(text, len) => (Value::Line(text), len + 1),
        },
        b'$' | b'=' | b'!' | b'*' | b'~' | b'%' | b'|' | b'>' | b';' => {
            let (text, len) = match line(rest, MAX_LENGTH_LINE) {
                Line::Incomplete => return (Value::Incomplete, 0),
                Line::TooLong => return (Value::Invalid, 0),
                Line::Text(text, len) => (text, len + 1),
            };
            (counted(kind, text), len)
        }
        b'.' => match line(rest, MAX_LENGTH_LINE) {
            Line::Incomplete => (Value::Incomplete, 0),
            Line::Text(b"", len) => (Value::End, len + 1),
            _ => (Value::Invalid, 0),
        },
        _ => (Value::Invalid, 0),
    }
}

fn counted(kind: u8, text: &[u8]) -> Value<'static> {
    if text == b"?" {
        return match kind {
            b'$' => Value::StreamedString,
            b'*' | b'~' | b'%' | b'>' => Value::StreamedAggregate,
            _ => Value::Invalid,
        };
    }
    if text == b"-1" && matches!(kind, b'$' | b'*') {
        return Value::Line(b"");
    }
    let Some(n) = number(text) else {
        return Value::Invalid;
    };
    match kind {
        b'$' | b'=' | b'!' | b';' => Value::Bulk(n.saturating_add(2)),
        b'%' | b'|' => Value::Aggregate(n.saturating_mul(2)),
        _ => Value::Aggregate(n),
    }
}

/// A length, at most what fits into 48 bits.
#[must_use]
pub fn number(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 14 {
        return None;
    }
    text.iter().try_fold(0_u64, |n, b| {
        let digit = b.checked_sub(b'0').filter(|d| *d < 10)?;
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A line and its bytes with the line end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Line<'a> {
    /// No line end yet.
    Incomplete,
    /// No line end where one had to be.
    TooLong,
    /// Its text without CRLF, its bytes with it.
    Text(&'a [u8], usize),
}

/// The line at the start of `bytes`, of at most `most` bytes.
#[must_use]
pub fn line(bytes: &[u8], most: usize) -> Line<'_> {
    let window = bytes.get(..most.saturating_add(2)).unwrap_or(bytes);
    match memchr::memchr(b'\n', window) {
        Some(at) => {
            let text = window.get(..at).unwrap_or_default();
            Line::Text(text.strip_suffix(b"\r").unwrap_or(text), at.saturating_add(1))
        }
        None if bytes.len() > most => Line::TooLong,
        None => Line::Incomplete,
    }
}

/// Where a reply stands.
#[derive(Default, Debug)]
pub struct Frame {
    /// Values that have not begun yet.
    left: u64,
    /// Bytes of the current bulk still to come.
    skip: u64,
    /// The current line is longer than anybody looks at: its end is awaited.
    long_line: bool,
    /// The current value is a streamed string.
    streamed_string: bool,
    /// For each open streamed aggregate, the values left outside of it.
    streamed: Vec<u64>,
}

/// What following a reply brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// That many bytes were used; more are needed.
    More(usize),
    /// That many bytes were used, and the reply is over.
    Done(usize),
    /// This is no RESP.
    Invalid,
}

impl Frame {
    /// A reply begins. Its first value is read like any other.
    pub fn begin(&mut self) {
        *self = Self {
            left: 1,
            ..Self::default()
        };
    }

    /// Follows the reply through `bytes`.
    pub fn follow(&mut self, bytes: &[u8]) -> Progress {
        let mut at = 0_usize;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            if self.skip > 0 {
                let n = self.pass(rest.len() as u64);
                at = at.saturating_add(n as usize);
                if self.skip > 0 {
                    return Progress::More(at);
                }
                continue;
            }
            if self.long_line {
                let Some(end) = memchr::memchr(b'\n', rest) else {
                    return Progress::More(bytes.len());
                };
                self.long_line = false;
                at = at.saturating_add(end).saturating_add(1);
                continue;
            }
            if self.left == 0 && self.streamed.is_empty() && !self.streamed_string {
                return Progress::Done(at);
            }
            let (value, len) = value(rest);
            if value == Value::Incomplete {
                return Progress::More(at);
            }
            if !self.take(value, rest.first().copied().unwrap_or_default()) {
                return Progress::Invalid;
            }
            at = at.saturating_add(len);
        }
    }

    /// Bytes passed unseen. False if that was more than the current bulk: where the reply stands is unknown then.
    pub fn unseen(&mut self, len: u64) -> bool {
        self.pass(len) == len
    }

    /// Whether the reply is over.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.left == 0
            && self.skip == 0
            && !self.long_line
            && !self.streamed_string
            && self.streamed.is_empty()
    }

    fn pass(&mut self, len: u64) -> u64 {
        let n = self.skip.min(len);
        self.skip -= n;
        n
    }

    /// One value's first line was read.
    fn take(&mut self, value: Value<'_>, kind: u8) -> bool {
        if self.streamed_string {
            return match value {
                Value::Bulk(2) if kind == b';' => {
                    // The empty chunk has no bytes, not even a line end of its own.
                    self.streamed_string = false;
                    true
                }
                Value::Bulk(n) if kind == b';' => {
                    self.skip = n;
                    true
                }
                _ => false,
            };
        }
        if value == Value::End {
            // The values of a streamed aggregate are not counted.
            let Some(outside) = self.streamed.pop() else {
                return false;
            };
            self.left = outside;
            return true;
        }
        // Attributes precede the value that they belong to.
        if kind != b'|' && self.streamed.is_empty() {
            match self.left.checked_sub(1) {
                Some(left) => self.left = left,
                None => return false,
            }
        } else if kind != b'|' {
            self.left = self.left.saturating_sub(1);
        }
        match value {
            Value::Line(_) => true,
            Value::LongLine => {
                self.long_line = true;
                true
            }
            Value::Bulk(n) => {
                self.skip = n;
                kind != b';'
            }
            Value::Aggregate(n) => match self.left.checked_add(n) {
                Some(left) => {
                    self.left = left;
                    true
                }
                None => false,
            },
            Value::StreamedString => {
                self.streamed_string = true;
                true
            }
            Value::StreamedAggregate => {
                self.streamed.push(self.left);
                self.left = 0;
                self.streamed.len() <= MAX_STREAMED
            }
            Value::End | Value::Incomplete | Value::Invalid => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Length of the first reply, by following it whole and byte by byte; 0: incomplete, -1: invalid.
    fn check(reply: &[u8], expected: i64) {
        let whole = {
            let mut frame = Frame::default();
            frame.begin();
            match frame.follow(reply) {
                Progress::Done(n) => n as i64,
                Progress::More(_) => 0,
                Progress::Invalid => -1,
            }
        };
        assert_eq!(whole, expected, "{}", reply.escape_ascii());
        let mut frame = Frame::default();
        frame.begin();
        let (mut from, mut split) = (0, 0);
        for to in 1..=reply.len() {
            match frame.follow(&reply[from..to]) {
                Progress::Done(n) => {
                    split = (from + n) as i64;
                    break;
                }
                Progress::More(n) => from += n,
                Progress::Invalid => {
                    split = -1;
                    break;
                }
            }
        }
        assert_eq!(split, expected, "byte by byte: {}", reply.escape_ascii());
    }

    #[test]
    fn every_type_has_an_end() {
        for (reply, len) in [
            (&b"+OK\r\n"[..], 5),
            (b"-ERR no\r\n", 9),
            (b":-12\r\n", 6),
            (b"$5\r\nhello\r\n", 11),
            (b"$0\r\n\r\n", 6),
            (b"$-1\r\n", 5),
            (b"*-1\r\n", 5),
            (b"*0\r\n", 4),
            (b"*2\r\n$1\r\na\r\n:1\r\n", 15),
            (b"*2\r\n*1\r\n*1\r\n:1\r\n+x\r\n", 20),
            (b"*1\r\n*-1\r\n", 9),
            (b"_\r\n", 3),
            (b"#t\r\n", 4),
            (b",3.14\r\n", 7),
            (b",inf\r\n", 6),
            (b"(3492890328409238509324850943850943825024385\r\n", 46),
            (b"!9\r\nERR wrong\r\n", 15),
            (b"=7\r\ntxt:abc\r\n", 13),
            (b"~2\r\n:1\r\n:2\r\n", 12),
            (b"%1\r\n+a\r\n:1\r\n", 12),
            (b"%2\r\n+a\r\n*1\r\n:1\r\n+b\r\n_\r\n", 23),
            (b"|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n", 21),
            (b"*2\r\n|1\r\n+k\r\n:1\r\n:2\r\n:3\r\n", 24),
            (b">2\r\n+a\r\n+b\r\n", 12),
            (b"$?\r\n;4\r\nHell\r\n;1\r\no\r\n;0\r\n", 25),
            (b"*?\r\n:1\r\n:2\r\n.\r\n", 15),
            (b"*2\r\n*?\r\n:1\r\n.\r\n:3\r\n", 19),
            (b"%?\r\n+a\r\n*2\r\n:1\r\n:2\r\n.\r\n", 23),
            (b"*2\r\n$1\r\na\r\n", 0),
            (b"$5\r\nhel", 0),
            (b"*1\r", 0),
            (b"hello\r\n", -1),
            (b"$x\r\n", -1),
            (b"*-2\r\n", -1),
            (b"$999999999999999\r\n", -1),
            (b"*2\r\n:1\r\nx", -1),
            (b".\r\n", -1),
            (b";1\r\na\r\n", -1),
            (b"*99999999999999\r\n", 0),
        ] {
            check(reply, len);
        }
    }

    #[test]
    fn depth_costs_nothing() {
        let mut deep = b"*1\r\n".repeat(200_000);
        deep.extend_from_slice(b":1\r\n");
        let mut frame = Frame::default();
        frame.begin();
        assert_eq!(frame.follow(&deep), Progress::Done(deep.len()));
        let streamed = b"*?\r\n".repeat(100);
        frame.begin();
        assert_eq!(frame.follow(&streamed), Progress::Invalid);
        let huge = b"*99999999999999\r\n".repeat(300_000);
        frame.begin();
        assert!(matches!(
            frame.follow(&huge),
            Progress::Invalid | Progress::More(_)
        ));
    }

    #[test]
    fn a_long_line_is_passed() {
        let mut reply = b"*2\r\n+".to_vec();
        reply.extend(std::iter::repeat_n(b'a', 5_000));
        reply.extend_from_slice(b"\r\n:1\r\n");
        let mut frame = Frame::default();
        frame.begin();
        assert_eq!(frame.follow(&reply), Progress::Done(reply.len()));
    }
}
