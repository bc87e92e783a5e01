//! What libjvm says of its own structures (`gHotSpotVMStructs`, `gHotSpotVMTypes`: runtime/vmStructs.cpp).

use std::collections::HashMap;

use super::{MAX_THREADS, Thread};
use crate::discover::tasks::live::{Live, Module};

/// Most rows of libjvm's table (JDK 25 has about 1,500), and the largest row believed.
const MAX_ROWS: u64 = 16_384;
const MAX_STRIDE: u64 = 256;

/// What libjvm says of its structures, as far as it is asked for.
pub struct Table {
    rows: HashMap<(&'static str, String), Row>,
    /// `sizeof(ConstantPool)`, `sizeof(JVMFlag)`.
    pub constant_pool: u64,
    pub flag: u64,
}

/// A field: its offset in the structure, or its address if it is static.
#[derive(Clone, Copy)]
pub struct Row {
    pub offset: u64,
    pub address: u64,
}

/// Structures that are asked for.
const STRUCTURES: &[&str] = &[
    "JavaThread",
    "Thread",
    "OSThread",
    "ThreadsSMRSupport",
    "ThreadsList",
    "CollectedHeap",
    "Universe",
    "CompressedOops",
    "CompressedKlassPointers",
    "ClassLoaderDataGraph",
    "ClassLoaderData",
    "Klass",
    "InstanceKlass",
    "Symbol",
    "JVMFlag",
    "JavaFrameAnchor",
    "ThreadLocalAllocBuffer",
];

impl Table {
    pub fn read(live: &Live, libjvm: &Module) -> Option<Self> {
        let exported = |name: &str| exported(live, libjvm, name);
        let part = |name: &str| exported(&format!("gHotSpotVMStructEntry{name}Offset"));
        let stride = exported("gHotSpotVMStructEntryArrayStride").filter(|&bytes| bytes <= MAX_STRIDE)?;
        let (structure, field) = (part("TypeName")?, part("FieldName")?);
        let (offset, address) = (part("Offset")?, part("Address")?);
        let mut row = exported("gHotSpotVMStructs")?;
        let mut known: HashMap<u64, Option<&'static str>> = HashMap::new();
        let mut rows = HashMap::new();
        for _ in 0..MAX_ROWS {
            let bytes = live.read(row, usize::try_from(stride).ok()?)?;
            let word = |at: u64| {
                let bytes = bytes.get(usize::try_from(at).ok()?..)?.first_chunk()?;
                Some(u64::from_ne_bytes(*bytes))
            };
            let name = word(structure)?;
            if name == 0 {
                return Some(Self {
                    rows,
                    constant_pool: size_of_type(live, libjvm, "ConstantPool")?,
                    flag: size_of_type(live, libjvm, "JVMFlag")?,
                });
            }
            let structure = *known.entry(name).or_insert_with(|| {
                let text = text(live, name)?;
                STRUCTURES.iter().copied().find(|known| *known == text)
            });
            if let Some(structure) = structure {
                let found = Row {
                    offset: word(offset)?,
                    address: word(address)?,
                };
                rows.insert((structure, text(live, word(field)?)?), found);
            }
            row = row.checked_add(stride)?;
        }
        None
    }

    pub fn row(&self, structure: &'static str, field: &str) -> Option<Row> {
        self.rows.get(&(structure, field.to_owned())).copied()
    }

    pub fn offset(&self, structure: &'static str, field: &str) -> Option<u32> {
        u32::try_from(self.row(structure, field)?.offset).ok()
    }

    /// The Java threads that have started.
    pub fn threads(&self, live: &Live) -> Vec<Thread> {
        self.list(live).unwrap_or_default()
    }

    fn list(&self, live: &Live) -> Option<Vec<Thread>> {
        let list = live.word(self.row("ThreadsSMRSupport", "_java_thread_list")?.address)?;
        let field = |structure, name| self.row(structure, name).map(|row| row.offset);
        let count = live.half(list.checked_add(field("ThreadsList", "_length")?)?)?;
        let first = live.word(list.checked_add(field("ThreadsList", "_threads")?)?)?;
        let of_system = field("JavaThread", "_osthread").or_else(|| field("Thread", "_osthread"))?;
        let control = field("OSThread", "_pthread_id")?;
        let thread = |n: u64| {
            let address = live.word(first.checked_add(n.checked_mul(8)?)?)?;
            let system = live.word(address.checked_add(of_system)?)?;
            let control_at = system.checked_add(control)?;
            Some(Thread {
                address,
                control: live.word(control_at)?,
                control_at,
            })
        };
        Some(
            (0..u64::from(count).min(MAX_THREADS))
                .filter_map(thread)
                .collect(),
        )
    }
}

fn exported(live: &Live, libjvm: &Module, name: &str) -> Option<u64> {
    let address = libjvm.base.checked_add(libjvm.elf.dynamic_symbol(name)?)?;
    live.word(address)
}

/// The size of one of its types.
fn size_of_type(live: &Live, libjvm: &Module, wanted: &str) -> Option<u64> {
    let part = |part: &str| exported(live, libjvm, &format!("gHotSpotVMTypeEntry{part}"));
    let stride = part("ArrayStride").filter(|&bytes| bytes <= MAX_STRIDE)?;
    let (name, size) = (part("TypeNameOffset")?, part("SizeOffset")?);
    let mut row = exported(live, libjvm, "gHotSpotVMTypes")?;
    for _ in 0..MAX_ROWS {
        let called = live.word(row.checked_add(name)?)?;
        if called == 0 {
            return None;
        }
        if text(live, called)? == wanted {
            return live.word(row.checked_add(size)?);
        }
        row = row.checked_add(stride)?;
    }
    None
}

/// A C string of a few bytes.
pub fn text(live: &Live, address: u64) -> Option<String> {
    const LONGEST: usize = 64;
    let bytes = live.read(address, LONGEST)?;
    let end = bytes.iter().position(|&byte| byte == 0)?;
    String::from_utf8(bytes.get(..end)?.to_vec()).ok()
}
