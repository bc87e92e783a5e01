//! Features -> hooks. A pure function: every host that somebody can describe can be tested.

use super::{
    backend::{Attach, Backend, Hook, Need, Sight, TABLES, Table},
    features::{Answer, Features},
    layout::Group,
};

/// What the attach stage does.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan {
    /// The back end that was chosen.
    pub backend: Backend,
    /// Globals of the programs: where kernel structs have their fields, and what this kernel has.
    pub constants: Vec<(&'static str, u32)>,
    /// Scratch memories that the programs need if they have stand-ins.
    pub scratches: u32,
    /// Programs to load and attach, in this order.
    pub hooks: Vec<Hook>,
}

impl Plan {
    /// Whether some programs have others that stand in for them.
    #[must_use]
    pub fn has_stand_ins(&self) -> bool {
        self.constants.contains(&(HAS_STAND_INS, 1))
    }

    /// Whether connections have places of their own in the programs' table.
    #[must_use]
    pub fn has_places(&self) -> bool {
        self.constants.contains(&(HAS_PLACES, 1))
    }
}

const HAS_STAND_INS: &str = "HAS_STAND_INS";
const HAS_PLACES: &str = "HAS_PLACES";

/// The plan for a host, with the back end that is `wanted` or else the first that can be used; `None` if the main job cannot run
/// there so ([`super::report()`] says why).
///
/// What could not be told is tried: only a clear "no" stops it.
#[must_use]
pub fn plan(features: &Features, wanted: Option<Backend>) -> Option<Plan> {
    if !features.privileges.may_trace() && features.privileges.known {
        return None;
    }
    if matches!(features.ring_buffer, Answer::No(_)) || features.offsets(Group::Socket).is_none() {
        return None;
    }
    TABLES
        .iter()
        .filter(|table| wanted.is_none_or(|wanted| wanted == table.backend))
        .find_map(|table| plan_with(features, table))
}

fn plan_with(features: &Features, table: &Table) -> Option<Plan> {
    let mut constants = features.switches(table.has_cookies(features));
    for group in [Group::Socket].iter().chain(table.groups) {
        constants.extend(features.offsets(*group)?);
    }
    for group in [Group::Watch, Group::Process] {
        constants.extend(features.offsets(group).unwrap_or_default());
    }
    let optional = table.optional.iter().map(|group| features.offsets(*group));
    if let Some(optional) = optional.collect::<Option<Vec<_>>>() {
        constants.extend(optional.into_iter().flatten());
    }
    let mut hooks = Vec::new();
    for sight in table.sights {
        match way(features, sight) {
            Some(way) => hooks.extend(way.iter().flat_map(|hook| relay(features, hook))),
            None if sight.need == Need::Required && applies(features, sight) => return None,
            None => {}
        }
    }
    let has_stand_ins = hooks.iter().any(|hook| !hook.stand_ins.is_empty());
    constants.push((HAS_STAND_INS, u32::from(has_stand_ins)));
    constants.push((HAS_PLACES, u32::from(table.backend != Backend::Syscall)));
    Some(Plan {
        backend: table.backend,
        constants,
        scratches: table.scratches,
        hooks,
    })
}

/// A program with its stand-ins, if it needs them there, in the order in which they must be attached.
fn relay(features: &Features, hook: &Hook) -> Vec<Hook> {
    if !features.is_preempted(hook.attach) {
        return vec![hook.or(&[])];
    }
    let programs = std::iter::once(&hook.program).chain(hook.stand_ins);
    let mut hooks: Vec<_> = programs.map(|program| Hook { program, ..*hook }).collect();
    // A trampoline calls first what was attached last (kernel/bpf/trampoline.c: `hlist_add_head`), a tracepoint the other way round.
    if hook.attach == Attach::Fexit {
        hooks.reverse();
    }
    hooks
}

/// Whether the host needs that sight at all.
pub(super) fn applies(features: &Features, sight: &Sight) -> bool {
    sight.only_if.is_none_or(|condition| condition(features))
}

/// The first way that the host has; none if there is no need.
pub(super) fn way(features: &Features, sight: &Sight) -> Option<&'static [Hook]> {
    if !applies(features, sight) {
        return None;
    }
    let usable = |hook: &Hook| features.target(hook) == Answer::Yes && !refused(features, hook.attach);
    sight.ways.iter().find(|way| way.iter().all(usable)).copied()
}

fn refused(features: &Features, attach: Attach) -> bool {
    features
        .mechanism(attach)
        .is_some_and(|answer| matches!(answer, Answer::No(_)))
}
