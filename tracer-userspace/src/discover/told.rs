//! Processes as the kernel side tells them, from inside of the process: for those that are gone before anybody looks, and to know
//! at once when one runs another program or has ended.

use super::host::Host;
use super::procfs::{Environ, Identity, Snapshot, split_args};
use hashbrown::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tracer_common::ProcessFacts;

/// Nanoseconds of a clock tick, as procfs counts them (`USER_HZ` is 100 on every architecture that we run on).
const TICK: u64 = 10_000_000;
/// Control groups remembered by their numbers.
const MAX_GROUPS: usize = 1_024;

/// What tells one program of a process from the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Program {
    start_time: u64,
    executable_and_arguments: u64,
}

impl Program {
    /// The program that was told of.
    pub fn of(facts: &ProcessFacts<'_>) -> Self {
        let mut hasher = DefaultHasher::new();
        (facts.executable, facts.arguments).hash(&mut hasher);
        Self {
            start_time: facts.started / TICK,
            executable_and_arguments: hasher.finish(),
        }
    }
}

/// Control groups by their numbers, as processes had them that could be looked at.
#[derive(Default)]
pub struct Groups(HashMap<u64, Box<str>>);

impl Groups {
    fn note(&mut self, number: u64, text: &str) {
        if text.is_empty() || self.0.contains_key(&number) {
            return;
        }
        if self.0.len() >= MAX_GROUPS {
            self.0.clear(); // rare, and they come back
        }
        self.0.insert(number, text.into());
    }

    /// What `/proc/PID/cgroup` would say: known from another process in that group, or the parent's if that is the same.
    fn find(&mut self, host: &Host, facts: &ProcessFacts<'_>) -> String {
        if let Some(text) = self.0.get(&facts.cgroup) {
            return text.to_string();
        }
        let of_parent = host.proc_root.join(facts.parent.to_string()).join("cgroup");
        let text = std::fs::read_to_string(of_parent).unwrap_or_default();
        if number(&host.fs_root, &text) == Some(facts.cgroup) {
            self.note(facts.cgroup, &text);
            return text;
        }
        String::new()
    }
}

/// The number of the group in the unified hierarchy.
fn number(fs_root: &Path, text: &str) -> Option<u64> {
    let path = text
        .lines()
        .find_map(|line| line.strip_prefix("0::"))?
        .trim_start_matches('/');
    ["sys/fs/cgroup", "sys/fs/cgroup/unified"]
        .iter()
        .find_map(|root| {
            let meta = std::fs::metadata(fs_root.join(root).join(path)).ok()?;
            Some(meta.ino())
        })
}

/// The process: what procfs still says, if it still speaks of that program, and what was told for the rest.
pub fn snapshot(host: &Host, groups: &mut Groups, facts: &ProcessFacts<'_>) -> Snapshot {
    let start_time = facts.started / TICK;
    let executable = String::from_utf8_lossy(facts.executable);
    let live = Snapshot::read(&host.proc_root, facts.tgid).filter(|live| {
        live.identity.start_time == start_time && live.exe_name().is_none_or(|name| executable == name)
    });
    let mut process = live.unwrap_or_else(|| Snapshot {
        pid: facts.tgid,
        ppid: facts.parent,
        is_fork: false,
        identity: Identity {
            start_time,
            exe: None,
        },
        comm: String::from_utf8_lossy(facts.comm).into(),
        exe: None,
        args: Vec::new(),
        environ: Environ::default(),
        cgroup: String::new(),
        cwd: None,
        dir: host.proc_root.join(facts.tgid.to_string()),
    });
    if process.cgroup.is_empty() {
        process.cgroup = groups.find(host, facts);
    } else {
        groups.note(facts.cgroup, &process.cgroup);
    }
    // A process that ends has none of these any more, while procfs still shows it.
    if process.exe.is_none() && !executable.is_empty() {
        let path = PathBuf::from(&*String::from_utf8_lossy(facts.path));
        let is_whole = path.is_absolute() && path.file_name().is_some_and(|name| name == &*executable);
        process.exe = Some(if is_whole {
            path
        } else {
            PathBuf::from(&*executable)
        });
    }
    if process.args.is_empty() {
        process.args = split_args(facts.arguments);
    }
    if process.environ.is_empty() {
        process.environ = Environ::new(facts.environment.to_vec());
    }
    process
}
