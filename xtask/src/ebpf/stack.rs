//! The stack that programs take with all that they call. Kernels before 6.13 give 512 bytes to a chain of calls, each frame rounded up to 32
//! (kernel/bpf/verifier.c: `check_max_stack_depth`, `MAX_BPF_STACK`); newer ones on x86_64 give each function as much, so that
//! whoever writes programs there is not told.

use std::collections::BTreeMap;

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex};

use super::code;

const LIMIT: u64 = 512;
const ROUNDING: u64 = 32;
/// `MAX_CALL_FRAMES`.
const FRAMES: usize = 8;

/// Programs that are loaded only where programs are preempted; what they call in between makes their chains longer.
const STAND_INS: [&str; 3] = ["_second", "_last", "_meanwhile"];

/// A function: where it is, its frame in bytes, and the places that it calls.
struct Function {
    name: String,
    frame: u64,
    calls: Vec<Place>,
}

/// Section, and first byte in it.
type Place = (usize, u64);

/// Fails with the chain of calls that takes too much.
pub fn check(object: &[u8]) -> anyhow::Result<()> {
    let functions = functions(object).context("reading the BPF object")?;
    let mut problems = Vec::new();
    for (place, function) in &functions {
        if STAND_INS.iter().any(|end| function.name.ends_with(end)) {
            continue;
        }
        let (depth, path) = deepest(&functions, place, FRAMES);
        if depth > LIMIT {
            problems.push(format!("{depth} bytes: {}", path.join(" > ")));
        }
    }
    anyhow::ensure!(
        problems.is_empty(),
        "these calls take more stack than kernels before 6.13 have ({LIMIT} bytes): make frames smaller, or call one after the other\n{}",
        problems.join("\n")
    );
    Ok(())
}

fn deepest(functions: &BTreeMap<Place, Function>, place: &Place, left: usize) -> (u64, Vec<String>) {
    let (Some(function), Some(left)) = (functions.get(place), left.checked_sub(1)) else {
        return (0, Vec::new());
    };
    let below = function
        .calls
        .iter()
        .map(|callee| deepest(functions, callee, left));
    let (depth, mut path) = below.max_by_key(|(depth, _)| *depth).unwrap_or_default();
    path.insert(0, format!("{} ({})", function.name, function.frame));
    (depth + function.frame.max(1).next_multiple_of(ROUNDING), path)
}

fn functions(object: &[u8]) -> anyhow::Result<BTreeMap<Place, Function>> {
    let file = object::File::parse(object)?;
    let mut functions = BTreeMap::new();
    for code::Code {
        name,
        section: index,
        start,
        bytes,
    } in code::functions(&file)?
    {
        let section = file.section_by_index(index)?;
        let targets: BTreeMap<u64, Place> = section
            .relocations()
            .filter_map(|(at, relocation)| {
                let RelocationTarget::Symbol(target) = relocation.target() else {
                    return None;
                };
                let target = file.symbol_by_index(target).ok()?;
                Some((at, (target.section_index()?.0, target.address())))
            })
            .collect();
        let function = read(name, index, start, bytes, &targets);
        functions.insert((index.0, start), function);
    }
    Ok(functions)
}

/// Instructions of 8 bytes (Documentation/bpf/standardization/instruction-set.rst): opcode, registers, offset, immediate.
fn read(
    name: &str,
    section: SectionIndex,
    start: u64,
    code: &[u8],
    targets: &BTreeMap<u64, Place>,
) -> Function {
    const FRAME_POINTER: u8 = 10;
    const LOAD: u8 = 1;
    const STORE: u8 = 2;
    const STORE_REGISTER: u8 = 3;
    let mut function = Function {
        name: name.to_owned(),
        frame: 0,
        calls: Vec::new(),
    };
    // The register that holds the frame pointer itself since the last instruction.
    let mut copied = None;
    for (number, instruction) in code.chunks_exact(8).enumerate() {
        let &[opcode, registers, low, high, a, b, c, d] = instruction else {
            continue;
        };
        let (to, from) = (registers & 15, registers >> 4);
        let offset = i64::from(i16::from_le_bytes([low, high]));
        let immediate = i64::from(i32::from_le_bytes([a, b, c, d]));
        let mut touch =
            |offset: i64| function.frame = function.frame.max(u64::try_from(-offset).unwrap_or(0));
        let was_copied = copied.take();
        match opcode {
            0xbf if from == FRAME_POINTER => copied = Some(to),
            0x07 if was_copied == Some(to) => touch(immediate),
            0x85 if from == 1 => {
                let at = start + 8 * number as u64;
                let (section, base) = targets.get(&at).copied().unwrap_or((section.0, at));
                function
                    .calls
                    .push((section, base.wrapping_add_signed(8 * (immediate + 1))));
            }
            _ if opcode & 7 == LOAD && from == FRAME_POINTER => touch(offset),
            _ if (opcode & 7 == STORE || opcode & 7 == STORE_REGISTER) && to == FRAME_POINTER => {
                touch(offset)
            }
            _ => {}
        }
    }
    function
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_objects_fit() {
        for arch in ["x86_64", "aarch64"] {
            check(&code::committed(arch)).expect(arch);
        }
    }

    #[test]
    fn calls_and_frames_are_found() {
        let functions = functions(&code::committed("x86_64")).expect("functions");
        let find = |name: &str| functions.iter().find(|(_, function)| function.name == name);
        let (place, program) = find("sock_send_length").expect("the program");
        assert!(program.frame > 100 && program.frame <= 512, "{}", program.frame);
        let (callee, _) = find("go_waiting").expect("a function");
        assert!(program.calls.contains(callee), "{:?}", program.calls);
        let (depth, path) = deepest(&functions, place, FRAMES);
        assert!(depth > program.frame + 64 && path.len() > 2, "{depth} {path:?}");
    }

    #[test]
    fn frames_are_rounded_and_added() {
        let function = |name: &str, frame, calls: &[Place]| Function {
            name: name.to_owned(),
            frame,
            calls: calls.to_vec(),
        };
        let functions: BTreeMap<Place, Function> = [
            ((1, 0), function("program", 40, &[(2, 0), (2, 8)])),
            ((2, 0), function("small", 0, &[])),
            ((2, 8), function("large", 33, &[(2, 0)])),
        ]
        .into();
        let (depth, path) = deepest(&functions, &(1, 0), FRAMES);
        assert_eq!(
            (depth, path.join(" > ").as_str()),
            (160, "program (40) > large (33) > small (0)")
        );
    }
}
