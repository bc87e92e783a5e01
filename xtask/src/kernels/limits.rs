//! What a kernel cannot do, cell by cell. A limit that no longer holds fails the matrix like anything else that is not as written.

use crate::guest::Arch;
use crate::guest::kernel::Version;

/// Kernels on which a back end, or a case with it, cannot work.
pub struct Limit {
    pub backend: &'static str,
    /// `None`: the back end is not there at all, and says so.
    pub case: Option<&'static str>,
    /// Kernels older than this.
    pub before: Version,
    pub arch: Option<Arch>,
    pub why: &'static str,
}

/// Every limit that is known.
pub const LIMITS: &[Limit] = &[Limit {
    backend: "tracepoint",
    case: None,
    before: (6, 3, 0),
    arch: None,
    why: "the tracepoints `sock_send_length` and `sock_recv_length` came with Linux 6.3",
}];

/// The number (from 1) of the limit of a back end, or of a case with it.
pub fn find(backend: &str, case: Option<&str>, version: Version, arch: Arch) -> Option<usize> {
    let holds = |limit: &Limit| {
        limit.backend == backend
            && limit.case == case
            && version < limit.before
            && limit.arch.is_none_or(|only| only == arch)
    };
    LIMITS.iter().position(holds).map(|index| index + 1)
}
