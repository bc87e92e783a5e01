//! What a first process must do: mount, bring the loopback up, report, power off.

use std::ffi::CString;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

/// The line to the machine outside.
pub struct Report(File);

impl Report {
    /// Tells one object.
    pub fn tell(&mut self, value: &Value) -> anyhow::Result<()> {
        Ok(self.0.write_all(format!("{value}\n").as_bytes())?)
    }
}

/// Runs `work` as the first process of a guest, reports its error if it has one, and powers off. Never returns, because the
/// first process must not end.
pub fn run(work: impl FnOnce(&mut Report) -> anyhow::Result<()>) -> anyhow::Result<()> {
    anyhow::ensure!(
        std::process::id() == 1,
        "this is the first process of a guest, nothing else"
    );
    match mount_all().and_then(|()| report()) {
        Ok(mut report) => {
            if let Err(error) = loopback_up().and_then(|()| work(&mut report)) {
                let _ = report.tell(&json!({ "error": format!("{error:#}") }));
            }
        }
        Err(error) => eprintln!("guest: {error:#}"),
    }
    // What was told is still on its way through the serial lines.
    std::thread::sleep(Duration::from_millis(500));
    // SAFETY: the command takes no argument.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// The second serial line: the first is the kernel's console.
fn report() -> anyhow::Result<Report> {
    // Where there is the second, the first is a name without a device.
    let ports = ["/dev/ttyAMA1", "/dev/ttyS1"];
    let port = ports
        .iter()
        .find(|port| Path::new(port).exists())
        .context("the guest has no second serial line")?;
    let file = File::options()
        .write(true)
        .open(port)
        .with_context(|| format!("opening {port}"))?;
    Ok(Report(file))
}

fn mount_all() -> anyhow::Result<()> {
    for (kind, path) in [
        ("devtmpfs", "/dev"),
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("tracefs", "/sys/kernel/tracing"),
        // As every distribution has it: here the kernel says how it preempts.
        ("debugfs", "/sys/kernel/debug"),
        ("bpf", "/sys/fs/bpf"),
        ("cgroup2", "/sys/fs/cgroup"),
    ] {
        let (kind, path) = (CString::new(kind)?, CString::new(path)?);
        // SAFETY: three strings that end with 0 and outlive the call; the file systems take no data.
        let result = unsafe { libc::mount(kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
        if result != 0 {
            let error = std::io::Error::last_os_error();
            return Err(error).with_context(|| format!("mounting {kind:?} on {path:?}"));
        }
    }
    Ok(())
}

/// Sets `IFF_UP` on `lo` of this network namespace (netdevice(7)).
pub fn loopback_up() -> anyhow::Result<()> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0))?;
    // SAFETY: zeroes are a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo\0") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket);
    // SAFETY: SIOCSIFFLAGS reads one ifreq, whose name ends with 0.
    if unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) } != 0 {
        return Err(std::io::Error::last_os_error()).context("bringing lo up");
    }
    Ok(())
}
