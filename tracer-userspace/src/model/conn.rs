//! Connections and their ends.

use serde::{Deserialize, Serialize};

use std::net::IpAddr;

/// Socket cookie: unique for the life of the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
pub struct ConnId(pub u64);

/// One end's address.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Address {
    /// IPv4 or IPv6 (IPv4-mapped addresses are unmapped).
    Ip(IpAddr),
    /// A Unix socket, named by its cookie.
    Unix(u64),
}

/// Address and port (0 for Unix sockets).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address.
    pub address: Address,
    /// Port in host byte order.
    pub port: u16,
}

/// One end of a connection, as its process sees it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Conn {
    /// The socket.
    pub id: ConnId,
    /// Our end.
    pub local: Endpoint,
    /// The peer's end as this socket knows it (before any NAT).
    pub remote: Endpoint,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// Process that moved the first bytes we saw.
    pub tgid: u32,
    /// Whether the connection was open before the tracer saw it: its beginning is missing.
    pub joined_late: bool,
}

/// What makes a message recognisable at both ends of its connection (E2), with nothing put on the wire: where
/// its first byte stands in its own direction, and how far the other direction had come.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct MessageIdentity {
    /// Position of the first byte, modulo 2^32.
    pub pos: u32,
    /// Position of the other direction, modulo 2^32.
    pub peer_pos: u32,
}
