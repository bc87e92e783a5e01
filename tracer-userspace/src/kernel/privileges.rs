//! What this process may do (capabilities(7)).

/// Bits of a capability set (include/uapi/linux/capability.h).
mod bit {
    pub const SYS_ADMIN: u32 = 21;
    pub const SYS_PTRACE: u32 = 19;
    pub const PERFMON: u32 = 38;
    pub const BPF: u32 = 39;
}

/// Effective capabilities that matter here.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Privileges {
    /// Whether the capabilities could be read at all.
    pub known: bool,
    /// `CAP_BPF`: load programs, make maps.
    pub bpf: bool,
    /// `CAP_PERFMON`: load tracing programs.
    pub perfmon: bool,
    /// `CAP_SYS_ADMIN`: both of these.
    pub sys_admin: bool,
    /// `CAP_SYS_PTRACE`: read other users' processes under /proc.
    pub sys_ptrace: bool,
    /// Whether this is the initial user namespace: capabilities of another one do not count for BPF.
    pub initial_user_namespace: bool,
}

impl Privileges {
    /// Reads /proc/self.
    #[must_use]
    pub fn of_this_process() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        Self::parse(&status, &map)
    }

    fn parse(status: &str, uid_map: &str) -> Self {
        let set = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:"))
            .and_then(|set| u64::from_str_radix(set.trim(), 16).ok());
        let has = |bit: u32| set.is_some_and(|set| set >> bit & 1 == 1);
        Self {
            known: set.is_some(),
            bpf: has(bit::BPF),
            perfmon: has(bit::PERFMON),
            sys_admin: has(bit::SYS_ADMIN),
            sys_ptrace: has(bit::SYS_PTRACE),
            // user_namespaces(7): the initial namespace maps all ids onto themselves.
            initial_user_namespace: uid_map.split_whitespace().eq(["0", "0", "4294967295"]),
        }
    }

    /// May load tracing programs.
    #[must_use]
    pub fn may_trace(&self) -> bool {
        self.initial_user_namespace && (self.sys_admin || (self.bpf && self.perfmon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capability_sets() {
        const INITIAL: &str = "         0          0 4294967295\n";
        for (name, status, map, may_trace) in [
            ("root", "Name:\tx\nCapEff:\t000001ffffffffff\n", INITIAL, true),
            ("bpf and perfmon", "CapEff:\t000000c000000000\n", INITIAL, true),
            ("bpf alone", "CapEff:\t0000008000000000\n", INITIAL, false),
            ("sys_admin alone", "CapEff:\t0000000000200000\n", INITIAL, true),
            ("nobody", "CapEff:\t0000000000000000\n", INITIAL, false),
            (
                "root of a container",
                "CapEff:\t000001ffffffffff\n",
                "0 100000 65536\n",
                false,
            ),
            ("unreadable", "", "", false),
        ] {
            assert_eq!(Privileges::parse(status, map).may_trace(), may_trace, "{name}");
        }
    }
}
