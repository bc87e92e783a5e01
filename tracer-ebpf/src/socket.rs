//! Identity of a socket, read from the socket itself at each event.

use core::marker::PhantomData;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock, bpf_skc_to_unix_sock};
use tracer_common::{EventHeader, Family};

use crate::{
    access::{Access, Untyped, load},
    identity,
    layout::{self, Constant},
};

/// `SOCK_STREAM` (include/linux/net.h: enum sock_type; the same on x86_64 and aarch64).
const SOCK_STREAM: u16 = 1;
/// `SOCK_DGRAM`.
const SOCK_DGRAM: u16 = 2;
/// `SOCK_SEQPACKET`.
const SOCK_SEQPACKET: u16 = 5;
/// `RCV_SHUTDOWN` (include/net/sock.h).
const RCV_SHUTDOWN: u8 = 1;
/// `IPPROTO_TCP`.
const IPPROTO_TCP: u16 = 6;
/// `IPPROTO_UDP`.
const IPPROTO_UDP: u16 = 17;

/// `1 << SOCK_DONE` (include/net/sock.h: enum sock_flags): the peer's FIN has arrived in sequence (`tcp_fin`).
const SOCK_DONE: u64 = 1 << 1;

/// include/net/tcp_states.h.
pub mod tcp_state {
    pub const ESTABLISHED: u8 = 1;
    pub const SYN_SENT: u8 = 2;
    pub const FIN_WAIT1: u8 = 4;
    pub const FIN_WAIT2: u8 = 5;
    pub const TIME_WAIT: u8 = 6;
    pub const CLOSE: u8 = 7;
    pub const CLOSE_WAIT: u8 = 8;
    pub const LAST_ACK: u8 = 9;
    pub const CLOSING: u8 = 11;
    pub const NEW_SYN_RECV: u8 = 12;
}

/// A `struct sock *`, and how a program may read it.
#[derive(Clone, Copy)]
pub struct Socket<A>(*const u8, PhantomData<A>);

/// What bytes travel in over a socket.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    Tcp,
    Unix,
    /// No stream: each message is one of its own.
    Udp,
}

impl<A: Access> Socket<A> {
    /// # Safety
    /// `sk` is a `struct sock *`; if `A` is [`crate::access::Typed`], the verifier knows it as one.
    #[inline(always)]
    pub unsafe fn new(sk: *const u8) -> Self {
        Self(sk, PhantomData)
    }

    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Where it lies in the kernel's memory.
    #[inline(always)]
    pub fn address(self) -> *const u8 {
        self.0
    }

    /// Reads a field of `struct sock`.
    #[inline(always)]
    fn field<T: Copy, const NUMBER: u16>(self, field: Constant<NUMBER>) -> T {
        // SAFETY: by the promise of `new`; the constant is that of the field.
        unsafe { load::<A, T, NUMBER>(self.0, field) }
    }

    #[inline(always)]
    pub fn family(self) -> u16 {
        self.field(layout::SOCK__FAMILY)
    }

    /// The kind of stream, or `None` for what makes no events (Unix datagrams, netlink, raw sockets).
    #[inline(always)]
    pub fn stream(self, family: u16) -> Option<Stream> {
        let kind: u16 = self.field(layout::SOCK__TYPE);
        let is_stream = kind == SOCK_STREAM;
        if family == Family::INET.0 || family == Family::INET6.0 {
            match (kind, self.field::<u16, _>(layout::SOCK__PROTOCOL)) {
                (SOCK_STREAM, IPPROTO_TCP) => Some(Stream::Tcp),
                (SOCK_DGRAM, IPPROTO_UDP) => Some(Stream::Udp),
                _ => None,
            }
        } else if family == Family::UNIX.0 {
            (is_stream || kind == SOCK_SEQPACKET).then_some(Stream::Unix)
        } else {
            None
        }
    }

    /// Whether a process holds this socket open as a file. The kernel's own sockets (NFS, network block
    /// devices) have none: they run inside system calls whose buffers are not the socket's.
    #[inline(always)]
    pub fn has_file(self) -> bool {
        let socket: *const u8 = self.field(layout::SOCK__SOCKET);
        // SAFETY: `sk_socket` is typed by BTF.
        let file: u64 = unsafe { load::<A, _, _>(socket, layout::SOCKET__FILE) };
        file != 0
    }

    /// The socket cookie; makes one if the socket has none.
    #[inline(always)]
    pub fn cookie(self) -> u64 {
        let cookie = self.known_cookie();
        if cookie != 0 {
            return cookie;
        }
        if A::TYPED && layout::HAS_SOCKET_COOKIE.load() != 0 {
            // SAFETY: takes any typed `struct sock *`.
            unsafe { bpf_get_socket_cookie(self.0.cast_mut().cast()) }
        } else {
            identity::give(self.0)
        }
    }

    /// The socket cookie if it has one already, else 0.
    #[inline(always)]
    pub fn known_cookie(self) -> u64 {
        // Our own comes first: somebody else may give the socket a cookie in the middle of its life.
        if layout::HAS_SOCKET_COOKIE.load() == 0
            && let Some(own) = identity::find(self.0)
        {
            return own;
        }
        self.field(layout::SOCK__COOKIE)
    }

    #[inline(always)]
    pub fn state(self) -> u8 {
        self.field(layout::SOCK__STATE)
    }

    #[inline(always)]
    pub fn error(self) -> u32 {
        self.field(layout::SOCK__ERR)
    }

    /// Whether the peer has finished sending.
    #[inline(always)]
    pub fn receive_finished(self) -> bool {
        self.field::<u8, _>(layout::SOCK__SHUTDOWN) & RCV_SHUTDOWN != 0
    }

    /// Positions of the next byte that the process writes and of the next that it reads, as TCP sequence numbers that
    /// count bytes alone: a FIN takes a number too (`tcp_send_fin`, `tcp_recvmsg_locked`), and that is taken off again.
    #[inline(always)]
    pub fn tcp_positions(self) -> Option<(u32, u32)> {
        let tcp: *const u8 = if A::TYPED {
            // SAFETY: takes any typed `struct sock *`.
            unsafe { bpf_skc_to_tcp_sock(self.0.cast_mut().cast()) }.cast()
        } else if !matches!(self.state(), tcp_state::TIME_WAIT | tcp_state::NEW_SYN_RECV) {
            // `struct tcp_sock` begins with its `struct sock` (include/linux/tcp.h); the two states have smaller structs.
            self.0
        } else {
            core::ptr::null()
        };
        if tcp.is_null() {
            return None;
        }
        // SAFETY: the helper's result is typed.
        let mut written: u32 = unsafe { load::<A, _, _>(tcp, layout::TCP_SOCK__WRITE_SEQ) };
        // SAFETY: as above.
        let mut read: u32 = unsafe { load::<A, _, _>(tcp, layout::TCP_SOCK__COPIED_SEQ) };
        if matches!(
            self.state(),
            tcp_state::FIN_WAIT1 | tcp_state::FIN_WAIT2 | tcp_state::LAST_ACK | tcp_state::CLOSING
        ) {
            written = written.wrapping_sub(1);
        }
        if self.field::<u64, _>(layout::SOCK__FLAGS) & SOCK_DONE != 0 {
            // SAFETY: as above.
            let received: u32 = unsafe { load::<A, _, _>(tcp, layout::TCP_SOCK__RCV_NXT) };
            if read == received {
                read = read.wrapping_sub(1);
            }
        }
        Some((written, read))
    }

    /// The Unix socket at the other end, if this is one and is connected.
    #[inline(always)]
    pub fn unix_peer(self) -> Option<Socket<Untyped>> {
        if self.family() != Family::UNIX.0 {
            return None;
        }
        // `struct unix_sock` begins with its `struct sock` (include/net/af_unix.h).
        // SAFETY: `Untyped` reads any address.
        let peer: *const u8 = unsafe { load::<Untyped, _, _>(self.0, layout::UNIX_SOCK__PEER) };
        // SAFETY: as above.
        (!peer.is_null()).then(|| unsafe { Socket::new(peer) })
    }

    /// The cookie of the Unix socket at the other end, 0 if there is none.
    #[inline(always)]
    fn unix_peer_cookie(self) -> u64 {
        // A connected stream socket holds a reference to its peer until it is released itself
        // (net/unix/af_unix.c: unix_release_sock), and a system call is running on it.
        if A::TYPED && layout::HAS_UNIX_SOCK.load() != 0 {
            // SAFETY: takes any typed `struct sock *`.
            let unix: *const u8 = unsafe { bpf_skc_to_unix_sock(self.0.cast_mut().cast()) }.cast();
            if unix.is_null() {
                return 0;
            }
            // SAFETY: the helper's result is typed.
            let peer: *const u8 = unsafe { load::<A, _, _>(unix, layout::UNIX_SOCK__PEER) };
            // SAFETY: `peer` is typed by BTF.
            unsafe { Self::new(peer) }.cookie_unless_null()
        } else {
            // `struct unix_sock` begins with its `struct sock` (include/net/af_unix.h).
            // SAFETY: `Untyped` reads any address.
            let peer: *const u8 = unsafe { load::<Untyped, _, _>(self.0, layout::UNIX_SOCK__PEER) };
            // SAFETY: as above.
            unsafe { Socket::<Untyped>::new(peer) }.cookie_unless_null()
        }
    }

    #[inline(always)]
    fn cookie_unless_null(self) -> u64 {
        if self.is_null() { 0 } else { self.cookie() }
    }

    /// Writes addresses, ports, family, state and namespace.
    #[inline(always)]
    pub fn describe(self, family: u16, cookie: u64, header: *mut EventHeader) {
        let net: *const u8 = self.field(layout::SOCK__NET);
        // SAFETY: `skc_net.net` is typed by BTF.
        let netns: u32 = unsafe { load::<A, _, _>(net, layout::NET__INUM) };
        let (local, remote) = if family == Family::UNIX.0 {
            ([cookie, 0], [self.unix_peer_cookie(), 0])
        } else if family == Family::INET.0 {
            (
                mapped(self.field(layout::SOCK__RCV_SADDR)),
                mapped(self.field(layout::SOCK__DADDR)),
            )
        } else {
            (
                self.field::<[u64; 2], _>(layout::SOCK__V6_RCV_SADDR),
                self.field::<[u64; 2], _>(layout::SOCK__V6_DADDR),
            )
        };
        let (lport, rport, state) = if family == Family::UNIX.0 {
            (0, 0, 0)
        } else {
            (
                self.field(layout::SOCK__NUM),
                u16::from_be(self.field(layout::SOCK__DPORT)),
                self.state(),
            )
        };
        // SAFETY: `header` is ring memory reserved for a whole header, so these fields are its own.
        let header = unsafe { &mut *header };
        header.cookie = cookie;
        header.netns = netns;
        header.family = family;
        header.lport = lport;
        header.rport = rport;
        header.state = state;
        // SAFETY: 16 bytes that are 8-byte aligned (asserted in tracer-common).
        unsafe { header.laddr.as_mut_ptr().cast::<[u64; 2]>().write(local) };
        // SAFETY: as above.
        unsafe { header.raddr.as_mut_ptr().cast::<[u64; 2]>().write(remote) };
    }
}

/// An IPv4 address (network order, as the kernel keeps it) mapped into IPv6.
#[inline(always)]
fn mapped(address: u32) -> [u64; 2] {
    [0, (u64::from(address) << 32) | 0xffff_0000]
}
