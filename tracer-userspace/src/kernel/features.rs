//! Asks the kernel, once, what it has. Each feature is probed by its own name; a version is never taken for a feature.

use std::{fmt, io, path::Path};

use aya::maps::MapType;

use super::{
    btf::{Btf, VMLINUX},
    layout::Layout,
    plan::HOOKS,
    privileges::Privileges,
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
    /// BTF tracepoints by name, in the order of the plan's hooks.
    pub tracepoints: Vec<(&'static str, Answer)>,
    /// Offsets of the struct fields that the programs read; empty if any is missing.
    pub layout: Layout,
    /// One line for each missing field.
    pub missing_fields: Vec<String>,
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
            tracepoints: Vec::new(),
            layout: Layout::default(),
            missing_fields: Vec::new(),
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
        self.tracepoints = HOOKS
            .iter()
            .map(|hook| {
                let found = btf.has_tracepoint(hook.tracepoint);
                let missing = || Answer::No(format!("no type btf_trace_{}", hook.tracepoint));
                (hook.tracepoint, if found { Answer::Yes } else { missing() })
            })
            .collect();
        match Layout::resolve(&btf) {
            Ok(layout) => self.layout = layout,
            Err(errors) => self.missing_fields = errors.iter().map(ToString::to_string).collect(),
        }
    }

    fn without_types(&mut self, answer: Answer) {
        let unknown = || Answer::Unknown("type information is needed to tell".to_owned());
        self.tracepoints = HOOKS.iter().map(|hook| (hook.tracepoint, unknown())).collect();
        self.btf = answer;
    }
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
                .tracepoints
                .iter()
                .all(|(_, answer)| matches!(answer, Answer::Unknown(_)))
        );
    }
}
