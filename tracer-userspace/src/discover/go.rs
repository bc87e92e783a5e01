//! Go programs: their build information.

use super::elf::Elf;
use super::tasks;
use tracer_common::RuntimeEntry;

/// How far into the data segment the build information is searched; the linker puts it at the very start.
const MAX_SEARCH: u64 = 1 << 20;
const MAX_INFO: u64 = 256 << 10;
/// `debug/buildinfo`: the blob starts with this, aligned to 16 bytes.
const MAGIC: &[u8] = b"\xff Go buildinf:";

/// What a Go executable says about itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GoBinary {
    /// `go1.26.8`.
    pub version: String,
    /// Import path of the main package.
    pub main_package: Option<String>,
    /// Version of the main module, `None` for a development build.
    pub module_version: Option<String>,
    /// Where its goroutines are found in memory, or why that is not known.
    pub tasks: Result<RuntimeEntry, String>,
    /// Where the file has the table of those who wait for semaphores.
    pub semtable: Option<u64>,
}

impl Default for GoBinary {
    fn default() -> Self {
        Self {
            version: String::new(),
            main_package: None,
            module_version: None,
            tasks: Err(String::new()),
            semtable: None,
        }
    }
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
        go.tasks = tasks::go::offsets(elf, &go.version);
        go.semtable = tasks::go::semtable(elf);
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

#[cfg(test)]
mod tests;
