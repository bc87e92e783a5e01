//! Messages of RFC 1035 section 4, as far as an exchange needs them.

use std::fmt::Write as _;

use crate::protocol::Side;

/// Most bytes of a name on the wire (RFC 1035 section 2.3.4), and of one label.
const MAX_NAME: usize = 255;
const MAX_LABEL: u8 = 63;
/// Most compression pointers followed in one name. Each must point backwards, so this bounds work, not depth.
const MAX_POINTERS: u32 = 16;
/// Most records of one message that are walked: what a server may put into 64 KiB is 5,957.
const MAX_RECORDS: u32 = 6_000;
/// `OPT` (RFC 6891 section 6.1.1), which carries the upper bits of the response code.
const OPT: u16 = 41;

/// Why bytes are no message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// They break off: more may follow.
    Short,
    /// They can't be one, whatever follows.
    Malformed,
}

/// The fixed part (RFC 1035 section 4.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Tells which response belongs to which query.
    pub id: u16,
    flags: u16,
    counts: [u16; 4],
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Flaw> {
        let id = cursor.u16()?;
        let flags = cursor.u16()?;
        let counts = [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?];
        Ok(Self { id, flags, counts })
    }

    /// Whether it answers a query.
    pub const fn is_response(self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Who sends such a message.
    pub const fn sender(self) -> Side {
        if self.is_response() {
            Side::Server
        } else {
            Side::Client
        }
    }

    /// What is asked for: 0 is a standard query.
    pub const fn opcode(self) -> u16 {
        self.flags >> 11 & 0xf
    }

    /// Whether the answer was cut off, to be asked for over TCP.
    pub const fn is_truncated(self) -> bool {
        self.flags & 0x0200 != 0
    }

    /// Whether what must be zero is (RFC 1035: Z; the two bits beside it are DNSSEC's, RFC 4035).
    const fn is_plain(self) -> bool {
        self.flags & 0x0040 == 0
    }

    /// Records in the answer section.
    pub const fn answers(self) -> u16 {
        self.counts[1]
    }
}

/// A question (RFC 1035 section 4.1.2).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Question {
    /// Name without the dot at its end, unprintable bytes escaped; `.` is the root.
    pub name: Box<str>,
    /// Type of the records asked for.
    pub kind: u16,
    /// Class: 1 is the Internet.
    pub class: u16,
}

/// A message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// Fixed part.
    pub header: Header,
    /// The question, if there is just one.
    pub question: Option<Question>,
    /// Response code with the bits that an `OPT` record adds.
    pub code: u16,
    /// Bytes on the wire.
    pub len: usize,
}

impl Message {
    /// Reads one message and finds its end.
    pub fn read(bytes: &[u8]) -> Result<Self, Flaw> {
        let mut cursor = Cursor { bytes, at: 0 };
        let (header, question) = Self::begin(&mut cursor)?;
        let [_, answers, authorities, additional] = header.counts.map(u32::from);
        let records = answers + authorities + additional;
        if records > MAX_RECORDS {
            return Err(Flaw::Malformed);
        }
        let mut code = header.flags & 0xf;
        for _ in 0..records {
            cursor.skip_name()?;
            let kind = cursor.u16()?;
            let _class = cursor.u16()?;
            let [extended, ..] = cursor.take::<4>()?;
            let len = cursor.u16()?;
            cursor.skip(usize::from(len))?;
            if kind == OPT {
                code |= u16::from(extended) << 4;
            }
        }
        Ok(Self {
            header,
            question,
            code,
            len: cursor.at,
        })
    }

    /// Reads what there is of a datagram, the whole of which is one message: answers that were cut off, or not captured, may be missing.
    pub fn read_datagram(bytes: &[u8]) -> Result<Self, Flaw> {
        match Self::read(bytes) {
            Err(Flaw::Short) => {}
            read => return read,
        }
        let mut cursor = Cursor { bytes, at: 0 };
        let (header, question) = Self::begin(&mut cursor)?;
        Ok(Self {
            header,
            question,
            code: header.flags & 0xf,
            len: bytes.len(),
        })
    }

    fn begin(cursor: &mut Cursor<'_>) -> Result<(Header, Option<Question>), Flaw> {
        let header = Header::read(cursor)?;
        // Everybody asks one question; a response may repeat none (RFC 9619).
        match header.counts[0] {
            0 => return Ok((header, None)),
            1 => {}
            _ => return Err(Flaw::Malformed),
        }
        let name = cursor.name()?;
        let kind = cursor.u16()?;
        let class = cursor.u16()?;
        Ok((header, Some(Question { name, kind, class })))
    }

    /// Whether these are the first bytes of a query that somebody would send: `Ok` if they are a whole one.
    pub fn looks(bytes: &[u8]) -> Result<Self, Flaw> {
        let mut cursor = Cursor { bytes, at: 0 };
        let header = Header::read(&mut cursor)?;
        let [_, answers, authorities, additional] = header.counts;
        let is_query = !header.is_response();
        let plausible = header.opcode() == 0
            && header.is_plain()
            && header.counts[0] == 1
            && (!is_query
                || (answers == 0 && authorities == 0 && additional <= 2 && header.flags & 0xf == 0));
        if !plausible {
            return Err(Flaw::Malformed);
        }
        let message = Self::read(bytes)?;
        // Classes: Internet, Chaos, Hesiod, any.
        match message.question.as_ref().map(|question| question.class) {
            Some(1 | 3 | 4 | 255) => Ok(message),
            _ => Err(Flaw::Malformed),
        }
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        let found = self.bytes.get(self.at..).and_then(<[u8]>::first_chunk);
        let found = *found.ok_or(Flaw::Short)?;
        self.skip(N)?;
        Ok(found)
    }

    fn u16(&mut self) -> Result<u16, Flaw> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn skip(&mut self, len: usize) -> Result<(), Flaw> {
        let at = self.at.checked_add(len).ok_or(Flaw::Malformed)?;
        if at > self.bytes.len() {
            return Err(Flaw::Short);
        }
        self.at = at;
        Ok(())
    }

    /// What a label's first byte says (RFC 1035 section 4.1.4).
    fn label(&mut self) -> Result<Label, Flaw> {
        let [first] = self.take()?;
        match first {
            0 => Ok(Label::End),
            1..=MAX_LABEL => Ok(Label::Text(usize::from(first))),
            0xc0.. => {
                let [low] = self.take()?;
                Ok(Label::Pointer(usize::from(first & 0x3f) << 8 | usize::from(low)))
            }
            // Kinds of labels that nobody uses (RFC 6891 section 5).
            _ => Err(Flaw::Malformed),
        }
    }

    /// Passes a name without following it.
    fn skip_name(&mut self) -> Result<(), Flaw> {
        let start = self.at;
        loop {
            match self.label()? {
                Label::End | Label::Pointer(_) => return Ok(()),
                Label::Text(len) => self.skip(len)?,
            }
            if self.at.saturating_sub(start) > MAX_NAME {
                return Err(Flaw::Malformed);
            }
        }
    }

    /// Reads a name. Pointers point backwards only, so that no name is endless.
    fn name(&mut self) -> Result<Box<str>, Flaw> {
        let mut name = String::new();
        let mut wire = 1;
        let mut pointers = 0;
        // Where the name goes on that is read, once a pointer has led away from it.
        let mut after = None;
        loop {
            let place = self.at;
            match self.label()? {
                Label::End => break,
                Label::Text(len) => {
                    wire += len + 1;
                    if wire > MAX_NAME {
                        return Err(Flaw::Malformed);
                    }
                    let from = self.at;
                    self.skip(len)?;
                    if !name.is_empty() {
                        name.push('.');
                    }
                    escape(self.bytes.get(from..self.at).unwrap_or_default(), &mut name);
                }
                Label::Pointer(to) => {
                    after.get_or_insert(self.at);
                    pointers += 1;
                    if to >= place || pointers > MAX_POINTERS {
                        return Err(Flaw::Malformed);
                    }
                    self.at = to;
                }
            }
        }
        self.at = after.unwrap_or(self.at);
        if name.is_empty() {
            name.push('.');
        }
        Ok(name.into())
    }
}

enum Label {
    End,
    Text(usize),
    Pointer(usize),
}

/// Writes a label as master files do (RFC 1035 section 5.1); the conventions ask for it in `dns.question.name`.
fn escape(label: &[u8], out: &mut String) {
    for &byte in label {
        match byte {
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b'.' | b'\\' | b'"' => {
                out.push('\\');
                out.push(char::from(byte));
            }
            b'!'..=b'~' => out.push(char::from(byte)),
            // Writing to a string cannot fail.
            _ => _ = write!(out, "\\{byte:03}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A query with the question at byte 12, then what follows it.
    fn message(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x12, 0x34];
        bytes.extend(flags.to_be_bytes());
        bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
        bytes.extend(rest);
        bytes
    }

    const WWW: &[u8] = b"\x03www\x07example\x03com\x00\x00\x01\x00\x01";

    #[test]
    fn a_message_ends_where_its_last_record_ends() {
        let opt = b"\x00\x00\x29\x04\xd0\x01\x00\x00\x00\x00\x00"; // extended code 1
        let answer = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\x7f\x00\x00\x01";
        let bytes = message(0x8183, [1, 1, 0, 1], &[WWW, answer, opt].concat());
        for end in 0..bytes.len() {
            assert_eq!(Message::read(&bytes[..end]), Err(Flaw::Short), "{end}");
        }
        let read = Message::read(&[&bytes[..], b"more"].concat()).expect("a message");
        assert_eq!(
            (read.len, read.code, read.header.answers()),
            (bytes.len(), 0x13, 1)
        );
        assert_eq!(read.header.id, 0x1234);
        let question = read.question.expect("a question");
        assert_eq!(
            (&*question.name, question.kind, question.class),
            ("www.example.com", 1, 1)
        );
        // Of a datagram that was not captured whole the question is known.
        let cut = Message::read_datagram(&bytes[..40]).expect("what there is of it");
        assert_eq!((cut.question, cut.code), (Some(question), 3));
    }

    #[test]
    fn names() {
        let check = |rest: &[u8], expected: Result<&str, Flaw>| {
            let found = Message::read(&message(0x0100, [1, 0, 0, 0], rest));
            let found = found.map(|message| message.question.expect("a question").name);
            assert_eq!(found.as_deref().map_err(|flaw| *flaw), expected, "{rest:?}");
        };
        check(WWW, Ok("www.example.com"));
        check(b"\x00\x00\x02\x00\x01", Ok("."));
        check(
            b"\x04a.b\\\x03\x00\"\xff\x00\x00\x01\x00\x01",
            Ok("a\\.b\\\\.\\000\\\"\\255"),
        );
        // Pointers: to itself, forwards, into the header, in a circle.
        check(b"\xc0\x0c\x00\x01\x00\x01", Err(Flaw::Malformed));
        check(b"\xc0\x20\x00\x01\x00\x01", Err(Flaw::Malformed));
        check(b"\x01a\xc0\x0c\x00\x01\x00\x01", Err(Flaw::Malformed));
        // The header's bytes as a name: `34` is a kind of label that nobody uses or a text, whatever: it ends.
        check(b"\x01a\xc0\x04\x00\x01\x00\x01", Ok("a"));
        check(b"\x40abc", Err(Flaw::Malformed));
        check(&[0x3f; 300], Err(Flaw::Malformed));
        check(b"\x3f", Err(Flaw::Short));
    }

    #[test]
    fn a_chain_of_pointers_has_an_end() {
        // Each points to the one before it, the first to an empty name in the header.
        let mut rest = Vec::new();
        for n in 0..40u16 {
            let to = if n == 0 { 4 } else { 12 + 2 * (n - 1) };
            rest.extend((0xc000 | to).to_be_bytes());
        }
        let bytes = message(0x0100, [1, 0, 0, 0], &rest);
        let name = |at| Cursor { bytes: &bytes, at }.name();
        assert!(name(12 + 2 * 15).is_ok());
        assert_eq!(name(12 + 2 * 16), Err(Flaw::Malformed));
    }

    #[test]
    fn counts_that_no_message_holds() {
        for counts in [[2, 0, 0, 0], [u16::MAX; 4], [1, 0xffff, 0xffff, 0xffff]] {
            let found = Message::read(&message(0x8180, counts, WWW));
            assert_eq!(found, Err(Flaw::Malformed), "{counts:?}");
        }
    }
}
