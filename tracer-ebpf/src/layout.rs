//! Where fields lie in this host's kernel structs.
//!
//! Each global is named `STRUCT__FIELD` and holds a byte offset; `tracer-userspace/src/kernel/layout.rs`
//! has the row of the same name that says which field it is. Every one that a program reads is set before it is loaded.

use aya_ebpf::Global;

macro_rules! offsets {
    ($($name:ident),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            pub static $name: Global<u32> = Global::new(0);
        )+
    };
}

offsets! {
    SOCK__FAMILY, SOCK__STATE, SOCK__NUM, SOCK__DPORT, SOCK__COOKIE, SOCK__NET,
    SOCK__RCV_SADDR, SOCK__DADDR, SOCK__V6_RCV_SADDR, SOCK__V6_DADDR,
    SOCK__TYPE, SOCK__PROTOCOL, SOCK__SHUTDOWN, SOCK__FLAGS, SOCK__ERR, SOCK__SOCKET,
    SOCKET__FILE, NET__INUM, TCP_SOCK__WRITE_SEQ, TCP_SOCK__COPIED_SEQ, TCP_SOCK__RCV_NXT, UNIX_SOCK__PEER,
    TASK__THREAD_POINTER, TASK__TGID, TASK__PID, TASK__COMM,
    TASK__FILES, FILES__COUNT, FILES__TABLE, FDTABLE__SLOTS, FDTABLE__FD, FILE__INODE, FILE__PRIVATE,
    SOCKET_ALLOC__MODE, INODE__MODE,
    TASK__MM, TASK__LEADER, TASK__PARENT, TASK__STARTED, TASK__SIGNAL, SIGNAL__LIVE, MM__FILE, MM__ARG_START, MM__ARG_END,
    MM__ENV_START, MM__ENV_END, FILE__DENTRY, DENTRY__NAME,
    FILE__EPOLL, EPITEM__LINK, EPITEM__DATA,
    SOCKET__SK, MSGHDR__KIND, MSGHDR__OFFSET, MSGHDR__SEGMENTS, MSGHDR__VECTORS, MSGHDR__BUFFER,
    IO_KIOCB__FILE, IO_KIOCB__OPCODE, IO_KIOCB__FLAGS, IO_KIOCB__ASYNC_DATA, IO_KIOCB__WORK, IO_WORK__LIST, IO_WORKER__WORK,
    IO_ASYNC_MSGHDR__OFFSET, IO_ASYNC_RW__OFFSET, IO_RW__ADDR, IO_SR_MSG__BUF, TASK__FLAGS, TASK__WORKER,
    ITER_KIND_MASK, ITER_IOVEC, ITER_UBUF,
}
