//! Features -> hooks. A pure function: every host that somebody can describe can be tested.

use super::{
    features::{Answer, Features},
    layout::Layout,
};

/// One hook that the tracer can use: a BTF tracepoint, and the program of the same name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hook {
    /// Name without `btf_trace_`.
    pub tracepoint: &'static str,
    /// What is lost without it.
    pub needed_for: &'static str,
    /// Whether the tracer is of no use without it.
    pub required: bool,
    /// First release with it, for advice alone.
    pub since: &'static str,
}

const fn hook(
    tracepoint: &'static str,
    since: &'static str,
    required: bool,
    needed_for: &'static str,
) -> Hook {
    Hook {
        tracepoint,
        needed_for,
        required,
        since,
    }
}

/// Every hook of the back end `tracepoint`.
pub const HOOKS: &[Hook] = &[
    hook(
        "sock_send_length",
        "6.3",
        true,
        "seeing what is sent over sockets",
    ),
    hook(
        "sock_recv_length",
        "6.3",
        true,
        "seeing what is received over sockets",
    ),
    hook(
        "inet_sock_set_state",
        "4.16",
        true,
        "seeing connections open and close",
    ),
    hook(
        "sk_data_ready",
        "6.3",
        false,
        "the time that a request waited before it was read",
    ),
    hook(
        "tcp_receive_reset",
        "4.15",
        false,
        "telling a peer's reset from a close",
    ),
    hook(
        "tcp_send_reset",
        "4.15",
        false,
        "telling our own reset from a close",
    ),
];

/// What the attach stage does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// Where kernel structs have their fields.
    pub layout: Layout,
    /// BTF tracepoints to attach; a program of the same name belongs to each.
    pub tracepoints: Vec<&'static str>,
}

/// The plan for a host, or `None` if the main job cannot run there ([`super::report()`] says why).
///
/// What could not be told is tried: only a clear "no" stops it.
#[must_use]
pub fn plan(features: &Features) -> Option<Plan> {
    if !features.privileges.may_trace() && features.privileges.known {
        return None;
    }
    if matches!(features.ring_buffer, Answer::No(_)) || features.layout.offsets.is_empty() {
        return None;
    }
    let has = |name: &str| {
        features
            .tracepoints
            .iter()
            .any(|(found, answer)| *found == name && *answer == Answer::Yes)
    };
    if HOOKS.iter().any(|hook| hook.required && !has(hook.tracepoint)) {
        return None;
    }
    let tracepoints = HOOKS
        .iter()
        .map(|hook| hook.tracepoint)
        .filter(|name| has(name))
        .collect();
    Some(Plan {
        layout: features.layout.clone(),
        tracepoints,
    })
}
