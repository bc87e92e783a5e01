//! Asks the kernel, once, what it has. Each feature is probed by its own name; a version is never taken for a feature.

use std::{fmt, io, path::Path};

use aya::maps::MapType;

use super::{
    backend::{Attach, Hook, all_hooks},
    btf::{Btf, VMLINUX},
    layout::{Group, Layouts, layouts},
    preemption::preemption,
    privileges::Privileges,
    probe::{self, Helpers},
};

/// Answer to one probe. "No" differs from "could not tell".
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// It is there.
    Yes,
    /// It is not: why.
    No(String),
    /// The probe itself failed: how.
    Unknown(String),
}

/// Version of a kernel, for what cannot be probed and for telling a user what to upgrade to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Release {
    /// As in 6.3.
    pub major: u32,
    /// As in 6.3.
    pub minor: u32,
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// What a host has.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Features {
    /// `uname -r`.
    pub release_name: String,
    /// Its first two numbers, if it has them.
    pub release: Option<Release>,
    /// What this process may do.
    pub privileges: Privileges,
    /// Type information can be read.
    pub btf: Answer,
    /// Whether what the back ends hook is there, by kind of hook and name of target.
    pub targets: Vec<(Attach, &'static str, Answer)>,
    /// Whether programs can be attached to functions by trampolines (fentry, fexit).
    pub trampolines: Answer,
    /// Whether programs can be attached to functions by breakpoints (kprobe, kretprobe).
    pub kprobes: Answer,
    /// The kernel preempts itself.
    pub preemption: Answer,
    /// Helpers that not every kernel has.
    pub helpers: Helpers,
    /// Where the struct fields are that the programs read.
    pub layouts: Layouts,
    /// Ring buffer maps can be made.
    pub ring_buffer: Answer,
    /// Limit on locked memory in bytes, `None` if there is no limit.
    pub locked_memory: Option<u64>,
}

impl Features {
    /// Asks this host.
    #[must_use]
    pub fn probe() -> Self {
        let release_name = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release_name = release_name.trim().to_owned();
        let mut features = Self {
            release: parse_release(&release_name),
            release_name,
            privileges: Privileges::of_this_process(),
            btf: Answer::Yes,
            targets: Vec::new(),
            trampolines: Answer::Yes,
            kprobes: probe::kprobes(),
            preemption: preemption(),
            helpers: Helpers::unknown(""),
            layouts: Vec::new(),
            ring_buffer: ring_buffer(),
            locked_memory: locked_memory(),
        };
        features.ask_types(Path::new(VMLINUX));
        features
    }

    fn ask_types(&mut self, path: &Path) {
        let btf = match std::fs::read(path) {
            Ok(bytes) => match Btf::parse(&bytes) {
                Ok(btf) => btf,
                Err(error) => return self.without_types(Answer::No(format!("{}: {error}", path.display()))),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return self.without_types(Answer::No(format!("{} does not exist", path.display())));
            }
            Err(error) => return self.without_types(Answer::Unknown(format!("{}: {error}", path.display()))),
        };
        self.targets = targets(|hook| {
            let (found, kind) = match hook.attach {
                Attach::BtfTracepoint | Attach::OnDemand | Attach::TailCall { .. } => {
                    (btf.tracepoint(hook.target), "tracepoint")
                }
                Attach::Fentry | Attach::Fexit | Attach::Kprobe | Attach::Kretprobe => {
                    (btf.function(hook.target), "function")
                }
            };
            let missing = || Answer::No(format!("no {kind} {} in this kernel", hook.target));
            found.map_or_else(missing, |_| Answer::Yes)
        });
        self.layouts = layouts(&btf);
        self.helpers = Helpers::probe(&btf);
        self.trampolines = probe::trampolines(&btf);
    }

    fn without_types(&mut self, answer: Answer) {
        const WHY: &str = "type information is needed to tell";
        let unknown = || Answer::Unknown(WHY.to_owned());
        self.targets = targets(|_| unknown());
        self.layouts = Vec::new();
        self.helpers = Helpers::unknown(WHY);
        self.trampolines = unknown();
        self.btf = answer;
    }

    /// Whether there is what a hook is attached to.
    #[must_use]
    pub fn target(&self, hook: &Hook) -> Answer {
        self.targets
            .iter()
            .find(|(attach, target, _)| (*attach, *target) == (hook.attach, hook.target))
            .map_or(Answer::Unknown("not asked".to_owned()), |(_, _, answer)| {
                answer.clone()
            })
    }

    /// Whether the kernel attaches programs that way at all, where that is a question of its own.
    #[must_use]
    pub fn mechanism(&self, attach: Attach) -> Option<&Answer> {
        match attach {
            Attach::BtfTracepoint | Attach::TailCall { .. } => None,
            // They ask for the call that a thread is in.
            Attach::OnDemand => Some(&self.helpers.task_registers),
            Attach::Fentry | Attach::Fexit => Some(&self.trampolines),
            Attach::Kprobe | Attach::Kretprobe => Some(&self.kprobes),
        }
    }

    /// The constants of a group of structs; `None` if something is missing.
    #[must_use]
    pub fn offsets(&self, group: Group) -> Option<Vec<(&'static str, u32)>> {
        let (_, found) = self.layouts.iter().find(|(of, _)| *of == group)?;
        found.as_ref().ok().cloned()
    }

    /// Globals that tell the programs what this kernel has, and whether they can have its socket cookies.
    #[must_use]
    pub fn switches(&self, cookies: bool) -> Vec<(&'static str, u32)> {
        let has = |answer: &Answer| *answer == Answer::Yes;
        [
            ("HAS_SOCKET_COOKIE", cookies),
            ("HAS_UNIX_SOCK", has(&self.helpers.unix_sock)),
            ("HAS_TASK_BTF", has(&self.helpers.task_btf)),
            ("HAS_TASK_REGISTERS", has(&self.helpers.task_registers)),
        ]
        .map(|(name, has)| (name, u32::from(has)))
        .to_vec()
    }
}

/// Every target of every back end, once.
fn targets(answer: impl Fn(&Hook) -> Answer) -> Vec<(Attach, &'static str, Answer)> {
    let mut targets: Vec<(Attach, &'static str, Answer)> = Vec::new();
    for hook in all_hooks() {
        if !targets
            .iter()
            .any(|(attach, target, _)| (*attach, *target) == (hook.attach, hook.target))
        {
            targets.push((hook.attach, hook.target, answer(&hook)));
        }
    }
    targets
}

fn parse_release(name: &str) -> Option<Release> {
    let mut numbers = name.split(|c: char| !c.is_ascii_digit());
    Some(Release {
        major: numbers.next()?.parse().ok()?,
        minor: numbers.next()?.parse().ok()?,
    })
}

fn ring_buffer() -> Answer {
    match aya::sys::is_map_supported(MapType::RingBuf) {
        Ok(true) => Answer::Yes,
        Ok(false) => Answer::No("the kernel does not know this kind of map".to_owned()),
        Err(error) => Answer::Unknown(error.to_string()),
    }
}

fn locked_memory() -> Option<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the struct is ours.
    let failed = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (failed == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        let release = |major, minor| Some(Release { major, minor });
        for (name, expected) in [
            ("6.18.44-fc-v470", release(6, 18)),
            ("5.10.0-28-amd64", release(5, 10)),
            ("6.3", release(6, 3)),
            ("6", None),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(parse_release(name), expected, "{name}");
        }
    }

    #[test]
    fn a_kernel_without_type_information_leaves_tracepoints_unknown() {
        let mut features = Features::probe();
        features.ask_types(Path::new("/nonexistent"));
        assert!(matches!(&features.btf, Answer::No(_)), "{:?}", features.btf);
        assert!(
            features
                .targets
                .iter()
                .all(|(_, _, answer)| matches!(answer, Answer::Unknown(_)))
        );
    }
}
