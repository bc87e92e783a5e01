//! The two fields that say how long a body is (RFC 9112 sections 6.1 to 6.3).

use super::line::number;

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

impl ContentLength {
    /// One more field.
    pub fn add(&mut self, value: &[u8]) {
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

impl TransferEncoding {
    /// One more field.
    pub fn add(&mut self, codings: &[u8]) {
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
