//! Where a process lives, by its control group: container, pod, systemd unit.
//!
//! Paths as written by docker, containerd, CRI-O and podman, with the `cgroupfs` and the `systemd` driver, in version 1
//! and version 2 hierarchies.

/// What the control group tells.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Placement {
    /// Container id as the runtime gave it: 64 hexadecimal digits, or the name of a system container.
    pub container_id: Option<Box<str>>,
    /// `k8s.pod.uid`.
    pub pod_uid: Option<Box<str>>,
    /// systemd service unit without `.service`, escapes undone; user sessions have none.
    pub unit: Option<Box<str>>,
}

/// Units that start other people's programs: being below one says nothing about what runs.
const LAUNCHERS: &[&str] = &[
    "actions.runner",
    "anacron",
    "atd",
    "buildkit",
    "containerd",
    "cron",
    "crond",
    "docker",
    "dropbear",
    "fcron",
    "gdm",
    "getty",
    "gitlab-runner",
    "jenkins-agent",
    "k3s",
    "kubelet",
    "lightdm",
    "podman",
    "rc-local",
    "rke2-agent",
    "sddm",
    "serial-getty",
    "ssh",
    "sshd",
    "supervisor",
    "supervisord",
    "systemd-logind",
    "telnet",
    "user",
    "xinetd",
];

/// Reads `/proc/PID/cgroup`.
#[must_use]
pub fn parse(cgroup: &str) -> Placement {
    let mut placement = Placement::default();
    // Every hierarchy may know; the unified one and systemd's own come last or late, so all lines are read.
    for line in cgroup.lines() {
        let Some(path) = line.splitn(3, ':').nth(2) else {
            continue;
        };
        let one = parse_path(path);
        placement.container_id = placement.container_id.or(one.container_id);
        placement.pod_uid = placement.pod_uid.or(one.pod_uid);
        placement.unit = placement.unit.or(one.unit);
    }
    if placement.container_id.is_some() {
        // The runtime's own unit (docker.service, a podman unit) is not what runs inside.
        placement.unit = None;
    }
    placement
}

fn parse_path(path: &str) -> Placement {
    let mut placement = Placement::default();
    let mut user = false;
    for segment in path.split('/') {
        // `slice:runtime:id` is what runc's systemd driver writes into version 1 paths of containerd.
        for part in segment.split(':') {
            if let Some(id) = container_id(part) {
                // The innermost one: containers run in containers (kind, docker in docker).
                placement.container_id = Some(id.into());
            }
            if let Some(uid) = pod_uid(part) {
                placement.pod_uid = Some(uid.into());
            }
        }
        user |= segment == "user.slice" || segment.starts_with("user@");
        if let Some(unit) = segment.strip_suffix(".service").filter(|_| !user) {
            placement.unit = (!is_launcher(unit)).then(|| unescape(unit).into());
        }
    }
    placement
}

fn container_id(part: &str) -> Option<&str> {
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some(name);
    }
    let bare = part.strip_suffix(".scope").unwrap_or(part);
    let (prefix, id) = bare.rsplit_once('-').unwrap_or(("", bare));
    // `crio-conmon-<id>` and `libpod-conmon-<id>` are the monitors, outside the container.
    (is_hex(id, 64) && !prefix.ends_with("conmon")).then_some(id)
}

fn pod_uid(part: &str) -> Option<String> {
    let bare = part.strip_suffix(".slice").unwrap_or(part);
    let uid = match bare.strip_prefix("pod") {
        Some(uid) => uid,
        None if bare.starts_with("kubepods") => bare.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = uid.replace('_', "-");
    let plain = uid.chars().filter(|&c| c != '-').collect::<String>();
    is_hex(&plain, 32).then_some(uid)
}

fn is_hex(text: &str, len: usize) -> bool {
    text.len() == len
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

fn is_launcher(unit: &str) -> bool {
    let name = unit.split('@').next().unwrap_or(unit);
    name.starts_with("actions.runner.") || LAUNCHERS.contains(&name)
}

/// Undoes `systemd-escape`: `\x2d` is a byte by its number. (`-` for `/` stays: units are known by that.)
fn unescape(unit: &str) -> String {
    let mut out = Vec::with_capacity(unit.len());
    let mut rest = unit;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                out.extend_from_slice(b"\\x");
                rest = after;
            }
        }
    }
    out.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Text, container, pod, unit.
    type Row<'a> = (String, Option<&'a str>, Option<&'a str>, Option<&'a str>);

    const ID: &str = "4f2a0c1d8e5b4f2a0c1d8e5b4f2a0c1d8e5b4f2a0c1d8e5b4f2a0c1d8e5b4f2a";

    #[test]
    fn containers_pods_and_units() {
        let uid = "1b4e28ba-2fa1-11d2-883f-0016d3cca427";
        let under = uid.replace('-', "_");
        let rows: &[Row<'_>] = &[
            ("0::/\n".into(), None, None, None),
            ("".into(), None, None, None),
            ("garbage".into(), None, None, None),
            (format!("0::/docker/{ID}\n"), Some(ID), None, None),
            (format!("12:pids:/docker/{ID}\n1:name=systemd:/docker/{ID}\n"), Some(ID), None, None),
            (format!("0::/system.slice/docker-{ID}.scope\n"), Some(ID), None, None),
            (format!("0::/machine.slice/libpod-{ID}.scope/container\n"), Some(ID), None, None),
            (format!("0::/machine.slice/libpod-conmon-{ID}.scope\n"), None, None, None),
            (format!("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{ID}.scope\n"), Some(ID), None, None),
            (
                format!("0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope\n"),
                Some(ID), Some(uid), None,
            ),
            (
                format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope/container\n"),
                Some(ID), Some(uid), None,
            ),
            (format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-conmon-{ID}.scope\n"), None, Some(uid), None),
            (format!("11:memory:/kubepods/besteffort/pod{uid}/{ID}\n"), Some(ID), Some(uid), None),
            (
                format!("1:name=systemd:/system.slice/containerd.service/kubepods-besteffort-pod{under}.slice:cri-containerd:{ID}\n"),
                Some(ID), Some(uid), None,
            ),
            (format!("0::/../cri-containerd-{ID}.scope\n"), Some(ID), None, None),
            ("0::/lxc.payload.web1/init.scope\n".into(), Some("web1"), None, None),
            ("0::/system.slice/nginx.service\n".into(), None, None, Some("nginx")),
            ("0::/system.slice/system-postgresql.slice/postgresql@15-main.service\n".into(), None, None, Some("postgresql@15-main")),
            ("0::/system.slice/my\\x2dshop.service\n".into(), None, None, Some("my-shop")),
            ("0::/system.slice/odd\\xzz.service\n".into(), None, None, Some("odd\\xzz")),
            ("5:cpu:/\n1:name=systemd:/system.slice/redis-server.service\n0::/system.slice/redis-server.service\n".into(), None, None, Some("redis-server")),
            ("0::/user.slice/user-1000.slice/session-3.scope\n".into(), None, None, None),
            ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/gnome-terminal-server.service\n".into(), None, None, None),
            ("0::/system.slice/ssh.service\n".into(), None, None, None),
            ("0::/system.slice/system-getty.slice/getty@tty1.service\n".into(), None, None, None),
            ("0::/system.slice/actions.runner.acme.service\n".into(), None, None, None),
            ("0::/init.scope\n".into(), None, None, None),
        ];
        for (text, container, pod, unit) in rows {
            let got = parse(text);
            assert_eq!(
                (
                    got.container_id.as_deref(),
                    got.pod_uid.as_deref(),
                    got.unit.as_deref()
                ),
                (*container, *pod, *unit),
                "{text}"
            );
        }
    }
}
