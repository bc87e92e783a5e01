//! Where fields lie in this host's kernel structs, and how they are read.
//!
//! Each global is named `STRUCT__FIELD` and holds a byte offset; `tracer-userspace/src/kernel/layout.rs`
//! has the row of the same name that says which field it is. Every one is set before loading.

use aya_ebpf::Global;

macro_rules! offsets {
    ($($name:ident),+ $(,)?) => {
        $(
            #[unsafe(no_mangle)]
            pub static $name: Global<u32> = Global::new(0);
        )+
    };
}

offsets! {
    SOCK__FAMILY, SOCK__STATE, SOCK__NUM, SOCK__DPORT, SOCK__COOKIE, SOCK__NET,
    SOCK__RCV_SADDR, SOCK__DADDR, SOCK__V6_RCV_SADDR, SOCK__V6_DADDR,
    SOCK__TYPE, SOCK__PROTOCOL, SOCK__SHUTDOWN, SOCK__FLAGS, SOCK__ERR, SOCK__SOCKET,
    SOCKET__FILE, NET__INUM, TCP_SOCK__WRITE_SEQ, TCP_SOCK__COPIED_SEQ, TCP_SOCK__RCV_NXT, UNIX_SOCK__PEER,
    TASK__THREAD_POINTER,
}

/// Reads a field of a kernel struct by a direct load.
///
/// # Safety
/// `base` must be a pointer that the verifier knows by its BTF type (it then turns the load into one that survives a
/// bad address), and `offset` the offset of a field of type `T` in that struct.
#[inline(always)]
pub unsafe fn load<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: as the caller promises; the verifier refuses the program otherwise.
    let field = unsafe { base.add(offset.load() as usize) };
    // SAFETY: as above.
    unsafe { core::ptr::read_volatile(field.cast::<T>()) }
}
