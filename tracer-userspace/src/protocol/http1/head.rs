//! Message heads: start line and fields (RFC 9112 sections 2 to 5), read in one pass.

use std::ops::Range;

use memchr::memchr;

use crate::protocol::context::Carrier;

/// Most bytes of a head. RFC 9112 sets no bound; servers refuse far less than this.
pub const MAX_HEAD: usize = 96 * 1024;

/// Longest method that is taken for one. The longest registered is 17 bytes (`UPDATEREDIRECTREF`).
const MAX_METHOD: usize = 32;

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

/// `Content-Length` fields, all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum ContentLength {
    /// There was none.
    #[default]
    Absent,
    /// All agree.
    Is(u64),
    /// Not a number, or two that differ (RFC 9112 section 6.3, rule 5).
    Bad,
}

/// `Transfer-Encoding` fields, all of them together.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum TransferEncoding {
    /// There was none (or only the withdrawn `identity`).
    #[default]
    Absent,
    /// The last coding is `chunked`.
    Chunked,
    /// The last coding is another one.
    Other,
}

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

/// The places of all LFs (a line ends with LF or CR LF, RFC 9112 section 2.2). Lines are some tens of bytes: a pass over words
/// of eight is cheaper than a search that is set up anew for every line.
struct Feeds<'a> {
    words: std::slice::Iter<'a, [u8; 8]>,
    rest: &'a [u8],
    /// Where the current word starts.
    base: usize,
    /// The high bit of each LF of the current word that is still to be told.
    marks: u64,
}

impl<'a> Feeds<'a> {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

    fn new(bytes: &'a [u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut feeds = Self {
            words: words.iter(),
            rest,
            base: 0,
            marks: 0,
        };
        feeds.advance();
        feeds
    }

    /// The next word; false at the end.
    fn advance(&mut self) -> bool {
        let word = match self.words.next() {
            Some(word) => *word,
            None if self.rest.is_empty() => return false,
            None => {
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(self.rest) {
                    *to = *from;
                }
                self.rest = &[];
                word
            }
        };
        // A byte of `other` is zero where an LF was; the sum has its high bit clear for zero only, without carries between bytes.
        let other = u64::from_le_bytes(word) ^ (0x0101_0101_0101_0101 * b'\n' as u64);
        self.marks = !(((other & Self::LOW) + Self::LOW) | other | Self::LOW);
        true
    }
}

impl Iterator for Feeds<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.marks == 0 {
            if !self.advance() {
                return None;
            }
            self.base += 8;
        }
        let place = self.base + self.marks.trailing_zeros() as usize / 8;
        self.marks &= self.marks - 1;
        Some(place)
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

impl ContentLength {
    fn add(&mut self, value: &[u8]) {
        // A list of equal numbers is what some intermediaries make of repeated fields.
        for item in value.split(|b| *b == b',') {
            let one = number(item.trim_ascii());
            *self = match (*self, one) {
                (Self::Absent, Some(n)) => Self::Is(n),
                (Self::Is(before), Some(n)) if before == n => Self::Is(n),
                _ => Self::Bad,
            };
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |n, digit| {
        let digit = digit.wrapping_sub(b'0');
        n.checked_mul(10)?
            .checked_add((digit < 10).then_some(u64::from(digit))?)
    })
}

impl TransferEncoding {
    fn add(&mut self, codings: &[u8]) {
        let last = codings
            .rsplit(|b| *b == b',')
            .map(<[u8]>::trim_ascii)
            .find(|coding| !coding.is_empty());
        match last {
            Some(coding) if coding.eq_ignore_ascii_case(b"chunked") => *self = Self::Chunked,
            Some(coding) if coding.eq_ignore_ascii_case(b"identity") => {}
            Some(_) => *self = Self::Other,
            None => {}
        }
    }
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

fn is_method(method: &[u8]) -> bool {
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

/// Whether `bytes` begin with a request line. Stricter than [`RequestLine::parse`]: one space on either side of the target,
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
