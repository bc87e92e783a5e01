//! Loads and attaches one program, by the kind of its hook.

use anyhow::Context as _;
use aya::{
    Btf, Ebpf,
    maps::ProgramArray,
    programs::{KProbe, Program, ProgramError, tp_btf::BtfTracePointLinkId},
};

use super::kretprobe::Kretprobe;
use crate::kernel::{Attach, Hook};

/// Loads the program, if it is not. Loading takes the verifier's time: nothing is attached before all is loaded, so that the
/// first ones' events do not wait for the last ones.
pub fn load(program: &mut Program, hook: &Hook, types: &Btf) -> anyhow::Result<()> {
    match (hook.attach, program) {
        (
            Attach::BtfTracepoint | Attach::TailCall { .. } | Attach::OnDemand,
            Program::BtfTracePoint(program),
        ) => program.load(hook.target, types),
        (Attach::Fentry, Program::FEntry(program)) => program.load(hook.target, types),
        (Attach::Fexit, Program::FExit(program)) => program.load(hook.target, types),
        (Attach::Kprobe | Attach::Kretprobe, Program::KProbe(program)) => load_once(program),
        (expected, program) => anyhow::bail!("it is {:?}, and no {expected:?}", program.prog_type()),
    }
    .context("loading it")
}

/// Attaches the loaded program to its target, if its hook is not called or attached later. Some links are ours to keep.
pub fn attach(program: &mut Program, hook: &Hook) -> anyhow::Result<Option<Kretprobe>> {
    match (hook.attach, program) {
        (Attach::BtfTracepoint, Program::BtfTracePoint(program)) => {
            program.attach().context("attaching it")?;
        }
        (Attach::Fentry, Program::FEntry(program)) => {
            program.attach().context("attaching it")?;
        }
        (Attach::Fexit, Program::FExit(program)) => {
            program.attach().context("attaching it")?;
        }
        (Attach::Kprobe, Program::KProbe(program)) => {
            program.attach(hook.target, 0).context("attaching it")?;
        }
        (Attach::Kretprobe, Program::KProbe(program)) => match Kretprobe::attach(program, hook.target) {
            Ok(link) => return Ok(Some(link)),
            Err(why) => {
                tracing::warn!("{} is seen in few threads at a time: {why:#}", hook.target);
                program.attach(hook.target, 0).context("attaching it")?;
            }
        },
        _ => {}
    }
    Ok(None)
}

/// One program serves several functions.
fn load_once(program: &mut KProbe) -> Result<(), ProgramError> {
    if program.fd().is_ok() {
        Ok(())
    } else {
        program.load()
    }
}

/// Attaches a program that was loaded for that, and says how to take it off again.
pub fn attach_now(program: &mut Program) -> anyhow::Result<BtfTracePointLinkId> {
    match program {
        Program::BtfTracePoint(program) => program.attach().context("attaching it"),
        program => anyhow::bail!("it is {:?}", program.prog_type()),
    }
}

/// Takes it off again.
pub fn detach_now(program: &mut Program, link: BtfTracePointLinkId) -> anyhow::Result<()> {
    match program {
        Program::BtfTracePoint(program) => program.detach(link).context("detaching it"),
        program => anyhow::bail!("it is {:?}", program.prog_type()),
    }
}

/// Puts a loaded program where others call it; the object's map keeps it there.
pub fn put_in_slot(ebpf: &mut Ebpf, program: &str, map: &str, index: u32) -> anyhow::Result<()> {
    let Some(Program::BtfTracePoint(program)) = ebpf.program(program) else {
        anyhow::bail!("the object has no program {program}");
    };
    let program = program.fd()?.try_clone()?;
    let slots = ebpf
        .map_mut(map)
        .with_context(|| format!("the object has no map {map}"))?;
    let mut slots = ProgramArray::try_from(slots).with_context(|| map.to_owned())?;
    slots
        .set(index, &program, 0)
        .with_context(|| format!("slot {index} of {map}"))
}

/// Detaches the program if it is attached.
pub fn detach(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::KProbe(program) => program.unload(),
        Program::UProbe(program) => program.unload(),
        _ => Ok(()),
    }
}
