//! Loads and attaches one program, by the kind of its hook.

use anyhow::Context as _;
use aya::{
    Btf,
    programs::{Program, ProgramError},
};

use crate::kernel::{Attach, Hook};

/// Loads the program and attaches it to its target.
pub fn attach(program: &mut Program, hook: &Hook, types: &Btf) -> anyhow::Result<()> {
    match (hook.attach, program) {
        (Attach::BtfTracepoint, Program::BtfTracePoint(program)) => {
            program.load(hook.target, types).context("loading it")?;
            program.attach().context("attaching it")?;
        }
        (Attach::Fentry, Program::FEntry(program)) => {
            program.load(hook.target, types).context("loading it")?;
            program.attach().context("attaching it")?;
        }
        (Attach::Fexit, Program::FExit(program)) => {
            program.load(hook.target, types).context("loading it")?;
            program.attach().context("attaching it")?;
        }
        (expected, program) => anyhow::bail!("it is {:?}, and no {expected:?}", program.prog_type()),
    }
    Ok(())
}

/// Detaches the program if it is attached.
pub fn detach(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        _ => Ok(()),
    }
}
