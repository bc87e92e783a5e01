//! Ways in which an HTTP/1.1 request and its response travel, a case each. A case runs in the guest as two processes, client and
//! server, that know exactly what they moved; [`judge()`] holds the daemon's spans against it.

mod judge;
mod run;
mod wire;

pub use judge::judge;
pub use run::{hold_word, run};
pub use wire::{Family, Receiving, Sending};

/// One case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    pub name: &'static str,
    pub what: &'static str,
    pub family: Family,
    pub client: (Sending, Receiving),
    pub server: (Receiving, Sending),
    pub connections: u32,
    /// On each connection.
    pub requests: u32,
    pub request_body: usize,
    pub response_body: usize,
    pub shape: Shape,
}

/// What is special about the processes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Shape {
    /// Client and server.
    Plain,
    /// The connection is there before the daemon is, and one exchange is over already.
    Older,
    /// In a network namespace of their own.
    Namespace,
    /// Nobody listens.
    Refused,
    /// A process of its own for every connection's two ends, which ends with it.
    ShortLived,
    /// The server accepts, then hands the connection to a child by fork.
    ForkedServer,
    /// The server gets the connection from another process, over a Unix socket (SCM_RIGHTS).
    Passed,
}

impl Case {
    /// Exchanges that the daemon can see, at each end.
    pub fn exchanges(&self) -> u32 {
        if self.shape == Shape::Refused {
            self.connections
        } else {
            self.connections * self.requests
        }
    }

    /// Whether it has to be started before the daemon.
    pub fn is_early(&self) -> bool {
        self.shape == Shape::Older
    }
}

const BASE: Case = Case {
    name: "",
    what: "",
    family: Family::V4,
    client: (Sending::Write, Receiving::Read),
    server: (Receiving::Read, Sending::Write),
    connections: 1,
    requests: 5,
    request_body: 0,
    response_body: 1000,
    shape: Shape::Plain,
};

/// Every case, in the order of the table.
pub const CASES: &[Case] = &[
    Case {
        name: "keep-alive",
        what: "five requests on one connection, `write` and `read`",
        ..BASE
    },
    Case {
        name: "connections",
        what: "twenty connections one after the other: descriptors are used again at once",
        connections: 20,
        requests: 1,
        ..BASE
    },
    Case {
        name: "bodies",
        what: "POST of 20 kB, answer of 300 kB, in many reads",
        requests: 3,
        request_body: 20_000,
        response_body: 300_000,
        ..BASE
    },
    Case {
        name: "ipv6",
        what: "IPv6",
        family: Family::V6,
        ..BASE
    },
    Case {
        name: "dual-stack",
        what: "an IPv4 client of an IPv6 listener",
        family: Family::Mapped,
        ..BASE
    },
    Case {
        name: "unix",
        what: "a Unix stream socket with a path",
        family: Family::Unix,
        ..BASE
    },
    Case {
        name: "abstract",
        what: "a Unix stream socket with an abstract name",
        family: Family::Abstract,
        ..BASE
    },
    Case {
        name: "send-recv",
        what: "`send` and `recv`",
        client: (Sending::Send, Receiving::Recv),
        server: (Receiving::Recv, Sending::Send),
        ..BASE
    },
    Case {
        name: "vectors",
        what: "`writev` and `readv`",
        request_body: 500,
        client: (Sending::Writev, Receiving::Readv),
        server: (Receiving::Readv, Sending::Writev),
        ..BASE
    },
    Case {
        name: "messages",
        what: "`sendmsg` and `recvmsg`",
        request_body: 500,
        client: (Sending::Sendmsg, Receiving::Recvmsg),
        server: (Receiving::Recvmsg, Sending::Sendmsg),
        ..BASE
    },
    Case {
        name: "many-messages",
        what: "`sendmmsg` and `recvmmsg`",
        request_body: 500,
        client: (Sending::Sendmmsg, Receiving::Recvmmsg),
        server: (Receiving::Recvmmsg, Sending::Sendmmsg),
        ..BASE
    },
    Case {
        name: "peek",
        what: "every read is preceded by one with `MSG_PEEK`",
        client: (Sending::Write, Receiving::Peek),
        server: (Receiving::Peek, Sending::Write),
        ..BASE
    },
    Case {
        name: "sendfile",
        what: "head by `write`, body by `sendfile`",
        server: (Receiving::Read, Sending::Sendfile),
        response_body: 100_000,
        ..BASE
    },
    Case {
        name: "splice",
        what: "head by `write`, body by `splice` from a pipe",
        server: (Receiving::Read, Sending::Splice),
        response_body: 50_000,
        ..BASE
    },
    Case {
        name: "partial",
        what: "a non-blocking sender that the socket takes little from at a time",
        server: (Receiving::Read, Sending::Partial),
        requests: 2,
        response_body: 1_000_000,
        ..BASE
    },
    Case {
        name: "older",
        what: "a connection that is older than the daemon",
        shape: Shape::Older,
        ..BASE
    },
    Case {
        name: "forked",
        what: "accepted, then served by a forked child",
        shape: Shape::ForkedServer,
        ..BASE
    },
    Case {
        name: "passed",
        what: "accepted by one process, passed over a Unix socket, served by another",
        shape: Shape::Passed,
        ..BASE
    },
    Case {
        name: "short-lived",
        what: "thirty pairs of processes that live for one request",
        connections: 30,
        requests: 1,
        shape: Shape::ShortLived,
        ..BASE
    },
    Case {
        name: "namespace",
        what: "in a network namespace of its own",
        shape: Shape::Namespace,
        ..BASE
    },
    Case {
        name: "refused",
        what: "connects that are refused",
        connections: 3,
        shape: Shape::Refused,
        ..BASE
    },
];

/// The case of that name.
pub fn named(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}
