//! Connects that failed, as exchanges of their own (SPANS: `connect`).

use crate::model::{Exchange, Mark, Outcome, Role, Stamp};
use crate::protocol::Output;

/// Registry-like name of these exchanges.
pub const NAME: &str = "connect";

/// `error.type` of one that its own process did not wait for.
const GIVEN_UP: &str = "given_up";

/// Says one failed connect: begun at `start`, over at `end` with the socket's error number, which is 0 if its own process closed the
/// socket before there was an answer (a time-out of the caller's, or another address answered first).
pub fn failed(start: Stamp, end: Stamp, errno: u32, out: &mut Output<'_>) {
    let mark = Mark {
        stamp: start,
        ..Mark::default()
    };
    let started = out.begin(Role::Client, &mark, None);
    let (kind, message) = match errno {
        0 => (GIVEN_UP.into(), "closed before there was an answer".into()),
        errno => (
            errno_name(errno).map_or_else(|| format!("errno {errno}").into(), Box::from),
            std::io::Error::from_raw_os_error(errno.cast_signed())
                .to_string()
                .into(),
        ),
    };
    out.end(Exchange {
        end,
        outcome: Outcome::Error { kind, message },
        ..started.exchange(out.conn, NAME, Role::Client, NAME.into())
    });
}

/// Names of the errors that a connect ends with (connect(2), and what ICMP messages are turned into).
const fn errno_name(errno: u32) -> Option<&'static str> {
    Some(match errno.cast_signed() {
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::ETIMEDOUT => "ETIMEDOUT",
        libc::EHOSTUNREACH => "EHOSTUNREACH",
        libc::ENETUNREACH => "ENETUNREACH",
        libc::ECONNRESET => "ECONNRESET",
        libc::EACCES => "EACCES",
        libc::EPERM => "EPERM",
        libc::EADDRNOTAVAIL => "EADDRNOTAVAIL",
        libc::ENETDOWN => "ENETDOWN",
        libc::EHOSTDOWN => "EHOSTDOWN",
        libc::EPIPE => "EPIPE",
        libc::ECONNABORTED => "ECONNABORTED",
        _ => return None,
    })
}
