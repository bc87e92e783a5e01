//! The back end `tracepoint` (`tracer-ebpf/src/tracepoint.rs`): the first choice. No process pays for it but at its own messages.
//!
//! The programs are told the socket and how much moved; where the bytes lie they read from the registers of the system call. What moves by
//! a ring of io_uring has no such call: its lengths and positions are told without payload. The request tells where they lie (`struct
//! io_kiocb`, with `struct io_sr_msg` or `struct io_rw` in it), and the tracepoint `io_uring_submit_req` shows it once it is prepared. What is missing
//! is the way from there to the message: a request that has to wait goes on later, in task work or in a worker thread, and no tracepoint says
//! which one does. So requests would have to be kept by socket and direction until `io_uring_complete`, with the buffers that are
//! chosen only then (provided and registered ones, vectors in `req->async_data`) left out. Bytes that splice and sendfile move were never in memory of the
//! process.

use super::{
    ARRIVALS, Backend, HAND_OFFS, Hook, Need, PAGES, PROCESSES, RESETS_IN, RESETS_OUT, RETRANSMITS, STATES,
    Table, Unseen, sight,
};

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
    ],
    groups: &[],
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
            what: "bytes that io_uring moves",
            why: "its calls do not name the buffers: how many bytes they are is seen",
            counter: Some("payload_unavailable"),
            seen_by: &[Backend::Fentry],
        },
    ],
    remedy: "use Linux 6.3 or newer (for example Debian 13, Ubuntu 24.04, RHEL 10)",
};
