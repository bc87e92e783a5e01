//! What the client says.

use super::command::{MAX_WORD, Upper, is_container, name};
use super::exchange::{Effect, Open};
use super::jobs::Jobs;
use super::resp::{Line, line, number};
use super::session::{RedisSession, Replies, Request};
use crate::model::{Mark, Role, Stamp};
use crate::protocol::Output;

/// Longest inline command (`PROTO_INLINE_MAX_SIZE`).
const MAX_INLINE: usize = 64 * 1024;
/// Longest line that holds a length.
const MAX_LENGTH_LINE: usize = 32;

/// The beginning of a command.
struct Head<'a> {
    /// Bytes up to the first argument that is not a word below.
    consumed: usize,
    /// Arguments behind those bytes.
    left: u64,
    /// Words in all.
    words: u64,
    /// Name, and what else had to be looked at.
    first: [Option<&'a [u8]>; 3],
}

impl RedisSession {
    /// Consumes something of the client's bytes; `None` if more are needed.
    pub fn client(&mut self, bytes: &[u8], mark: &Mark, out: &mut Output<'_>) -> Option<usize> {
        match self.request {
            Request::Lost { quiet: true } => {
                self.request = Request::Aligned;
                Some(0)
            }
            Request::Lost { quiet: false } => Some(bytes.len()),
            Request::Arguments { left, skip } => self.arguments(bytes, left, skip, mark, out),
            Request::Aligned => {
                let head = match bytes.first() {
                    Some(b'*') => multibulk(bytes),
                    _ => inline(bytes),
                };
                match head {
                    Err(()) => {
                        self.lose_request(mark.stamp, out);
                        Some(0)
                    }
                    Ok(None) => None,
                    Ok(Some(head)) => {
                        self.command(&head, mark, out);
                        Some(head.consumed)
                    }
                }
            }
        }
    }

    fn command(&mut self, head: &Head<'_>, mark: &Mark, out: &mut Output<'_>) {
        let [Some(first), second, third] = head.first else {
            // An empty line, or an empty array: no command, no reply.
            return;
        };
        self.settle(out);
        let upper = Upper::new(first);
        let command = upper.as_ref().map(Upper::as_str);
        let name = name(command, second);
        let in_name = 1 + u64::from(name.contains(' '));
        let arguments = head.words.saturating_sub(in_name);
        let open = Open {
            started: out.begin(self.role, mark, None),
            effect: Effect::of(&name, arguments, second),
            jobs: match self.role {
                Role::Client if head.left == arguments => Jobs::of(&name, arguments, out.conn),
                _ => None,
            },
            name,
            arguments,
            request_bytes: head.consumed as u64,
            response_bytes: 0,
            first_byte: None,
            ghost: false,
        };
        if self.gets_reply(&open, third) {
            self.push(open, out);
        } else {
            self.silent = Some(open);
            self.request_open = true;
        }
        if head.left == 0 {
            self.end_request(mark.stamp, out);
        } else {
            self.request = Request::Arguments {
                left: head.left,
                skip: 0,
            };
        }
    }

    /// Whether a reply will come to `open`, the third word of which is `third`.
    fn gets_reply(&mut self, open: &Open, third: Option<&[u8]>) -> bool {
        let before = self.replies;
        if before == Replies::Skip {
            self.replies = Replies::On;
        }
        if open.name != "CLIENT REPLY" {
            return before == Replies::On;
        }
        let asked = third.unwrap_or_default();
        if asked.eq_ignore_ascii_case(b"off") {
            self.replies = Replies::Off;
            false
        } else if asked.eq_ignore_ascii_case(b"skip") {
            if before != Replies::Off {
                self.replies = Replies::Skip;
            }
            false
        } else {
            // ON is always answered; so is what makes no sense, unless replies are off.
            let on = asked.eq_ignore_ascii_case(b"on");
            if on {
                self.replies = Replies::On;
            }
            on || before == Replies::On
        }
    }

    /// Arguments that nobody looks at.
    fn arguments(
        &mut self,
        bytes: &[u8],
        left: u64,
        skip: u64,
        mark: &Mark,
        out: &mut Output<'_>,
    ) -> Option<usize> {
        if skip == 0 {
            let (len, consumed) = match bulk_header(bytes) {
                Err(()) => {
                    self.lose_request(mark.stamp, out);
                    return Some(0);
                }
                Ok(None) => return None,
                Ok(Some(header)) => header,
            };
            self.count_request(consumed as u64);
            if let Some(jobs) = self.newest().and_then(|open| open.jobs.as_mut()) {
                jobs.argument(len);
            }
            self.request = Request::Arguments {
                left: left.saturating_sub(1),
                skip: len.saturating_add(2),
            };
            return Some(consumed);
        }
        let n = skip.min(bytes.len() as u64);
        if let Some(jobs) = self.newest().and_then(|open| open.jobs.as_mut()) {
            jobs.bytes(bytes.get(..n as usize).unwrap_or_default());
        }
        self.pass(left, skip, n, mark.stamp, out);
        Some(n as usize)
    }

    /// `n` of `skip` bytes of an argument came.
    fn pass(&mut self, left: u64, skip: u64, n: u64, stamp: Stamp, out: &mut Output<'_>) {
        self.count_request(n);
        let skip = skip.saturating_sub(n);
        if left == 0 && skip == 0 {
            self.request = Request::Aligned;
            self.end_request(stamp, out);
        } else {
            self.request = Request::Arguments { left, skip };
        }
    }

    /// `len` bytes of the client were not captured.
    pub fn client_unseen(&mut self, len: u64, stamp: Stamp, out: &mut Output<'_>) {
        let mut len = len;
        if let Request::Arguments { left, skip } = self.request
            && skip > 0
        {
            let n = skip.min(len);
            if let Some(jobs) = self.newest().and_then(|open| open.jobs.as_mut()) {
                jobs.unseen(n);
            }
            self.pass(left, skip, n, stamp, out);
            len -= n;
        }
        if len > 0 {
            self.count_request(len);
            self.lose_request(stamp, out);
        }
    }

    fn count_request(&mut self, bytes: u64) {
        if let Some(open) = self.newest() {
            open.request_bytes = open.request_bytes.saturating_add(bytes);
        }
    }
}

type Parsed<T> = Result<Option<T>, ()>;

/// Length of the bulk string that begins here, and the bytes of its header.
fn bulk_header(bytes: &[u8]) -> Parsed<(u64, usize)> {
    let Some((kind, rest)) = bytes.split_first() else {
        return Ok(None);
    };
    if *kind != b'$' {
        return Err(());
    }
    match line(rest, MAX_LENGTH_LINE) {
        Line::Incomplete => Ok(None),
        Line::TooLong => Err(()),
        Line::Text(text, len) => Ok(Some((number(text).ok_or(())?, len + 1))),
    }
}

/// A command as an array of bulk strings.
fn multibulk(bytes: &[u8]) -> Parsed<Head<'_>> {
    let (words, mut at) = match line(bytes.get(1..).unwrap_or_default(), MAX_LENGTH_LINE) {
        Line::Incomplete => return Ok(None),
        Line::TooLong => return Err(()),
        Line::Text(b"-1", len) => (0, len + 1),
        Line::Text(text, len) => (number(text).ok_or(())?, len + 1),
    };
    let mut head = Head {
        consumed: at,
        left: words,
        words,
        first: [None; 3],
    };
    let mut wanted = 1;
    for index in 0..head.first.len() {
        if head.left == 0 || index >= wanted {
            break;
        }
        let rest = bytes.get(at..).unwrap_or_default();
        let Some((len, header)) = bulk_header(rest)? else {
            return Ok(None);
        };
        if len > MAX_WORD as u64 {
            // Too long for a name. The name itself has to be known as such, or nothing is.
            if index == 0 {
                head.first = [Some(b""), None, None];
            }
            break;
        }
        let body = rest.get(header..).unwrap_or_default();
        let Some((word, end)) = body.split_at_checked(len as usize) else {
            return Ok(None);
        };
        let Some(end) = end.get(..2) else { return Ok(None) };
        if end != b"\r\n" {
            return Err(());
        }
        if let Some(place) = head.first.get_mut(index) {
            *place = Some(word);
        }
        if index == 0 {
            wanted = words_wanted(word);
        }
        at = at
            .saturating_add(header)
            .saturating_add(word.len())
            .saturating_add(2);
        head.left = head.left.saturating_sub(1);
        head.consumed = at;
    }
    Ok(Some(head))
}

/// How many words have to be looked at.
fn words_wanted(first: &[u8]) -> usize {
    match Upper::new(first).as_ref().map(Upper::as_str) {
        Some("CLIENT") => 3,
        Some("SELECT") => 2,
        Some(word) if is_container(word) => 2,
        _ => 1,
    }
}

/// A command as a line of words.
fn inline(bytes: &[u8]) -> Parsed<Head<'_>> {
    let (text, consumed) = match line(bytes, MAX_INLINE) {
        Line::Incomplete => return Ok(None),
        Line::TooLong => return Err(()),
        Line::Text(text, len) => (text, len),
    };
    let mut words = text.split(u8::is_ascii_whitespace).filter(|w| !w.is_empty());
    let mut first = [words.next(), None, None];
    let mut count = u64::from(first[0].is_some());
    let wanted = first[0].map_or(0, words_wanted);
    for word in words {
        if let Some(place) = first
            .get_mut(count as usize)
            .filter(|_| (count as usize) < wanted)
        {
            *place = Some(word);
        }
        count = count.saturating_add(1);
    }
    Ok(Some(Head {
        consumed,
        left: 0,
        words: count,
        first,
    }))
}
