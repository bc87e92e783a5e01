//! Programs that have nothing but threads: where a pool's threads call for others, the kernel side tells who wakes whom.

use tracer_common::{RuntimeEntry, RuntimeKind};

/// What the kernel side is told of such a process.
pub fn entry() -> RuntimeEntry {
    RuntimeEntry {
        kind: RuntimeKind::THREADS.0,
        hand_offs: 1,
        ..RuntimeEntry::default()
    }
}
