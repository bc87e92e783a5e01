//! Go programs: their build information, and where their goroutines are found in memory.
//!
//! The offsets come from a table by Go version (the layout of `runtime.g` belongs to the toolchain, not to the program), so
//! that stripped programs are read too and no megabytes of debugging information are parsed for the others.

use super::elf::Elf;
use tracer_common::{GoOffsets, RuntimeEntry, RuntimeKind};

/// How far into the data segment the build information is searched; the linker puts it at the very start.
const MAX_SEARCH: u64 = 1 << 20;
const MAX_INFO: u64 = 256 << 10;
const MAX_SYMBOLS: u64 = 32 << 20;
/// `debug/buildinfo`: the blob starts with this, aligned to 16 bytes.
const MAGIC: &[u8] = b"\xff Go buildinf:";

/// What a Go executable says about itself.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct GoBinary {
    /// `go1.26.8`.
    pub version: String,
    /// Import path of the main package.
    pub main_package: Option<String>,
    /// Version of the main module, `None` for a development build.
    pub module_version: Option<String>,
    /// Offsets for the kernel side, `None` where they are not known for this version and machine.
    pub runtime: Option<RuntimeEntry>,
}

impl GoBinary {
    /// Reads the build information. `None` if this is no Go program.
    #[must_use]
    pub fn read(elf: &Elf) -> Option<Self> {
        let blob = elf
            .section(".go.buildinfo", MAX_INFO)
            .or_else(|| elf.writable_segment(MAX_SEARCH));
        let mut go = match blob.as_deref().and_then(parse) {
            Some(go) => go,
            None if elf.has_section(".note.go.buildid") || elf.has_section(".gopclntab") => Self::default(),
            None => return None,
        };
        go.runtime = runtime(elf, &go.version);
        Some(go)
    }
}

/// Go 1.18 and later (`flagsVersionInl`): at 32, the version and the module information, each with its length (varint).
fn parse(blob: &[u8]) -> Option<GoBinary> {
    let start = memchr::memmem::find(blob, MAGIC)?;
    let blob = blob.get(start..)?;
    if blob.get(15)? & 2 == 0 {
        return Some(GoBinary::default());
    }
    let (version, rest) = text(blob.get(32..)?)?;
    let mut go = GoBinary {
        version: String::from_utf8_lossy(version).into_owned(),
        ..GoBinary::default()
    };
    // The module information stands between two 16-byte marks.
    let info = text(rest)
        .and_then(|(info, _)| info.get(16..info.len().checked_sub(16)?))
        .unwrap_or_default();
    for line in String::from_utf8_lossy(info).lines() {
        let mut fields = line.split('\t');
        match (fields.next(), fields.next(), fields.next()) {
            (Some("path"), Some(path), _) => go.main_package = Some(path.to_owned()),
            (Some("mod"), Some(_), Some(version)) if version.starts_with('v') => {
                go.module_version = Some(version.to_owned());
            }
            _ => {}
        }
    }
    Some(go)
}

fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut len: usize = 0;
    for (at, &byte) in bytes.iter().enumerate().take(4) {
        len |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return bytes.get(at.checked_add(1)?..)?.split_at_checked(len);
        }
    }
    None
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

fn runtime(elf: &Elf, version: &str) -> Option<RuntimeEntry> {
    // On other machines `g` lives in a register.
    if elf.machine() != object::elf::EM_X86_64.0 {
        return None;
    }
    let minor = minor(version)?;
    let row = TABLE.iter().find(|row| row.minor == minor)?;
    Some(RuntimeEntry {
        kind: RuntimeKind::GO.0,
        go: GoOffsets {
            g_tls: g_tls(elf)?,
            goid: row.goid,
            parent_goid: row.parent_goid,
            stack_hi: STACK_HI,
            write_loop_chan: row.write_loop_chan,
            chan_recvq: row.chan_recvq,
        },
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
mod tests;
