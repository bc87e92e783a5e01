//! Whether the kernel preempts itself, and so the programs in it: then the kernel leaves out the runs of a program on the CPU where it
//! is preempted, and the program needs stand-ins (`tracer-ebpf/src/relay.rs`).

use super::{
    backend::Attach,
    features::{Answer, Features, Release},
};

const VERSION: &str = "/proc/version";
/// Where kernels that can be told at boot how to preempt say what they do: `none voluntary (full)` (kernel/sched/debug.c:
/// `sched_dynamic_show`).
const MODE: &str = "/sys/kernel/debug/sched/preempt";

/// From this release on tracepoints no longer disable preemption (include/linux/tracepoint.h), which nothing but the version tells;
/// and kernels that choose at boot have only `full` and `lazy` to choose from, which both preempt.
const TRACEPOINTS: Release = Release { major: 7, minor: 0 };

/// From this release on there is `lazy`, which distributions choose; before, most of them chose `voluntary`, which does not preempt.
const LAZY: Release = Release { major: 6, minor: 13 };

/// Asks the kernel.
pub fn preemption() -> Answer {
    match std::fs::read_to_string(VERSION) {
        Ok(version) => judge(&version, std::fs::read_to_string(MODE).ok().as_deref()),
        Err(error) => Answer::Unknown(format!("{VERSION}: {error}")),
    }
}

fn judge(version: &str, mode: Option<&str>) -> Answer {
    let mut words = version.split_whitespace();
    match words.find(|word| word.starts_with("PREEMPT")) {
        None => Answer::No("the kernel was built without preemption".to_owned()),
        Some("PREEMPT_DYNAMIC") => match mode {
            None => Answer::Unknown(format!("it is chosen at boot, and {MODE} cannot be read")),
            Some(mode) if mode.contains("(full)") || mode.contains("(lazy)") => Answer::Yes,
            Some(mode) => Answer::No(format!("chosen at boot: {}", mode.trim())),
        },
        Some(_) => Answer::Yes,
    }
}

impl Features {
    /// Whether programs that are attached that way can be preempted.
    #[must_use]
    pub fn is_preempted(&self, attach: Attach) -> bool {
        let since = |first: Release| self.release.is_none_or(|release| release >= first);
        let new = since(TRACEPOINTS);
        let preempts = match self.preemption {
            Answer::Yes => true,
            Answer::No(_) => false,
            Answer::Unknown(_) => since(LAZY),
        };
        preempts
            && match attach {
                Attach::BtfTracepoint | Attach::OnDemand | Attach::TailCall { .. } => new,
                Attach::Fentry | Attach::Fexit => true,
                // They run as the breakpoint's handler does.
                Attach::Kprobe | Attach::Kretprobe => false,
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preemption_is_read() {
        let check = |version: &str, mode, expected: fn(&Answer) -> bool| {
            let answer = judge(version, mode);
            assert!(expected(&answer), "{version} {mode:?}: {answer:?}");
        };
        let yes = |answer: &Answer| *answer == Answer::Yes;
        let no = |answer: &Answer| matches!(answer, Answer::No(_));
        let unknown = |answer: &Answer| matches!(answer, Answer::Unknown(_));
        let dynamic =
            "Linux version 6.12.1 (x@y) (gcc) #1 SMP PREEMPT_DYNAMIC Debian 6.12.1-1 (2026-11-12)\n";
        check("Linux version 5.10.0 (x@y) (gcc) #1 SMP Debian 5.10", None, no);
        check("Linux version 6.18.0 (x@y) (gcc) #1 SMP PREEMPT Mon", None, yes);
        check(
            "Linux version 6.18.0 (x@y) (gcc) #1 SMP PREEMPT_RT Mon",
            None,
            yes,
        );
        check(dynamic, None, unknown);
        check(dynamic, Some("none (voluntary) full\n"), no);
        check(dynamic, Some("none voluntary (full)\n"), yes);
        check(dynamic, Some("full (lazy)\n"), yes);
    }

    #[test]
    fn where_the_mode_is_not_told_the_release_decides() {
        let check = |(major, minor), preemption: Answer, attach, expected| {
            let features = Features {
                release: Some(Release { major, minor }),
                preemption,
                ..crate::kernel::report::tests::good()
            };
            let name = format!("{major}.{minor} {:?} {attach:?}", features.preemption);
            assert_eq!(features.is_preempted(attach), expected, "{name}");
        };
        let unknown = || Answer::Unknown("debugfs is not mounted".to_owned());
        for (release, tracepoint, fexit) in [
            ((6, 1), false, false),
            ((6, 12), false, false),
            ((6, 13), false, true),
            ((6, 19), false, true),
            ((7, 0), true, true),
        ] {
            check(release, unknown(), Attach::BtfTracepoint, tracepoint);
            check(release, unknown(), Attach::Fexit, fexit);
            check(release, unknown(), Attach::Kretprobe, false);
            check(release, Answer::Yes, Attach::Fexit, true);
            check(release, Answer::No("none".to_owned()), Attach::Fexit, false);
        }
    }
}
