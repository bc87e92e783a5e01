//! Records (FastCGI Specification 1.0, section 3.3 and appendix A): a header of eight bytes, content, padding.

use crate::protocol::Side;

/// Bytes of a record's header, and of the contents of `BEGIN_REQUEST` and `END_REQUEST`.
pub const HEADER: usize = 8;

/// The only version.
const VERSION: u8 = 1;

/// What a record is (`FCGI_BEGIN_REQUEST` …).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind(pub u8);

impl Kind {
    /// The server asks.
    pub const BEGIN_REQUEST: Self = Self(1);
    /// The server does not want the answer any more.
    pub const ABORT_REQUEST: Self = Self(2);
    /// The application is done.
    pub const END_REQUEST: Self = Self(3);
    /// Names and values: the CGI variables.
    pub const PARAMS: Self = Self(4);
    /// The request's content.
    pub const STDIN: Self = Self(5);
    /// The response: a CGI header and content.
    pub const STDOUT: Self = Self(6);
    /// Messages of the application.
    pub const STDERR: Self = Self(7);
    /// The file that a filter is to change.
    pub const DATA: Self = Self(8);
    /// What can the application do?
    pub const GET_VALUES: Self = Self(9);
    /// That.
    pub const GET_VALUES_RESULT: Self = Self(10);
    /// The application does not know this kind of management record.
    pub const UNKNOWN_TYPE: Self = Self(11);

    /// Who sends such records: the web server is the client.
    pub const fn sender(self) -> Option<Side> {
        match self {
            Self::BEGIN_REQUEST
            | Self::ABORT_REQUEST
            | Self::PARAMS
            | Self::STDIN
            | Self::DATA
            | Self::GET_VALUES => Some(Side::Client),
            Self::END_REQUEST
            | Self::STDOUT
            | Self::STDERR
            | Self::GET_VALUES_RESULT
            | Self::UNKNOWN_TYPE => Some(Side::Server),
            _ => None,
        }
    }

    /// Whether it is about no request.
    const fn is_management(self) -> bool {
        matches!(
            self,
            Self::GET_VALUES | Self::GET_VALUES_RESULT | Self::UNKNOWN_TYPE
        )
    }
}

/// A record's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Of which request; 0: of none.
    pub id: u16,
    /// Bytes of content.
    pub content: u16,
    /// Bytes behind them that mean nothing.
    pub padding: u8,
}

/// What a record's beginning says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framed {
    /// Fewer bytes than a header, and so far they could be one.
    Incomplete,
    /// That side sends no such record.
    Invalid,
    /// A record.
    Record(Header),
}

/// Reads the header of a record of that side.
#[must_use]
pub fn header(side: Side, bytes: &[u8]) -> Framed {
    let Some((&[version, kind, id_high, id_low, high, low, padding, _], _)) =
        bytes.split_first_chunk::<HEADER>()
    else {
        return match bytes {
            [] | [VERSION] => Framed::Incomplete,
            [VERSION, kind, ..] if Kind(*kind).sender() == Some(side) => Framed::Incomplete,
            _ => Framed::Invalid,
        };
    };
    let header = Header {
        kind: Kind(kind),
        id: u16::from_be_bytes([id_high, id_low]),
        content: u16::from_be_bytes([high, low]),
        padding,
    };
    let fixed = matches!(header.kind, Kind::BEGIN_REQUEST | Kind::END_REQUEST);
    let valid = version == VERSION
        && header.kind.sender() == Some(side)
        && header.kind.is_management() == (header.id == 0)
        && (!fixed || usize::from(header.content) == HEADER);
    if valid {
        Framed::Record(header)
    } else {
        Framed::Invalid
    }
}

/// What the application is asked to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Role(pub u16);

impl Role {
    /// The usual one: it answers.
    #[cfg(test)]
    pub const RESPONDER: Self = Self(1);
    /// It changes a file, which comes behind the request's content.
    pub const FILTER: Self = Self(3);
}

/// The content of a `BEGIN_REQUEST`.
#[must_use]
pub fn role(content: &[u8]) -> Option<Role> {
    let &[high, low, flags, reserved @ ..] = content.first_chunk::<HEADER>()?;
    let role = u16::from_be_bytes([high, low]);
    // One flag is defined, FCGI_KEEP_CONN.
    ((1..=3).contains(&role) && flags <= 1 && reserved == [0; 5]).then_some(Role(role))
}

/// The protocol status of an `END_REQUEST`'s content: 0 if the request was accepted.
#[must_use]
pub fn protocol_status(content: &[u8]) -> Option<u8> {
    content.get(4).copied()
}

/// The last sixteen bytes of a stream whose framing was lost: a record with a fixed content, if they are one.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Window(u128);

impl Window {
    /// The next byte; the record that ends with it, if it is one that tells where the stream stands.
    pub fn push(&mut self, side: Side, byte: u8) -> Option<(Header, [u8; HEADER])> {
        self.0 = self.0 << 8 | u128::from(byte);
        let bytes = self.0.to_be_bytes();
        let (_, &content) = bytes.split_last_chunk::<HEADER>()?;
        let Framed::Record(header) = header(side, &bytes) else {
            return None;
        };
        let tells = match header.kind {
            Kind::BEGIN_REQUEST => role(&content).is_some(),
            Kind::END_REQUEST => protocol_status(&content).is_some_and(|status| status <= 3),
            _ => false,
        };
        tells.then_some((header, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        let record = |kind, id, content, padding| {
            Framed::Record(Header {
                kind,
                id,
                content,
                padding,
            })
        };
        for (side, bytes, expected) in [
            (Side::Client, &b""[..], Framed::Incomplete),
            (Side::Client, b"\x01", Framed::Incomplete),
            (Side::Client, b"\x01\x01\0\x01\0\x08\0", Framed::Incomplete),
            (Side::Client, b"\x01\x03\0\x01", Framed::Invalid),
            (Side::Client, b"\x02", Framed::Invalid),
            (
                Side::Client,
                b"\x01\x01\x01\x02\0\x08\0\0",
                record(Kind::BEGIN_REQUEST, 258, 8, 0),
            ),
            (Side::Client, b"\x01\x01\0\x01\0\x09\0\0", Framed::Invalid),
            (Side::Client, b"\x01\x01\0\0\0\x08\0\0", Framed::Invalid),
            (
                Side::Client,
                b"\x01\x04\0\x01\x02\x03\x05\0",
                record(Kind::PARAMS, 1, 515, 5),
            ),
            (Side::Server, b"\x01\x04\0\x01\x02\x03\x05\0", Framed::Invalid),
            (
                Side::Server,
                b"\x01\x0a\0\0\0\x01\0\0",
                record(Kind::GET_VALUES_RESULT, 0, 1, 0),
            ),
            (Side::Server, b"\x01\x0c\0\0\0\x01\0\0", Framed::Invalid),
        ] {
            assert_eq!(header(side, bytes), expected, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn roles() {
        for (content, expected) in [
            (&b"\0\x01\0\0\0\0\0\0"[..], Some(Role::RESPONDER)),
            (b"\0\x03\x01\0\0\0\0\0", Some(Role::FILTER)),
            (b"\0\x04\0\0\0\0\0\0", None),
            (b"\0\0\0\0\0\0\0\0", None),
            (b"\0\x01\x02\0\0\0\0\0", None),
            (b"\0\x01\0\0\0\0\0\x01", None),
            (b"\0\x01\0", None),
        ] {
            assert_eq!(role(content), expected, "{}", content.escape_ascii());
        }
    }

    #[test]
    fn an_end_is_found_behind_anything() {
        let mut window = Window::default();
        let text = b"\x01\x01\x03\0\x07\0\x08\x02\0\0\0\0\0\0\0\0\0more";
        let found: Vec<_> = text
            .iter()
            .enumerate()
            .filter_map(|(at, byte)| Some((at, window.push(Side::Server, *byte)?.0)))
            .collect();
        let end = Header {
            kind: Kind::END_REQUEST,
            id: 7,
            content: 8,
            padding: 2,
        };
        assert_eq!(found, [(16, end)]);
    }
}
