//! Loops that old kernels (5.10 among them) refuse: they take a jump back, not an instruction from which execution just goes on into
//! one that it came from (kernel/bpf/verifier.c: `check_cfg`, "back-edge from insn"). Where LLVM puts the end of a loop before its
//! beginning, that happens; newer kernels load it without a word.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::code;

/// Where execution goes from an instruction: to that one, by a jump or not.
type Next = Vec<(usize, bool)>;

/// Fails with the functions that have such a loop.
pub fn check(object: &[u8]) -> anyhow::Result<()> {
    let file = object::File::parse(object).context("reading the BPF object")?;
    let mut problems = Vec::new();
    for function in code::functions(&file)? {
        if let Some((from, to)) = fallen_back(&successors(function.bytes)) {
            problems.push(format!("{}: from instruction {from} to {to}", function.name));
        }
    }
    anyhow::ensure!(
        problems.is_empty(),
        "old kernels (5.10) refuse these loops, which go back without a jump: hide the loop's index from the compiler \
         (tracer-ebpf/src/opaque.rs)\n{}",
        problems.join("\n")
    );
    Ok(())
}

/// By number of 8 bytes; the second half of a wide instruction has no successors and is none.
fn successors(code: &[u8]) -> BTreeMap<usize, Next> {
    const WIDE: u8 = 0x18;
    const EXIT: u8 = 0x95;
    const CALL: u8 = 0x85;
    const JUMP: u8 = 0x05;
    let mut all = BTreeMap::new();
    let mut numbered = code.chunks_exact(8).enumerate();
    while let Some((at, instruction)) = numbered.next() {
        let opcode = instruction[0];
        let far = usize::from(opcode == WIDE);
        let offset = isize::from(i16::from_le_bytes([instruction[2], instruction[3]]));
        let target = (at + 1).wrapping_add_signed(offset);
        let is_jump = matches!(opcode & 7, 5 | 6) && opcode != CALL;
        let next = match opcode {
            EXIT => Vec::new(),
            JUMP => vec![(target, true)],
            _ if is_jump => vec![(at + 1, true), (target, true)],
            _ => vec![(at + 1 + far, false)],
        };
        all.insert(at, next);
        if far == 1 {
            numbered.next();
        }
    }
    all
}

/// The first way back to where the search came from that is no jump, in the order in which the kernel searches.
fn fallen_back(successors: &BTreeMap<usize, Next>) -> Option<(usize, usize)> {
    // Whether all that follows an instruction was seen.
    let mut done = BTreeMap::from([(0, false)]);
    let mut path = vec![(0, 0)];
    while let Some((at, tried)) = path.last_mut() {
        let next = successors.get(at).and_then(|next| next.get(*tried));
        let Some(&(next, is_jump)) = next else {
            done.insert(*at, true);
            path.pop();
            continue;
        };
        *tried += 1;
        match done.get(&next) {
            None => {
                done.insert(next, false);
                path.push((next, 0));
            }
            Some(false) if !is_jump => return Some((*at, next)),
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: [u8; 8] = [0x07, 1, 0, 0, 1, 0, 0, 0];
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];

    /// `goto` and `if r1 == 0 goto`, so many instructions farther.
    fn goto(offset: i16) -> [u8; 8] {
        let [low, high] = offset.to_le_bytes();
        [0x05, 0, low, high, 0, 0, 0, 0]
    }

    fn if_zero(offset: i16) -> [u8; 8] {
        let [low, high] = offset.to_le_bytes();
        [0x15, 1, low, high, 0, 0, 0, 0]
    }

    #[test]
    fn only_what_goes_back_without_a_jump_is_refused() {
        let wide = [0x18, 1, 0, 0, 0, 0, 0, 0];
        let table = [
            ("no loop", vec![ADD, EXIT], None),
            ("a jump back", vec![ADD, if_zero(-2), EXIT], None),
            (
                "the end before the beginning",
                vec![goto(1), ADD, if_zero(-2), EXIT],
                Some((1, 2)),
            ),
            (
                "the same, by a jump",
                vec![goto(2), ADD, goto(0), if_zero(-3), EXIT],
                None,
            ),
            (
                "a constant that looks like a jump",
                vec![wide, goto(-2), EXIT],
                None,
            ),
        ];
        for (case, code, expected) in table {
            assert_eq!(fallen_back(&successors(code.as_flattened())), expected, "{case}");
        }
    }

    #[test]
    fn the_committed_objects_have_none() {
        for arch in ["x86_64", "aarch64"] {
            check(&code::committed(arch)).expect(arch);
        }
    }
}
