//! The back end `tracepoint` (`tracer-ebpf/src/tracepoint.rs`): the first choice. No process pays for it but at its own messages.

use super::{
    ARRIVALS, Backend, HAND_OFFS, Hook, Need, PROCESSES, RESETS_IN, RESETS_OUT, RETRANSMITS, STATES, Table,
    sight,
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
    unseen: &[],
    remedy: "use Linux 6.3 or newer (for example Debian 13, Ubuntu 24.04, RHEL 10)",
};
