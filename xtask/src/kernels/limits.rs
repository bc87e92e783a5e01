//! What a kernel cannot do, cell by cell. A limit that no longer holds fails the matrix like anything else that is not as written.

use crate::guest::Arch;
use crate::guest::kernel::Version;

/// Kernels on which a back end, or a case with it, cannot work.
pub struct Limit {
    pub backend: &'static str,
    /// `None`: the back end is not there at all, and says so. Else the row, or how its name begins, with a `*` behind it.
    pub case: Option<&'static str>,
    /// Kernels from this on.
    pub since: Version,
    /// Kernels older than this.
    pub before: Version,
    /// It depends on the moment whether it shows: cells may pass.
    pub sometimes: bool,
    pub arch: Option<Arch>,
    /// Spans that the case lacks for it, exactly so many.
    pub lacks: u64,
    pub why: &'static str,
}

/// No kernel is older than this, nor will be: a limit of the way itself.
const EVERY: Version = (u32::MAX, 0, 0);

const FIRST: Version = (0, 0, 0);

/// Every row of a back end.
const ANY: &str = "*";

/// What limits are made from.
const NEVER: Limit = Limit {
    backend: "",
    case: None,
    since: FIRST,
    before: EVERY,
    sometimes: false,
    arch: None,
    lacks: 0,
    why: "",
};

/// Every limit that is known.
pub const LIMITS: &[Limit] = &[
    Limit {
        backend: "tracepoint",
        case: None,
        since: FIRST,
        before: (6, 3, 0),
        sometimes: false,
        arch: None,
        lacks: 0,
        why: "the tracepoints `sock_send_length` and `sock_recv_length` came with Linux 6.3",
    },
    Limit {
        backend: "fentry",
        case: Some("older"),
        since: FIRST,
        before: EVERY,
        sometimes: false,
        arch: None,
        lacks: 1,
        why: "a call that is blocked in the kernel's function when the tracer comes returns past the new trampoline: the first message \
              that the older server receives is not seen, all later ones are",
    },
    Limit {
        case: Some("way: splice"),
        ..TAKEN_OUT
    },
    Limit {
        case: Some("way: proxy"),
        ..TAKEN_OUT
    },
    Limit {
        backend: "fentry",
        case: Some("way: sendfile"),
        since: FIRST,
        before: (6, 5, 0),
        sometimes: false,
        arch: None,
        lacks: 0,
        why: "the kernel hands pages to the socket one by one (`sendpage`): what one `sendfile` sends is told as a message for each page",
    },
    Limit {
        backend: "syscall",
        case: Some("way: ring*"),
        why: "no system call of the process moves the messages of its rings; the calls that may have moved some are counted \
              (`kernel.ring_calls`)",
        ..NEVER
    },
    Limit {
        backend: "fentry",
        case: Some("way: ring_buffers"),
        before: (5, 19, 0),
        why: "rings of buffers (`IORING_REGISTER_PBUF_RING`) came with Linux 5.19: there is nothing to see",
        ..NEVER
    },
    Limit {
        backend: "fentry",
        case: Some("way: ring_multishot"),
        before: (6, 0, 0),
        why: "receives of many messages (`IORING_RECV_MULTISHOT`) came with Linux 6.0: there is nothing to see",
        ..NEVER
    },
    Limit {
        backend: "syscall",
        case: Some(ANY),
        since: (7, 0, 0),
        before: EVERY,
        sometimes: true,
        arch: None,
        lacks: 0,
        why: "programs at tracepoints are preempted since Linux 7.0, and the kernel leaves out their runs on that CPU meanwhile: messages are \
              missed, and counted (`kernel.missed_runs`). Only `--capture syscall` chooses this back end there",
    },
];

const TAKEN_OUT: Limit = Limit {
    backend: "tracepoint",
    why: "no socket tracepoint fires where `splice` takes bytes out of a socket (net/socket.c: `sock_splice_read`): the positions of the \
          messages around them tell how many they were",
    ..NEVER
};

/// The number (from 1) of the limit of a back end, or of a case with it.
pub fn find(backend: &str, case: Option<&str>, version: Version, arch: Arch) -> Option<usize> {
    let holds = |limit: &Limit| {
        limit.backend == backend
            && covers(limit.case, case)
            && (limit.since..limit.before).contains(&version)
            && limit.arch.is_none_or(|only| only == arch)
    };
    LIMITS.iter().position(holds).map(|index| index + 1)
}

fn covers(pattern: Option<&str>, case: Option<&str>) -> bool {
    match (pattern, case) {
        (Some(pattern), Some(case)) => match pattern.strip_suffix('*') {
            Some(beginning) => case.starts_with(beginning),
            None => case == pattern,
        },
        (pattern, case) => pattern == case,
    }
}

/// Whether cells may pass for all that.
pub fn shows_sometimes(number: usize) -> bool {
    let limit = number.checked_sub(1).and_then(|index| LIMITS.get(index));
    limit.is_some_and(|limit| limit.sometimes)
}

/// Spans that a case lacks for the limit of that number.
pub fn lacks(number: usize) -> u64 {
    let limit = number.checked_sub(1).and_then(|index| LIMITS.get(index));
    limit.map_or(0, |limit| limit.lacks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_their_limits() {
        let check = |backend, case, version, why: Option<&str>| {
            let found = find(backend, case, version, Arch::X86_64).map(|number| LIMITS[number - 1].why);
            match why {
                Some(why) => assert!(
                    found.is_some_and(|found| found.contains(why)),
                    "{backend} {case:?} {found:?}"
                ),
                None => assert_eq!(found, None, "{backend} {case:?}"),
            }
        };
        check("tracepoint", None, (6, 1, 0), Some("came with Linux 6.3"));
        check("tracepoint", None, (6, 12, 0), None);
        check("tracepoint", Some("keep-alive"), (6, 1, 0), None);
        check("syscall", Some("way: ring"), (7, 3, 0), Some("its rings"));
        check("syscall", Some("way: ring_fixed"), (5, 10, 0), Some("its rings"));
        check("syscall", Some("way: reset"), (6, 12, 0), None);
        check("syscall", Some("way: reset"), (7, 3, 0), Some("preempted"));
        check("syscall", None, (7, 3, 0), None);
        check("fentry", Some("way: ring_polled"), (5, 10, 0), None);
        check("fentry", Some("way: ring_buffers"), (5, 10, 0), Some("5.19"));
    }
}
