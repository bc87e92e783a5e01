//! The attributes of a service's resource, named as in the OpenTelemetry semantic conventions.

use super::host::Host;
use super::name::{Name, Sources};
use super::secrets::redact;
use crate::model::{Language, Resource};

/// The namespace that the conventions set for version 5 UUIDs of `service.instance.id`.
const INSTANCE_NAMESPACE: uuid::Uuid = uuid::uuid!("4d63009a-8d0f-11ee-aad7-4c796ed8e320");

/// The main process of a service: itself, or the one that its workers were forked from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Main {
    /// Process id.
    pub pid: u32,
    /// Clock ticks after boot.
    pub start_time: u64,
}

/// Builds the resource.
#[must_use]
pub fn resource(host: &Host, sources: &Sources<'_>, name: &Name, main: Main, language: Language) -> Resource {
    let Sources {
        process,
        declared,
        placement,
        container,
        go: _,
    } = *sources;
    let mut resource = Resource::default();
    let mut text = |key: &str, value: Option<&str>| {
        if let Some(value) = value.filter(|v| !v.is_empty()) {
            resource.text.push((key.into(), value.into()));
        }
    };
    let instance = instance_id(host, sources, name, main);
    text("service.name", Some(&name.name));
    text("service.namespace", name.namespace.as_deref());
    text("service.instance.id", Some(&instance));
    text("service.version", name.version.as_deref());
    text("telemetry.sdk.name", Some("opentelemetry"));
    text("telemetry.sdk.language", language.as_str());
    text("telemetry.distro.name", Some("tracer"));
    text("telemetry.distro.version", Some(env!("CARGO_PKG_VERSION")));
    text("process.executable.name", process.exe_name());
    text("host.name", Some(&host.name));
    text("host.id", host.id.as_deref());
    text("host.arch", Some(host.arch));
    text("os.type", Some("linux"));
    text("container.id", placement.container_id.as_deref());
    text("container.name", container.name.as_deref());
    text("container.image.name", container.image.as_deref());
    text("k8s.pod.uid", placement.pod_uid.as_deref());
    text("k8s.pod.name", container.pod.as_deref());
    text("k8s.namespace.name", container.namespace.as_deref());
    text("k8s.container.name", container.k8s_container.as_deref());
    text("k8s.node.name", container.node.as_deref());
    if let Some((kind, workload)) = container.workload() {
        text(&format!("k8s.{kind}.name"), Some(workload));
    }
    text(
        "systemd.unit",
        placement
            .unit
            .as_deref()
            .map(|unit| format!("{unit}.service"))
            .as_deref(),
    );
    for (key, value) in &declared.attributes {
        match resource.text.iter_mut().find(|(k, _)| k == key) {
            Some((_, found)) => *found = value.clone(),
            None => resource.text.push((key.clone(), value.clone())),
        }
    }
    resource.ints.push(("process.pid".into(), i64::from(process.pid)));
    if !process.args.is_empty() {
        resource
            .lists
            .push(("process.command_args".into(), redact(&process.args)));
    }
    if let Some(tag) = &container.tag {
        resource
            .lists
            .push(("container.image.tags".into(), vec![tag.as_str().into()]));
    }
    resource
}

/// The same for all workers of a main process and over restarts of the tracer; another for every start of the service.
/// In Kubernetes it is what the conventions say: `<namespace>.<pod>.<container>`.
fn instance_id(host: &Host, sources: &Sources<'_>, name: &Name, main: Main) -> String {
    let Sources {
        declared,
        placement,
        container,
        ..
    } = *sources;
    if let Some(id) = declared.get("service.instance.id") {
        return id.to_owned();
    }
    if let (Some(namespace), Some(pod), Some(inner)) =
        (&container.namespace, &container.pod, &container.k8s_container)
    {
        return format!("{namespace}.{pod}.{inner}");
    }
    let host_id = host.id.as_deref().unwrap_or(&host.name);
    let container = placement.container_id.as_deref().unwrap_or_default();
    let Main { pid, start_time } = main;
    let key = format!(
        "{host_id}/{}/{container}/{pid}/{start_time}/{}",
        host.boot_id, name.name
    );
    uuid::Uuid::new_v5(&INSTANCE_NAMESPACE, key.as_bytes()).to_string()
}
