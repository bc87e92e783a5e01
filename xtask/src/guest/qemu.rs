//! The emulator, and a guest that runs under it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::Context as _;

use super::Arch;
use super::archive::Archive;
use super::kernel::Kernel;

/// A QEMU.
pub struct Emulator {
    /// The program, or the dynamic loader and its arguments.
    words: Vec<OsString>,
    /// Bookworm's QEMU 7.2 mistakes `cmpxchg16b`: a guest panics in one of two boots.
    old: bool,
}

/// The suite whose QEMU (10.0) has none of the faults of 7.2 and is twice as fast.
const SUITE: &str = "trixie";

impl Emulator {
    /// The one that this machine has, installed if it is missing.
    pub fn installed(arch: Arch) -> anyhow::Result<Self> {
        let program = format!("qemu-system-{}", arch.name());
        let package = match arch {
            Arch::X86_64 => "qemu-system-x86",
            Arch::Aarch64 => "qemu-system-arm",
        };
        crate::install::ensure(&[(&program, package)])?;
        Ok(Self {
            words: vec![program.into()],
            old: true,
        })
    }

    /// That of Debian 13, unpacked into the cache and run with the libraries of its own suite.
    pub fn unpacked(arch: Arch) -> anyhow::Result<Self> {
        let host = Arch::host()?;
        let place = super::cache("qemu")?.join(SUITE);
        let program = place.join("usr/bin").join(format!("qemu-system-{}", arch.name()));
        if !program.exists() {
            let packages = ["qemu-system-x86", "qemu-system-arm"];
            let archive = Archive::open(host)?;
            archive
                .unpack_with_dependencies(SUITE, &packages, &place)
                .with_context(|| {
                    format!(
                        "Debian's archives did not give QEMU, as far as they could be read: {}",
                        archive.trouble()
                    )
                })?;
        }
        let libraries = place.join("usr/lib").join(format!("{}-linux-gnu", host.name()));
        let loader = match host {
            Arch::X86_64 => libraries.join("ld-linux-x86-64.so.2"),
            Arch::Aarch64 => libraries.join("ld-linux-aarch64.so.1"),
        };
        anyhow::ensure!(
            program.exists() && loader.exists(),
            "{} is not complete: remove it",
            place.display()
        );
        let share = place.join("usr/share");
        let words: Vec<OsString> = [
            loader.into(),
            "--library-path".into(),
            libraries.into(),
            program.into(),
            "-L".into(),
            share.join("qemu").into(),
            "-L".into(),
            share.join("seabios").into(),
        ]
        .to_vec();
        Ok(Self { words, old: false })
    }

    fn command(&self) -> Command {
        let mut words = self.words.iter();
        let mut command = Command::new(words.next().map(OsString::as_os_str).unwrap_or_default());
        command.args(words);
        command.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]);
        command
    }
}

/// What a guest has.
pub struct Machine<'a> {
    pub arch: Arch,
    pub kernel: &'a Kernel,
    pub initramfs: &'a Path,
    pub memory_mib: u32,
    pub cpus: u32,
    /// One host thread, and a guest clock that counts instructions.
    pub counted: bool,
    /// Words on the kernel's command line; those after `--` go to the first process.
    pub append: &'a str,
    /// Where `console.log` and `qemu.log` are written.
    pub logs: &'a Path,
}

impl Machine<'_> {
    /// Starts it. What the first process writes to [`super::init::report`] arrives as lines.
    pub fn boot(&self, emulator: &Emulator) -> anyhow::Result<Guest> {
        let console = self.logs.join("console.log");
        let mut command = emulator.command();
        let append = match self.arch {
            Arch::X86_64 => {
                let model = if emulator.old {
                    "Haswell-v4,-cx16"
                } else {
                    "Haswell-v4"
                };
                command.args(["-machine", "pc", "-cpu", model]);
                format!("console=ttyS0 {}", self.append)
            }
            Arch::Aarch64 => {
                command.args(["-machine", "virt", "-cpu", "cortex-a72"]);
                format!("console=ttyAMA0 {}", self.append)
            }
        };
        if self.counted {
            command.args(["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
        } else {
            command.args(["-accel", "tcg,thread=multi"]);
        }
        let child = command
            .args(["-m", &self.memory_mib.to_string(), "-smp", &self.cpus.to_string()])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.initramfs)
            .args(["-append", &append])
            .args([
                "-serial",
                &format!("file:{}", console.display()),
                "-serial",
                "stdio",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.logs.join("qemu.log"))?)
            .spawn()
            .context("starting QEMU")?;
        Guest::new(child, console)
    }
}

/// A running guest; killed when dropped.
pub struct Guest {
    child: Child,
    lines: mpsc::Receiver<String>,
    console: PathBuf,
}

impl Guest {
    fn new(mut child: Child, console: PathBuf) -> anyhow::Result<Self> {
        let pipe = child.stdout.take().context("QEMU has no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self {
            child,
            lines,
            console,
        })
    }

    /// The next line of the first process's report; `None` if there is none in that time.
    pub fn line(&self, patience: Duration) -> Option<String> {
        self.lines.recv_timeout(patience).ok()
    }

    /// The last lines on its console.
    pub fn last_words(&self) -> String {
        let console = fs::read(&self.console).unwrap_or_default();
        let console = String::from_utf8_lossy(&console);
        let lines: Vec<&str> = console.lines().collect();
        lines
            .get(lines.len().saturating_sub(30)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
