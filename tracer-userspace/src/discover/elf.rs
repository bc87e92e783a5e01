//! The few facts of an ELF file that naming and language need, with bounded reads: a binary of a gigabyte costs what a
//! small one does, and one that lies about its sizes costs nothing. 64-bit little-endian files only.

use object::LittleEndian as LE;
use object::elf::{
    FileHeader64, PF_W, PT_LOAD, PT_TLS, ProgramHeader64, SHF_COMPRESSED, SHN_UNDEF, SHT_NOBITS,
    SectionHeader64, Sym64,
};
use object::pod::{from_bytes, slice_from_bytes};
use std::fs::File;
use std::os::unix::fs::FileExt;

const MAX_PROGRAM_HEADERS: usize = 256;
const MAX_SECTIONS: usize = 4_096;
const MAX_NAMES: u64 = 1 << 20;
const MAX_DYNAMIC: u64 = 64 << 20;
const ENDIAN: LE = LE;

/// An open ELF file with its tables read.
pub struct Elf {
    file: File,
    machine: u16,
    segments: Vec<ProgramHeader64<LE>>,
    sections: Vec<SectionHeader64<LE>>,
    names: Vec<u8>,
}

impl Elf {
    /// Reads the tables. `None` if this is no ELF file that we read.
    #[must_use]
    pub fn open(file: File) -> Option<Self> {
        let head = read_at(&file, 0, size_of::<FileHeader64<LE>>())?;
        let (header, _) = from_bytes::<FileHeader64<LE>>(&head).ok()?;
        // Class 2: 64 bits; data 1: little-endian (ELF specification, e_ident).
        if head.get(..6)? != b"\x7fELF\x02\x01" {
            return None;
        }
        let count = usize::from(header.e_phnum.get(ENDIAN)).min(MAX_PROGRAM_HEADERS);
        let bytes = read_at(
            &file,
            header.e_phoff.get(ENDIAN),
            count.checked_mul(size_of::<ProgramHeader64<LE>>())?,
        )?;
        let segments = slice_from_bytes::<ProgramHeader64<LE>>(&bytes, count)
            .ok()?
            .0
            .to_vec();
        let count = usize::from(header.e_shnum.get(ENDIAN)).min(MAX_SECTIONS);
        let bytes = read_at(
            &file,
            header.e_shoff.get(ENDIAN),
            count.checked_mul(size_of::<SectionHeader64<LE>>())?,
        );
        let sections = bytes
            .and_then(|b| {
                Some(
                    slice_from_bytes::<SectionHeader64<LE>>(&b, count)
                        .ok()?
                        .0
                        .to_vec(),
                )
            })
            .unwrap_or_default();
        let machine = header.e_machine.get(ENDIAN).0;
        let names = usize::from(header.e_shstrndx.get(ENDIAN).0);
        let mut elf = Self {
            file,
            machine,
            segments,
            sections,
            names: Vec::new(),
        };
        elf.names = elf
            .sections
            .get(names)
            .and_then(|s| elf.contents(s, MAX_NAMES))
            .unwrap_or_default();
        Some(elf)
    }

    /// `e_machine`.
    #[must_use]
    pub fn machine(&self) -> u16 {
        self.machine
    }

    /// Whether there is a section of this name.
    #[must_use]
    pub fn has_section(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// The first `limit` bytes of a section, as they lie in the file.
    #[must_use]
    pub fn section(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        self.contents(self.find(name)?, limit)
    }

    /// A whole debugging section, decompressed; `None` if it is missing or larger than `limit`.
    #[must_use]
    pub fn debug_section(&self, name: &str, limit: u64) -> Option<Vec<u8>> {
        let section = self.find(name)?;
        if section.sh_size.get(ENDIAN) > limit {
            return None;
        }
        let bytes = self.contents(section, limit)?;
        if section.sh_flags.get(ENDIAN).0 & SHF_COMPRESSED.0 == 0 {
            return Some(bytes);
        }
        // Elf64_Chdr: type (1 = zlib), reserved, size, alignment.
        let body = bytes.get(24..)?;
        if bytes.first_chunk::<4>().map(|t| u32::from_le_bytes(*t)) != Some(1) {
            return None;
        }
        let size = u64::from_le_bytes(*bytes.get(8..)?.first_chunk::<8>()?);
        if size > limit {
            return None;
        }
        let mut out = Vec::new();
        let decoder = flate2::read::ZlibDecoder::new(body);
        std::io::Read::read_to_end(&mut std::io::Read::take(decoder, limit), &mut out).ok()?;
        Some(out)
    }

    /// The first `limit` bytes of the first writable segment (where Go puts its build information).
    #[must_use]
    pub fn writable_segment(&self, limit: u64) -> Option<Vec<u8>> {
        let segment = self
            .segments
            .iter()
            .find(|s| s.p_type.get(ENDIAN) == PT_LOAD && s.p_flags.get(ENDIAN).0 & PF_W.0 != 0)?;
        let len = segment.p_filesz.get(ENDIAN).min(limit);
        read_at(
            &self.file,
            segment.p_offset.get(ENDIAN),
            usize::try_from(len).ok()?,
        )
    }

    /// Size in memory and alignment of the thread-local segment.
    #[must_use]
    pub fn tls(&self) -> Option<(u64, u64)> {
        let segment = self.segments.iter().find(|s| s.p_type.get(ENDIAN) == PT_TLS)?;
        Some((segment.p_memsz.get(ENDIAN), segment.p_align.get(ENDIAN)))
    }

    /// The address that a place in the file has before the file is moved to its base (page alignment taken off), if a segment
    /// is loaded from there.
    #[must_use]
    pub fn address_of(&self, offset: u64) -> Option<u64> {
        const PAGE: u64 = 4096;
        self.segments
            .iter()
            .filter(|s| s.p_type.get(ENDIAN) == PT_LOAD)
            .find_map(|s| {
                let (from, at) = (s.p_offset.get(ENDIAN), s.p_vaddr.get(ENDIAN));
                let first = from - from % PAGE;
                let len = s.p_filesz.get(ENDIAN).checked_add(from % PAGE)?;
                let inside = offset.checked_sub(first)?;
                (inside < len.max(1)).then(|| (at - at % PAGE).checked_add(inside))?
            })
    }

    /// Value of a symbol of `.dynsym`: what the file exports.
    #[must_use]
    pub fn dynamic_symbol(&self, name: &str) -> Option<u64> {
        self.symbol_of((".dynsym", ".dynstr"), name, MAX_DYNAMIC)
    }

    /// Values of several of them.
    #[must_use]
    pub fn dynamic_symbols<const N: usize>(&self, names: [&str; N]) -> [Option<u64>; N] {
        names.map(|name| self.dynamic_symbol(name))
    }

    /// Value of a symbol of `.symtab`, if the table is smaller than `limit` bytes.
    #[must_use]
    pub fn symbol(&self, name: &str, limit: u64) -> Option<u64> {
        self.symbol_of((".symtab", ".strtab"), name, limit)
    }

    /// Value of the first symbol of `.symtab` whose name `is_it` accepts, if the table is smaller than `limit` bytes.
    #[must_use]
    pub fn symbol_by(&self, is_it: impl Fn(&str) -> bool, limit: u64) -> Option<u64> {
        self.symbol_where((".symtab", ".strtab"), limit, |text| {
            let end = memchr::memchr(0, text).unwrap_or(0);
            text.get(..end)
                .and_then(|name| std::str::from_utf8(name).ok())
                .is_some_and(&is_it)
        })
    }

    fn symbol_of(&self, tables: (&str, &str), name: &str, limit: u64) -> Option<u64> {
        self.symbol_where(tables, limit, |text| is_text(text, name))
    }

    /// Value of the first symbol that is defined here and whose name, with what follows it in the table of names, `is_it` accepts.
    fn symbol_where(
        &self,
        (symbols, strings): (&str, &str),
        limit: u64,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Option<u64> {
        let (symbols, strings) = (self.find(symbols)?, self.find(strings)?);
        if symbols.sh_size.get(ENDIAN) > limit || strings.sh_size.get(ENDIAN) > limit {
            return None;
        }
        let strings = self.contents(strings, limit)?;
        let bytes = self.contents(symbols, limit)?;
        let count = bytes.len() / size_of::<Sym64<LE>>();
        let (symbols, _) = slice_from_bytes::<Sym64<LE>>(&bytes, count).ok()?;
        symbols
            .iter()
            // An import has a name too, but no place.
            .filter(|s| s.st_shndx.get(ENDIAN) != SHN_UNDEF)
            .find(|s| is_it(strings.get(s.st_name.get(ENDIAN) as usize..).unwrap_or_default()))
            .map(|s| s.st_value.get(ENDIAN))
    }

    fn find(&self, name: &str) -> Option<&SectionHeader64<LE>> {
        self.sections.iter().find(|section| {
            let text = self.names.get(section.sh_name.get(ENDIAN) as usize..);
            is_text(text.unwrap_or_default(), name)
        })
    }

    fn contents(&self, section: &SectionHeader64<LE>, limit: u64) -> Option<Vec<u8>> {
        if section.sh_type.get(ENDIAN) == SHT_NOBITS {
            return None;
        }
        let len = section.sh_size.get(ENDIAN).min(limit);
        read_at(
            &self.file,
            section.sh_offset.get(ENDIAN),
            usize::try_from(len).ok()?,
        )
    }
}

/// Whether a string table has that text there.
fn is_text(table: &[u8], text: &str) -> bool {
    table
        .strip_prefix(text.as_bytes())
        .is_some_and(|rest| rest.first() == Some(&0))
}

/// Reads exactly `len` bytes, which the file must have.
fn read_at(file: &File, offset: u64, len: usize) -> Option<Vec<u8>> {
    let end = offset.checked_add(len as u64)?;
    if end > file.metadata().ok()?.len() {
        return None;
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset).ok()?;
    Some(bytes)
}
