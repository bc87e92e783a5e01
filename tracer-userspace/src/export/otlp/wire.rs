//! Protobuf fields, written straight into a buffer. Field numbers are those of the OTLP `.proto` files.

use prost::encoding::{WireType, encode_varint, encoded_len_varint};

/// The key of a field.
pub(super) const fn tag(field: u8, kind: WireType) -> u8 {
    (field << 3) | kind as u8
}

/// A length or number; nearly all are below 128.
#[inline]
pub(super) fn varint(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        encode_varint(value, out);
    }
}

/// Text, bytes or an encoded message.
#[inline]
pub(super) fn delimited(out: &mut Vec<u8>, field: u8, bytes: &[u8]) {
    out.push(tag(field, WireType::LengthDelimited));
    varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Length of [`delimited`]'s output.
#[inline]
pub(super) fn delimited_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// A `fixed64`.
#[inline]
pub(super) fn fixed64(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(tag(field, WireType::SixtyFourBit));
    out.extend_from_slice(&value.to_le_bytes());
}

/// A number or enumeration.
#[inline]
pub(super) fn number(out: &mut Vec<u8>, field: u8, value: u64) {
    out.push(tag(field, WireType::Varint));
    varint(out, value);
}

/// A message whose length is known once it is written. Two bytes are kept for the length, which fits messages of 128 to 16,383
/// bytes; others are moved to their right place.
#[inline]
pub(super) fn message(out: &mut Vec<u8>, field: u8, write: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag(field, WireType::LengthDelimited));
    let start = out.len();
    out.extend_from_slice(&[0, 0]);
    write(out);
    let len = out.len().saturating_sub(start + 2);
    if let (128..16_384, Some([low, high])) = (len, out.get_mut(start..start + 2)) {
        *low = (len as u8) | 0x80;
        *high = (len >> 7) as u8;
        return;
    }
    let mut prefix = Vec::with_capacity(10);
    encode_varint(len as u64, &mut prefix);
    out.splice(start..start + 2, prefix);
}
