//! The back end `fentry` (`tracer-ebpf/src/fentry.rs`), for kernels before 6.3 and wherever it is asked for.
//!
//! It hooks the functions that `struct proto_ops` points to, one for each address family: whatever moves bytes over a socket goes
//! through exactly one of them, be it a system call, io_uring, splice or the kernel itself, and no compiler inlines them.
//!
//! Seen with its length but not with its bytes, and counted as such (`payload_unavailable`): pages that no process has mapped
//! (sendfile, splice; before Linux 6.5 a message for each page) and the registered buffers of io_uring. Not seen at all: a call
//! that was blocked in one of these functions when the tracer came; its connection is seen from the next message on.

use super::{
    Attach, Backend, HAND_OFFS, Hook, Need, PAGES, PROCESSES, RESETS_IN, RESETS_OUT, RETRANSMITS, STATES,
    Sight, Table, Unseen, sight,
};
use crate::kernel::{
    features::{Answer, Features},
    layout::Group,
};

const fn fexit(program: &'static str, target: &'static str) -> Hook {
    Hook::new(Attach::Fexit, program, target)
}

const fn fentry(program: &'static str, target: &'static str) -> Hook {
    Hook::new(Attach::Fentry, program, target)
}

const fn kprobe(program: &'static str, target: &'static str) -> Hook {
    Hook::new(Attach::Kprobe, program, target)
}

const fn kretprobe(program: &'static str, target: &'static str) -> Hook {
    Hook::new(Attach::Kretprobe, program, target)
}

/// Whether trampolines are of use; kprobes do the work else.
fn by_trampoline(features: &Features) -> bool {
    !matches!(features.trampolines, Answer::No(_))
}

/// The first release with trampolines and BTF, without which no function is hooked.
const SINCE: &str = "5.5";

pub const TABLE: Table = Table {
    backend: Backend::Fentry,
    sights: &[
        sight(
            &[
                &[fexit("fexit_inet_sendmsg", "inet_sendmsg")
                    .or(&["fexit_inet_sendmsg_second", "fexit_inet_sendmsg_last"])],
                &[
                    kprobe("kprobe_send", "inet_sendmsg"),
                    kretprobe("kretprobe_send", "inet_sendmsg"),
                ],
            ],
            "function inet_sendmsg",
            SINCE,
            Need::Required,
            "seeing what is sent over IPv4",
        ),
        sight(
            &[
                &[fexit("fexit_inet_recvmsg", "inet_recvmsg")
                    .or(&["fexit_inet_recvmsg_second", "fexit_inet_recvmsg_last"])],
                &[
                    kprobe("kprobe_recv", "inet_recvmsg"),
                    kretprobe("kretprobe_recv", "inet_recvmsg"),
                ],
            ],
            "function inet_recvmsg",
            SINCE,
            Need::Required,
            "seeing what is received over IPv4",
        ),
        sight(
            &[
                &[fexit("fexit_inet6_sendmsg", "inet6_sendmsg")
                    .or(&["fexit_inet6_sendmsg_second", "fexit_inet6_sendmsg_last"])],
                &[
                    kprobe("kprobe_send", "inet6_sendmsg"),
                    kretprobe("kretprobe_send", "inet6_sendmsg"),
                ],
            ],
            "function inet6_sendmsg",
            SINCE,
            Need::Optional,
            "seeing what is sent over IPv6",
        ),
        sight(
            &[
                &[fexit("fexit_inet6_recvmsg", "inet6_recvmsg")
                    .or(&["fexit_inet6_recvmsg_second", "fexit_inet6_recvmsg_last"])],
                &[
                    kprobe("kprobe_recv", "inet6_recvmsg"),
                    kretprobe("kretprobe_recv", "inet6_recvmsg"),
                ],
            ],
            "function inet6_recvmsg",
            SINCE,
            Need::Optional,
            "seeing what is received over IPv6",
        ),
        sight(
            &[
                &[fexit("fexit_unix_stream_sendmsg", "unix_stream_sendmsg").or(&[
                    "fexit_unix_stream_sendmsg_second",
                    "fexit_unix_stream_sendmsg_last",
                ])],
                &[
                    kprobe("kprobe_send", "unix_stream_sendmsg"),
                    kretprobe("kretprobe_send", "unix_stream_sendmsg"),
                ],
            ],
            "function unix_stream_sendmsg",
            SINCE,
            Need::Optional,
            "seeing what is sent over Unix sockets",
        ),
        sight(
            &[
                &[fexit("fexit_unix_stream_recvmsg", "unix_stream_recvmsg").or(&[
                    "fexit_unix_stream_recvmsg_second",
                    "fexit_unix_stream_recvmsg_last",
                ])],
                &[
                    kprobe("kprobe_recv", "unix_stream_recvmsg"),
                    kretprobe("kretprobe_recv", "unix_stream_recvmsg"),
                ],
            ],
            "function unix_stream_recvmsg",
            SINCE,
            Need::Optional,
            "seeing what is received over Unix sockets",
        ),
        sight(
            &[
                &[
                    fexit("fexit_unix_seqpacket_sendmsg", "unix_seqpacket_sendmsg").or(&[
                        "fexit_unix_seqpacket_sendmsg_second",
                        "fexit_unix_seqpacket_sendmsg_last",
                    ]),
                ],
                &[
                    kprobe("kprobe_send", "unix_seqpacket_sendmsg"),
                    kretprobe("kretprobe_send", "unix_seqpacket_sendmsg"),
                ],
            ],
            "function unix_seqpacket_sendmsg",
            SINCE,
            Need::Optional,
            "seeing what is sent over Unix sockets that keep messages apart",
        ),
        sight(
            &[
                &[
                    fexit("fexit_unix_seqpacket_recvmsg", "unix_seqpacket_recvmsg").or(&[
                        "fexit_unix_seqpacket_recvmsg_second",
                        "fexit_unix_seqpacket_recvmsg_last",
                    ]),
                ],
                &[
                    kprobe("kprobe_recv", "unix_seqpacket_recvmsg"),
                    kretprobe("kretprobe_recv", "unix_seqpacket_recvmsg"),
                ],
            ],
            "function unix_seqpacket_recvmsg",
            SINCE,
            Need::Optional,
            "seeing what is received over Unix sockets that keep messages apart",
        ),
        // Linux 6.5 has no such functions: there splice sends by sendmsg.
        sight(
            &[
                &[fexit("fexit_inet_sendpage", "inet_sendpage")
                    .or(&["fexit_inet_sendpage_second", "fexit_inet_sendpage_last"])],
                &[
                    kprobe("kprobe_pages", "inet_sendpage"),
                    kretprobe("kretprobe_send", "inet_sendpage"),
                ],
            ],
            "function inet_sendpage",
            SINCE,
            Need::WithIt,
            "counting what sendfile and splice send",
        ),
        sight(
            &[
                &[fexit("fexit_unix_stream_sendpage", "unix_stream_sendpage").or(&[
                    "fexit_unix_stream_sendpage_second",
                    "fexit_unix_stream_sendpage_last",
                ])],
                &[
                    kprobe("kprobe_pages", "unix_stream_sendpage"),
                    kretprobe("kretprobe_send", "unix_stream_sendpage"),
                ],
            ],
            "function unix_stream_sendpage",
            SINCE,
            Need::WithIt,
            "counting what sendfile and splice send over Unix sockets",
        ),
        sight(
            &[
                &[fexit("fexit_tcp_splice_read", "tcp_splice_read")
                    .or(&["fexit_tcp_splice_read_second", "fexit_tcp_splice_read_last"])],
                &[
                    kprobe("kprobe_pages", "tcp_splice_read"),
                    kretprobe("kretprobe_recv", "tcp_splice_read"),
                ],
            ],
            "function tcp_splice_read",
            SINCE,
            Need::Optional,
            "counting what splice receives",
        ),
        sight(
            &[
                &[Hook::tracepoint("sk_data_ready")],
                &[fentry("fentry_sock_def_readable", "sock_def_readable")],
                &[kprobe("kprobe_sock_def_readable", "sock_def_readable")],
            ],
            "function sock_def_readable",
            SINCE,
            Need::Optional,
            "the time that a request waited before it was read",
        ),
        Sight {
            name: "function sk_alloc",
            needed_for: "telling a new socket from an old one at its address",
            need: Need::Required,
            since: "4.2",
            only_if: Some(|features| !TABLE.has_cookies(features)),
            ways: &[
                &[
                    fexit("fexit_sk_alloc", "sk_alloc"),
                    fexit("fexit_sk_clone_lock", "sk_clone_lock"),
                ],
                &[
                    kretprobe("kretprobe_new_socket", "sk_alloc"),
                    kretprobe("kretprobe_new_socket", "sk_clone_lock"),
                ],
            ],
        },
        STATES,
        RESETS_IN,
        RESETS_OUT,
        RETRANSMITS,
        HAND_OFFS,
        PROCESSES,
    ],
    groups: &[Group::Message],
    optional: &[],
    scratches: 24,
    typed: by_trampoline,
    unseen: &[
        Unseen {
            what: "messages that a process waits for when the tracer comes",
            why: "the call returns past the trampoline that is put there meanwhile: one message of a connection, the next is seen",
            counter: None,
            seen_by: &[Backend::Tracepoint, Backend::Syscall],
        },
        PAGES,
        Unseen {
            what: "bytes in registered buffers of io_uring",
            why: "they have no address in the process: how many they are is seen",
            counter: Some("payload_unavailable"),
            seen_by: &[],
        },
    ],
    remedy: "use Linux 5.10 or newer with CONFIG_DYNAMIC_FTRACE_WITH_DIRECT_CALLS or CONFIG_KPROBE_EVENTS, on a host whose policy \
             allows one of them",
};
