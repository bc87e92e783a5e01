//! Features -> what a user is told: each requirement, whether it is met, and what to do if not.

use serde::Serialize;

use super::{
    backend::{Backend, Need, Sight, TABLES, Table, Unseen},
    features::{Answer, Features, Release},
    layout::Group,
    plan::{applies, plan, way},
};

/// Whether a requirement is met.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Met.
    Ok,
    /// Not met.
    Missing,
    /// Could not be told.
    Unknown,
}

/// One requirement.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Whether it is met.
    pub status: Status,
    /// Whether the main job cannot run without it.
    pub required: bool,
    /// What it is for.
    pub needed_for: &'static str,
    /// What was found, where there is more to say than the status.
    pub detail: Option<String>,
    /// What to do about it; nothing if it is met.
    pub remedy: Option<String>,
}

/// All findings about a host.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// `uname -r`.
    pub kernel: String,
    /// Whether the main job can run.
    pub can_run: bool,
    /// Capture back end that will be used.
    pub backend: Option<&'static str>,
    /// Kernel hooks that will be used.
    pub hooks: Vec<&'static str>,
    /// Every requirement.
    pub findings: Vec<Finding>,
}

/// First release whose maps do not count as locked memory.
const NO_LOCKED_MEMORY: Release = Release { major: 5, minor: 11 };

impl Report {
    /// What keeps the main job from running, one line each.
    #[must_use]
    pub fn obstacles(&self) -> String {
        let mut lines = vec![format!("this host cannot be traced (kernel {})", self.kernel)];
        for finding in self
            .findings
            .iter()
            .filter(|f| f.required && f.status != Status::Ok)
        {
            let detail = finding.detail.as_deref().unwrap_or("missing");
            let remedy = finding.remedy.as_deref().unwrap_or("none known");
            lines.push(format!("  {}: {detail}; remedy: {remedy}", finding.name));
        }
        lines.join("\n")
    }
}

impl Report {
    /// Adds what became of loading the programs: the names of the runtimes whose tasks they cannot read here, or why they are refused.
    pub fn tried(&mut self, outcome: Result<Vec<&'static str>, String>) {
        let (programs, tasks) = match outcome {
            Ok(missing) if missing.is_empty() => (Answer::Yes, Some(Answer::Yes)),
            Ok(missing) => {
                let why = format!(
                    "this kernel's verifier refuses the programs that read those of {}",
                    missing.join(", ")
                );
                (Answer::Yes, Some(Answer::No(why)))
            }
            Err(why) => {
                self.can_run = false;
                self.backend = None;
                self.hooks.clear();
                (Answer::No(last_lines(&why)), None)
            }
        };
        self.findings.push(finding(
            "programs",
            true,
            "seeing messages move",
            &programs,
            "report this kernel's release and what was found; another back end (--capture) may do",
        ));
        self.findings.extend(tasks.map(|answer| {
            let remedy = "works without: parents there rest on weaker evidence; a newer kernel reads them";
            finding(
                "tasks of runtimes",
                false,
                "telling apart what one thread does for many requests",
                &answer,
                remedy,
            )
        }));
    }
}

impl Report {
    /// Adds what can be told of a budget of processor time: `set` by the environment, and whether the kernel counts the time of its
    /// programs (`kernel.bpf_stats_enabled`, if it can be read).
    pub fn budget(&mut self, set: Option<&str>, counts: Option<bool>) {
        let told = set.map_or_else(
            || "none is set in the environment; nothing is measured or shed without one".to_owned(),
            |budget| format!("{budget} is set in the environment"),
        );
        let (status, measured) = match counts {
            Some(true) => (
                Status::Ok,
                "the kernel side's time is measured (kernel.bpf_stats_enabled is 1), for about 20 ns a run of every program of the host",
            ),
            Some(false) => (
                Status::Missing,
                "kernel.bpf_stats_enabled is 0: the kernel side's time is estimated, 700 ns an event and 100 ns one that is passed over",
            ),
            None => (
                Status::Unknown,
                "kernel.bpf_stats_enabled can't be read: the kernel side's time is estimated",
            ),
        };
        self.findings.push(Finding {
            name: "time of BPF programs".to_owned(),
            status,
            required: false,
            needed_for: "a budget of processor time (--cpu-budget) that holds what it says",
            detail: Some(format!("{told}; {measured}")),
            remedy: (status != Status::Ok)
                .then(|| "works without; sysctl kernel.bpf_stats_enabled=1 has it measured".to_owned()),
        });
    }
}

/// A verifier's log says at its end what it objects to.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.first().copied().unwrap_or_default();
    let last = lines
        .get(lines.len().saturating_sub(4).max(1)..)
        .unwrap_or_default();
    std::iter::once(first)
        .chain(last.iter().copied())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Judges a host, for the back end that is `wanted`, or else for any.
#[must_use]
pub fn report(features: &Features, wanted: Option<Backend>) -> Report {
    let planned = plan(features, wanted);
    let backend = planned.as_ref().map(|plan| plan.backend);
    let mut findings = vec![
        privileges(features),
        types(features),
        fields(features, Group::Socket, true),
        rings(features),
        memory(features),
    ];
    // A back end that will not be used is one line; the one that will, or that was asked for, is told in full.
    for table in TABLES {
        let matters = wanted.or(backend).is_none_or(|chosen| chosen == table.backend);
        findings.push(summary(features, table, matters && backend.is_none()));
        if matters {
            let groups = table.groups.iter().chain(table.optional);
            findings.extend(groups.map(|group| fields(features, *group, false)));
            findings.extend(table.sights.iter().filter_map(|sight| seen(features, sight)));
        }
        if wanted.or(backend) == Some(table.backend) {
            findings.extend(table.unseen.iter().map(unseen));
        }
    }
    findings.push(fields(features, Group::Watch, false));
    findings.push(fields(features, Group::Process, false));
    findings.push(processes(features));
    Report {
        kernel: features.release_name.clone(),
        can_run: planned.is_some(),
        backend: backend.map(Backend::name),
        hooks: planned.map_or_else(Vec::new, |plan| {
            let mut targets: Vec<_> = plan.hooks.iter().map(|hook| hook.target).collect();
            targets.dedup();
            targets
        }),
        findings,
    }
}

fn finding(
    name: impl Into<String>,
    required: bool,
    needed_for: &'static str,
    answer: &Answer,
    remedy: &str,
) -> Finding {
    let (status, detail) = match answer {
        Answer::Yes => (Status::Ok, None),
        Answer::No(why) => (Status::Missing, Some(why.clone())),
        Answer::Unknown(why) => (Status::Unknown, Some(why.clone())),
    };
    let remedy = (status != Status::Ok).then(|| remedy.to_owned());
    Finding {
        name: name.into(),
        status,
        required,
        needed_for,
        detail,
        remedy,
    }
}

fn privileges(features: &Features) -> Finding {
    let held = &features.privileges;
    let (answer, remedy) = if !held.known {
        (
            Answer::Unknown("/proc/self/status cannot be read".to_owned()),
            "mount /proc",
        )
    } else if held.may_trace() {
        (Answer::Yes, "")
    } else if !held.initial_user_namespace {
        (
            Answer::No("this is a user namespace of its own: its capabilities do not count".to_owned()),
            "run outside of user namespaces (no rootless container, no userns-remap)",
        )
    } else {
        let missing: Vec<_> = [("CAP_BPF", held.bpf), ("CAP_PERFMON", held.perfmon)]
            .iter()
            .filter(|(_, has)| !has)
            .map(|(name, _)| *name)
            .collect();
        (
            Answer::No(format!("no {} and no CAP_SYS_ADMIN", missing.join(", no "))),
            "run as root (sudo tracer), or grant CAP_BPF and CAP_PERFMON (container: --privileged, or --cap-add for both)",
        )
    };
    finding(
        "privileges",
        true,
        "loading programs into the kernel",
        &answer,
        remedy,
    )
}

fn types(features: &Features) -> Finding {
    finding(
        "kernel type information (BTF)",
        true,
        "finding fields of kernel structs",
        &features.btf,
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (all larger distributions do), with /sys mounted",
    )
}

fn fields(features: &Features, group: Group, required: bool) -> Finding {
    let found = features.layouts.iter().find(|(of, _)| *of == group);
    let answer = match found {
        Some((_, Ok(_))) => Answer::Yes,
        Some((_, Err(missing))) => Answer::No(missing.join("; ")),
        None => Answer::Unknown("type information is needed to tell".to_owned()),
    };
    finding(
        format!("fields of kernel structs for {}", group.needed_for()),
        required,
        group.needed_for(),
        &answer,
        "report this kernel's release and this line: the programs must learn where the field went",
    )
}

fn rings(features: &Features) -> Finding {
    finding(
        "ring buffer",
        true,
        "handing events to the tracer",
        &features.ring_buffer,
        "use Linux 5.8 or newer, and let bpf(2) through (container: no seccomp profile that refuses it)",
    )
}

fn memory(features: &Features) -> Finding {
    let counts = features.release.is_none_or(|release| release < NO_LOCKED_MEMORY);
    let answer = match features.locked_memory {
        Some(limit) if counts => Answer::No(format!("limit of {limit} bytes")),
        _ => Answer::Yes,
    };
    finding(
        "locked memory",
        false,
        "maps, before Linux 5.11",
        &answer,
        "raise it: ulimit -l unlimited",
    )
}

/// Whether a back end can be used, in one line.
fn summary(features: &Features, table: &Table, required: bool) -> Finding {
    let mut missing: Vec<String> = table
        .groups
        .iter()
        .filter(|group| features.offsets(**group).is_none())
        .map(|group| format!("fields for {}", group.needed_for()))
        .collect();
    for sight in table.sights {
        if sight.need == Need::Required && applies(features, sight) && way(features, sight).is_none() {
            missing.push(why_not(features, sight));
        }
    }
    missing.dedup();
    let answer = if missing.is_empty() {
        Answer::Yes
    } else {
        Answer::No(missing.join("; "))
    };
    finding(
        format!("capture back end {}", table.backend.name()),
        required,
        "seeing messages move",
        &answer,
        table.remedy,
    )
}

/// Why none of its ways can be taken.
fn why_not(features: &Features, sight: &Sight) -> String {
    let hooks = sight.ways.iter().copied().flatten();
    let mut reasons: Vec<String> = Vec::new();
    for hook in hooks {
        let mechanism = features.mechanism(hook.attach).cloned().unwrap_or(Answer::Yes);
        for answer in [mechanism, features.target(hook)] {
            let (Answer::No(why) | Answer::Unknown(why)) = answer else {
                continue;
            };
            if !reasons.contains(&why) {
                reasons.push(why);
            }
        }
    }
    reasons.join(", ")
}

fn seen(features: &Features, sight: &Sight) -> Option<Finding> {
    let answer = if way(features, sight).is_some() {
        Answer::Yes
    } else if sight.need == Need::WithIt || !applies(features, sight) {
        return None;
    } else {
        Answer::No(why_not(features, sight))
    };
    let required = sight.need == Need::Required;
    let remedy = if required {
        format!("Linux {} has it", sight.since)
    } else {
        format!("works without; Linux {} has it", sight.since)
    };
    Some(finding(sight.name, required, sight.needed_for, &answer, &remedy))
}

/// What a back end cannot see on any host.
fn unseen(unseen: &Unseen) -> Finding {
    let counted = match unseen.counter {
        Some(counter) => format!("counted in the ledger as kernel.{counter}"),
        None => "nothing counts it".to_owned(),
    };
    let others: Vec<_> = unseen.seen_by.iter().map(|backend| backend.name()).collect();
    let remedy = match others.as_slice() {
        [] => "works without; no back end sees it".to_owned(),
        _ => format!(
            "works without; where this host allows it, --capture {} sees it",
            others.join(" or ")
        ),
    };
    finding(
        unseen.what,
        false,
        "seeing all that processes move",
        &Answer::No(format!("{}; {counted}", unseen.why)),
        &remedy,
    )
}

fn processes(features: &Features) -> Finding {
    let held = &features.privileges;
    let answer = if !held.known {
        Answer::Unknown("/proc/self/status cannot be read".to_owned())
    } else if held.sys_ptrace || held.sys_admin {
        Answer::Yes
    } else {
        Answer::No("no CAP_SYS_PTRACE".to_owned())
    };
    finding(
        "reading other users' processes",
        false,
        "names of their services",
        &answer,
        "grant CAP_SYS_PTRACE; without it their services are named by command alone",
    )
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{backend::all_hooks, privileges::Privileges, probe::Helpers};
    use super::*;

    /// A host on which everything is well.
    pub(in crate::kernel) fn good() -> Features {
        Features {
            release_name: "6.12.0-test".to_owned(),
            release: Some(Release { major: 6, minor: 12 }),
            privileges: Privileges {
                known: true,
                bpf: true,
                perfmon: true,
                sys_admin: true,
                sys_ptrace: true,
                initial_user_namespace: true,
            },
            btf: Answer::Yes,
            targets: all_hooks()
                .map(|hook| (hook.attach, hook.target, Answer::Yes))
                .collect(),
            trampolines: Answer::Yes,
            kprobes: Answer::Yes,
            preemption: gone(),
            helpers: Helpers {
                socket_cookie: Answer::Yes,
                unix_sock: Answer::Yes,
                task_btf: Answer::Yes,
                task_registers: Answer::Yes,
            },
            layouts: Group::ALL
                .iter()
                .map(|group| (*group, Ok(vec![("OFFSET", 16)])))
                .collect(),
            ring_buffer: Answer::Yes,
            locked_memory: None,
        }
    }

    fn gone() -> Answer {
        Answer::No("gone".to_owned())
    }

    /// Takes targets away.
    fn without(features: &mut Features, names: &[&str]) {
        for (_, target, answer) in &mut features.targets {
            if names.contains(target) {
                *answer = gone();
            }
        }
    }

    /// What Linux 6.3 brought.
    const NEW: &[&str] = &["sock_send_length", "sock_recv_length", "sk_data_ready"];
    const TRACEPOINT: Option<Backend> = Some(Backend::Tracepoint);
    const FENTRY: Option<Backend> = Some(Backend::Fentry);
    const SYSCALL: Option<Backend> = Some(Backend::Syscall);

    /// Changes the good host, and checks which back end is used and which findings are not ok.
    fn check(
        name: &str,
        change: impl Fn(&mut Features),
        wanted: Option<Backend>,
        used: Option<Backend>,
        troubles: &[&str],
    ) {
        let mut features = good();
        change(&mut features);
        let report = report(&features, wanted);
        assert_eq!(report.can_run, used.is_some(), "{name}");
        assert_eq!(report.hooks.is_empty(), used.is_none(), "{name}");
        assert_eq!(report.backend, used.map(Backend::name), "{name}");
        // What the back end never sees is told in any case, and nothing of the others.
        for unseen in TABLES.iter().flat_map(|table| table.unseen) {
            let is_told = report.findings.iter().any(|f| f.name == unseen.what);
            let is_own = wanted.or(used).is_some_and(|backend| tells(backend, unseen.what));
            assert_eq!(is_told, is_own, "{name}: {unseen:?}");
        }
        let found: Vec<_> = report
            .findings
            .iter()
            .filter(|f| f.status != Status::Ok && !is_never_seen(&f.name))
            .collect();
        assert_eq!(
            found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            troubles,
            "{name}"
        );
        for finding in found {
            assert!(finding.remedy.is_some(), "{name}: {finding:?}");
            if finding.required && used.is_none() {
                assert!(report.obstacles().contains(&finding.name), "{name}");
            }
        }
    }

    /// Whether the back end has such a line.
    fn tells(backend: Backend, what: &str) -> bool {
        let tables = TABLES.iter().filter(|table| table.backend == backend);
        tables
            .flat_map(|table| table.unseen)
            .any(|unseen| unseen.what == what)
    }

    fn is_never_seen(what: &str) -> bool {
        Backend::ALL.iter().any(|&backend| tells(backend, what))
    }

    #[test]
    fn made_up_hosts() {
        check("all is well", |_| {}, None, TRACEPOINT, &[]);
        check("the second back end by force", |_| {}, FENTRY, FENTRY, &[]);
        check(
            "two capabilities are enough",
            |f| (f.privileges.sys_admin, f.privileges.sys_ptrace) = (false, true),
            None,
            TRACEPOINT,
            &[],
        );
        check(
            "an ordinary user",
            |f| {
                f.privileges = Privileges {
                    known: true,
                    initial_user_namespace: true,
                    ..Default::default()
                }
            },
            None,
            None,
            &["privileges", "reading other users' processes"],
        );
        check(
            "root of a rootless container",
            |f| f.privileges.initial_user_namespace = false,
            None,
            None,
            &["privileges"],
        );
        check(
            "no /proc: tried all the same",
            |f| f.privileges = Privileges::default(),
            None,
            TRACEPOINT,
            &["privileges", "reading other users' processes"],
        );
        check(
            "Linux 6.1",
            |f| without(f, NEW),
            None,
            FENTRY,
            &["capture back end tracepoint"],
        );
        check(
            "Linux 6.1 that refuses trampolines and kprobes",
            |f| {
                without(f, NEW);
                f.trampolines = gone();
                f.kprobes = gone();
            },
            None,
            SYSCALL,
            &[
                "capture back end tracepoint",
                "capture back end fentry",
                "tracepoint sk_data_ready",
            ],
        );
        check(
            "the last back end by force, where descriptors have moved",
            |f| field_moved(f, Group::Descriptor),
            SYSCALL,
            None,
            &[
                "capture back end syscall",
                "fields of kernel structs for finding the socket of a descriptor",
            ],
        );
        check(
            "Linux 6.1 with the first back end by force",
            |f| without(f, NEW),
            TRACEPOINT,
            None,
            &[
                "capture back end tracepoint",
                "tracepoint sock_send_length",
                "tracepoint sock_recv_length",
                "tracepoint sk_data_ready",
            ],
        );
        check(
            "neither trampolines nor kprobes",
            |f| (f.trampolines, f.kprobes) = (gone(), gone()),
            None,
            TRACEPOINT,
            &["capture back end fentry"],
        );
        check(
            "trampolines are refused: kprobes do it",
            |f| f.trampolines = gone(),
            FENTRY,
            FENTRY,
            &[],
        );
        check(
            "no arrival times",
            |f| without(f, &["sk_data_ready"]),
            None,
            TRACEPOINT,
            &["tracepoint sk_data_ready"],
        );
        check(
            "Linux 5.10 does not tell the registers of a thread",
            |f| f.helpers.task_registers = gone(),
            FENTRY,
            FENTRY,
            &["wakes of threads by threads"],
        );
        check(
            "no IPv6 in the kernel",
            |f| without(f, &["inet6_sendmsg", "inet6_recvmsg"]),
            FENTRY,
            FENTRY,
            &["function inet6_sendmsg", "function inet6_recvmsg"],
        );
        check(
            "Linux 6.5 sends pages by sendmsg",
            |f| without(f, &["inet_sendpage", "unix_stream_sendpage"]),
            FENTRY,
            FENTRY,
            &[],
        );
        check(
            "Linux 5.10 has no cookies for tracing programs, and a socket's end is not seen",
            |f| {
                f.helpers.socket_cookie = gone();
                without(f, &["sk_alloc"]);
            },
            FENTRY,
            None,
            &["capture back end fentry", "function sk_alloc"],
        );
        check(
            "no type information",
            |f| {
                f.btf = gone();
                f.layouts.clear();
                for (_, _, answer) in &mut f.targets {
                    *answer = Answer::Unknown("?".to_owned());
                }
            },
            TRACEPOINT,
            None,
            &[
                "kernel type information (BTF)",
                "fields of kernel structs for reading sockets",
                "capture back end tracepoint",
                "fields of kernel structs for finding the bytes that io_uring moves",
                "fields of kernel structs for finding the bytes of a message",
                "fields of kernel structs for finding the socket of a descriptor",
                "tracepoint sock_send_length",
                "tracepoint sock_recv_length",
                "tracepoint inet_sock_set_state",
                "tracepoint sk_data_ready",
                "tracepoint tcp_receive_reset",
                "tracepoint tcp_send_reset",
                "tracepoint tcp_retransmit_skb",
                "wakes of threads by threads",
                "tracepoint sched_process_exec",
                "capture back end fentry",
                "capture back end syscall",
                "fields of kernel structs for finding the caller of a pooled connection in Rust's tokio",
                "fields of kernel structs for naming processes that are gone before they are looked at",
            ],
        );
        check(
            "what epoll keeps for a file is not to be found",
            |f| field_moved(f, Group::Watch),
            None,
            TRACEPOINT,
            &["fields of kernel structs for finding the caller of a pooled connection in Rust's tokio"],
        );
        check(
            "what a process is is not to be found",
            |f| field_moved(f, Group::Process),
            None,
            TRACEPOINT,
            &["fields of kernel structs for naming processes that are gone before they are looked at"],
        );
        check(
            "a field of sockets has moved",
            |f| field_moved(f, Group::Socket),
            None,
            None,
            &["fields of kernel structs for reading sockets"],
        );
        check(
            "a field of messages has moved",
            |f| field_moved(f, Group::Message),
            FENTRY,
            None,
            &[
                "capture back end fentry",
                "fields of kernel structs for finding the bytes of a message",
            ],
        );
        check(
            "no ring buffers",
            |f| f.ring_buffer = gone(),
            None,
            None,
            &["ring buffer"],
        );
        check(
            "bpf(2) could not be asked",
            |f| f.ring_buffer = Answer::Unknown("EPERM".to_owned()),
            None,
            TRACEPOINT,
            &["ring buffer"],
        );
        check(
            "locked memory of an old kernel",
            |f| (f.release, f.locked_memory) = (Some(Release { major: 5, minor: 10 }), Some(65_536)),
            None,
            TRACEPOINT,
            &["locked memory"],
        );
        check(
            "locked memory is free today",
            |f| f.locked_memory = Some(65_536),
            None,
            TRACEPOINT,
            &[],
        );
    }

    fn field_moved(features: &mut Features, group: Group) {
        for (of, found) in &mut features.layouts {
            if *of == group {
                *found = Err(vec!["struct tcp_sock has no field write_seq".to_owned()]);
            }
        }
    }

    #[test]
    fn what_is_never_seen_is_told_with_what_counts_it() {
        let check = |backend: Backend, name: &str, detail: &str, remedy: &str| {
            let report = report(&good(), Some(backend));
            let finding = report.findings.iter().find(|f| f.name == name);
            let finding = finding.unwrap_or_else(|| panic!("{name} is not told"));
            assert!(
                !finding.required && finding.status == Status::Missing,
                "{finding:?}"
            );
            let has = |text: &Option<String>, part| text.as_deref().is_some_and(|text| text.contains(part));
            assert!(has(&finding.detail, detail), "{finding:?}");
            assert!(has(&finding.remedy, remedy), "{finding:?}");
        };
        let pages = "bytes that sendfile and splice move";
        for backend in Backend::ALL {
            check(
                *backend,
                pages,
                "kernel.payload_unavailable",
                "no back end sees it",
            );
        }
        check(
            Backend::Tracepoint,
            "what splice takes out of a socket",
            "kernel.gaps",
            "--capture fentry or syscall",
        );
        check(
            Backend::Syscall,
            "messages of io_uring",
            "kernel.ring_calls",
            "--capture tracepoint or fentry",
        );
        check(
            Backend::Fentry,
            "messages that a process waits for when the tracer comes",
            "nothing counts it",
            "--capture tracepoint or syscall",
        );
    }

    #[test]
    fn what_the_verifier_said_is_told() {
        let mut taken = report(&good(), None);
        taken.tried(Ok(Vec::new()));
        assert!(taken.can_run);
        let known = |f: &Finding| f.status == Status::Ok || is_never_seen(&f.name);
        assert!(taken.findings.iter().all(known), "{taken:?}");

        let mut partly = report(&good(), None);
        partly.tried(Ok(vec!["Python"]));
        assert!(partly.can_run);
        let tasks = partly.findings.iter().find(|f| f.name == "tasks of runtimes");
        let tasks = tasks.expect("a finding");
        assert_eq!((tasks.status, tasks.required), (Status::Missing, false));
        assert!(
            tasks.detail.as_deref().is_some_and(|why| why.contains("Python")),
            "{tasks:?}"
        );

        let mut refused = report(&good(), None);
        refused.tried(Err(
            "loading it\n1\n2\n3\n4\nunknown func\nprocessed 7 insns".to_owned()
        ));
        assert!(!refused.can_run && refused.backend.is_none() && refused.hooks.is_empty());
        let text = refused.obstacles();
        assert!(
            text.contains("loading it; 3; 4; unknown func; processed 7 insns"),
            "{text}"
        );
    }

    #[test]
    fn hooks_are_what_the_host_has() {
        let hooks = |change: &dyn Fn(&mut Features)| {
            let mut features = good();
            change(&mut features);
            report(&features, FENTRY).hooks
        };
        let all = hooks(&|_| {});
        assert!(
            all.contains(&"sk_data_ready") && !all.contains(&"sock_def_readable"),
            "{all:?}"
        );
        assert!(!all.contains(&"sk_alloc"), "cookies are there: {all:?}");
        let arm = hooks(&|f| f.trampolines = gone());
        assert!(arm.contains(&"sk_alloc"), "kprobes have no cookies: {arm:?}");
        let old = hooks(&|f| {
            without(f, NEW);
            f.helpers.socket_cookie = gone();
        });
        assert!(
            old.contains(&"sock_def_readable") && old.contains(&"sk_alloc"),
            "{old:?}"
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut features = good();
        field_moved(&mut features, Group::Socket);
        let text = report(&features, None).obstacles();
        assert!(text.contains("struct tcp_sock has no field write_seq"), "{text}");
    }
}
