//! Tracepoints by perf events, as far as aya has no way of its own: events that are opened and closed while the daemon runs, and
//! numbers of tracepoints on hosts where tracefs is not mounted.

use std::{
    fs, io,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::Path,
};

use anyhow::Context as _;
use aya::programs::ProgramFd;

// include/uapi/linux/perf_event.h
const SET_BPF: libc::c_ulong = 0x4004_2408;
const ENABLE: libc::c_ulong = 0x2400;
const TYPE_TRACEPOINT: u32 = 2;
const FLAG_FD_CLOEXEC: libc::c_ulong = 8;

/// `struct perf_event_attr` up to `PERF_ATTR_SIZE_VER0`.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    rest: [u64; 6],
}

const _: () = assert!(size_of::<Attributes>() == 64);

/// Runs the program at that tracepoint, on all CPUs, until the descriptor is closed.
pub fn attach(program: &ProgramFd, tracepoint: u64) -> anyhow::Result<OwnedFd> {
    let event = open(tracepoint).context("opening an event")?;
    control(&event, SET_BPF, program.as_fd().as_raw_fd().into()).context("attaching the program")?;
    control(&event, ENABLE, 0).context("enabling the event")?;
    Ok(event)
}

fn open(id: u64) -> io::Result<OwnedFd> {
    let attributes = Attributes {
        kind: TYPE_TRACEPOINT,
        size: 64,
        config: id,
        ..Attributes::default()
    };
    let (everybody, first_cpu, no_group) = (-1, 0, -1);
    // SAFETY: the struct is as large as it says.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            everybody,
            first_cpu,
            no_group,
            FLAG_FD_CLOEXEC,
        )
    };
    descriptor(fd)
}

fn descriptor(fd: libc::c_long) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

fn control(event: &OwnedFd, request: libc::c_ulong, argument: libc::c_long) -> io::Result<()> {
    // SAFETY: both requests take a number.
    let failed = unsafe { libc::ioctl(event.as_raw_fd(), request as _, argument) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// The numbers of tracepoints of system calls.
pub fn numbers<const N: usize>(names: [&str; N]) -> anyhow::Result<[u64; N]> {
    let mounted = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
        .map(Path::new)
        .into_iter()
        .find(|path| path.join("events").exists());
    // Kept until the numbers are read; nobody else sees this mount.
    let own = if mounted.is_none() {
        Some(own_tracefs().context("tracefs is not mounted, and could not be")?)
    } else {
        None
    };
    let own_path = own.as_ref().map(|fd| format!("/proc/self/fd/{}", fd.as_raw_fd()));
    let root = mounted
        .or(own_path.as_deref().map(Path::new))
        .context("no tracefs")?;
    let mut numbers = [0; N];
    for (number, name) in numbers.iter_mut().zip(names) {
        let id = root.join("events/syscalls").join(name).join("id");
        let text = fs::read_to_string(&id).with_context(|| format!("the number of {name}"))?;
        *number = text.trim().parse().context("a tracepoint's number")?;
    }
    Ok(numbers)
}

/// A mount of tracefs that has no place in any directory: it is gone once the descriptor is closed.
fn own_tracefs() -> io::Result<OwnedFd> {
    const CREATE: libc::c_uint = 6; // FSCONFIG_CMD_CREATE (include/uapi/linux/mount.h)
    let (nothing, no_flags) = (std::ptr::null::<libc::c_void>(), 0);
    // SAFETY: a string that ends with 0, and no flags.
    let context = descriptor(unsafe { libc::syscall(libc::SYS_fsopen, c"tracefs".as_ptr(), no_flags) })?;
    // SAFETY: the command takes no key and no value.
    let created = unsafe {
        libc::syscall(
            libc::SYS_fsconfig,
            context.as_raw_fd(),
            CREATE,
            nothing,
            nothing,
            no_flags,
        )
    };
    if created < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: numbers only.
    descriptor(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), no_flags, no_flags) })
}
