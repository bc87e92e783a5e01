//! What follows a head (RFC 9112 section 6.3).

use super::body::{Body, Chunked};
use super::head::Fields;
use super::lengths::{ContentLength, TransferEncoding};

/// What follows a head.
#[derive(Clone, Copy, Debug, Default)]
pub enum Framing {
    /// Nothing.
    #[default]
    None,
    /// A body.
    Body(Body),
    /// Nobody can know.
    Broken,
}

/// RFC 9112 section 6.3 for requests.
pub fn request_framing(fields: &Fields<'_>) -> Framing {
    match (fields.transfer_encoding, fields.content_length) {
        _ if fields.ambiguous => Framing::Broken,
        (TransferEncoding::Chunked, _) => Framing::Body(Body::Chunked(Chunked::START)),
        (TransferEncoding::Other, _) | (_, ContentLength::Bad) => Framing::Broken,
        (_, ContentLength::Absent | ContentLength::Is(0)) => Framing::None,
        (_, ContentLength::Is(length)) => Framing::Body(Body::Length(length)),
    }
}

/// RFC 9112 section 6.3 for responses that are neither interim nor the beginning of a tunnel.
pub fn response_framing(status: u16, is_head: bool, fields: &Fields<'_>) -> Framing {
    if is_head || matches!(status, 204 | 304) {
        return Framing::None;
    }
    match (fields.transfer_encoding, fields.content_length) {
        _ if fields.ambiguous => Framing::Broken,
        (TransferEncoding::Chunked, _) => Framing::Body(Body::Chunked(Chunked::START)),
        (TransferEncoding::Other, _) | (_, ContentLength::Absent) => Framing::Body(Body::UntilClose),
        (_, ContentLength::Bad) => Framing::Broken,
        (_, ContentLength::Is(0)) => Framing::None,
        (_, ContentLength::Is(length)) => Framing::Body(Body::Length(length)),
    }
}
