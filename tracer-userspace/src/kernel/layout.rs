//! Which fields of kernel structs the programs read, and where this host has them.

use super::{
    btf::{Btf, Error},
    iter,
};

/// One field: the constant of the programs that is its offset (`tracer_common::CONSTANTS`), where it is, its
/// size in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Name of the constant.
    pub constant: &'static str,
    /// Struct.
    pub of: &'static str,
    /// Nested field names joined by dots.
    pub path: &'static str,
    /// Bytes.
    pub size: u32,
}

pub(super) const fn field(constant: &'static str, of: &'static str, path: &'static str, size: u32) -> Field {
    Field {
        constant,
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

/// Every field of [`Group::Socket`].
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
    field("TASK__TGID", "task_struct", "tgid", 4),
    field("TASK__PID", "task_struct", "pid", 4),
    field("TASK__COMM", "task_struct", "comm", 16),
];

/// Every field of [`Group::Descriptor`].
const DESCRIPTOR_FIELDS: &[Field] = &[
    field("TASK__FILES", "task_struct", "files", 8),
    field("FILES__COUNT", "files_struct", "count", 4),
    field("FILES__TABLE", "files_struct", "fdt", 8),
    field("FDTABLE__SLOTS", "fdtable", "max_fds", 4),
    field("FDTABLE__FD", "fdtable", "fd", 8),
    field("FILE__INODE", "file", "f_inode", 8),
    field("FILE__PRIVATE", "file", "private_data", 8),
    field("SOCKET__SK", "socket", "sk", 8),
    field("SOCKET_ALLOC__MODE", "socket_alloc", "vfs_inode.i_mode", 2),
    field("INODE__MODE", "inode", "i_mode", 2),
];

/// Every field of [`Group::Watch`].
const WATCH_FIELDS: &[Field] = &[
    field("FILE__EPOLL", "file", "f_ep", 8),
    field("EPITEM__LINK", "epitem", "fllink", 16),
    field("EPITEM__DATA", "epitem", "event.data", 8),
];

/// Every field of [`Group::Process`].
const PROCESS_FIELDS: &[Field] = &[
    field("TASK__MM", "task_struct", "mm", 8),
    field("TASK__LEADER", "task_struct", "group_leader", 8),
    field("TASK__PARENT", "task_struct", "real_parent", 8),
    field("TASK__STARTED", "task_struct", "start_boottime", 8),
    field("TASK__SIGNAL", "task_struct", "signal", 8),
    field("SIGNAL__LIVE", "signal_struct", "live.counter", 4),
    field("MM__FILE", "mm_struct", "exe_file", 8),
    field("MM__ARG_START", "mm_struct", "arg_start", 8),
    field("MM__ARG_END", "mm_struct", "arg_end", 8),
    field("MM__ENV_START", "mm_struct", "env_start", 8),
    field("MM__ENV_END", "mm_struct", "env_end", 8),
    field("FILE__DENTRY", "file", "f_path.dentry", 8),
    field("DENTRY__NAME", "dentry", "d_name.name", 8),
];

/// Every field of [`Group::Ring`]; of iterators the one field that those of all kinds have, see `MSGHDR__OFFSET`. What a request needs
/// while it waits lies behind `async_data` from its start on since Linux 6.10: before, there was no such field in these structs.
const RING_FIELDS: &[Field] = &[
    field("IO_KIOCB__FILE", "io_kiocb", "file", 8),
    field("IO_KIOCB__OPCODE", "io_kiocb", "opcode", 1),
    field("IO_KIOCB__FLAGS", "io_kiocb", "flags", 8),
    field("IO_KIOCB__ASYNC_DATA", "io_kiocb", "async_data", 8),
    field("IO_KIOCB__WORK", "io_kiocb", "work.list", 8),
    field("IO_WORK__LIST", "io_wq_work", "list", 8),
    field("IO_WORKER__WORK", "io_worker", "cur_work", 8),
    field(
        "IO_ASYNC_MSGHDR__OFFSET",
        "io_async_msghdr",
        "msg.msg_iter.iov_offset",
        8,
    ),
    field("IO_ASYNC_RW__OFFSET", "io_async_rw", "iter.iov_offset", 8),
    field("IO_RW__ADDR", "io_rw", "addr", 8),
    field("IO_SR_MSG__BUF", "io_sr_msg", "buf", 8),
    field("TASK__FLAGS", "task_struct", "flags", 4),
    field("TASK__WORKER", "task_struct", "worker_private", 8),
];

/// Structs that are read together. A back end that a host cannot use must not fail for its own group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// Sockets: what every back end needs.
    Socket,
    /// `struct msghdr` and its `struct iov_iter`.
    Message,
    /// From a descriptor to its socket.
    Descriptor,
    /// From a socket to what its process keeps with it in epoll (fs/eventpoll.c). Of use to any back end, needed by none.
    Watch,
    /// Requests of io_uring. Of use to the back end `tracepoint`, which does without.
    Ring,
    /// What a process is: its start, its parent, its program. Of use to any back end, needed by none.
    Process,
}

impl Group {
    /// Every group.
    pub const ALL: &[Self] = &[
        Self::Socket,
        Self::Message,
        Self::Descriptor,
        Self::Watch,
        Self::Ring,
        Self::Process,
    ];

    /// What its fields are for.
    #[must_use]
    pub const fn needed_for(self) -> &'static str {
        match self {
            Self::Socket => "reading sockets",
            Self::Message => "finding the bytes of a message",
            Self::Descriptor => "finding the socket of a descriptor",
            Self::Watch => "finding the caller of a pooled connection in Rust's tokio",
            Self::Ring => "finding the bytes that io_uring moves",
            Self::Process => "naming processes that are gone before they are looked at",
        }
    }

    /// The constants of this group, with what this host has; or what is missing, all of it.
    fn resolve(self, btf: &Btf) -> Result<Vec<(&'static str, u32)>, Vec<Error>> {
        match self {
            Self::Socket => resolve(btf, FIELDS),
            Self::Message => iter::resolve(btf),
            Self::Descriptor => resolve(btf, DESCRIPTOR_FIELDS),
            Self::Watch => resolve(btf, WATCH_FIELDS),
            Self::Ring => resolve(btf, RING_FIELDS),
            Self::Process => resolve(btf, PROCESS_FIELDS),
        }
    }
}

/// What a host has of each group: constants and their values, or one line for each thing that is missing.
pub type Layouts = Vec<(Group, Result<Vec<(&'static str, u32)>, Vec<String>>)>;

/// Looks every group up.
pub fn layouts(btf: &Btf) -> Layouts {
    let text = |errors: Vec<Error>| errors.iter().map(ToString::to_string).collect();
    Group::ALL
        .iter()
        .map(|group| (*group, group.resolve(btf).map_err(text)))
        .collect()
}

/// Looks fields up. All that are missing are named, not just the first.
pub(super) fn resolve(btf: &Btf, fields: &[Field]) -> Result<Vec<(&'static str, u32)>, Vec<Error>> {
    let mut offsets = Vec::with_capacity(fields.len());
    let mut errors = Vec::new();
    for field in fields {
        match btf.field(field.of, field.path, field.size) {
            Ok(offset) => offsets.push((field.constant, offset)),
            Err(error) => errors.push(error),
        }
    }
    if errors.is_empty() {
        Ok(offsets)
    } else {
        Err(errors)
    }
}
