//! Protobuf fields, written straight into a buffer. Field numbers are those of the OTLP `.proto` files.
//!
//! All functions return `None` where the buffer is too short.

use prost::encoding::{WireType, encoded_len_varint};

use crate::export::buffer::{Buffer, Cursor, copy};

const LENGTH: WireType = WireType::LengthDelimited;

/// The key of a field.
const fn tag(field: u8, kind: WireType) -> u8 {
    (field << 3) | kind as u8
}

/// A length or number; nearly all are below 128.
#[inline(always)]
pub(super) fn varint(out: &mut Cursor<'_>, mut value: u64) -> Option<()> {
    while value >= 0x80 {
        out.put(&[value as u8 | 0x80])?;
        value >>= 7;
    }
    out.put(&[value as u8])
}

/// Text, bytes or an encoded message.
#[inline(always)]
pub(super) fn delimited(out: &mut Cursor<'_>, field: u8, bytes: &[u8]) -> Option<()> {
    out.put(&[tag(field, LENGTH)])?;
    varint(out, bytes.len() as u64)?;
    out.copy(bytes)
}

/// Length of [`delimited`]'s output.
#[inline]
pub(super) fn delimited_len(bytes: usize) -> usize {
    1 + encoded_len_varint(bytes as u64) + bytes
}

/// An id of fixed size.
#[inline(always)]
pub(super) fn id<const N: usize>(out: &mut Cursor<'_>, field: u8, bytes: &[u8; N]) -> Option<()> {
    out.put(&[tag(field, LENGTH), N as u8])?;
    out.put(bytes)
}

/// A `fixed64`.
#[inline(always)]
pub(super) fn fixed64(out: &mut Cursor<'_>, field: u8, value: u64) -> Option<()> {
    out.put(&[tag(field, WireType::SixtyFourBit)])?;
    out.put(&value.to_le_bytes())
}

/// A number or enumeration below 128.
#[inline(always)]
pub(super) fn small(out: &mut Cursor<'_>, field: u8, value: u8) -> Option<()> {
    out.put(&[tag(field, WireType::Varint), value & 0x7f])
}

/// A message whose length is known once it is written. Two bytes are kept for the length, which fits messages of 128 to
/// 16,383 bytes; others are moved to their right place.
#[inline(always)]
pub(super) fn message(
    out: &mut Cursor<'_>,
    field: u8,
    write: impl FnOnce(&mut Cursor<'_>) -> Option<()>,
) -> Option<()> {
    out.put(&[tag(field, LENGTH)])?;
    let room = std::mem::take(&mut out.rest);
    let total = room.len();
    let mut body = Cursor {
        rest: room.get_mut(2..)?,
    };
    write(&mut body)?;
    let len = total - 2 - body.rest.len();
    if (128..16_384).contains(&len) {
        *room.first_chunk_mut::<2>()? = [len as u8 | 0x80, (len >> 7) as u8];
        out.rest = room.get_mut(2 + len..)?;
        return Some(());
    }
    out.rest = move_message(room, len)?;
    Some(())
}

#[cold]
fn move_message(room: &mut [u8], len: usize) -> Option<&mut [u8]> {
    let prefix = encoded_len_varint(len as u64);
    if room.len() < prefix + len {
        return None;
    }
    room.copy_within(2..2 + len, prefix);
    let mut at = Cursor {
        rest: room.get_mut(..prefix)?,
    };
    varint(&mut at, len as u64)?;
    room.get_mut(prefix + len..)
}

/// `KeyValue` with text.
#[inline(always)]
pub(super) fn text(out: &mut Cursor<'_>, field: u8, key: &str, value: &str) -> Option<()> {
    let (key, value) = (key.as_bytes(), value.as_bytes());
    if 6 + key.len() + value.len() >= 0x80 {
        return out.call(|out| long_text(out, field, key, value));
    }
    key_value(out, field, key, 2 + value.len())?;
    // `AnyValue.string_value`
    out.put(&[
        tag(2, LENGTH),
        2 + value.len() as u8,
        tag(1, LENGTH),
        value.len() as u8,
    ])?;
    out.copy(value)
}

/// `KeyValue` with a whole number.
#[inline(always)]
pub(super) fn integer(out: &mut Cursor<'_>, field: u8, key: &str, value: i64) -> Option<()> {
    let value = value as u64;
    let digits = encoded_len_varint(value);
    key_value(out, field, key.as_bytes(), 1 + digits)?;
    // `AnyValue.int_value`
    out.put(&[tag(2, LENGTH), 1 + digits as u8, tag(3, WireType::Varint)])?;
    varint(out, value)
}

/// `KeyValue` with a floating-point number.
#[inline(always)]
pub(super) fn double(out: &mut Cursor<'_>, field: u8, key: &str, value: f64) -> Option<()> {
    key_value(out, field, key.as_bytes(), 9)?;
    // `AnyValue.double_value`
    out.put(&[tag(2, LENGTH), 9])?;
    fixed64(out, 4, value.to_bits())
}

/// `KeyValue` with a truth value.
#[inline(always)]
pub(super) fn boolean(out: &mut Cursor<'_>, field: u8, key: &str, value: bool) -> Option<()> {
    key_value(out, field, key.as_bytes(), 2)?;
    // `AnyValue.bool_value`
    out.put(&[tag(2, LENGTH), 2, tag(2, WireType::Varint), value.into()])
}

/// `KeyValue` up to the key, where all lengths fit one byte (keys are constants of ours, shorter than a hundred bytes); the
/// value has `value_len` bytes and two before it.
#[inline(always)]
fn key_value(out: &mut Cursor<'_>, field: u8, key: &[u8], value_len: usize) -> Option<()> {
    let len = 4 + key.len() + value_len;
    out.put(&[tag(field, LENGTH), len as u8, tag(1, LENGTH), key.len() as u8])?;
    copy(out.room(key.len())?, key);
    Some(())
}

/// `KeyValue` with text of any length.
#[inline(never)]
pub(super) fn long_text(out: &mut Cursor<'_>, field: u8, key: &[u8], value: &[u8]) -> Option<()> {
    let value_len = delimited_len(value.len());
    out.put(&[tag(field, LENGTH)])?;
    varint(out, (delimited_len(key.len()) + delimited_len(value_len)) as u64)?;
    delimited(out, 1, key)?;
    out.put(&[tag(2, LENGTH)])?;
    varint(out, value_len as u64)?;
    delimited(out, 1, value)
}

/// A buffer with what `write` writes.
pub(super) fn written(write: impl FnMut(&mut Cursor<'_>) -> Option<()>) -> Buffer {
    let mut out = Buffer::default();
    out.append(write);
    out
}
