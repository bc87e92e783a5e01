//! Names of containers and pods, from what the runtimes leave on the host's disk and in the process. No socket is asked.

use super::cgroup::Placement;
use super::host::Host;
use super::procfs::{Snapshot, read_regular};
use std::path::Path;

const MAX_CONFIG: u64 = 1024 * 1024;
/// Entries of `/var/log/containers` that are looked at.
const MAX_LOGS: usize = 4_096;

/// What is known about the container beyond its id.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Container {
    /// `container.name`.
    pub name: Option<String>,
    /// `container.image.name`, with its tag cut off.
    pub image: Option<String>,
    /// Tag of the image.
    pub tag: Option<String>,
    /// Compose service and project.
    pub compose: Option<(String, String)>,
    /// `k8s.pod.name`.
    pub pod: Option<String>,
    /// `k8s.namespace.name`.
    pub namespace: Option<String>,
    /// `k8s.container.name`.
    pub k8s_container: Option<String>,
    /// `k8s.node.name`.
    pub node: Option<String>,
}

/// Looks a container up.
#[must_use]
pub fn look_up(host: &Host, process: &Snapshot, placement: &Placement) -> Container {
    let mut found = Container::default();
    let Some(id) = placement.container_id.as_deref() else {
        return found;
    };
    if placement.pod_uid.is_some() || process.environ.get("KUBERNETES_SERVICE_HOST").is_some() {
        kubernetes(&mut found, host, process, id);
    } else {
        docker(&mut found, &host.fs_root, id);
        if found.name.is_none() {
            podman(&mut found, &host.fs_root, id);
        }
        if found.name.is_none() && id.len() != 64 {
            found.name = Some(id.to_owned());
        }
    }
    found
}

/// The kubelet links `/var/log/containers/<pod>_<namespace>_<container>-<id>.log`; without it, what pods are given themselves.
fn kubernetes(found: &mut Container, host: &Host, process: &Snapshot, id: &str) {
    let end = format!("-{id}.log");
    let logs = std::fs::read_dir(host.fs_root.join("var/log/containers"));
    let link = logs
        .into_iter()
        .flatten()
        .take(MAX_LOGS)
        .flatten()
        .find_map(|entry| {
            let name = entry.file_name();
            Some(name.to_str()?.strip_suffix(&end)?.to_owned())
        });
    if let Some(link) = link {
        let mut parts = link.splitn(3, '_').map(str::to_owned);
        found.pod = parts.next();
        found.namespace = parts.next();
        found.k8s_container = parts.next();
    }
    let variable = |names: &[&str]| {
        names
            .iter()
            .find_map(|n| process.environ.get(n))
            .map(str::to_owned)
    };
    let pod = || variable(&["POD_NAME", "K8S_POD_NAME", "MY_POD_NAME", "HOSTNAME"]);
    found.pod = found.pod.take().or_else(pod);
    let namespace = || {
        variable(&["POD_NAMESPACE", "K8S_NAMESPACE", "MY_POD_NAMESPACE"]).or_else(|| {
            ["/run", "/var/run"].iter().find_map(|run| {
                let path = format!("{run}/secrets/kubernetes.io/serviceaccount/namespace");
                let text = String::from_utf8(read_regular(&process.reach(Path::new(&path)), 256)?).ok()?;
                Some(text.trim().to_owned()).filter(|t| !t.is_empty())
            })
        })
    };
    found.namespace = found.namespace.take().or_else(namespace);
    found.node = variable(&["NODE_NAME", "K8S_NODE_NAME", "MY_NODE_NAME"]);
}

/// `/var/lib/docker/containers/<id>/config.v2.json`.
fn docker(found: &mut Container, fs_root: &Path, id: &str) {
    let path = fs_root
        .join("var/lib/docker/containers")
        .join(id)
        .join("config.v2.json");
    let Some(json) = read_json(&path) else { return };
    let text = |pointer: &str| json.pointer(pointer).and_then(|v| v.as_str()).map(str::to_owned);
    found.name = text("/Name").map(|n| n.trim_start_matches('/').to_owned());
    found.set_image(text("/Config/Image"));
    let label = |name: &str| {
        json.pointer("/Config/Labels")
            .and_then(|l| l.get(name))
            .and_then(|v| v.as_str())
    };
    if let (Some(service), Some(project)) = (
        label("com.docker.compose.service"),
        label("com.docker.compose.project"),
    ) {
        found.compose = Some((service.to_owned(), project.to_owned()));
    }
}

/// `/var/lib/containers/storage/overlay-containers/containers.json`: a list of containers, metadata as JSON in a text.
fn podman(found: &mut Container, fs_root: &Path, id: &str) {
    let path = fs_root.join("var/lib/containers/storage/overlay-containers/containers.json");
    let Some(json) = read_json(&path) else { return };
    let Some(entry) = json.as_array().and_then(|all| {
        all.iter()
            .find(|c| c.get("id").and_then(|i| i.as_str()) == Some(id))
    }) else {
        return;
    };
    found.name = entry
        .pointer("/names/0")
        .and_then(|n| n.as_str())
        .map(str::to_owned);
    let metadata: Option<serde_json::Value> = entry
        .get("metadata")
        .and_then(|m| m.as_str())
        .and_then(|m| serde_json::from_str(m).ok());
    found.set_image(metadata.and_then(|m| m.get("image-name")?.as_str().map(str::to_owned)));
}

fn read_json(path: &Path) -> Option<serde_json::Value> {
    serde_json::from_slice(&read_regular(path, MAX_CONFIG)?).ok()
}

impl Container {
    /// Splits `registry:5000/nginx:1.25@sha256:…`.
    fn set_image(&mut self, image: Option<String>) {
        let Some(image) = image else { return };
        let bare = image.split('@').next().unwrap_or(&image);
        // An image given by its digest alone has no name.
        if bare.starts_with("sha256:") {
            return;
        }
        match bare.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => {
                self.image = Some(name.to_owned());
                self.tag = Some(tag.to_owned());
            }
            None => self.image = Some(bare.to_owned()),
        }
    }

    /// Kind and name of the workload that the pod belongs to, by how Kubernetes names pods: `<deployment>-<hash>-<5>`,
    /// `<statefulset>-<n>`, `<daemonset>-<5>`. A guess, so only patterns that leave little doubt.
    #[must_use]
    pub fn workload(&self) -> Option<(&'static str, &str)> {
        let pod = self.pod.as_deref()?;
        let (rest, last) = pod.rsplit_once('-')?;
        if !last.is_empty() && last.len() <= 4 && last.bytes().all(|b| b.is_ascii_digit()) {
            return Some(("statefulset", rest));
        }
        if last.len() != 5 || !is_safe_random(last) {
            return None;
        }
        match rest.rsplit_once('-') {
            Some((name, hash)) if (6..=10).contains(&hash.len()) && is_safe_random(hash) => {
                Some(("deployment", name))
            }
            _ => Some(("daemonset", rest)),
        }
    }
}

/// The alphabet of `k8s.io/apimachinery/pkg/util/rand`: no vowels, no 0, 1 and 3.
fn is_safe_random(text: &str) -> bool {
    text.bytes().all(|b| b"bcdfghjklmnpqrstvwxz2456789".contains(&b))
}
