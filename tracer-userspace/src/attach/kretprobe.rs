//! Kretprobes with room for many calls at a time.
//!
//! The kernel keeps a record for each call that is under way, and the usual way to attach makes one for each CPU or two: with a
//! dozen threads blocked in a receive it would miss the returns of all others. Only an event defined in tracefs can say how
//! many (Documentation/trace/kprobetrace.rst: `r[MAXACTIVE]`).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::programs::KProbe;

/// `KRETPROBE_MAXACTIVE_MAX` (kernel/trace/trace_kprobe.c).
const MOST_ACTIVE: u32 = 4096;
const GROUP: &str = "tracer";

/// An attached kretprobe; dropping it detaches it and takes its definition back.
pub struct Kretprobe {
    event: Option<OwnedFd>,
    tracefs: PathBuf,
    name: String,
}

impl Kretprobe {
    /// Attaches a loaded program to the end of a function.
    pub fn attach(program: &KProbe, function: &str) -> anyhow::Result<Self> {
        let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"]
            .map(Path::new)
            .into_iter()
            .find(|path| path.join("kprobe_events").exists())
            .context("tracefs is not mounted: mount -t tracefs tracefs /sys/kernel/tracing")?;
        let mut own = Self {
            event: None,
            tracefs: tracefs.to_owned(),
            name: format!("{function}_{}", std::process::id()),
        };
        own.define(&format!("r{MOST_ACTIVE}:{GROUP}/{} {function}", own.name))
            .with_context(|| format!("defining a kretprobe of {function}"))?;
        let id = tracefs.join("events").join(GROUP).join(&own.name).join("id");
        let id = fs::read_to_string(&id).with_context(|| id.display().to_string())?;
        let event = open(id.trim().parse().context("number of an event")?).context("opening an event")?;
        let program = program.fd().context("the program is not loaded")?;
        control(&event, SET_BPF, program.as_fd().as_raw_fd().into()).context("attaching the program")?;
        control(&event, ENABLE, 0).context("enabling the event")?;
        own.event = Some(event);
        Ok(own)
    }

    fn define(&self, line: &str) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .append(true)
            .open(self.tracefs.join("kprobe_events"))?;
        file.write_all(format!("{line}\n").as_bytes())
    }
}

impl Drop for Kretprobe {
    fn drop(&mut self) {
        self.event = None;
        if let Err(why) = self.define(&format!("-:{GROUP}/{}", self.name)) {
            tracing::debug!("taking the kretprobe {} back: {why}", self.name);
        }
    }
}

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
