//! Identities of sockets where programs cannot have the kernel's own (`bpf_get_socket_cookie` serves tracing programs that know
//! the socket's type, from Linux 5.12 on).
//!
//! A time and a CPU, kept by the socket's address until another socket is made there ([`forget`]).

use aya_ebpf::{
    helpers::generated::{bpf_get_smp_processor_id, bpf_ktime_get_ns},
    macros::map,
    maps::LruHashMap,
};
use tracer_common::MAX_CONNS;

/// By address of the `struct sock`. User space makes it small where nobody needs it.
#[map]
static IDENTITIES: LruHashMap<u64, u64> = LruHashMap::with_max_entries(MAX_CONNS, 0);

/// Set in each of ours, and in no cookie: those count from 1.
const OWN: u64 = 1 << 63;

/// The socket's identity, if it was given one.
#[inline(always)]
pub fn find(sk: *const u8) -> Option<u64> {
    // SAFETY: an entry stays memory of this map while the program runs, and is written once.
    unsafe { IDENTITIES.get(sk as u64) }.copied()
}

/// Gives the socket an identity unless it has one. 0 if there is no room.
#[inline(always)]
pub fn give(sk: *const u8) -> u64 {
    const BPF_NOEXIST: u64 = 1;
    // SAFETY: no arguments.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: no arguments.
    let cpu = u64::from(unsafe { bpf_get_smp_processor_id() }) & 0xff;
    let own = OWN | now << 8 | cpu;
    if IDENTITIES.insert(sk as u64, own, BPF_NOEXIST).is_ok() {
        return own;
    }
    // Another CPU was quicker.
    find(sk).unwrap_or(0)
}

/// A new socket lies at that address. (The end of a socket is no place for this: compilers inline what it goes through.)
#[inline(always)]
pub fn forget(sk: *const u8) {
    let _ = IDENTITIES.remove(sk as u64);
}

/// Forgets an identity that was given before then (`bpf_ktime_get_ns`): the socket is newer than that.
#[inline(always)]
pub fn forget_before(sk: *const u8, then: u64) {
    if let Some(own) = find(sk)
        && (own & !OWN) >> 8 < then & (!OWN >> 8)
    {
        forget(sk);
    }
}
