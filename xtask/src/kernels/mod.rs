//! `cargo xtask kernels`: the daemon on stock kernels of every age. Each boots in an emulated guest with the static daemon; with every
//! back end the guest runs the cases and tells the spans' judgement. `docs/kernels.md` has the last table.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::guest::kernel::{self, Kernel, Series};
use crate::guest::qemu::{Emulator, Machine};
use crate::guest::{Arch, qemu};
use crate::shell;
use programs::Build;

mod cases;
mod document;
mod guest;
mod kept;
mod limits;
mod programs;
mod table;
mod verdict;
mod ways;

/// Options of `cargo xtask kernels`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    inside: Option<Inside>,
    /// Only these series of kernels, separated by commas: 5.10, 6.12, 7
    #[arg(long, value_delimiter = ',')]
    kernel: Vec<Series>,
    /// Only this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Only these back ends, separated by commas
    #[arg(long, value_delimiter = ',')]
    backend: Vec<String>,
    /// Only these cases, separated by commas; `ways` for those of `tests/cases`
    #[arg(long, value_delimiter = ',')]
    case: Vec<String>,
    /// A selection that shows most in little time, with the programs that the tests build
    #[arg(long, conflicts_with = "dev")]
    quick: bool,
    /// A daemon that is hardly optimised, which is built much sooner
    #[arg(long)]
    dev: bool,
    /// Guests at a time (default: as many as CPUs)
    #[arg(long)]
    jobs: Option<usize>,
    /// Boot the images of the last run, build nothing
    #[arg(long)]
    no_build: bool,
    /// Boot nothing: judge again what the guests told last
    #[arg(long, conflicts_with_all = ["quick", "no_build", "refresh"])]
    kept: bool,
    /// Look for newer kernels than the cache has
    #[arg(long)]
    refresh: bool,
}

#[derive(clap::Subcommand)]
enum Inside {
    /// (used in the guest) The first process
    #[command(hide = true)]
    Guest(guest::Args),
    /// (used in the guest) One case
    #[command(hide = true)]
    Case {
        /// Its name
        name: String,
    },
}

/// Every back end that the daemon has.
const BACKENDS: &[&str] = &["tracepoint", "fentry", "syscall"];

/// A kernel of the matrix, and the back ends that run there.
type Row = (Arch, &'static str, &'static [&'static str]);

/// Debian's oldest kernel with support, its stable ones, the last of 6.x and the newest.
const MATRIX: &[Row] = &[
    (Arch::X86_64, "5.10", BACKENDS),
    (Arch::X86_64, "6.1", BACKENDS),
    (Arch::X86_64, "6.12", BACKENDS),
    (Arch::X86_64, "6.19", BACKENDS),
    (Arch::X86_64, "7", BACKENDS),
    (Arch::Aarch64, "5.10", BACKENDS),
    (Arch::Aarch64, "6.1", BACKENDS),
    (Arch::Aarch64, "6.12", BACKENDS),
    (Arch::Aarch64, "6.19", BACKENDS),
    (Arch::Aarch64, "7", BACKENDS),
];

/// What `--quick` runs: the oldest and the one that most hosts have; every back end where it is hardest for it. Not Linux 7: there programs are
/// preempted, and those without stand-ins (state changes) are now and then left out in a guest whose machine is busy. That is counted, and the
/// ledger's row fails then.
const QUICK: &[Row] = &[
    (Arch::X86_64, "5.10", &["fentry", "syscall"]),
    (Arch::X86_64, "6.12", &["tracepoint"]),
];

/// The kernel that runs all cases of `tests/cases` there: its verifier is the quickest of them.
const QUICK_WAYS: &str = "6.12";

/// Until the first words, and until the next: a guest that is silent for longer has hung. No busy machine needs a tenth of it.
const BOOT: Duration = Duration::from_secs(900);
const SILENCE: Duration = Duration::from_secs(7_200);
const ATTEMPTS: u32 = 2;

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.inside {
        Some(Inside::Guest(args)) => guest::run(args),
        Some(Inside::Case { name }) => {
            cases::run(cases::named(name).with_context(|| format!("no case {name}"))?)
        }
        None => matrix(args),
    }
}

fn matrix(args: &Args) -> anyhow::Result<()> {
    let selection = selection(args)?;
    let wanted = chosen(&args.backend, BACKENDS)?;
    let names = cases::CASES.iter().map(|case| case.name);
    let names: Vec<&str> = names.chain([guest::WAYS]).collect();
    let all_cases = chosen(&args.case, &names)?;
    let build = match (args.quick, args.dev) {
        (true, _) => Build::Tests,
        (false, true) => Build::Static("dev"),
        (false, false) => Build::Static("release"),
    };
    let dir = shell::target_dir()?.join("kernels");
    fs::create_dir_all(&dir)?;

    let started = Instant::now();
    // Of what is built now: the run takes long.
    let mut revision = document::revision()?;
    let mut guests = Vec::new();
    let mut images: Vec<(Arch, PathBuf)> = Vec::new();
    for (arch, series, backends) in selection {
        let backends: Vec<_> = backends
            .iter()
            .copied()
            .filter(|name| wanted.iter().any(|only| only == name))
            .map(str::to_owned)
            .collect();
        if backends.is_empty() {
            continue;
        }
        let kernel = kernel::find(series, arch, args.refresh)?;
        let initramfs = match images.iter().find(|(known, _)| *known == arch) {
            Some((_, path)) => path.clone(),
            None => {
                let path = dir.join(format!("initramfs-{}.cpio", arch.name()));
                if !args.no_build && !args.kept {
                    programs::image(arch, build, &path)?;
                }
                images.push((arch, path.clone()));
                path
            }
        };
        let emulator = Emulator::unpacked(arch)?;
        let mut cases = all_cases.clone();
        if args.quick && args.case.is_empty() && series.to_string() != QUICK_WAYS {
            for name in cases.iter_mut().filter(|name| *name == guest::WAYS) {
                guest::YOUNG_WAYS.clone_into(name);
            }
        }
        guests.push(Job {
            arch,
            kernel,
            initramfs,
            emulator,
            append: format!("--backends {} --cases {}", backends.join(","), cases.join(",")),
            backends,
            revision: revision.clone(),
        });
    }
    eprintln!(
        "kernels: everything is there after {} s",
        started.elapsed().as_secs()
    );

    let columns = if args.kept {
        revision = kept::revisions(guests.iter().map(|job| dir.join(&job.kernel.release)))?;
        guests
            .iter()
            .map(|job| job.kept(&dir))
            .collect::<Result<_, _>>()?
    } else {
        run_all(&guests, &dir, args.jobs)?
    };
    let whole = !args.quick && args.kernel.is_empty() && args.backend.is_empty() && args.case.is_empty();
    let failures = table::failures(&columns);
    for arch in [Arch::X86_64, Arch::Aarch64] {
        let (own, _): (Vec<_>, Vec<_>) = columns.iter().partition(|column| column.arch == arch);
        if own.is_empty() {
            continue;
        }
        let text = table::markdown(&own, &wanted);
        println!("## {}\n\n{text}", arch.name());
        if whole {
            let options = [(args.dev, " --dev"), (args.kept, " --kept")];
            let options: String = options
                .iter()
                .filter(|(given, _)| *given)
                .map(|(_, word)| *word)
                .collect();
            document::write(arch, &options, &revision, &text)?;
        }
    }
    for column in &columns {
        eprintln!("kernels: {} took {} s", column.release, column.seconds);
    }
    ensure!(
        failures.is_empty(),
        "{} cells fail; what the guests said is in {}\n{}",
        failures.len(),
        dir.display(),
        failures.join("\n")
    );
    Ok(())
}

fn selection(args: &Args) -> anyhow::Result<Vec<(Arch, Series, &'static [&'static str])>> {
    // A series that the matrix does not have can be asked for as well.
    if !args.kernel.is_empty() {
        let arch = args.arch.unwrap_or_default();
        return Ok(args
            .kernel
            .iter()
            .map(|series| (arch, *series, BACKENDS))
            .collect());
    }
    let all = if args.quick { QUICK } else { MATRIX };
    let left_out = MATRIX
        .iter()
        .filter(|(arch, series, _)| !all.iter().any(|row| (row.0, row.1) == (*arch, *series)));
    for (arch, series, _) in left_out {
        eprintln!(
            "kernels: skipped by --quick, to save time: {series} on {}",
            arch.name()
        );
    }
    let mut selection = Vec::new();
    for (arch, series, backends) in all {
        if args.arch.is_none_or(|only| only == *arch) {
            selection.push((
                *arch,
                series.parse::<Series>().map_err(anyhow::Error::msg)?,
                *backends,
            ));
        }
    }
    Ok(selection)
}

/// What was asked for, or all there is.
fn chosen(asked: &[String], all: &[&str]) -> anyhow::Result<Vec<String>> {
    if let Some(stranger) = asked.iter().find(|name| !all.contains(&name.as_str())) {
        bail!("{stranger:?} is none of: {}", all.join(", "));
    }
    if asked.is_empty() {
        return Ok(all.iter().map(|name| (*name).to_owned()).collect());
    }
    Ok(asked.to_vec())
}

struct Job {
    arch: Arch,
    kernel: Kernel,
    initramfs: PathBuf,
    emulator: Emulator,
    backends: Vec<String>,
    /// What is in the initramfs.
    revision: String,
    /// Words for the first process.
    append: String,
}

/// Runs every guest, some at a time; the columns in the order of the guests.
fn run_all(guests: &[Job], dir: &Path, jobs: Option<usize>) -> anyhow::Result<Vec<table::Column>> {
    let jobs = match jobs {
        Some(jobs) => jobs,
        None => std::thread::available_parallelism()?.get(),
    };
    let next = Mutex::new(0..guests.len());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, guests.len().max(1)) {
            scope.spawn(|| {
                loop {
                    let Some(at) = next.lock().ok().and_then(|mut next| next.next()) else {
                        return;
                    };
                    let Some(job) = guests.get(at) else { return };
                    let column = job.run(dir);
                    if let Ok(mut done) = done.lock() {
                        done.push((at, column));
                    }
                }
            });
        }
    });
    let mut done = done
        .into_inner()
        .map_err(|_| anyhow::anyhow!("a guest's thread panicked"))?;
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, column)| column).collect()
}

impl Job {
    fn run(&self, dir: &Path) -> anyhow::Result<table::Column> {
        let release = &self.kernel.release;
        let logs = dir.join(release);
        kept::begin(&logs, &self.backends, &self.revision)?;
        let started = Instant::now();
        let mut told = Vec::new();
        for attempt in 1..=ATTEMPTS {
            eprintln!("kernels: {release} boots");
            told = self.boot(&logs)?;
            if !told.is_empty() {
                break;
            }
            eprintln!("kernels: {release} did not boot (attempt {attempt} of {ATTEMPTS})");
        }
        if told.is_empty() {
            let console = logs.join("console.log");
            let why = format!("it does not boot; its last words are in {}", console.display());
            told.push(json!({ "error": why }));
        }
        if let Some(end) = told.last() {
            kept::keep(&logs, end)?;
        }
        let seconds = started.elapsed().as_secs();
        eprintln!("kernels: {release} is done after {seconds} s");
        Ok(self.column(&told, seconds))
    }

    /// What its last run told.
    fn kept(&self, dir: &Path) -> anyhow::Result<table::Column> {
        let told = kept::told(&dir.join(&self.kernel.release), &self.backends)?;
        Ok(self.column(&told, 0))
    }

    fn column(&self, told: &[Value], seconds: u64) -> table::Column {
        table::Column {
            arch: self.arch,
            release: self.kernel.release.clone(),
            verdicts: verdict::judge(self.arch, &self.kernel, told),
            seconds,
        }
    }

    /// What the guest told; nothing if it never came to its first words. One that comes to no end is judged by what it told before,
    /// and fails for that.
    fn boot(&self, logs: &Path) -> anyhow::Result<Vec<Value>> {
        let append = format!(
            "loglevel=4 panic=-1 mitigations=off rdinit=/init -- kernels guest {}",
            self.append
        );
        let machine = Machine {
            arch: self.arch,
            kernel: &self.kernel,
            initramfs: &self.initramfs,
            memory_mib: 1024,
            cpus: 2,
            counted: false,
            append: &append,
            logs,
        };
        let guest: qemu::Guest = machine.boot(&self.emulator)?;
        let mut told = Vec::new();
        loop {
            let Some(line) = guest.line(if told.is_empty() { BOOT } else { SILENCE }) else {
                if !told.is_empty() {
                    let why = format!("it fell silent; its console ends:\n{}", guest.last_words());
                    told.push(json!({ "error": why }));
                }
                return Ok(told);
            };
            let value: Value = serde_json::from_str(line.trim())
                .with_context(|| format!("{} said: {line}", self.kernel.release))?;
            if value.get("error").is_some() || value.get("done").is_some() {
                told.push(value);
                return Ok(told);
            }
            kept::keep(logs, &value)?;
            if let Some(backend) = value.get("backend").and_then(Value::as_str) {
                eprintln!("kernels: {}: {backend} is done", self.kernel.release);
            }
            told.push(value);
        }
    }
}
