//! What this kernel and these privileges allow, and what is done with it.
//!
//! [`Features::probe`] asks once, each thing by its name; [`plan()`] and [`report()`] are pure functions of the answers.

mod backend;
mod btf;
mod features;
mod iter;
mod layout;
mod plan;
mod preemption;
mod privileges;
mod probe;
mod report;

pub use backend::{Attach, Backend, Hook};
pub use btf::{Btf, Error as BtfError, VMLINUX};
pub use features::{Answer, Features, Release};
pub use layout::Group;
pub use plan::{Plan, plan};
pub use privileges::Privileges;
pub use report::{Finding, Report, Status, report};

/// Plans for this host, with the back end that is `wanted` if any is; the error names what is missing and its remedy.
pub fn plan_for_this_host(wanted: Option<Backend>) -> anyhow::Result<Plan> {
    let features = Features::probe();
    match plan(&features, wanted) {
        Some(plan) => Ok(plan),
        None => anyhow::bail!("{}", report(&features, wanted).obstacles()),
    }
}
