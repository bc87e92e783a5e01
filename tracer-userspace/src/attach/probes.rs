//! Probes in functions of traced processes (uprobes), where nothing cheaper tells what they tell (`tracer-ebpf/src/runtime/python/submit.rs`).
//!
//! While one is there the kernel keeps a breakpoint in that process's copy of a code page, and takes it away when the link is
//! dropped or this daemon dies. A run costs the process 0.3 to 4 microseconds.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::num::NonZeroU32;
use std::path::PathBuf;

use anyhow::Context as _;
use aya::{
    Ebpf,
    programs::{
        UProbe,
        uprobe::{UProbeLinkId, UProbeScope},
    },
};

/// The program.
const PROGRAM: &str = "python_put";

/// Processes that have probes at a time.
const MAX_PROCESSES: usize = 256;

/// The program, loaded, and where it is attached.
pub struct Probes {
    links: HashMap<u32, UProbeLinkId>,
    /// Processes that refused it.
    refused: HashSet<u32>,
}

impl Probes {
    /// Loads the program.
    pub fn load(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        program(ebpf)?
            .load()
            .with_context(|| format!("loading {PROGRAM}"))?;
        Ok(Self {
            links: HashMap::new(),
            refused: HashSet::new(),
        })
    }

    /// Attaches and detaches so that the probes are in these processes, at these addresses of theirs. Costs little where that is so
    /// already.
    pub fn place(&mut self, ebpf: &mut Ebpf, wanted: &HashMap<u32, u64>) -> anyhow::Result<()> {
        self.refused.retain(|tgid| wanted.contains_key(tgid));
        let program = program(ebpf)?;
        let gone: Vec<u32> = self
            .links
            .keys()
            .filter(|tgid| !wanted.contains_key(tgid))
            .copied()
            .collect();
        for tgid in gone {
            if let Some(link) = self.links.remove(&tgid) {
                program.detach(link).context("detaching it")?;
            }
        }
        for (&tgid, &address) in wanted {
            if self.links.len() >= MAX_PROCESSES {
                break;
            }
            if self.links.contains_key(&tgid) || self.refused.contains(&tgid) {
                continue;
            }
            match attach(program, tgid, address) {
                Ok(link) => {
                    self.links.insert(tgid, link);
                }
                Err(why) => {
                    tracing::info!("process {tgid}: who submits work to executors is not seen: {why:#}");
                    self.refused.insert(tgid);
                }
            }
        }
        Ok(())
    }
}

fn program(ebpf: &mut Ebpf) -> anyhow::Result<&mut UProbe> {
    let program = ebpf
        .program_mut(PROGRAM)
        .with_context(|| format!("the object has no program {PROGRAM}"))?;
    Ok(program.try_into()?)
}

fn attach(program: &mut UProbe, tgid: u32, address: u64) -> anyhow::Result<UProbeLinkId> {
    let maps = fs::read_to_string(format!("/proc/{tgid}/maps")).context("its mappings")?;
    let (path, offset) = place_in_file(&maps, address).context("nothing is mapped there")?;
    let path = PathBuf::from(format!("/proc/{tgid}/root{path}"));
    let scope = UProbeScope::OneProcess(NonZeroU32::new(tgid).context("no process")?);
    Ok(program.attach(offset, path, scope)?)
}

/// File and offset in it of what is mapped at an address: a line of `/proc/PID/maps` is `start-end permissions offset device inode path`.
fn place_in_file(maps: &str, address: u64) -> Option<(&str, u64)> {
    maps.lines().find_map(|line| {
        let mut fields = line.splitn(6, ' ');
        let (start, end) = fields.next()?.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(end, 16).ok()?;
        let offset = u64::from_str_radix(fields.nth(1)?, 16).ok()?;
        let path = fields.nth(2)?.trim_start();
        (start <= address && address < end && path.starts_with('/'))
            .then_some((path, address.wrapping_sub(start).checked_add(offset)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_files() {
        let maps = "\
7f00-7f10 r--p 00000000 fd:01 42                   /opt/a b/lib.so
7f10-7f20 r-xp 00000800 fd:01 42                   /opt/a b/lib.so
7f20-7f30 rw-p 00000000 00:00 0
7f30-7f40 r-xp 00000000 00:00 0                    [vdso]";
        for (address, place) in [
            (0x7f00, Some(("/opt/a b/lib.so", 0))),
            (0x7f1f, Some(("/opt/a b/lib.so", 0x80f))),
            (0x7f20, None),
            (0x7f30, None),
            (0x7f40, None),
        ] {
            assert_eq!(place_in_file(maps, address), place, "{address:x}");
        }
    }
}
