//! Features -> what a user is told: each requirement, whether it is met, and what to do if not.

use serde::Serialize;

use super::{
    features::{Answer, Features, Release},
    plan::{HOOKS, plan},
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

const UPGRADE: &str = "use Linux 6.3 or newer (for example Debian 13, Ubuntu 24.04, RHEL 10)";

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

/// Judges a host.
#[must_use]
pub fn report(features: &Features) -> Report {
    let planned = plan(features);
    let mut findings = vec![
        privileges(features),
        types(features),
        fields(features),
        rings(features),
        memory(features),
    ];
    findings.extend(hooks(features));
    findings.push(processes(features));
    Report {
        kernel: features.release_name.clone(),
        can_run: planned.is_some(),
        backend: planned.as_ref().map(|_| "tracepoint"),
        hooks: planned.map(|plan| plan.tracepoints).unwrap_or_default(),
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

fn fields(features: &Features) -> Finding {
    let answer = if !features.missing_fields.is_empty() {
        Answer::No(features.missing_fields.join("; "))
    } else if features.layout.offsets.is_empty() {
        Answer::Unknown("type information is needed to tell".to_owned())
    } else {
        Answer::Yes
    };
    finding(
        "fields of kernel structs",
        true,
        "reading sockets",
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

fn hooks(features: &Features) -> impl Iterator<Item = Finding> {
    features.tracepoints.iter().filter_map(|(name, answer)| {
        let hook = HOOKS.iter().find(|hook| hook.tracepoint == *name)?;
        let remedy = if hook.required {
            UPGRADE.to_owned()
        } else {
            format!("works without; Linux {} has it", hook.since)
        };
        let name = format!("tracepoint {name}");
        Some(finding(name, hook.required, hook.needed_for, answer, &remedy))
    })
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
mod tests {
    use super::super::{Layout, Privileges};
    use super::*;

    /// A host on which everything is well.
    fn good() -> Features {
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
            tracepoints: HOOKS.iter().map(|hook| (hook.tracepoint, Answer::Yes)).collect(),
            layout: Layout {
                offsets: vec![("SOCK__FAMILY", 16)],
            },
            missing_fields: Vec::new(),
            ring_buffer: Answer::Yes,
            locked_memory: None,
        }
    }

    fn without(name: &str) -> impl Fn(&mut Features) {
        move |features| {
            for (found, answer) in &mut features.tracepoints {
                if *found == name {
                    *answer = Answer::No("gone".to_owned());
                }
            }
        }
    }

    /// Changes the good host, and checks whether the job runs, how many hooks are used and which findings are not ok.
    fn check(name: &str, change: impl Fn(&mut Features), can_run: bool, hooks: usize, troubles: &[&str]) {
        let mut features = good();
        change(&mut features);
        let report = report(&features);
        assert_eq!(report.can_run, can_run, "{name}");
        assert_eq!(report.hooks.len(), hooks, "{name}");
        assert_eq!(report.backend.is_some(), can_run, "{name}");
        let found: Vec<_> = report
            .findings
            .iter()
            .filter(|f| f.status != Status::Ok)
            .collect();
        assert_eq!(
            found.iter().map(|f| f.name.as_str()).collect::<Vec<_>>(),
            troubles,
            "{name}"
        );
        for finding in found {
            assert!(finding.remedy.is_some(), "{name}: {finding:?}");
            if finding.required && !can_run {
                assert!(report.obstacles().contains(&finding.name), "{name}");
            }
        }
    }

    #[test]
    fn made_up_hosts() {
        let all = HOOKS.len();
        check("all is well", |_| {}, true, all, &[]);
        check(
            "two capabilities are enough",
            |f| (f.privileges.sys_admin, f.privileges.sys_ptrace) = (false, true),
            true,
            all,
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
            false,
            0,
            &["privileges", "reading other users' processes"],
        );
        check(
            "root of a rootless container",
            |f| f.privileges.initial_user_namespace = false,
            false,
            0,
            &["privileges"],
        );
        check(
            "no /proc: tried all the same",
            |f| f.privileges = Privileges::default(),
            true,
            all,
            &["privileges", "reading other users' processes"],
        );
        check(
            "Linux 6.1",
            |f| {
                for name in ["sock_send_length", "sock_recv_length", "sk_data_ready"] {
                    without(name)(f);
                }
            },
            false,
            0,
            &[
                "tracepoint sock_send_length",
                "tracepoint sock_recv_length",
                "tracepoint sk_data_ready",
            ],
        );
        check(
            "no arrival times",
            without("sk_data_ready"),
            true,
            all - 1,
            &["tracepoint sk_data_ready"],
        );
        check(
            "no type information",
            |f| {
                f.btf = Answer::No("gone".to_owned());
                f.layout = Layout::default();
                f.tracepoints
                    .iter_mut()
                    .for_each(|(_, a)| *a = Answer::Unknown("?".to_owned()));
            },
            false,
            0,
            &[
                "kernel type information (BTF)",
                "fields of kernel structs",
                "tracepoint sock_send_length",
                "tracepoint sock_recv_length",
                "tracepoint inet_sock_set_state",
                "tracepoint sk_data_ready",
                "tracepoint tcp_receive_reset",
                "tracepoint tcp_send_reset",
            ],
        );
        check(
            "a field has moved",
            |f| {
                f.layout = Layout::default();
                f.missing_fields = vec!["struct tcp_sock has no field write_seq".to_owned()];
            },
            false,
            0,
            &["fields of kernel structs"],
        );
        check(
            "no ring buffers",
            |f| f.ring_buffer = Answer::No("unknown map".to_owned()),
            false,
            0,
            &["ring buffer"],
        );
        check(
            "bpf(2) could not be asked",
            |f| f.ring_buffer = Answer::Unknown("EPERM".to_owned()),
            true,
            all,
            &["ring buffer"],
        );
        check(
            "locked memory of an old kernel",
            |f| (f.release, f.locked_memory) = (Some(Release { major: 5, minor: 10 }), Some(65_536)),
            true,
            all,
            &["locked memory"],
        );
        check(
            "locked memory is free today",
            |f| f.locked_memory = Some(65_536),
            true,
            all,
            &[],
        );
    }

    #[test]
    fn a_missing_field_is_named() {
        let mut features = good();
        features.layout = Layout::default();
        features.missing_fields = vec!["struct tcp_sock has no field write_seq".to_owned()];
        let text = report(&features).obstacles();
        assert!(text.contains("struct tcp_sock has no field write_seq"), "{text}");
    }
}
