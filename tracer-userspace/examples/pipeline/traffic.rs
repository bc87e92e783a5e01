//! What the kernel side tells of wrk asking nginx for a file of 1 KiB over keep-alive connections, seen at both ends.

use std::net::Ipv4Addr;

use tracer_common::{EventFlags, EventHeader, EventKind, Family, TAIL_BYTES, UNDECIDED_CHUNK};
use tracer_userspace::model::{ConnId, Nanos};
use tracer_userspace::protocol::CapturePolicy;

/// Process and thread of wrk.
pub const CLIENT: u32 = 100;
/// Process and thread of nginx.
pub const SERVER: u32 = 200;

const PORT: u16 = 8080;
const REQUEST: &[u8] = b"GET /file HTTP/1.1\r\nHost: 127.0.0.1:8080\r\n\r\n";
const RESPONSE_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sat, 21 Nov 2026 12:00:00 GMT\r\n\
    Content-Type: text/plain\r\nContent-Length: 1024\r\nLast-Modified: Sat, 21 Nov 2026 11:00:00 GMT\r\n\
    Connection: keep-alive\r\nETag: \"65fc1a2b-400\"\r\nAccept-Ranges: bytes\r\n\r\n";

/// Nanoseconds between two system calls.
const STEP: Nanos = 8_000;

/// Connections in turn: wrk writes on all of them, nginx answers one after the other, wrk reads.
pub struct Traffic {
    connections: Vec<Connection>,
    response: Vec<u8>,
    now: Nanos,
}

struct Connection {
    port: u16,
    /// Sequence numbers: requests, responses.
    sequence: [u32; 2],
    /// Most captured bytes of a chunk: [client, server][send, receive].
    limits: [[u32; 2]; 2],
}

/// Which end of a connection.
#[derive(Clone, Copy)]
enum End {
    Client = 0,
    Server = 1,
}

impl Traffic {
    /// Traffic of so many connections.
    pub fn new(connections: u16) -> Self {
        let mut response = RESPONSE_HEAD.to_vec();
        response.resize(RESPONSE_HEAD.len() + 1024, b'x');
        let connections = (0..connections)
            .map(|index| Connection {
                port: 40_000 + index,
                sequence: [u32::from(index) << 20, u32::MAX - 5_000],
                limits: [[UNDECIDED_CHUNK; 2]; 2],
            })
            .collect();
        Self {
            connections,
            response,
            now: 1_000_000_000_000,
        }
    }

    /// Kernel time.
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// The openings.
    pub fn open(&mut self, mut event: impl FnMut(&EventHeader)) {
        for index in 0..self.connections.len() {
            for end in [End::Client, End::Server] {
                let mut header = self.header(index, end);
                header.kind = EventKind::STATE.0;
                header.state = 1;
                event(&header);
            }
        }
    }

    /// One request on every connection; how many that are.
    pub fn turn(&mut self, mut event: impl FnMut(&EventHeader, &[u8], &[u8])) -> u64 {
        let response = std::mem::take(&mut self.response);
        for index in 0..self.connections.len() {
            self.chunk(index, End::Client, 0, REQUEST, &mut event);
        }
        for index in 0..self.connections.len() {
            self.chunk(index, End::Server, 1, REQUEST, &mut event);
            self.moved(index, 0, REQUEST);
            self.chunk(index, End::Server, 0, &response, &mut event);
        }
        for index in 0..self.connections.len() {
            self.chunk(index, End::Client, 1, &response, &mut event);
            self.moved(index, 1, &response);
        }
        self.response = response;
        self.connections.len() as u64
    }

    /// The kernel's part of a capture policy.
    pub fn apply(&mut self, conn: ConnId, policy: CapturePolicy) {
        let (index, end) = ((conn.0 / 2) as usize, (conn.0 % 2) as usize);
        let limits = match policy {
            CapturePolicy::Ignore => [0, 0],
            CapturePolicy::Limit { send, recv } => [send.0.min(send.1), recv.0.min(recv.1)],
        };
        if let Some(of_end) = self
            .connections
            .get_mut(index)
            .and_then(|connection| connection.limits.get_mut(end))
        {
            *of_end = limits;
        }
    }

    fn chunk(
        &mut self,
        index: usize,
        end: End,
        dir: u8,
        bytes: &[u8],
        event: &mut impl FnMut(&EventHeader, &[u8], &[u8]),
    ) {
        self.now += STEP;
        let mut header = self.header(index, end);
        let [requests, responses] = self.connections[index].sequence;
        let is_request = matches!((end, dir), (End::Client, 0) | (End::Server, 1));
        (header.pos, header.peer_pos) = if is_request {
            (requests, responses)
        } else {
            (responses, requests)
        };
        header.kind = EventKind::DATA.0;
        header.flags = EventFlags::HAS_POSITION;
        header.dir = dir;
        header.len = bytes.len() as u32;
        if dir == 1 {
            header.arrival = self.now - STEP / 2;
        }
        let limit = self.connections[index].limits[end as usize][dir as usize] as usize;
        let (head, rest) = bytes.split_at(bytes.len().min(limit));
        let tail = &rest[rest.len().saturating_sub(TAIL_BYTES)..];
        header.captured = head.len() as u32;
        header.tail = tail.len() as u32;
        event(&header, head, tail);
    }

    /// The bytes of one direction have left its sender and reached its reader.
    fn moved(&mut self, index: usize, direction: usize, bytes: &[u8]) {
        let sequence = &mut self.connections[index].sequence[direction];
        *sequence = sequence.wrapping_add(bytes.len() as u32);
    }

    fn header(&self, index: usize, end: End) -> EventHeader {
        let address = Ipv4Addr::LOCALHOST.to_ipv6_mapped().octets();
        let client = self.connections[index].port;
        let (process, lport, rport) = match end {
            End::Client => (CLIENT, client, PORT),
            End::Server => (SERVER, PORT, client),
        };
        EventHeader {
            ts: self.now,
            cookie: index as u64 * 2 + end as u64,
            tgid: process,
            tid: process,
            netns: 1,
            family: Family::INET.0,
            lport,
            rport,
            state: 1,
            laddr: address,
            raddr: address,
            ..EventHeader::EMPTY
        }
    }
}
