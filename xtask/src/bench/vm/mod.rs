//! nginx under wrk in a guest whose clock counts instructions: QEMU's software emulation with `-icount shift=0`, one vCPU,
//! one host thread. A nanosecond of guest time is an instruction, so a busy machine does not change the figures.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use crate::guest::kernel::{self, Kernel, Series};
use crate::guest::qemu::{Emulator, Machine};
use crate::guest::{Arch, image::Image};

pub mod bounds;
pub mod guest;
mod report;

/// Options of `cargo xtask bench vm`.
#[derive(clap::Args)]
pub struct Args {
    /// Rounds of each kind
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Guest seconds of load in a round; one takes five to ten on the machine
    #[arg(long, default_value_t = 2)]
    seconds: u32,
    /// Keep-alive connections
    #[arg(long, default_value_t = 20)]
    connections: u32,
    /// Only untraced rounds, to try the guest
    #[arg(long)]
    untraced: bool,
    /// Fail if a figure is outside its bound in xtask/src/bench/vm/bounds.json
    #[arg(long, conflicts_with = "untraced")]
    check: bool,
}

/// The figures in `docs/benchmarks.md` and the bounds belong to it.
const SERIES: Series = Series::new(6, 12);

/// A guest that does not get to its first round in this time has hung: QEMU's emulation is not free of faults.
const BOOT: Duration = Duration::from_secs(120);
/// Longest wait for a further result.
const ROUND: Duration = Duration::from_secs(300);
const ATTEMPTS: u32 = 3;

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "this bench boots an x86_64 guest with this machine's programs"
    );
    crate::install::ensure(&[("nginx", "nginx-light"), ("wrk", "wrk")])?;
    let mut programs = Vec::new();
    if !args.untraced {
        programs.push((super::build_daemon()?, guest::DAEMON.to_owned()));
    }
    for name in ["nginx", "wrk"] {
        let program = super::program(name)?;
        let path = program.to_string_lossy().into_owned();
        programs.push((program, path));
    }
    let untraced = if args.untraced { " --untraced" } else { "" };
    let words = format!(
        "--rounds {} --seconds {} --connections {}{untraced}",
        args.rounds, args.seconds, args.connections
    );
    let (kernel, results) = in_guest("vm", &programs, &words)?;
    let figures = report::Figures::new(&results)?;
    println!("{}", figures.heading(&kernel, args.connections));
    println!("{figures}");
    if args.check {
        let path = crate::shell::root().join("xtask/src/bench/vm/bounds.json");
        bounds::check(&path, |kind, name| figures.get(kind, name))
    } else {
        Ok(())
    }
}

/// Boots a guest with these programs (file, path in the guest) whose first process is `bench guest` with the given words. The
/// kernel's release, and what the guest told.
pub fn in_guest(
    bench: &str,
    programs: &[(PathBuf, String)],
    words: &str,
) -> anyhow::Result<(String, Vec<Value>)> {
    let dir = super::scratch(bench)?;
    let emulator = Emulator::installed(Arch::X86_64)?;
    let kernel = kernel::find(SERIES, Arch::X86_64, false)?;
    let initramfs = dir.join("initramfs.cpio");
    build_image(programs, &initramfs)?;
    for attempt in 1..=ATTEMPTS {
        match boot(words, &emulator, &kernel, &initramfs, &dir)? {
            Some(results) => return Ok((kernel.release, results)),
            None => eprintln!("bench: the guest did not boot (attempt {attempt} of {ATTEMPTS})"),
        }
    }
    bail!(
        "the guest does not boot; its last words are in {}",
        dir.join("console.log").display()
    )
}

fn build_image(programs: &[(PathBuf, String)], path: &Path) -> anyhow::Result<()> {
    let mut image = Image::new();
    image.program(&super::build_self()?, "init")?;
    for (file, path) in programs {
        image.program(file, path)?;
    }
    let mut out = BufWriter::new(File::create(path)?);
    image.write(&mut out)?;
    Ok(out.flush()?)
}

/// Boots the guest and collects what it tells. `None` if it never came to its first words.
fn boot(
    words: &str,
    emulator: &Emulator,
    kernel: &Kernel,
    initramfs: &Path,
    dir: &Path,
) -> anyhow::Result<Option<Vec<Value>>> {
    // The guest's time-stamp counter counts virtual nanoseconds; `mitigations=off` leaves out what emulation can't show.
    let append = format!(
        "loglevel=4 panic=-1 mitigations=off tsc=reliable tsc_early_khz=1000000 rdinit=/init \
         -- bench guest {words}"
    );
    let machine = Machine {
        arch: Arch::X86_64,
        kernel,
        initramfs,
        memory_mib: 1536,
        cpus: 1,
        counted: true,
        append: &append,
        logs: dir,
    };
    let guest = machine.boot(emulator)?;
    let mut results = Vec::new();
    let mut log = File::create(dir.join("rounds.jsonl"))?;
    let started = Instant::now();
    loop {
        let patience = if results.is_empty() { BOOT } else { ROUND };
        let Some(line) = guest.line(patience) else {
            if results.is_empty() {
                return Ok(None);
            }
            bail!("the guest fell silent; its console ends:\n{}", guest.last_words());
        };
        let value: Value =
            serde_json::from_str(line.trim()).with_context(|| format!("the guest said: {line}"))?;
        if let Some(error) = value.get("error").and_then(Value::as_str) {
            bail!("in the guest: {error}");
        }
        if value.get("done").is_some() {
            return Ok(Some(results));
        }
        let what = value
            .get("label")
            .or(value.get("booted"))
            .and_then(Value::as_str)
            .unwrap_or_default();
        eprintln!("bench: {:4.0} s  {what}", started.elapsed().as_secs_f64());
        writeln!(log, "{value}")?;
        results.push(value);
    }
}
