//! What the kernel says about a process: CPU time, memory, BPF objects.

use std::collections::HashSet;
use std::fs;
use std::io;

use anyhow::Context;

/// CPU time of a process with all its threads, ended ones too, in nanoseconds. In the guest that counts instructions, one
/// nanosecond is one instruction.
pub fn cpu_ns(pid: u32) -> io::Result<u64> {
    let mut clock: libc::clockid_t = 0;
    // SAFETY: `clock` is valid for writing one clock id.
    let error = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if error != 0 {
        return Err(io::Error::from_raw_os_error(error));
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is valid for writing one timespec.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(time.tv_sec.cast_unsigned() * 1_000_000_000 + time.tv_nsec.cast_unsigned())
}

/// CPU time of a process's first thread in nanoseconds (`/proc/PID/task/PID/schedstat`, its first number); 0 where the kernel does not
/// keep it.
pub fn first_thread_ns(pid: u32) -> u64 {
    let told = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat")).unwrap_or_default();
    let first = told.split_whitespace().next().and_then(|ns| ns.parse().ok());
    first.unwrap_or(0)
}

/// What `/proc/PID/stat` (proc_pid_stat(5)) says of all threads.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stat {
    /// Page faults that needed no reading from disk.
    pub faults: u64,
    /// Clock ticks in user space, sampled.
    pub user: u64,
    /// Clock ticks in the kernel, sampled.
    pub kernel: u64,
}

/// Reads it.
pub fn stat(pid: u32) -> anyhow::Result<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat"))?).context("/proc/PID/stat")
}

fn parse_stat(line: &str) -> Option<Stat> {
    // The program's name is in parentheses and may hold anything; the state behind it is field 3.
    let (_, fields) = line.rsplit_once(") ")?;
    let field = |number: usize| fields.split_whitespace().nth(number - 3)?.parse().ok();
    Some(Stat {
        faults: field(10)?,
        user: field(14)?,
        kernel: field(15)?,
    })
}

/// CPU time of all children that were waited for, in nanoseconds (resolution: 1 us).
pub fn reaped_cpu_ns() -> io::Result<u64> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is valid for writing one rusage.
    if unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: getrusage has filled it, and zeroes were valid before.
    let usage = unsafe { usage.assume_init() };
    let ns = |t: libc::timeval| t.tv_sec.cast_unsigned() * 1_000_000_000 + t.tv_usec.cast_unsigned() * 1_000;
    Ok(ns(usage.ru_utime) + ns(usage.ru_stime))
}

/// A field of `/proc/PID/status` in KiB: `VmRSS` (resident now), `VmHWM` (most ever).
pub fn status_kib(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?
                .strip_prefix(':')?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("no {field} in /proc/{pid}/status"))
}

/// The BPF objects that a process holds.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Bpf {
    /// Memory of its maps in bytes, as the kernel charges it.
    pub map_bytes: u64,
    /// Number of maps.
    pub maps: u64,
    /// Number of programs.
    pub programs: u64,
    /// Time in its programs in nanoseconds, since they were loaded (0 unless `kernel.bpf_stats_enabled`).
    pub run_ns: u64,
    /// Number of runs, likewise.
    pub runs: u64,
    /// Runs that did not take place because the same program was running on that CPU (always counted, since Linux 5.12).
    pub misses: u64,
}

/// Adds up `/proc/PID/fdinfo` (kernel/bpf/syscall.c: `bpf_map_show_fdinfo`, `bpf_prog_show_fdinfo`); an object held by two
/// descriptors counts once.
pub fn bpf(pid: u32) -> anyhow::Result<Bpf> {
    let mut total = Bpf::default();
    let mut seen = HashSet::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // A descriptor may close while we read.
        let Ok(info) = fs::read_to_string(entry?.path()) else {
            continue;
        };
        add(&mut total, &mut seen, &info);
    }
    Ok(total)
}

fn add(total: &mut Bpf, seen: &mut HashSet<(bool, u64)>, info: &str) {
    let field = |name: &str| -> Option<u64> {
        info.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
    };
    if field("map_type").is_some() {
        if seen.insert((true, field("map_id").unwrap_or(0))) {
            total.maps += 1;
            total.map_bytes += field("memlock").unwrap_or(0);
        }
    } else if field("prog_type").is_some() && seen.insert((false, field("prog_id").unwrap_or(0))) {
        total.programs += 1;
        total.run_ns += field("run_time_ns").unwrap_or(0);
        total.runs += field("run_cnt").unwrap_or(0);
        total.misses += field("recursion_misses").unwrap_or(0);
    }
}

/// Turns the kernel's statistics of BPF programs on for as long as it lives (they cost each run two clock readings).
pub struct BpfStats {
    before: String,
}

impl BpfStats {
    const PATH: &str = "/proc/sys/kernel/bpf_stats_enabled";

    /// Turns them on.
    pub fn enable() -> anyhow::Result<Self> {
        let before = fs::read_to_string(Self::PATH).context("reading kernel.bpf_stats_enabled")?;
        fs::write(Self::PATH, "1").context("setting kernel.bpf_stats_enabled")?;
        Ok(Self { before })
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        // Left on, they only cost a little.
        let _ = fs::write(Self::PATH, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cpu_time_grows() {
        let pid = std::process::id();
        let before = cpu_ns(pid).expect("own clock");
        let mut x = 1u64;
        while cpu_ns(pid).expect("own clock") == before {
            x = std::hint::black_box(x.wrapping_mul(3));
        }
    }

    #[test]
    fn the_fields_of_stat_are_found_behind_any_name() {
        let line = "7 (a) b) S 1 7 7 0 -1 4194560 111 0 2 0 33 44 0 0 20 0 3 0 9";
        let wanted = Stat {
            faults: 111,
            user: 33,
            kernel: 44,
        };
        assert_eq!(parse_stat(line), Some(wanted));
    }

    #[test]
    fn objects_count_once() {
        let (mut total, mut seen) = (Bpf::default(), HashSet::new());
        let map = "pos:\t0\nmap_type:\t27\nmap_id:\t7\nmemlock:\t4096\n";
        let program = "prog_type:\t26\nmemlock:\t8192\nprog_id:\t7\nrun_time_ns:\t50\nrun_cnt:\t2\nrecursion_misses:\t3\n";
        for info in [map, program, map, program, "pos:\t0\nflags:\t02\n"] {
            add(&mut total, &mut seen, info);
        }
        assert_eq!(
            total,
            Bpf {
                map_bytes: 4096,
                maps: 1,
                programs: 1,
                run_ns: 50,
                runs: 2,
                misses: 3
            }
        );
    }
}
