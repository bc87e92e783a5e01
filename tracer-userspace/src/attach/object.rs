//! The prebuilt BPF object of this architecture (`cargo xtask ebpf` builds it).

use anyhow::Context as _;
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};
use tracer_common::ABI_VERSION;

/// The object file.
#[cfg(target_arch = "x86_64")]
static BYTES: &[u8] = aya::include_bytes_aligned!("../../../tracer-ebpf/prebuilt/tracer-x86_64.bpf.o");

/// The object file.
#[cfg(target_arch = "aarch64")]
static BYTES: &[u8] = aya::include_bytes_aligned!("../../../tracer-ebpf/prebuilt/tracer-aarch64.bpf.o");

/// The object file, unless it was built with other structs than this daemon.
pub fn checked() -> anyhow::Result<&'static [u8]> {
    let built_with = abi_version(BYTES).context("reading the BPF object")?;
    check(built_with)?;
    Ok(BYTES)
}

fn check(built_with: u32) -> anyhow::Result<()> {
    anyhow::ensure!(
        built_with == ABI_VERSION,
        "the BPF object has version {built_with} of the structs that it shares with the daemon, the daemon has version \
         {ABI_VERSION}: rebuild the object with `cargo xtask ebpf`, then the daemon"
    );
    Ok(())
}

/// What the global `ABI_VERSION` of an object holds.
fn abi_version(bytes: &[u8]) -> anyhow::Result<u32> {
    let file = object::File::parse(bytes)?;
    let symbol = file
        .symbols()
        .find(|symbol| symbol.name() == Ok("ABI_VERSION"))
        .context("it has no global ABI_VERSION")?;
    let section = symbol.section_index().context("ABI_VERSION has no value")?;
    let value = file
        .section_by_index(section)?
        .data_range(symbol.address(), 4)?
        .and_then(|value| value.try_into().ok())
        .context("ABI_VERSION has no value")?;
    Ok(if file.is_little_endian() {
        u32::from_le_bytes(value)
    } else {
        u32::from_be_bytes(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prebuilt_object_has_the_structs_of_the_daemon() {
        assert_eq!(abi_version(BYTES).expect("a version"), ABI_VERSION);
        checked().expect("the right version");
    }

    #[test]
    fn another_version_is_refused() {
        let why = check(ABI_VERSION + 1).expect_err("another version").to_string();
        assert!(why.contains("`cargo xtask ebpf`"), "{why}");
    }

    #[test]
    fn the_version_is_that_of_the_object() {
        let mut bytes = BYTES.to_vec();
        let file = object::File::parse(BYTES).expect("an object");
        let symbol = file
            .symbols()
            .find(|symbol| symbol.name() == Ok("ABI_VERSION"))
            .expect("the global");
        let section = file
            .section_by_index(symbol.section_index().expect("its section"))
            .expect("its section");
        let (start, _) = section.file_range().expect("bytes in the file");
        let at = usize::try_from(start + symbol.address()).expect("an offset");
        bytes[at..at + 4].copy_from_slice(&77u32.to_le_bytes());
        assert_eq!(abi_version(&bytes).expect("a version"), 77);
    }

    #[test]
    fn what_is_no_object_of_ours_has_no_version() {
        for bytes in [&b""[..], b"\x7fELF", b"no object at all", BYTES.split_at(100).0] {
            abi_version(bytes).expect_err("no version");
        }
    }
}
