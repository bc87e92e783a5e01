//! Where threads wait for others, in programs that have nothing but threads ([`RuntimeKind::THREADS`](tracer_common::RuntimeKind::THREADS)): a reply and a
//! lock are both waited for at a futex. At a lock's different threads wait; where one thread waits again and again, and no other one ever, it waits for
//! replies.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::MAX_THREADS;

/// By process and address of the futex.
#[map]
static WAITING_PLACES: LruHashMap<[u64; 2], Place> = LruHashMap::with_max_entries(MAX_THREADS, 0);

/// Who was woken there.
#[derive(Clone, Copy)]
#[repr(C)]
struct Place {
    /// 0: several threads were.
    tid: u32,
    times: u32,
}

/// So often a thread must have been woken there before.
const PROVED: u32 = 3;

/// That the thread is woken there. Whether it is known to wait for replies there.
#[inline(always)]
pub fn is_reply(tgid: u32, address: u64, tid: u32) -> bool {
    let key = [u64::from(tgid), address];
    let Some(place) = WAITING_PLACES.get_ptr_mut(key) else {
        let _ = WAITING_PLACES.insert(key, Place { tid, times: 1 }, 0);
        return false;
    };
    // SAFETY: an entry stays memory of this map while the program runs; what two CPUs lose of each other takes longer to prove.
    let place = unsafe { &mut *place };
    if place.tid != tid {
        place.tid = 0;
        return false;
    }
    let is_proved = place.times >= PROVED;
    if !is_proved {
        place.times += 1;
    }
    is_proved
}
