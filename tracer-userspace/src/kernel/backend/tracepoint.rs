//! The back end `tracepoint` (`tracer-ebpf/src/tracepoint.rs`): the first choice. No process pays for it but at its own messages.
//!
//! The programs are told the socket and how much moved; where the bytes lie they read from the registers of the system call. What moves by
//! a ring of io_uring has no such call: there the request tells where they lie (`struct io_kiocb`, with a `struct io_async_msghdr` or `struct
//! io_async_rw` behind it, Linux 6.10). No tracepoint says which request moves a message, so three of io_uring's own say which ones may
//! (`tracer-ebpf/src/uring.rs`), and the bytes are told only if that is one: not where two wait for one socket in the same direction, of a chain
//! of more than four that are done at once, and of requests that are older than the tracer. Those messages have their lengths and positions, and
//! are counted (`payload_unavailable`). Bytes that splice and sendfile move were never in memory of the process.

use super::{
    ARRIVALS, Backend, HAND_OFFS, Hook, Need, PAGES, PROCESSES, RESETS_IN, RESETS_OUT, RETRANSMITS, STATES,
    Sight, Table, Unseen, sight,
};
use crate::kernel::{features::Features, layout::Group};

/// What is needed to find the bytes of a request of io_uring: all of it, or the tracepoints say nothing.
const OF_REQUESTS: &[Group] = &[Group::Ring, Group::Message, Group::Descriptor];

fn knows_requests(features: &Features) -> bool {
    OF_REQUESTS.iter().all(|group| features.offsets(*group).is_some())
}

pub const TABLE: Table = Table {
    backend: Backend::Tracepoint,
    sights: &[
        sight(
            &[&[Hook::tracepoint("sock_send_length")
                .or(&["sock_send_length_second", "sock_send_length_last"])]],
            "tracepoint sock_send_length",
            "6.3",
            Need::Required,
            "seeing what is sent over sockets",
        ),
        sight(
            &[&[Hook::tracepoint("sock_recv_length")
                .or(&["sock_recv_length_second", "sock_recv_length_last"])]],
            "tracepoint sock_recv_length",
            "6.3",
            Need::Required,
            "seeing what is received over sockets",
        ),
        STATES,
        ARRIVALS,
        RESETS_IN,
        RESETS_OUT,
        RETRANSMITS,
        HAND_OFFS,
        PROCESSES,
        Sight {
            name: "tracepoints of io_uring",
            needed_for: "the bytes that io_uring moves",
            need: Need::Optional,
            since: "6.10",
            only_if: Some(knows_requests),
            ways: &[&[
                Hook::tracepoint("io_uring_submit_req"),
                Hook::tracepoint("io_uring_poll_arm"),
                Hook::tracepoint("io_uring_complete"),
            ]],
        },
    ],
    groups: &[],
    optional: OF_REQUESTS,
    scratches: 6,
    typed: |_| true,
    unseen: &[
        Unseen {
            what: "what splice takes out of a socket",
            why: "no tracepoint is there (net/socket.c: sock_splice_read); the stream's positions tell how much it was, once a message \
                  follows",
            counter: Some("gaps"),
            seen_by: &[Backend::Fentry, Backend::Syscall],
        },
        PAGES,
        Unseen {
            what: "bytes of requests of io_uring that wait for one socket at the same time",
            why: "which of them moves a message is not told: how many bytes they are is seen",
            counter: Some("payload_unavailable"),
            seen_by: &[Backend::Fentry],
        },
    ],
    remedy: "use Linux 6.3 or newer (for example Debian 13, Ubuntu 24.04, RHEL 10)",
};
