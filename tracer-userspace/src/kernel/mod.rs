//! What this kernel and these privileges allow, and what is done with it.
//!
//! [`Features::probe`] asks once, each thing by its name; [`plan()`] and [`report()`] are pure functions of the answers.

mod btf;
mod features;
mod layout;
mod plan;
mod privileges;
mod report;

pub use btf::{Btf, Error as BtfError, VMLINUX};
pub use features::{Answer, Features, Release};
pub use layout::{FIELDS, Field, Layout};
pub use plan::{Hook, Plan, plan};
pub use privileges::Privileges;
pub use report::{Finding, Report, Status, report};

/// Plans for this host; the error names what is missing and its remedy.
pub fn plan_for_this_host() -> anyhow::Result<Plan> {
    let features = Features::probe();
    match plan(&features) {
        Some(plan) => Ok(plan),
        None => anyhow::bail!("{}", report(&features).obstacles()),
    }
}
