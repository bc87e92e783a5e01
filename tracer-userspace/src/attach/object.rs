//! The prebuilt BPF object of this architecture (`cargo xtask ebpf` builds it).

/// The object file.
#[cfg(target_arch = "x86_64")]
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../../tracer-ebpf/prebuilt/tracer-x86_64.bpf.o");

/// The object file.
#[cfg(target_arch = "aarch64")]
pub static BYTES: &[u8] = aya::include_bytes_aligned!("../../../tracer-ebpf/prebuilt/tracer-aarch64.bpf.o");
