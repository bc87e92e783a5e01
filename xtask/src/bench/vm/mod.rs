//! nginx under wrk in a guest whose clock counts instructions: QEMU's software emulation with `-icount shift=0`, one vCPU,
//! one host thread. A nanosecond of guest time is an instruction, so a busy machine does not change the figures.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

mod bounds;
pub mod guest;
mod image;
mod kernel;
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
    crate::install::ensure(&[
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("nginx", "nginx-light"),
        ("wrk", "wrk"),
    ])?;
    let dir = super::scratch("vm")?;
    let kernel = kernel::find()?;
    let initramfs = dir.join("initramfs.cpio");
    build_image(args, &initramfs)?;
    for attempt in 1..=ATTEMPTS {
        match boot(args, &kernel, &initramfs, &dir)? {
            Some(results) => {
                let figures = report::Figures::new(&results)?;
                println!("{}", figures.heading(&kernel::name(&kernel), args.connections));
                println!("{figures}");
                return if args.check {
                    bounds::check(&figures)
                } else {
                    Ok(())
                };
            }
            None => eprintln!("bench: the guest did not boot (attempt {attempt} of {ATTEMPTS})"),
        }
    }
    bail!(
        "the guest does not boot; its last words are in {}",
        dir.join("console.log").display()
    )
}

fn build_image(args: &Args, path: &Path) -> anyhow::Result<()> {
    let mut image = image::Image::new();
    image.program(&super::build_self()?, "init")?;
    if !args.untraced {
        image.program(&super::build_daemon()?, guest::DAEMON)?;
    }
    for name in ["nginx", "wrk"] {
        let program = super::program(name)?;
        image.program(&program, &program.to_string_lossy())?;
    }
    let mut out = BufWriter::new(File::create(path)?);
    image.write(&mut out)?;
    Ok(out.flush()?)
}

/// Boots the guest and collects what it tells. `None` if it never came to its first words.
fn boot(args: &Args, kernel: &Path, initramfs: &Path, dir: &Path) -> anyhow::Result<Option<Vec<Value>>> {
    let mut qemu = Guest(start_qemu(args, kernel, initramfs, dir)?);
    let (sender, lines) = mpsc::channel();
    let pipe = qemu.0.stdout.take().context("QEMU has no standard output")?;
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    let mut results = Vec::new();
    let mut log = File::create(dir.join("rounds.jsonl"))?;
    let started = Instant::now();
    loop {
        let patience = if results.is_empty() { BOOT } else { ROUND };
        let Ok(line) = lines.recv_timeout(patience) else {
            if results.is_empty() {
                return Ok(None);
            }
            let console = fs::read_to_string(dir.join("console.log")).unwrap_or_default();
            let tail: Vec<&str> = console.lines().rev().take(30).collect();
            bail!(
                "the guest fell silent; its console ends:\n{}",
                tail.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
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

fn start_qemu(args: &Args, kernel: &Path, initramfs: &Path, dir: &Path) -> anyhow::Result<Child> {
    let untraced = if args.untraced { " --untraced" } else { "" };
    // The guest's time-stamp counter counts virtual nanoseconds; `mitigations=off` leaves out what emulation can't show.
    let append = format!(
        "console=ttyS0 loglevel=4 panic=-1 mitigations=off tsc=reliable tsc_early_khz=1000000 rdinit=/init \
         -- bench guest --rounds {} --seconds {} --connections {}{untraced}",
        args.rounds, args.seconds, args.connections
    );
    Command::new("qemu-system-x86_64")
        .args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"])
        .args(["-machine", "pc", "-m", "1536", "-smp", "1"])
        .args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"])
        // QEMU 7.2 mistakes cmpxchg16b.
        .args(["-cpu", "Haswell-v4,-cx16"])
        .arg("-kernel")
        .arg(kernel)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", &append])
        .args([
            "-serial",
            &format!("file:{}", dir.join("console.log").display()),
            "-serial",
            "stdio",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(dir.join("qemu.log"))?)
        .spawn()
        .context("starting qemu-system-x86_64")
}

struct Guest(Child);

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
