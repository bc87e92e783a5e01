//! From a descriptor's number to the socket behind it: `task->files->fdt->fd[n]->private_data->sk`.

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf};

use crate::{
    access::{Access, Typed, Untyped, load},
    buffers::read_kernel,
    layout,
    socket::Socket,
};

/// The descriptors of a process (`struct files_struct`).
#[derive(Clone, Copy)]
pub struct Files {
    /// Whether other threads have the same descriptors.
    pub shared: bool,
    /// Number of the slots, and where they begin.
    slots: u32,
    first: u64,
}

impl Files {
    /// Those of the current thread.
    #[inline(always)]
    pub fn of_current() -> Self {
        if layout::HAS_TASK_BTF.load() != 0 {
            // SAFETY: no arguments.
            let task: *const u8 = unsafe { bpf_get_current_task_btf() }.cast_const().cast();
            // SAFETY: the current task is typed.
            unsafe { Self::of::<Typed>(task) }
        } else {
            // SAFETY: no arguments.
            let task = unsafe { bpf_get_current_task() } as *const u8;
            // SAFETY: any address will do.
            unsafe { Self::of::<Untyped>(task) }
        }
    }

    /// # Safety
    /// `task` is a `struct task_struct *`, typed if `A` is.
    #[inline(always)]
    unsafe fn of<A: Access>(task: *const u8) -> Self {
        const NONE: Files = Files {
            shared: false,
            slots: 0,
            first: 0,
        };
        // SAFETY: as the caller promises.
        let files: *const u8 = unsafe { load::<A, _, _>(task, layout::TASK__FILES) };
        if files.is_null() {
            return NONE;
        }
        // SAFETY: `files` is typed by BTF if the task is.
        let count: u32 = unsafe { load::<A, _, _>(files, layout::FILES__COUNT) };
        // SAFETY: as above.
        let table: *const u8 = unsafe { load::<A, _, _>(files, layout::FILES__TABLE) };
        if table.is_null() {
            return NONE;
        }
        // SAFETY: likewise.
        let slots: u32 = unsafe { load::<A, _, _>(table, layout::FDTABLE__SLOTS) };
        // SAFETY: likewise.
        let first: u64 = unsafe { load::<A, _, _>(table, layout::FDTABLE__FD) };
        Self {
            shared: count > 1,
            slots,
            first,
        }
    }

    /// The file of a descriptor.
    #[inline(always)]
    pub fn get(&self, fd: u64) -> Option<File> {
        let fd = u64::from(fd as u32);
        if fd >= u64::from(self.slots) {
            return None;
        }
        let file = read_kernel::<u64>(self.first.wrapping_add(fd * 8))?;
        (file != 0).then_some(File(file))
    }
}

/// Address of a `struct file`.
#[derive(Clone, Copy)]
pub struct File(pub u64);

impl File {
    /// The socket that the file is, if it is one.
    #[inline(always)]
    pub fn socket(self) -> Option<Socket<Untyped>> {
        let file = self.0 as *const u8;
        // SAFETY: `Untyped` reads any address.
        let private: u64 = unsafe { load::<Untyped, _, _>(file, layout::FILE__PRIVATE) };
        // SAFETY: as above.
        let inode: u64 = unsafe { load::<Untyped, _, _>(file, layout::FILE__INODE) };
        // Both lie in one `struct socket_alloc` (include/net/sock.h: SOCKET_I; net/socket.c: sock_alloc_file). No other file has its
        // private data at that distance from its inode.
        let inode_in_socket = layout::SOCKET_ALLOC__MODE
            .load()
            .wrapping_sub(layout::INODE__MODE.load());
        if private == 0 || private.wrapping_add(u64::from(inode_in_socket)) != inode {
            return None;
        }
        // SAFETY: as above.
        let sk: *const u8 = unsafe { load::<Untyped, _, _>(private as *const u8, layout::SOCKET__SK) };
        // SAFETY: a `struct sock *`.
        (!sk.is_null()).then(|| unsafe { Socket::new(sk) })
    }
}
