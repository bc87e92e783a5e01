//! The kernel's type information as the loader wants it, without the loader's way to read it: that takes hundreds of millions
//! of instructions, for the identifiers of a few hooks.

use std::{ffi::CStr, thread};

use anyhow::Context as _;
use aya::{Btf, EbpfLoader, Endianness};

use crate::kernel::{self, Attach, Hook};

/// Types in which the hooks' own have the identifiers that they have in the kernel; the others are fillers without names.
pub fn of(hooks: &[Hook]) -> anyhow::Result<Btf> {
    let kernel = kernel::Btf::of_this_kernel()??;
    let mut wanted = hooks
        .iter()
        .filter(|hook| !matches!(hook.attach, Attach::Kprobe | Attach::Kretprobe)) // these have names only
        .map(|hook| {
            let id = match hook.attach {
                Attach::BtfTracepoint | Attach::OnDemand | Attach::TailCall { .. } => {
                    kernel.tracepoint(hook.target)
                }
                Attach::Fentry | Attach::Fexit | Attach::Kprobe | Attach::Kretprobe => {
                    kernel.function(hook.target)
                }
            };
            Ok((id.with_context(|| format!("no type for {}", hook.target))?, hook))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    wanted.sort_unstable_by_key(|(id, _)| *id);
    Btf::parse(&with_places(&wanted), Endianness::default()).context("types with places of their own")
}

/// Kinds of include/uapi/linux/btf.h, where they stand in `struct btf_type`.
const PTR: u32 = 2 << 24;
const TYPEDEF: u32 = 8 << 24;
const FUNC: u32 = 12 << 24;

/// Type information (Documentation/bpf/btf.rst) in which each hook's type has the given identifier, in rising order; pointers to
/// nothing before and between them.
fn with_places(wanted: &[(u32, &Hook)]) -> Vec<u8> {
    let mut types: Vec<[u32; 3]> = Vec::new();
    let mut strings = vec![0];
    for (id, hook) in wanted {
        // The first type has the identifier 1.
        let before = id.saturating_sub(1) as usize;
        if before < types.len() {
            continue; // two hooks at one place
        }
        types.resize(before, [0, PTR, 0]);
        let name = strings.len() as u32;
        let (kind, prefix) = match hook.attach {
            Attach::BtfTracepoint | Attach::OnDemand | Attach::TailCall { .. } => (TYPEDEF, "btf_trace_"),
            Attach::Fentry | Attach::Fexit | Attach::Kprobe | Attach::Kretprobe => (FUNC, ""),
        };
        strings.extend_from_slice(prefix.as_bytes());
        strings.extend_from_slice(hook.target.as_bytes());
        strings.push(0);
        types.push([name, kind, 0]);
    }
    let length = types.len() as u32 * 12;
    let mut bytes = Vec::with_capacity(24 + length as usize + strings.len());
    bytes.extend_from_slice(&0xeb9fu16.to_ne_bytes());
    bytes.extend_from_slice(&[1, 0]); // version, flags
    for word in [24, 0, length, length, strings.len() as u32] {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    for word in types.as_flattened() {
        bytes.extend_from_slice(&word.to_ne_bytes());
    }
    bytes.append(&mut strings);
    bytes
}

/// A loader that has not read the kernel's type information.
///
/// aya's reads it when it is made, even if it is then told to do without. So it is made by a thread that cannot find it:
/// one with a root directory of its own, in which there is nothing of the name. Where a thread may not have that, it costs time
/// and nothing else.
pub fn loader() -> EbpfLoader<'static> {
    const NOWHERE: &CStr = c"/proc/self/ns";
    let made = thread::Builder::new()
        .name("loader".to_owned())
        .spawn(|| {
            // SAFETY: takes a number; the thread no longer shares its root directory with the others.
            if unsafe { libc::unshare(libc::CLONE_FS) } == 0 {
                // SAFETY: the path is a C string.
                unsafe { libc::chroot(NOWHERE.as_ptr()) };
            }
            EbpfLoader::new()
        })
        .map(thread::JoinHandle::join);
    match made {
        Ok(Ok(loader)) => loader,
        _ => EbpfLoader::new(),
    }
}

#[cfg(test)]
mod tests {
    use aya_obj::btf::BtfKind;

    use super::*;

    #[test]
    fn hooks_have_the_identifiers_that_they_were_given() {
        let hook = |attach, target| Hook {
            stand_ins: &[],
            program: "program",
            attach,
            target,
        };
        let (a, b, c) = (
            hook(Attach::BtfTracepoint, "sk_data_ready"),
            hook(Attach::Fexit, "tcp_sendmsg"),
            hook(Attach::BtfTracepoint, "other"),
        );
        let bytes = with_places(&[(3, &a), (4, &b), (4, &b), (1000, &c)]);
        let types = Btf::parse(&bytes, Endianness::default()).expect("type information");
        for (name, kind, id) in [
            ("btf_trace_sk_data_ready", BtfKind::Typedef, 3),
            ("tcp_sendmsg", BtfKind::Func, 4),
            ("btf_trace_other", BtfKind::Typedef, 1000),
        ] {
            assert_eq!(types.id_by_type_name_kind(name, kind).expect(name), id);
        }
    }
}
