//! What the header of an event says, in the words of the model.

use std::net::{IpAddr, Ipv6Addr};

use tracer_common::{Direction, EventFlags, EventHeader, Family};

use crate::model::{
    Address, Conn, ConnId, Endpoint, Mark, Runs, Stamp, Submitters, Taken, Task, ThreadEnd, Turn, Unit, Wake,
};

pub const fn direction(header: &EventHeader) -> Option<Direction> {
    match header.dir {
        0 => Some(Direction::Send),
        1 => Some(Direction::Recv),
        _ => None,
    }
}

#[inline]
pub fn mark(header: &EventHeader) -> Mark {
    Mark {
        stamp: Stamp {
            ts: header.ts,
            unit: unit(header),
        },
        pos: header.pos,
        peer_pos: header.peer_pos,
        has_position: EventFlags(header.flags).has(EventFlags::HAS_POSITION),
        arrival: header.arrival,
    }
}

/// Who moved the bytes.
#[inline]
pub fn unit(header: &EventHeader) -> Unit {
    let runs = if EventFlags(header.flags).has(EventFlags::TURN) {
        Runs::Turn(Turn::unpack(header.awaiters, header.task))
    } else if EventFlags(header.flags).has(EventFlags::SUBMITTED) {
        Runs::Work(Submitters::unpack(header.awaiters))
    } else if header.task != 0 || header.awaiters[0] != 0 || header.creator != 0 {
        let (creator, held_since) = if EventFlags(header.flags).has(EventFlags::HELD) {
            (0, header.creator)
        } else {
            (header.creator, 0)
        };
        Runs::Task(Task {
            id: header.task,
            creator,
            awaiters: header.awaiters,
            held_since,
        })
    } else {
        Runs::Thread
    };
    Unit {
        tgid: header.tgid,
        tid: header.tid,
        runs,
    }
}

/// What an event with [`EventFlags::TAKEN`] tells.
pub fn taken(header: &EventHeader) -> Taken {
    let of = |tid, task| Unit {
        tgid: header.tgid,
        tid,
        runs: if task == 0 {
            Runs::Thread
        } else {
            Runs::Task(Task {
                id: task,
                ..Task::default()
            })
        },
    };
    let [before, before_task, waiter, since] = header.awaiters;
    Taken {
        stamp: Stamp {
            ts: header.ts,
            unit: of(header.tid, header.task),
        },
        by_client_thread: EventFlags(header.flags).has(EventFlags::CLIENT_THREAD),
        handed: (header.len != 0).then(|| Stamp {
            ts: header.arrival,
            unit: of(header.len, header.creator),
        }),
        before: (before != 0).then(|| of(before as u32, before_task)),
        waiter: (waiter != 0).then_some((waiter, since)),
    }
}

pub fn conn(header: &EventHeader, tgid: u32, joined_late: bool) -> Conn {
    Conn {
        id: ConnId(header.cookie),
        local: endpoint(header, &header.laddr, header.lport),
        remote: endpoint(header, &header.raddr, header.rport),
        netns: header.netns,
        tgid,
        joined_late,
    }
}

fn endpoint(header: &EventHeader, address: &[u8; 16], port: u16) -> Endpoint {
    if Family(header.family) == Family::UNIX {
        let cookie = address
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_ne_bytes(*bytes));
        return Endpoint {
            address: Address::Unix(cookie),
            port: 0,
        };
    }
    let v6 = Ipv6Addr::from(*address);
    let ip = v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4);
    Endpoint {
        address: Address::Ip(ip),
        port,
    }
}

/// What [`EventKind::WAKE`](tracer_common::EventKind::WAKE) tells.
pub fn wake(header: &EventHeader) -> Wake {
    Wake {
        waker: mark(header).stamp,
        woken: header.len,
        before: Some(header.creator as u32).filter(|&tid| tid != 0),
        asleep_since: header.arrival,
    }
}

/// What [`EventKind::THREAD_END`](tracer_common::EventKind::THREAD_END) tells.
pub fn thread_end(header: &EventHeader) -> ThreadEnd {
    ThreadEnd {
        stamp: Stamp {
            ts: header.ts,
            unit: Unit {
                tgid: header.tgid,
                tid: header.tid,
                runs: Runs::Thread,
            },
        },
        creator: header.creator as u32,
        born: header.arrival,
    }
}
