//! The system calls that move bytes: which one a thread is in, and its arguments, from the registers that it saved on entry.
//!
//! A call's kind comes from a table by its number; 32-bit programs on a 64-bit kernel have a table of their own, arguments in
//! other registers, and smaller structs.

use crate::{
    buffers::{Buffers, Vectors, read_user},
    registers::Registers,
};

/// What a system call does with sockets.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Kind(pub u8);

impl Kind {
    /// Nothing that concerns us.
    pub const NONE: Self = Self(0);
    /// `(fd, buffer, size)`, and flags for the calls that have them.
    pub const READ: Self = Self(1);
    pub const WRITE: Self = Self(2);
    pub const RECVFROM: Self = Self(3);
    pub const SENDTO: Self = Self(4);
    /// `(fd, vectors, count)`; preadv2 and pwritev2 too: a socket has no offset.
    pub const READV: Self = Self(5);
    pub const WRITEV: Self = Self(6);
    /// `(fd, message, flags)`.
    pub const RECVMSG: Self = Self(7);
    pub const SENDMSG: Self = Self(8);
    /// `(fd, messages, count, flags)`.
    pub const RECVMMSG: Self = Self(9);
    pub const SENDMMSG: Self = Self(10);
    /// `(to, from, ...)`.
    pub const SENDFILE: Self = Self(11);
    /// `(from, offset, to, ...)`.
    pub const SPLICE: Self = Self(12);
    /// `(fd, ...)`.
    pub const CONNECT: Self = Self(13);
    /// `(domain, type, protocol, descriptors)`.
    pub const SOCKETPAIR: Self = Self(14);
    /// `(which, arguments)` of 32-bit programs on x86: most C libraries know no other way.
    const SOCKETCALL: Self = Self(15);

    /// Whether bytes come in by it. Not for splice, which may do either.
    #[inline(always)]
    pub fn receives(self) -> bool {
        matches!(
            self,
            Self::READ | Self::RECVFROM | Self::READV | Self::RECVMSG | Self::RECVMMSG
        )
    }

    /// Whether it moves several messages.
    #[inline(always)]
    pub fn is_many(self) -> bool {
        matches!(self, Self::RECVMMSG | Self::SENDMMSG)
    }
}

/// Numbers of system calls below this; what moves bytes over sockets has been among them so far.
const NUMBERS: usize = 512;

const fn table(rows: &[(usize, Kind)]) -> [u8; NUMBERS] {
    let mut table = [0; NUMBERS];
    let mut at = 0;
    while at < rows.len() {
        table[rows[at].0] = rows[at].1.0;
        at += 1;
    }
    table
}

/// arch/x86/entry/syscalls/syscall_64.tbl.
#[cfg(bpf_target_arch = "x86_64")]
#[unsafe(no_mangle)]
static KINDS: [u8; NUMBERS] = table(&[
    (0, Kind::READ),
    (1, Kind::WRITE),
    (19, Kind::READV),
    (20, Kind::WRITEV),
    (40, Kind::SENDFILE),
    (42, Kind::CONNECT),
    (44, Kind::SENDTO),
    (45, Kind::RECVFROM),
    (46, Kind::SENDMSG),
    (47, Kind::RECVMSG),
    (53, Kind::SOCKETPAIR),
    (275, Kind::SPLICE),
    (299, Kind::RECVMMSG),
    (307, Kind::SENDMMSG),
    (327, Kind::READV),  // preadv2
    (328, Kind::WRITEV), // pwritev2
]);

/// include/uapi/asm-generic/unistd.h.
#[cfg(bpf_target_arch = "aarch64")]
#[unsafe(no_mangle)]
static KINDS: [u8; NUMBERS] = table(&[
    (63, Kind::READ),
    (64, Kind::WRITE),
    (65, Kind::READV),
    (66, Kind::WRITEV),
    (71, Kind::SENDFILE),
    (76, Kind::SPLICE),
    (199, Kind::SOCKETPAIR),
    (203, Kind::CONNECT),
    (206, Kind::SENDTO),
    (207, Kind::RECVFROM),
    (211, Kind::SENDMSG),
    (212, Kind::RECVMSG),
    (243, Kind::RECVMMSG),
    (269, Kind::SENDMMSG),
    (286, Kind::READV),  // preadv2
    (287, Kind::WRITEV), // pwritev2
]);

/// arch/x86/entry/syscalls/syscall_32.tbl.
#[cfg(bpf_target_arch = "x86_64")]
#[unsafe(no_mangle)]
static KINDS_32: [u8; NUMBERS] = table(&[
    (3, Kind::READ),
    (4, Kind::WRITE),
    (102, Kind::SOCKETCALL),
    (145, Kind::READV),
    (146, Kind::WRITEV),
    (187, Kind::SENDFILE),
    (239, Kind::SENDFILE), // sendfile64
    (313, Kind::SPLICE),
    (337, Kind::RECVMMSG),
    (345, Kind::SENDMMSG),
    (360, Kind::SOCKETPAIR),
    (362, Kind::CONNECT),
    (369, Kind::SENDTO),
    (370, Kind::SENDMSG),
    (371, Kind::RECVFROM),
    (372, Kind::RECVMSG),
    (378, Kind::READV),    // preadv2
    (379, Kind::WRITEV),   // pwritev2
    (417, Kind::RECVMMSG), // recvmmsg_time64
]);

/// arch/arm/tools/syscall.tbl.
#[cfg(bpf_target_arch = "aarch64")]
#[unsafe(no_mangle)]
static KINDS_32: [u8; NUMBERS] = table(&[
    (3, Kind::READ),
    (4, Kind::WRITE),
    (145, Kind::READV),
    (146, Kind::WRITEV),
    (187, Kind::SENDFILE),
    (239, Kind::SENDFILE), // sendfile64
    (283, Kind::CONNECT),
    (288, Kind::SOCKETPAIR),
    (289, Kind::SENDTO), // send
    (290, Kind::SENDTO),
    (291, Kind::RECVFROM), // recv
    (292, Kind::RECVFROM),
    (296, Kind::SENDMSG),
    (297, Kind::RECVMSG),
    (340, Kind::SPLICE),
    (365, Kind::RECVMMSG),
    (374, Kind::SENDMMSG),
    (392, Kind::READV),    // preadv2
    (393, Kind::WRITEV),   // pwritev2
    (417, Kind::RECVMMSG), // recvmmsg_time64
]);

/// include/uapi/linux/net.h: `SYS_CONNECT` ...
const SOCKETCALLS: [(u64, Kind); 10] = [
    (3, Kind::CONNECT),
    (8, Kind::SOCKETPAIR),
    (9, Kind::SENDTO),    // send
    (10, Kind::RECVFROM), // recv
    (11, Kind::SENDTO),
    (12, Kind::RECVFROM),
    (16, Kind::SENDMSG),
    (17, Kind::RECVMSG),
    (19, Kind::RECVMMSG),
    (20, Kind::SENDMMSG),
];

/// A system call that concerns sockets.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Call {
    pub kind: Kind,
    /// Its first five arguments.
    pub arguments: [u64; 5],
    /// Whether a 32-bit program made it.
    narrow: bool,
}

impl Call {
    /// The call that these registers tell of, if it concerns sockets.
    #[inline(always)]
    pub fn of(registers: Registers) -> Option<Self> {
        if registers.are_narrow() {
            return Self::narrow(registers);
        }
        let kind = look_up(&KINDS, registers.number())?;
        let arguments = [
            registers.argument::<0>(),
            registers.argument::<1>(),
            registers.argument::<2>(),
            registers.argument::<3>(),
            registers.argument::<4>(),
        ];
        Some(Self {
            kind,
            arguments,
            narrow: false,
        })
    }

    #[inline(always)]
    fn narrow(registers: Registers) -> Option<Self> {
        let mut kind = look_up(&KINDS_32, registers.number())?;
        let mut arguments = [
            registers.narrow_argument::<0>(),
            registers.narrow_argument::<1>(),
            registers.narrow_argument::<2>(),
            registers.narrow_argument::<3>(),
            registers.narrow_argument::<4>(),
        ];
        if kind == Kind::SOCKETCALL {
            let which = arguments[0];
            let words = read_user::<[u32; 5]>(arguments[1])?;
            arguments = words.map(u64::from);
            kind = SOCKETCALLS.iter().find(|(number, _)| *number == which)?.1;
        }
        Some(Self {
            kind,
            arguments,
            narrow: true,
        })
    }

    /// `MSG_*`, 0 for calls that have none.
    #[inline(always)]
    pub fn flags(&self) -> u32 {
        match self.kind {
            Kind::RECVFROM | Kind::SENDTO | Kind::RECVMMSG | Kind::SENDMMSG => self.arguments[3] as u32,
            Kind::RECVMSG | Kind::SENDMSG => self.arguments[2] as u32,
            _ => 0,
        }
    }

    /// Where its bytes lie; those of message `index` where it moves several.
    #[inline(always)]
    pub fn buffers(&self, index: u64) -> Buffers {
        let [_, second, third, ..] = self.arguments;
        if second == 0 {
            // Kernel workers have empty registers (number 0 means `read`).
            return Buffers::Unavailable;
        }
        match self.kind {
            Kind::READ | Kind::WRITE | Kind::SENDTO | Kind::RECVFROM => Buffers::One { base: second },
            Kind::READV | Kind::WRITEV => Buffers::Many(Vectors::of_process(second, third, self.narrow)),
            Kind::SENDMSG | Kind::RECVMSG => self.message(second),
            Kind::SENDMMSG | Kind::RECVMMSG => self.message(self.entry(index)),
            _ => Buffers::Unavailable,
        }
    }

    /// Whether it reads no bytes: its result says nothing of the peer's end.
    #[inline(always)]
    pub fn asks_for_nothing(&self) -> bool {
        matches!(self.kind, Kind::READ | Kind::RECVFROM) && self.arguments[2] == 0
    }

    /// Messages that the program offered.
    #[inline(always)]
    pub fn messages(&self) -> u64 {
        u64::from(self.arguments[2] as u32)
    }

    /// Bytes that the kernel says it moved for message `index` (`msg_len`), once it has.
    #[inline(always)]
    pub fn message_bytes(&self, index: u64) -> Option<u32> {
        let header = if self.narrow { 28 } else { 56 };
        read_user(self.entry(index).wrapping_add(header))
    }

    /// Address of a `struct mmsghdr` or `struct compat_mmsghdr` (include/linux/socket.h, include/net/compat.h): a message's header,
    /// its length, and padding.
    #[inline(always)]
    fn entry(&self, index: u64) -> u64 {
        let size = if self.narrow { 32 } else { 64 };
        self.arguments[1].wrapping_add(index * size)
    }

    /// The vectors of a `struct user_msghdr` or `struct compat_msghdr`.
    #[inline(always)]
    fn message(&self, address: u64) -> Buffers {
        let vectors = if self.narrow {
            read_user::<[u32; 2]>(address.wrapping_add(8))
                .map(|[first, count]| (u64::from(first), u64::from(count)))
        } else {
            read_user::<[u64; 2]>(address.wrapping_add(16)).map(|[first, count]| (first, count))
        };
        match vectors {
            Some((first, count)) => Buffers::Many(Vectors::of_process(first, count, self.narrow)),
            None => Buffers::Unavailable,
        }
    }
}

#[inline(always)]
fn look_up(table: &'static [u8; NUMBERS], number: u64) -> Option<Kind> {
    if number >= NUMBERS as u64 {
        return None;
    }
    // SAFETY: below the table's length.
    let entry = unsafe { table.as_ptr().add(number as usize) };
    // SAFETY: as above. Volatile, or the compiler turns the table into a tree of comparisons.
    let kind = Kind(unsafe { core::ptr::read_volatile(entry) });
    (kind != Kind::NONE).then_some(kind)
}
