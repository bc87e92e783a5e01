//! Which fields of kernel structs the programs read, and where this host has them.

use super::btf::{Btf, Error};

/// One field: the global of the programs that holds its offset (`tracer-ebpf/src/layout.rs`), where it is, its
/// size in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the global.
    pub global: &'static str,
    /// Struct.
    pub of: &'static str,
    /// Nested field names joined by dots.
    pub path: &'static str,
    /// Bytes.
    pub size: u32,
}

const fn field(global: &'static str, of: &'static str, path: &'static str, size: u32) -> Field {
    Field {
        global,
        of,
        path,
        size,
    }
}

/// Thread pointer of a thread (user-space thread-local storage).
#[cfg(target_arch = "x86_64")]
const THREAD_POINTER: &str = "thread.fsbase";
#[cfg(target_arch = "aarch64")]
const THREAD_POINTER: &str = "thread.uw.tp_value";

/// Every field that the programs read.
pub const FIELDS: &[Field] = &[
    field("SOCK__FAMILY", "sock", "__sk_common.skc_family", 2),
    field("SOCK__STATE", "sock", "__sk_common.skc_state", 1),
    field("SOCK__NUM", "sock", "__sk_common.skc_num", 2),
    field("SOCK__DPORT", "sock", "__sk_common.skc_dport", 2),
    field("SOCK__COOKIE", "sock", "__sk_common.skc_cookie", 8),
    field("SOCK__NET", "sock", "__sk_common.skc_net.net", 8),
    field("SOCK__RCV_SADDR", "sock", "__sk_common.skc_rcv_saddr", 4),
    field("SOCK__DADDR", "sock", "__sk_common.skc_daddr", 4),
    field("SOCK__V6_RCV_SADDR", "sock", "__sk_common.skc_v6_rcv_saddr", 16),
    field("SOCK__V6_DADDR", "sock", "__sk_common.skc_v6_daddr", 16),
    field("SOCK__TYPE", "sock", "sk_type", 2),
    field("SOCK__PROTOCOL", "sock", "sk_protocol", 2),
    field("SOCK__SHUTDOWN", "sock", "sk_shutdown", 1),
    field("SOCK__FLAGS", "sock", "__sk_common.skc_flags", 8),
    field("SOCK__ERR", "sock", "sk_err", 4),
    field("SOCK__SOCKET", "sock", "sk_socket", 8),
    field("SOCKET__FILE", "socket", "file", 8),
    field("NET__INUM", "net", "ns.inum", 4),
    field("TCP_SOCK__WRITE_SEQ", "tcp_sock", "write_seq", 4),
    field("TCP_SOCK__COPIED_SEQ", "tcp_sock", "copied_seq", 4),
    field("TCP_SOCK__RCV_NXT", "tcp_sock", "rcv_nxt", 4),
    field("UNIX_SOCK__PEER", "unix_sock", "peer", 8),
    field("TASK__THREAD_POINTER", "task_struct", THREAD_POINTER, 8),
];

/// Offsets of [`FIELDS`] on this host.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Layout {
    /// (name of the global, offset in bytes).
    pub offsets: Vec<(&'static str, u32)>,
}

impl Layout {
    /// Looks every field up. All that are missing are named, not just the first.
    pub fn resolve(btf: &Btf) -> Result<Self, Vec<Error>> {
        let mut offsets = Vec::with_capacity(FIELDS.len());
        let mut errors = Vec::new();
        for field in FIELDS {
            match btf.field(field.of, field.path, field.size) {
                Ok(offset) => offsets.push((field.global, offset)),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() {
            Ok(Self { offsets })
        } else {
            Err(errors)
        }
    }
}
