//! W3C Trace Context Level 2: `traceparent` and `tracestate` (<https://www.w3.org/TR/trace-context-2/>).

use super::{Ids, full_hex, nibble};
use crate::model::{SpanId, TraceId};

/// Most bytes of `tracestate` that are kept, whole members only (section 3.3.1.5: "at least 512").
const MAX_STATE: usize = 512;

/// Most members of a list (section 3.3.1.1).
const MAX_MEMBERS: usize = 32;

/// Most `tracestate` fields of one message that are joined.
const MAX_FIELDS: usize = 4;

/// Reads `traceparent` (section 3.2): strict for version 00, open for later ones.
pub fn parse(value: &[u8]) -> Option<Ids> {
    let (known, more) = value.split_at_checked(55)?;
    let (version, rest) = known.split_at_checked(2)?;
    let (trace, rest) = rest.strip_prefix(b"-")?.split_at_checked(32)?;
    let (span, flags) = rest.strip_prefix(b"-")?.split_at_checked(16)?;
    let &[high, low] = flags.strip_prefix(b"-")? else {
        return None;
    };
    let fits = match version {
        b"00" => more.is_empty(),
        b"ff" => false,
        _ => matches!(more, [] | [b'-', ..]),
    };
    // Digits of any case are read below; here they are small.
    let capitals = known.iter().fold(false, |seen, b| seen | b.is_ascii_uppercase());
    let digits = version.iter().all(|b| nibble(*b) <= 0xf) && nibble(high) <= 0xf && nibble(low) <= 0xf;
    if !fits || capitals || !digits {
        return None;
    }
    Some(Ids {
        trace: TraceId(full_hex(trace)?),
        span: Some(SpanId(full_hex(span)?)),
        sampled: Some(nibble(low) & 1 == 1),
    })
}

/// `tracestate` fields in the order in which they came.
#[derive(Clone, Copy, Default, Debug)]
pub struct State<'a> {
    fields: [&'a [u8]; MAX_FIELDS],
    len: usize,
}

impl<'a> State<'a> {
    pub fn add(&mut self, value: &'a [u8]) {
        if let Some(free) = self.fields.get_mut(self.len) {
            *free = value;
            self.len += 1;
        }
    }

    /// One list; empty if any member is malformed (section 3.3: then it is discarded as a whole).
    pub fn join(&self) -> Box<str> {
        self.try_join().unwrap_or_default().into_boxed_str()
    }

    fn try_join(&self) -> Option<String> {
        let mut joined = String::new();
        let members = self
            .fields
            .iter()
            .take(self.len)
            .flat_map(|field| field.split(|b| *b == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|member| !member.is_empty());
        for (index, member) in members.enumerate() {
            let member = check_member(member).filter(|_| index < MAX_MEMBERS)?;
            if joined.len() + 1 + member.len() > MAX_STATE {
                break;
            }
            if !joined.is_empty() {
                joined.push(',');
            }
            joined.push_str(member);
        }
        Some(joined)
    }
}

/// `key=value` as sections 3.3.1.3.1 and 3.3.1.3.2 have it.
fn check_member(member: &[u8]) -> Option<&str> {
    let equals = memchr::memchr(b'=', member)?;
    let (key, value) = member.split_at_checked(equals)?;
    let value = value.get(1..)?;
    let key_byte = |b: &u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@');
    let value_byte = |b: &u8| matches!(b, b' '..=b'~') && *b != b'=';
    let sound = matches!(key.first()?, b'a'..=b'z' | b'0'..=b'9')
        && key.len() <= 256
        && key.iter().all(key_byte)
        && (1..=256).contains(&value.len())
        && value.iter().all(value_byte);
    sound.then(|| std::str::from_utf8(member).ok())?
}
