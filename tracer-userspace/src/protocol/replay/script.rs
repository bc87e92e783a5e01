//! Steps as bytes and back, so that a fuzzer can make them: any bytes are a script.

use super::{Part, Step};
use crate::model::Close;
use crate::protocol::Side;

/// Most bytes that one skip stands for, so that numbers stay readable.
const MOST_SKIPPED: u64 = 1 << 40;

/// Reads a script. The first byte of each step says what it is (the low three bits) and of which side (the fourth).
#[must_use]
pub fn decode(mut bytes: &[u8]) -> Vec<Step> {
    let mut steps = Vec::new();
    while let Some((&code, rest)) = bytes.split_first() {
        bytes = rest;
        let side = if code & 8 == 0 { Side::Client } else { Side::Server };
        steps.push(match code & 7 {
            0..=3 => {
                let len = take_len(&mut bytes);
                let (data, rest) = bytes.split_at(len.min(bytes.len()));
                bytes = rest;
                Step::Data {
                    side,
                    parts: vec![Part::Bytes(data.to_vec())],
                }
            }
            4 => {
                // A length in sixteen bits, shifted by the code's high bits: small and huge ones alike.
                let len = (take_len(&mut bytes) as u64) << (u32::from(code >> 4) * 2);
                Step::Data {
                    side,
                    parts: vec![Part::Skip(len.min(MOST_SKIPPED))],
                }
            }
            5 => Step::Lost(side),
            6 => Step::Fin(side),
            _ => Step::Close(match code >> 4 {
                0..=5 => Close::Reset,
                6..=10 => Close::Closed,
                _ => Close::Forgotten,
            }),
        });
    }
    steps
}

/// Two bytes, little end first; what is missing is zero.
fn take_len(bytes: &mut &[u8]) -> usize {
    let mut len = 0;
    for shift in [0, 8] {
        if let Some((&byte, rest)) = bytes.split_first() {
            len |= usize::from(byte) << shift;
            *bytes = rest;
        }
    }
    len
}

/// Writes steps as a script: a seed.
#[must_use]
pub fn encode(steps: &[Step]) -> Vec<u8> {
    let mut script = Vec::new();
    let side_bit = |side: &Side| if *side == Side::Client { 0 } else { 8 };
    for step in steps {
        match step {
            Step::Data { side, parts } => {
                for part in parts {
                    match part {
                        Part::Bytes(bytes) => {
                            for piece in bytes.chunks(usize::from(u16::MAX)) {
                                script.push(side_bit(side));
                                script.extend((piece.len() as u16).to_le_bytes());
                                script.extend(piece);
                            }
                        }
                        Part::Skip(len) => {
                            let mut left = *len;
                            while left > 0 {
                                let piece = left.min(u64::from(u16::MAX));
                                script.push(4 | side_bit(side));
                                script.extend((piece as u16).to_le_bytes());
                                left -= piece;
                            }
                        }
                    }
                }
            }
            Step::Lost(side) => script.push(5 | side_bit(side)),
            Step::Fin(side) => script.push(6 | side_bit(side)),
            Step::Close(Close::Reset) => script.push(7),
            Step::Close(Close::Forgotten) => script.push(0xf7),
            Step::Close(_) => script.push(0x67),
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_comes_back() {
        let bytes = |text: &[u8]| Step::Data {
            side: Side::Server,
            parts: vec![Part::Bytes(text.to_vec())],
        };
        let skip = |len| Step::Data {
            side: Side::Client,
            parts: vec![Part::Skip(len)],
        };
        let steps = [
            bytes(b"abc"),
            skip(70_000),
            Step::Lost(Side::Server),
            Step::Fin(Side::Client),
            Step::Close(Close::Reset),
            Step::Close(Close::Closed),
            Step::Close(Close::Forgotten),
        ];
        let again = decode(&encode(&steps));
        let wanted = [
            bytes(b"abc"),
            skip(65_535),
            skip(4_465),
            Step::Lost(Side::Server),
            Step::Fin(Side::Client),
        ];
        assert_eq!(format!("{:?}", &again[..5]), format!("{wanted:?}"));
        assert_eq!(
            format!("{:?}", &again[5..]),
            "[Close(Reset), Close(Closed), Close(Forgotten)]"
        );
    }

    #[test]
    fn any_bytes_are_a_script() {
        assert_eq!(
            format!("{:?}", decode(&[0, 9])),
            format!("{:?}", decode(&[1, 9, 0]))
        );
        assert!(decode(&[]).is_empty());
    }
}
