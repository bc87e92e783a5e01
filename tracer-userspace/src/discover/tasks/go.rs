//! Goroutines: where `g` and its fields lie.
//!
//! The offsets come from a table by Go version (the layout of `runtime.g` belongs to the toolchain, not to the program), so
//! that stripped programs are read too and no megabytes of debugging information are parsed for the others.

use tracer_common::{GoOffsets, RuntimeEntry, RuntimeKind};

use super::live::Live;
use super::{Subject, halves};
use crate::discover::elf::Elf;

const MAX_SYMBOLS: u64 = 32 << 20;

/// The recipe: the executable told it when it was read, but for where it is loaded.
pub fn find(subject: &Subject) -> Option<Result<RuntimeEntry, String>> {
    let go = subject.go?;
    Some(go.tasks.clone().map(|mut entry| {
        let semtable = go.semtable.and_then(|in_file| {
            let executable = Live::open(subject.process)?.executable()?;
            executable.base.checked_add(in_file)
        });
        entry.go.semtable = halves(semtable.unwrap_or(0));
        entry
    }))
}

/// Address of `runtime.semtable` in the file, unless it is stripped.
pub fn semtable(elf: &Elf) -> Option<u64> {
    elf.symbol("runtime.semtable", MAX_SYMBOLS)
}

/// From Go 1.26 on `sudog.elem` is a pointer and, behind it, the address that counts (maybeTraceablePtr).
const fn sudog_elem(minor: u32) -> u32 {
    if minor < 26 { 24 } else { 32 }
}

struct Row {
    minor: u32,
    goid: u32,
    parent_goid: u32,
    chan_recvq: u32,
    write_loop_chan: u32,
}

const fn row(minor: u32, goid: u32, parent_goid: u32, chan_recvq: u32, write_loop_chan: u32) -> Row {
    Row {
        minor,
        goid,
        parent_goid,
        chan_recvq,
        write_loop_chan,
    }
}

/// `goid`, `parentGoid` and `recvq` from the debugging information of programs built with two patch releases of each (1.21.0 and
/// 1.21.13, 1.22.0 and .12, 1.23.0 and .12, 1.24.0 and .10, 1.25.0 and .4, 1.26.0 and .8, 1.27.0 and .4). `write_loop_chan` for 1.21
/// to 1.25 by scanning the tops of stacks of such programs under load for channels of one interface value with a goroutine
/// waiting: the place that was hit most; for 1.26 by an experiment of its own. Unlisted releases are not guessed at.
const TABLE: &[Row] = &[
    row(21, 152, 272, 56, 216),
    row(22, 152, 272, 56, 216),
    row(23, 160, 280, 64, 216),
    row(24, 160, 280, 64, 216),
    row(25, 152, 272, 64, 216),
    row(26, 152, 280, 64, 216),
    // The place of the channel is not verified for this one.
    row(27, 152, 280, 64, 0),
];

/// `runtime.g.stack.hi`: the second word of the first field in all releases.
const STACK_HI: u32 = 8;

/// Offsets for a program built with that version.
pub fn offsets(elf: &Elf, version: &str) -> Result<RuntimeEntry, String> {
    // On other machines `g` lies in a register.
    if elf.machine() != object::elf::EM_X86_64.0 {
        return Err("goroutines are read on x86_64 only".to_owned());
    }
    let row = minor(version)
        .and_then(|minor| TABLE.iter().find(|row| row.minor == minor))
        .ok_or_else(|| format!("the layout of {version:?} is not known"))?;
    Ok(RuntimeEntry {
        kind: RuntimeKind::GO.0,
        go: GoOffsets {
            g_tls: g_tls(elf).ok_or("the program's thread-local storage has no runtime.tlsg")?,
            goid: row.goid,
            parent_goid: row.parent_goid,
            stack_hi: STACK_HI,
            write_loop_chan: row.write_loop_chan,
            chan_recvq: row.chan_recvq,
            sudog_elem: sudog_elem(row.minor),
            semtable: [0, 0],
        },
        ..RuntimeEntry::default()
    })
}

/// `go1.26.8`, `go1.26`, `go1.26rc1 X:boringcrypto`, `devel go1.27-…`: the minor release of the first.
fn minor(version: &str) -> Option<u32> {
    let digits = version.strip_prefix("go1.")?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(..end)?.parse().ok()
}

/// Where `runtime.tlsg` lies, relative to the thread pointer. Go's own linker makes it the whole thread-local segment; beside
/// the variables of C code its symbol says where.
fn g_tls(elf: &Elf) -> Option<i32> {
    let (size, align) = elf.tls().unwrap_or((8, 8));
    if size == 8 {
        return Some(-8);
    }
    let symbol = elf.symbol("runtime.tlsg", MAX_SYMBOLS)?;
    let end = size.checked_next_multiple_of(align.max(1))?;
    i32::try_from(
        i64::try_from(symbol)
            .ok()?
            .checked_sub(i64::try_from(end).ok()?)?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_toolchain_writes_them() {
        for (text, expected) in [
            ("go1.26.8", Some(26)),
            ("go1.21", Some(21)),
            ("go1.25rc1 X:boringcrypto", Some(25)),
            ("devel go1.27-abcdef", None),
            ("go2.0", None),
            ("", None),
        ] {
            assert_eq!(minor(text), expected, "{text}");
        }
    }
}
