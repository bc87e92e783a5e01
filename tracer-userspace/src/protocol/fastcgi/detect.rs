//! Is this FastCGI? The client's first record says so: a `BEGIN_REQUEST`, all of whose sixteen bytes but three are given, or the
//! question for values that are all named `FCGI_…`. In the middle of a connection, the end of the request before may come first,
//! because applications read it no sooner than they must.

use super::params::Pairs;
use super::record::{Framed, HEADER, Header, Kind, header, role};
use crate::protocol::{Detect, Prefix, Side};

/// Whether `prefix` is FastCGI.
#[must_use]
pub fn detect(prefix: Prefix<'_>) -> Detect {
    let mut bytes = prefix.bytes;
    if !prefix.from_start
        && let Framed::Record(Header {
            kind: Kind::STDIN,
            content: 0,
            padding: 0,
            ..
        }) = header(Side::Client, bytes)
    {
        bytes = bytes.get(HEADER..).unwrap_or_default();
    }
    let record = match header(Side::Client, bytes) {
        Framed::Incomplete => return Detect::NeedMore,
        Framed::Invalid => return Detect::No,
        Framed::Record(record) => record,
    };
    let content = bytes.get(HEADER..).unwrap_or_default();
    let whole = content.get(..usize::from(record.content));
    let known = match (record.kind, whole) {
        (Kind::BEGIN_REQUEST, Some(content)) => role(content).is_some(),
        (Kind::GET_VALUES, Some(content)) => {
            let mut pairs = Pairs(content);
            let first = pairs.next();
            first.is_some_and(|(name, _)| name.starts_with(b"FCGI_"))
        }
        (Kind::BEGIN_REQUEST, None) => return Detect::NeedMore,
        // Three values are defined, of names that fill 45 bytes.
        (Kind::GET_VALUES, None) if record.content < 256 => return Detect::NeedMore,
        _ => false,
    };
    if known {
        Detect::Yes { sender: Side::Client }
    } else {
        Detect::No
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        const YES: Detect = Detect::Yes { sender: Side::Client };
        let begin = b"\x01\x01\0\x01\0\x08\0\0\0\x01\0\0\0\0\0\0";
        let behind = [&b"\x01\x05\0\x01\0\0\0\0"[..], begin].concat();
        for (bytes, from_start, expected) in [
            (&begin[..], true, YES),
            (begin, false, YES),
            (&behind, false, YES),
            (&behind, true, Detect::No),
            (&begin[..15], true, Detect::NeedMore),
            (&begin[..1], true, Detect::NeedMore),
            (b"\x01\x01\0\x01\0\x08\0\0\0\x01\x02\0\0\0\0\0", true, Detect::No),
            (b"\x01\x09\0\0\0\x10\0\0\x0e\0FCGI_MAX_CONNS", true, YES),
            (b"\x01\x09\0\0\0\x10\0\0\x0e\0XCGI_MAX_CONNS", true, Detect::No),
            (b"\x01\x06\0\x01\0\x08\0\0", true, Detect::No),
            (b"GET / HTTP/1.1\r\n", true, Detect::No),
            (b"", true, Detect::NeedMore),
        ] {
            let prefix = Prefix { bytes, from_start };
            assert_eq!(detect(prefix), expected, "{}", bytes.escape_ascii());
        }
    }
}
