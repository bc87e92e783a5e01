//! Kretprobes with room for many calls at a time.
//!
//! The kernel keeps a record for each call that is under way, and the usual way to attach makes one for each CPU or two: with a
//! dozen threads blocked in a receive it would miss the returns of all others. Only an event defined in tracefs can say how
//! many (Documentation/trace/kprobetrace.rst: `r[MAXACTIVE]`).

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya::programs::KProbe;

use super::perf;

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
        let program = program.fd().context("the program is not loaded")?;
        let id = id.trim().parse().context("number of an event")?;
        own.event = Some(perf::attach(program, id)?);
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
