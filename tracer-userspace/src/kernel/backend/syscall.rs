//! The back end `syscall` (`tracer-ebpf/src/syscall/`): the last choice, for kernels that have neither the socket tracepoints nor
//! probes. Every system call of the host pays for it.

use super::{
    ARRIVALS, Attach, Backend, HAND_OFFS, Hook, Need, PAGES, PROCESSES, RESETS_IN, RESETS_OUT, RETRANSMITS,
    STATES, Table, Unseen, sight,
};
use crate::kernel::layout::Group;

pub const TABLE: Table = Table {
    backend: Backend::Syscall,
    sights: &[
        sight(
            &[&[Hook::tracepoint("sys_enter")]],
            "tracepoint sys_enter",
            "5.5",
            Need::Required,
            "knowing which file a call began with",
        ),
        sight(
            &[&[
                Hook::new(
                    Attach::TailCall {
                        map: "NEXT_MESSAGE",
                        index: 0,
                    },
                    "sys_exit_next",
                    "sys_exit",
                ),
                Hook::tracepoint("sys_exit"),
            ]],
            "tracepoint sys_exit",
            "5.5",
            Need::Required,
            "seeing what system calls move",
        ),
        sight(
            &[&[Hook::tracepoint("tcp_destroy_sock")]],
            "tracepoint tcp_destroy_sock",
            "4.15",
            Need::Required,
            "telling a new socket from an old one at its address",
        ),
        STATES,
        ARRIVALS,
        RESETS_IN,
        RESETS_OUT,
        RETRANSMITS,
        HAND_OFFS,
        PROCESSES,
    ],
    // They find sockets by their addresses alone.
    typed: |_| false,
    groups: &[Group::Descriptor],
    optional: &[],
    scratches: 2,
    unseen: &[
        Unseen {
            what: "messages of io_uring",
            why: "no system call of the process moves them, its rings do; calls that may have moved some are counted, but a ring \
                  that the kernel polls needs none",
            counter: Some("ring_calls"),
            seen_by: &[Backend::Tracepoint, Backend::Fentry],
        },
        PAGES,
        Unseen {
            what: "bytes of the 33rd message of a call and of later ones",
            why: "the kernel allows no more programs one after the other: all that follow are told as one message, with its length",
            counter: Some("payload_unavailable"),
            seen_by: &[Backend::Tracepoint, Backend::Fentry],
        },
    ],
    remedy: "use a kernel with CONFIG_FTRACE_SYSCALLS (all larger distributions have it)",
};
