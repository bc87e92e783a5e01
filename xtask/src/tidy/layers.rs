//! Who may name whom.

use super::{File, Finding, Tree, code, names};

const SOURCES: &str = "tracer-userspace/src/";

/// The stages of the daemon. They see `model` and `telemetry`, and never each other.
const STAGES: &[&str] = &[
    "attach",
    "correlate",
    "discover",
    "export",
    "flow",
    "kernel",
    "protocol",
    "record",
    "source",
    "ui",
];

/// What a stage may see besides `model` and `telemetry`, with the reason.
const EXCEPTIONS: &[(&str, &str)] = &[
    // The three folders that face the kernel are one boundary: the plan says what to attach, the rings belong to what is attached.
    ("attach", "kernel"),
    ("source", "attach"),
    ("source", "kernel"),
];

/// Crates that only some folders may name.
const CONFINED: &[(&str, &[&str])] = &[
    ("aya", &["kernel", "attach", "source"]),
    ("aya_obj", &["kernel", "attach", "source"]),
    ("aya_log", &["kernel", "attach", "source"]),
    ("opentelemetry", &["export"]),
    ("opentelemetry_otlp", &["export"]),
    ("opentelemetry_proto", &["export"]),
    ("opentelemetry_sdk", &["export"]),
    ("prost", &["export"]),
    ("reqwest", &["export"]),
    ("tonic", &["export"]),
];

/// Stages that compute and nothing else.
const PURE: &[&str] = &["protocol", "flow", "correlate", "model"];

/// The folder of `src/` that a file belongs to: `flow` for `flow/mod.rs` and for `flow.rs`.
fn stage(file: &File) -> Option<&str> {
    let inside = file.path.strip_prefix(SOURCES)?;
    inside.split('/').next().map(|name| name.trim_end_matches(".rs"))
}

/// Stages never import each other.
pub fn stages(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust(SOURCES) {
        let Some(own) = stage(file).filter(|name| STAGES.contains(name)) else {
            continue;
        };
        for (line, text) in code(file) {
            for other in STAGES
                .iter()
                .filter(|&&other| other != own && !EXCEPTIONS.contains(&(own, other)))
            {
                if names(text, &format!("crate::{other}")) {
                    found.push(Finding {
                        path: file.path.clone(),
                        line,
                        what: format!("stage {own} names stage {other}"),
                        mend: format!("put what both need into model/, or hand it over in agent/ (ARCHITECTURE.md, Invariants; {own} sees model and telemetry)"),
                    });
                }
            }
        }
    }
    found
}

/// Some crates are named in some folders only, kernel versions in kernel/ only, and no crate reaches upwards.
pub fn crates(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust(SOURCES) {
        let own = stage(file).unwrap_or_default();
        for (line, text) in code(file) {
            for (name, folders) in CONFINED {
                let path = text.contains(&format!("{name}::")) || text.contains(&format!("use {name}"));
                let named = path && names(text, name);
                if named && !folders.contains(&own) {
                    found.push(Finding {
                        path: file.path.clone(),
                        line,
                        what: format!(
                            "the crate {name} is named outside of {}",
                            folders.join("/, ") + "/"
                        ),
                        mend: "wrap what you need in a type of our own in that folder".to_owned(),
                    });
                }
            }
            let version = ["KernelVersion", "uname", "utsname"]
                .iter()
                .any(|word| names(text, word));
            if version && own != "kernel" {
                found.push(Finding {
                    path: file.path.clone(),
                    line,
                    what: "the kernel's version is asked outside of kernel/".to_owned(),
                    mend: "probe the feature in kernel/ and ask for it by name".to_owned(),
                });
            }
        }
    }
    let upwards = [
        (
            "tracer-common/Cargo.toml",
            &["tracer-userspace", "tracer-tests", "aya"][..],
        ),
        (
            "tracer-ebpf/Cargo.toml",
            &["tracer-userspace", "tracer-tests"][..],
        ),
        ("tracer-userspace/Cargo.toml", &["tracer-tests"][..]),
    ];
    for (path, forbidden) in upwards {
        for (n, text) in tree.text(path).unwrap_or_default().lines().enumerate() {
            let name = text.split(['=', '.', ' ']).next().unwrap_or_default();
            if forbidden.contains(&name) {
                found.push(Finding {
                    path: path.to_owned(),
                    line: n + 1,
                    what: format!("depends on {name}"),
                    mend: "dependencies go tracer-ebpf -> tracer-common <- tracer-userspace <- tests"
                        .to_owned(),
                });
            }
        }
    }
    found
}

/// protocol/, flow/, correlate/ and model/ forbid unsafe code and do no input or output.
pub fn purity(tree: &Tree) -> Vec<Finding> {
    const IO: &[&str] = &[
        "std::fs",
        "std::net::Tcp",
        "std::net::Udp",
        "std::os",
        "std::process",
        "std::thread",
        "std::io",
    ];
    let mut found = Vec::new();
    let lib = tree.text("tracer-userspace/src/lib.rs").unwrap_or_default();
    for own in PURE {
        let path = format!("{SOURCES}{own}/mod.rs");
        let Some(text) = tree.text(&path) else { continue };
        let declared = format!("#[forbid(unsafe_code)]\npub mod {own};");
        if !text.lines().any(|line| line.trim() == "#![forbid(unsafe_code)]") && !lib.contains(&declared) {
            found.push(Finding {
                path,
                line: 0,
                what: format!("{own}/ does not forbid unsafe code"),
                mend: "add `#![forbid(unsafe_code)]` below the module's description".to_owned(),
            });
        }
    }
    for file in tree.rust(SOURCES) {
        if !stage(file).is_some_and(|own| PURE.contains(&own)) {
            continue;
        }
        for (line, text) in code(file) {
            let io = IO.iter().find(|path| text.contains(*path)).copied();
            if let Some(what) = io.or_else(|| text.contains("tokio::").then_some("tokio")) {
                found.push(Finding {
                    path: file.path.clone(),
                    line,
                    what: format!("{what} in a stage that only computes"),
                    mend: "let agent/, source/ or export/ do it and hand in the result".to_owned(),
                });
            }
        }
    }
    found
}

/// Every protocol has captures: the generic tests prove nothing without them.
pub fn captures(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.rust("tracer-userspace/src/protocol/") {
        let lines: Vec<_> = code(file).collect();
        for (at, (line, text)) in lines.iter().enumerate() {
            if !text.contains("fn name(&self) -> &'static str {") {
                continue;
            }
            let body = text.split_once("str {").map_or("", |(_, rest)| rest);
            let next = lines.get(at + 1).map_or("", |(_, text)| text);
            let Some(name) = body.split('"').nth(1).or_else(|| next.split('"').nth(1)) else {
                continue;
            };
            let folder = format!("tracer-userspace/src/protocol/captures/{name}");
            if !tree.has(&folder) {
                found.push(Finding {
                    path: file.path.clone(),
                    line: *line,
                    what: format!("the protocol {name} has no captures"),
                    mend: format!("record one into {folder}/ (captures/README.md has the format)"),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{check, tree};
    use super::*;

    #[test]
    fn a_stage_that_names_another_is_found() {
        let tree = tree(&[
            (
                "tracer-userspace/src/flow/mod.rs",
                "use crate::model::Chunk;\nuse crate::telemetry::Ledger;\nuse crate::flow::Order;\n",
            ),
            (
                "tracer-userspace/src/flow/a.rs",
                "// crate::export\nuse crate::export::Sink;\n",
            ),
            ("tracer-userspace/src/attach/mod.rs", "use crate::kernel::Plan;\n"),
            (
                "tracer-userspace/src/export.rs",
                "use crate::correlate::{A, B};\n",
            ),
            (
                "tracer-userspace/src/agent/mod.rs",
                "use crate::flow::A;\nuse crate::export::B;\n",
            ),
        ]);
        check(
            stages(&tree),
            &[
                "tracer-userspace/src/flow/a.rs:2",
                "tracer-userspace/src/export.rs:1",
            ],
        );
    }

    #[test]
    fn confined_names_are_found() {
        let tree = tree(&[
            ("tracer-userspace/src/source/ring.rs", "use aya::maps::RingBuf;\n"),
            (
                "tracer-userspace/src/agent/mod.rs",
                "use aya::Ebpf;\nfn f(x: &aya::Ebpf) {}\nlet aya = 1;\n",
            ),
            (
                "tracer-userspace/src/protocol/http.rs",
                "use opentelemetry_semantic_conventions::trace;\nuse tonic::Code;\n",
            ),
            (
                "tracer-userspace/src/flow/mod.rs",
                "if kernel.version() > KernelVersion::new(6, 3, 0) {}\n",
            ),
            (
                "tracer-userspace/src/kernel/mod.rs",
                "let v = KernelVersion::current();\n",
            ),
            (
                "tracer-common/Cargo.toml",
                "[dependencies]\ntracer-userspace.workspace = true\n",
            ),
        ]);
        check(
            crates(&tree),
            &[
                "tracer-userspace/src/agent/mod.rs:1",
                "tracer-userspace/src/agent/mod.rs:2",
                "tracer-userspace/src/protocol/http.rs:2",
                "tracer-userspace/src/flow/mod.rs:1",
                "tracer-common/Cargo.toml:2",
            ],
        );
    }

    #[test]
    fn stages_that_compute_are_pure() {
        let tree = tree(&[
            (
                "tracer-userspace/src/lib.rs",
                "#[forbid(unsafe_code)]\npub mod model;\npub mod flow;\n",
            ),
            ("tracer-userspace/src/model/mod.rs", ""),
            ("tracer-userspace/src/flow/mod.rs", "use std::net::IpAddr;\n"),
            (
                "tracer-userspace/src/protocol/mod.rs",
                "#![forbid(unsafe_code)]\nuse std::fs;\n#[cfg(test)]\nuse std::io;\n",
            ),
        ]);
        check(
            purity(&tree),
            &[
                "tracer-userspace/src/flow/mod.rs:0",
                "tracer-userspace/src/protocol/mod.rs:2",
            ],
        );
    }

    #[test]
    fn a_protocol_without_captures_is_found() {
        let name = |n: &str| {
            format!(
                "impl Protocol for X {{\n    fn name(&self) -> &'static str {{\n        \"{n}\"\n    }}\n}}\n"
            )
        };
        let tree = tree(&[
            ("tracer-userspace/src/protocol/http1/mod.rs", &name("http1")),
            ("tracer-userspace/src/protocol/redis.rs", &name("redis")),
            ("tracer-userspace/src/protocol/captures/http1/a.cap", ""),
        ]);
        check(captures(&tree), &["tracer-userspace/src/protocol/redis.rs:2"]);
    }
}
