//! Loads the programs that the plan names, with as many recipes for runtimes as this kernel's verifier takes.

use anyhow::Context as _;
use aya::{Ebpf, VerifierLogLevel, programs::ProgramError};
use tracer_common::{MAX_CONNS, MESSAGE_PROGRAMS, RING_SHARDS, TOLD_SLOTS};

use super::{Options, Recipes, constants, hooks, object, place, program_of, ring_names, types};
use crate::kernel::{Hook, Plan};

/// Programs in the kernel, of which none is attached.
pub struct Loaded<'a> {
    pub ebpf: Ebpf,
    /// Those that were loaded, in the order in which they are to be attached.
    pub hooks: Vec<&'a Hook>,
    pub ring_bytes: u32,
    /// Runtimes whose tasks they read.
    pub recipes: Recipes,
}

/// `aya_log_common::Level`, and what is below all of its levels.
const DEBUG: u8 = 4;
const OFF: u8 = 0;

/// Smallest ring, so that the largest event fits several times.
const MIN_RING_BYTES: u32 = 256 << 10;

/// Ring buffers that are used.
pub fn shards(options: Options) -> anyhow::Result<usize> {
    let cpus = aya::util::nr_cpus().map_err(|(path, error)| anyhow::Error::new(error).context(path))?;
    Ok(cpus.min(if options.one_ring { 1 } else { RING_SHARDS }))
}

/// Loads. What follows the tasks of runtimes is the most that the verifier has to walk, and the limits of old kernels are tighter:
/// where it refuses the programs, they do without the longest of these, and then without all.
pub fn load(plan: &Plan, options: Options) -> anyhow::Result<Loaded<'_>> {
    let mut refusal = None;
    for recipes in Recipes::ATTEMPTS {
        let is_last = recipes == Recipes::NONE;
        match attempt(plan, options, recipes, is_last) {
            Ok(loaded) => {
                if let Some(why) = refusal {
                    tracing::warn!("tasks are not read of {}: {why}", recipes.missing().join(", "));
                }
                return Ok(loaded);
            }
            Err(why) if is_last || !is_refusal(&why) => return Err(why),
            Err(why) => {
                let why = format!("{why:#}");
                tracing::debug!("without {}: {why}", recipes.missing().join(", "));
                refusal.get_or_insert(why);
            }
        }
    }
    anyhow::bail!("nothing was tried")
}

/// Loads and unloads again: the runtimes whose tasks can be read here.
pub fn try_out(plan: &Plan) -> anyhow::Result<Recipes> {
    let options = Options {
        ring_bytes: MIN_RING_BYTES,
        ..Options::default()
    };
    load(plan, options).map(|loaded| loaded.recipes)
}

/// Whether it was the verifier that did not want a program. A policy that allows none says `EPERM`.
fn is_refusal(why: &anyhow::Error) -> bool {
    let mut causes = why
        .chain()
        .filter_map(|cause| cause.downcast_ref::<ProgramError>());
    causes.any(|cause| {
        matches!(cause, ProgramError::LoadError { io_error, .. } if io_error.raw_os_error() != Some(libc::EPERM))
    })
}

/// The verifier's log of the last attempt has every instruction, that of the others what it objects to.
fn attempt(plan: &Plan, options: Options, recipes: Recipes, is_last: bool) -> anyhow::Result<Loaded<'_>> {
    let ring_bytes = options
        .ring_bytes
        .max(MIN_RING_BYTES)
        .checked_next_power_of_two()
        .context("ring size")?;
    let log_level = if options.log { DEBUG } else { OFF };
    let mut values: Vec<(&str, u64)> = vec![
        ("OWN_TGID", std::process::id().into()),
        ("RECIPES", recipes.0.into()),
        ("WAKE_ABOVE", (ring_bytes / 2).into()),
        (
            "RING_MASK",
            if options.one_ring {
                0
            } else {
                RING_SHARDS as u64 - 1
            },
        ),
    ];
    values.extend(
        plan.constants
            .iter()
            .map(|(name, value)| (*name, u64::from(*value))),
    );
    let object = constants::put_in(object::checked()?, &values)?;
    let mut loader = types::loader();
    loader
        .btf(None) // the objects have no relocations
        .verifier_log_level(if is_last {
            VerifierLogLevel::default()
        } else {
            VerifierLogLevel::STATS
        })
        .override_global("AYA_LOG_LEVEL", &log_level, true);
    if plan.constants.contains(&("HAS_SOCKET_COOKIE", 1)) {
        loader.map_max_entries("IDENTITIES", 1);
    }
    if !plan.has_places() {
        loader.map_max_entries("MORE_CONNS", MAX_CONNS);
    }
    if plan.has_stand_ins() {
        loader.map_max_entries("TOLD", TOLD_SLOTS);
        loader.map_max_entries("SCRATCHES", plan.scratches);
        loader.map_max_entries("TASKS", MESSAGE_PROGRAMS);
    }
    for name in ring_names().iter().take(shards(options)?) {
        loader.map_max_entries(name, ring_bytes);
    }
    let mut ebpf = loader.load(&object).context("loading the BPF object")?;

    let btf = types::of(&plan.hooks).context("reading the kernel's type information")?;
    let mut loaded = Vec::with_capacity(plan.hooks.len());
    for hook in &plan.hooks {
        let program = program_of(&mut ebpf, hook)?;
        match hooks::load(program, hook, &btf).with_context(|| place(hook)) {
            Ok(()) => loaded.push(hook),
            // The program that it stands in for does most of the work.
            Err(why) if is_last && hook.stand_ins.contains(&hook.program) => {
                tracing::warn!("messages are missed where programs are preempted: {why:#}");
            }
            Err(why) => return Err(why),
        }
    }
    Ok(Loaded {
        ebpf,
        hooks: loaded,
        ring_bytes,
        recipes,
    })
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn only_what_the_verifier_refuses_is_tried_again() {
        let check = |errno, expected| {
            let cause = ProgramError::LoadError {
                io_error: io::Error::from_raw_os_error(errno),
                verifier_log: aya_obj::VerifierLog::new("too large".to_owned()),
            };
            let why = anyhow::Error::new(cause)
                .context("loading it")
                .context("a program");
            assert_eq!(is_refusal(&why), expected, "{errno}");
        };
        for (errno, expected) in [
            (libc::E2BIG, true),
            (libc::EACCES, true),
            (libc::EINVAL, true),
            (libc::EPERM, false),
        ] {
            check(errno, expected);
        }
        assert!(!is_refusal(&anyhow::anyhow!("no such program")));
    }
}
