//! Puts the numbers of this host into the instructions of the programs ([`tracer_common::CONSTANTS`]).

use std::collections::BTreeMap;

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, SectionKind};
use tracer_common::{CONSTANTS, OFFSET_MARK, OFFSET_REACH, VALUE_MARK};

/// Bytes of an instruction (include/uapi/linux/bpf.h: `struct bpf_insn`: operation, registers, a 16-bit offset, a 32-bit immediate).
const INSTRUCTION: usize = 8;
/// `BPF_LDX | BPF_MEM` of a byte, two, four and eight.
const LOADS: [u8; 4] = [0x71, 0x69, 0x61, 0x79];
/// `BPF_ALU64 | BPF_MOV | BPF_K`.
const MOVE: u8 = 0xb7;
/// `BPF_LD | BPF_IMM | BPF_DW`: its second half is no instruction.
const LOAD_WIDE: u8 = 0x18;

/// The object with these numbers in the places of their marks; those that are not named are 0.
pub fn put_in(object: &[u8], values: &[(&str, u64)]) -> anyhow::Result<Vec<u8>> {
    let values: BTreeMap<&str, u64> = values.iter().copied().collect();
    let mut patched = object.to_vec();
    let file = object::File::parse(object).context("reading the BPF object")?;
    for section in file
        .sections()
        .filter(|section| section.kind() == SectionKind::Text)
    {
        let Some((start, size)) = section.file_range() else {
            continue;
        };
        let code = usize::try_from(start)
            .ok()
            .zip(usize::try_from(start + size).ok())
            .and_then(|(start, end)| patched.get_mut(start..end))
            .context("the object is cut")?;
        put_into(code, &values).with_context(|| format!("section {}", section.name().unwrap_or("?")))?;
    }
    Ok(patched)
}

fn put_into(code: &mut [u8], values: &BTreeMap<&str, u64>) -> anyhow::Result<()> {
    let mut instructions = code.chunks_exact_mut(INSTRUCTION);
    while let Some(instruction) = instructions.next() {
        let [operation, _, low, high, immediate @ ..] = instruction else {
            continue;
        };
        if *operation == LOAD_WIDE {
            instructions.next();
        } else if LOADS.contains(operation) {
            let offset = i16::from_le_bytes([*low, *high]);
            if offset < OFFSET_MARK {
                continue;
            }
            let mark = offset - OFFSET_MARK;
            let (name, value) = constant(i32::from(mark / OFFSET_REACH), values)?;
            let value = value + (mark % OFFSET_REACH) as u64;
            let value = i16::try_from(value)
                .with_context(|| format!("{name} is {value}: too far for one instruction"))?;
            [*low, *high] = value.to_le_bytes();
        } else if *operation == MOVE {
            let Ok(immediate) = <&mut [u8; 4]>::try_from(immediate) else {
                continue;
            };
            let mark = i32::from_le_bytes(*immediate) ^ VALUE_MARK;
            if mark >> 16 != 0 {
                continue;
            }
            let (name, value) = constant(mark, values)?;
            let value = i32::try_from(value)
                .with_context(|| format!("{name} is {value}: too much for one instruction"))?;
            *immediate = value.to_le_bytes();
        }
    }
    Ok(())
}

fn constant(number: i32, values: &BTreeMap<&str, u64>) -> anyhow::Result<(&'static str, u64)> {
    let name = usize::try_from(number)
        .ok()
        .and_then(|number| CONSTANTS.get(number))
        .with_context(|| {
            format!("there is no constant {number}: rebuild the object with `cargo xtask ebpf`")
        })?;
    Ok((name, values.get(name).copied().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use tracer_common::constant;

    use super::*;
    use crate::attach::object;

    fn load(operation: u8, offset: i16) -> [u8; 8] {
        let [low, high] = offset.to_le_bytes();
        [operation, 0x21, low, high, 0, 0, 0, 0]
    }

    fn moved(immediate: i32) -> [u8; 8] {
        let [a, b, c, d] = immediate.to_le_bytes();
        [MOVE, 0x01, 0, 0, a, b, c, d]
    }

    const VALUES: [(&str, u64); 3] = [("SOCK__TYPE", 534), ("OWN_TGID", 77), ("SOCK__V6_DADDR", 56)];

    fn put(instructions: &[[u8; 8]]) -> anyhow::Result<Vec<u8>> {
        let mut code = instructions.concat();
        put_into(&mut code, &VALUES.into_iter().collect())?;
        Ok(code)
    }

    #[test]
    fn marks_become_numbers() {
        let mark = |number: u16, delta| OFFSET_MARK + number as i16 * OFFSET_REACH + delta;
        let value = |number: u16| VALUE_MARK + i32::from(number);
        for (marked, expected) in [
            (load(0x69, mark(constant::SOCK__TYPE, 0)), load(0x69, 534)),
            (load(0x79, mark(constant::SOCK__V6_DADDR, 8)), load(0x79, 64)),
            (load(0x71, mark(constant::SOCK__STATE, 0)), load(0x71, 0)),
            (moved(value(constant::OWN_TGID)), moved(77)),
            // No marks.
            (load(0x79, -8), load(0x79, -8)),
            (load(0x61, OFFSET_MARK - 1), load(0x61, OFFSET_MARK - 1)),
            // A store, and numbers that are none of these.
            (load(0x7b, OFFSET_MARK), load(0x7b, OFFSET_MARK)),
            (moved(-1), moved(-1)),
            (moved(VALUE_MARK - 1), moved(VALUE_MARK - 1)),
        ] {
            assert_eq!(put(&[marked]).expect("known constants"), expected, "{marked:x?}");
        }
    }

    #[test]
    fn the_second_half_of_a_wide_load_is_no_instruction() {
        let wide = [
            [LOAD_WIDE, 1, 0, 0, 1, 0, 0, 0],
            load(0x69, OFFSET_MARK),
            load(0x69, OFFSET_MARK + constant::SOCK__TYPE as i16 * OFFSET_REACH),
        ];
        let put = put(&wide).expect("known constants");
        assert_eq!(put, [wide[0], wide[1], load(0x69, 534)].concat());
    }

    #[test]
    fn what_is_not_known_or_does_not_fit_is_refused() {
        let unknown = CONSTANTS.len() as i16;
        put(&[load(0x61, OFFSET_MARK + unknown * OFFSET_REACH)]).expect_err("no such constant");
        put(&[moved(VALUE_MARK + i32::from(unknown))]).expect_err("no such constant");
        let far = [("SOCK__TYPE", 40_000)].into_iter().collect();
        let mut code = load(0x69, OFFSET_MARK + constant::SOCK__TYPE as i16 * OFFSET_REACH);
        let why = put_into(&mut code, &far).expect_err("too far").to_string();
        assert!(why.contains("SOCK__TYPE"), "{why}");
    }

    #[test]
    fn the_object_has_marks_and_keeps_none() {
        let object = object::checked().expect("the object");
        let values: Vec<_> = CONSTANTS.iter().map(|name| (*name, 4)).collect();
        let once = put_in(object, &values).expect("known constants");
        let changed = once.iter().zip(object).filter(|(now, before)| now != before);
        assert!(changed.count() > CONSTANTS.len());
        assert_eq!(put_in(&once, &[]).expect("no constants"), once);
    }
}
