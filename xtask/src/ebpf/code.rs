//! The functions of a BPF object.

use anyhow::Context as _;
use object::{File, Object as _, ObjectSection as _, ObjectSymbol as _, SectionIndex, SymbolKind};

/// A function: its name, where it is, and its instructions of 8 bytes.
pub struct Code<'data> {
    pub name: &'data str,
    pub section: SectionIndex,
    pub start: u64,
    pub bytes: &'data [u8],
}

/// All of them.
pub fn functions<'data>(file: &File<'data>) -> anyhow::Result<Vec<Code<'data>>> {
    let mut functions = Vec::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text) {
        let (Some(section), name) = (symbol.section_index(), symbol.name()?) else {
            continue;
        };
        let bytes = file
            .section_by_index(section)?
            .data_range(symbol.address(), symbol.size())?
            .with_context(|| format!("{name} has no code"))?;
        let start = symbol.address();
        functions.push(Code {
            name,
            section,
            start,
            bytes,
        });
    }
    Ok(functions)
}

/// The object that is committed for an architecture.
#[cfg(test)]
pub fn committed(arch: &str) -> Vec<u8> {
    let path = crate::shell::root().join(format!("tracer-ebpf/prebuilt/tracer-{arch}.bpf.o"));
    std::fs::read(path).expect("the object")
}
