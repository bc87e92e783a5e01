//! Numbers that stand in the instructions of the programs and are known when they are loaded: where this host's structs have their
//! fields, what its kernel can do.
//!
//! The compiler leaves a mark in their place: a load from [`OFFSET_MARK`] + 16 * number + n (n: bytes behind the field's first one), or a
//! move of [`VALUE_MARK`] + number. User space puts the numbers in before the kernel sees the programs
//! (`tracer-userspace/src/attach/constants.rs`). So a field costs the one instruction that loads it.

/// Calls a macro with the names of all of them, in the order of their numbers.
#[macro_export]
macro_rules! with_constants {
    ($with:ident) => {
        $with! {
            // Byte offsets of fields, named `STRUCT__FIELD` (`tracer-userspace/src/kernel/layout.rs` says which field it is).
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
            // Kinds of `struct iov_iter`.
            ITER_KIND_MASK, ITER_IOVEC, ITER_UBUF,
            // 1 if the kernel has it and the back end's programs may call it.
            HAS_SOCKET_COOKIE, HAS_UNIX_SOCK, HAS_TASK_BTF, HAS_TASK_REGISTERS,
            // 1 if stand-ins are attached.
            HAS_STAND_INS,
            // 1 if connections have places (`tracer-common/src/policy.rs`).
            HAS_PLACES,
            // The tracer's own process: its traffic makes no events.
            OWN_TGID,
            // The runtimes whose tasks are read, as `RuntimeKind::bit`.
            RECIPES,
            // Which bits of a CPU's number choose its ring: all three, or none if there is but one.
            RING_MASK,
            // Bytes waiting in a ring above which the reader is woken.
            WAKE_ABOVE,
        }
    };
}

macro_rules! number {
    ($($name:ident),+ $(,)?) => {
        #[allow(non_camel_case_types, clippy::upper_case_acronyms)]
        enum Number { $($name),+ }

        /// Their numbers.
        pub mod constant {
            $(
                #[doc = concat!("The number of `", stringify!($name), "`.")]
                pub const $name: u16 = super::Number::$name as u16;
            )+
        }

        /// Their names, by number.
        pub const CONSTANTS: &[&str] = &[$(stringify!($name)),+];
    };
}

with_constants!(number);

/// Offsets in load instructions from here on are marks. No struct of the programs' own reaches so far.
pub const OFFSET_MARK: i16 = 0x7000;
/// Bytes from the first one of a field that a mark can say.
pub const OFFSET_REACH: i16 = 16;
/// Immediate values of move instructions with this upper half are marks.
pub const VALUE_MARK: i32 = 0x7ace_0000;

const _: () = assert!(CONSTANTS.len() <= ((i16::MAX - OFFSET_MARK) / OFFSET_REACH) as usize);
