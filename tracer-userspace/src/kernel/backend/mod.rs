//! The capture back ends: each is a table of what it sees and by which hooks. Adding one is a file here with a table, a line in
//! [`TABLES`], a name in [`Backend`], and a file of programs in `tracer-ebpf/src/`.

mod fentry;
mod syscall;
mod tracepoint;

use super::{
    features::{Answer, Features},
    layout::Group,
};

/// A way to see messages move.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Backend {
    /// The socket tracepoints (Linux 6.3).
    Tracepoint,
    /// The ends of the socket functions: fexit, or kprobe and kretprobe.
    Fentry,
    /// The exits of system calls.
    Syscall,
}

impl Backend {
    /// All of them, the one to be preferred first.
    pub const ALL: &[Self] = &[Self::Tracepoint, Self::Fentry, Self::Syscall];

    /// As in `--capture`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tracepoint => "tracepoint",
            Self::Fentry => "fentry",
            Self::Syscall => "syscall",
        }
    }

    /// Whether it says of itself that it does not see this ([`Unseen::what`]).
    #[must_use]
    pub fn is_blind_to(self, what: &str) -> bool {
        let own = TABLES.iter().filter(|table| table.backend == self);
        own.flat_map(|table| table.unseen)
            .any(|unseen| unseen.what == what)
    }
}

/// How a program is attached to its target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attach {
    /// BTF tracepoint; the target is its name without `btf_trace_`.
    BtfTracepoint,
    /// Entry of a kernel function, by trampoline.
    Fentry,
    /// End of a kernel function, by trampoline.
    Fexit,
    /// Entry of a kernel function, by breakpoint.
    Kprobe,
    /// End of a kernel function, likewise.
    Kretprobe,
    /// BTF tracepoint, loaded and attached when it is asked for.
    OnDemand,
    /// Called by a program that is attached to the same BTF tracepoint, from a slot of this map.
    TailCall {
        /// Name of the program array.
        map: &'static str,
        /// Slot.
        index: u32,
    },
}

/// A program and where it is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Kind of the program.
    pub attach: Attach,
    /// Name of the program in the object.
    pub program: &'static str,
    /// Tracepoint or function.
    pub target: &'static str,
    /// Programs that stand in for it where it can be preempted, in the order in which they are to be called.
    pub stand_ins: &'static [&'static str],
}

impl Hook {
    const fn new(attach: Attach, program: &'static str, target: &'static str) -> Self {
        Self {
            attach,
            program,
            target,
            stand_ins: &[],
        }
    }

    /// With these programs where it can be preempted.
    pub(super) const fn or(self, stand_ins: &'static [&'static str]) -> Self {
        Self { stand_ins, ..self }
    }

    /// A BTF tracepoint whose program has the same name.
    const fn tracepoint(name: &'static str) -> Self {
        Self::new(Attach::BtfTracepoint, name, name)
    }
}

/// Whether the back end is of use without something.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// It is not.
    Required,
    /// It is; the lack is told.
    Optional,
    /// The kernel has the hook where it has what the hook sees: where it is absent nothing is lost.
    WithIt,
}

/// One thing that a back end sees.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Name in reports.
    pub name: &'static str,
    /// What is lost without it.
    pub needed_for: &'static str,
    /// How much that matters.
    pub need: Need,
    /// First release with it, for advice alone.
    pub since: &'static str,
    /// Hosts that need it at all.
    pub only_if: Option<fn(&Features) -> bool>,
    /// Ways to see it, best first. All hooks of a way belong together.
    pub ways: &'static [&'static [Hook]],
}

/// A way to move bytes that a back end does not see, or not wholly.
#[derive(Clone, Copy, Debug)]
pub struct Unseen {
    /// What is not seen.
    pub what: &'static str,
    /// Why.
    pub why: &'static str,
    /// The counter of the ledger's kernel side that tells when it happens; `None` if nothing can tell.
    pub counter: Option<&'static str>,
    /// Back ends that see it.
    pub seen_by: &'static [Backend],
}

/// What `sendfile` and `splice` send.
const PAGES: Unseen = Unseen {
    what: "bytes that sendfile and splice move",
    why: "they are in pages that no process has mapped: how many they are is seen",
    counter: Some("payload_unavailable"),
    seen_by: &[],
};

/// One back end.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    /// Which.
    pub backend: Backend,
    /// What it sees.
    pub sights: &'static [Sight],
    /// Kernel structs that its programs read, besides [`Group::Socket`].
    pub groups: &'static [Group],
    /// Others that they make use of, where the host has all of them.
    pub optional: &'static [Group],
    /// Scratch memories of its programs with their stand-ins: one for each that gathers bytes.
    pub scratches: u32,
    /// Whether the verifier knows the sockets of its programs by type on such a host: others cannot have the kernel's cookies.
    pub typed: fn(&Features) -> bool,
    /// What it cannot see on any host.
    pub unseen: &'static [Unseen],
    /// What to do where it cannot be used.
    pub remedy: &'static str,
}

impl Table {
    /// Whether the programs can have the kernel's own socket cookies.
    #[must_use]
    pub fn has_cookies(&self, features: &Features) -> bool {
        features.helpers.socket_cookie == Answer::Yes && (self.typed)(features)
    }
}

/// All back ends, the one to be preferred first.
pub const TABLES: &[Table] = &[tracepoint::TABLE, fentry::TABLE, syscall::TABLE];

/// Every hook of every back end, some of them more than once.
pub fn all_hooks() -> impl Iterator<Item = Hook> {
    let sights = TABLES.iter().flat_map(|table| table.sights);
    sights.flat_map(|sight| sight.ways.iter().copied().flatten().copied())
}

/// A sight that every host needs.
const fn sight(
    ways: &'static [&'static [Hook]],
    name: &'static str,
    since: &'static str,
    need: Need,
    needed_for: &'static str,
) -> Sight {
    Sight {
        name,
        needed_for,
        need,
        since,
        only_if: None,
        ways,
    }
}

/// Opens and closes of connections.
const STATES: Sight = sight(
    &[&[Hook::tracepoint("inet_sock_set_state")]],
    "tracepoint inet_sock_set_state",
    "4.16",
    Need::Required,
    "seeing connections open and close",
);

/// Resets by the peer.
const RESETS_IN: Sight = sight(
    &[&[Hook::tracepoint("tcp_receive_reset")]],
    "tracepoint tcp_receive_reset",
    "4.15",
    Need::Optional,
    "telling a peer's reset from a close",
);

/// Resets by this host.
const RESETS_OUT: Sight = sight(
    &[&[Hook::tracepoint("tcp_send_reset")]],
    "tracepoint tcp_send_reset",
    "4.15",
    Need::Optional,
    "telling our own reset from a close",
);

/// What is sent again because it was lost on the way.
const RETRANSMITS: Sight = sight(
    &[&[Hook::tracepoint("tcp_retransmit_skb")]],
    "tracepoint tcp_retransmit_skb",
    "4.15",
    Need::Optional,
    "counting retransmits",
);

/// Who hands work to whom: attached while a process needs it.
const HAND_OFFS: Sight = sight(
    &[&[
        Hook::new(Attach::OnDemand, "sched_waking", "sched_waking"),
        Hook::new(Attach::OnDemand, "sched_wakeup_new", "sched_wakeup_new"),
    ]],
    "wakes of threads by threads",
    "5.15",
    Need::Optional,
    "following work from thread to thread in Java",
);

/// Processes that replace their program, or end, and threads that end.
const PROCESSES: Sight = sight(
    &[&[
        Hook::tracepoint("sched_process_exec"),
        Hook::tracepoint("sched_process_exit"),
        Hook::tracepoint("sched_process_fork"),
    ]],
    "tracepoint sched_process_exec",
    "5.5",
    Need::Optional,
    "knowing at once that a process runs another program, or has ended, and whom threads worked for that are made for one request",
);

/// When bytes came into a socket's buffer.
const ARRIVALS: Sight = sight(
    &[&[Hook::tracepoint("sk_data_ready")]],
    "tracepoint sk_data_ready",
    "6.3",
    Need::Optional,
    "the time that a request waited before it was read",
);
