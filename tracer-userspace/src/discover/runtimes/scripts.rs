//! Interpreters of plain scripts, and Erlang's virtual machine.

use super::{Naming, option, skip_options};
use crate::discover::procfs::Snapshot;
use crate::discover::words::program;
use std::path::Path;

pub fn named(process: &Snapshot) -> Naming {
    let tail = process.args.get(1..).unwrap_or_default();
    // Code on the command line has no name: `sh -c …`, `perl -e …`.
    if tail
        .iter()
        .take_while(|a| a.starts_with('-'))
        .any(|a| !a.starts_with("--") && a.contains(['c', 'e', 'E']))
    {
        return Naming::Unknown;
    }
    match skip_options(tail, &["-I", "-M", "-o", "-O"]).first() {
        // `bash /dev/fd/3`: a script from a descriptor has no name.
        Some(script)
            if !script.contains(' ') && !script.starts_with("/dev/") && !script.starts_with("/proc/") =>
        {
            program(
                &process.absolute(Path::new(script)),
                &[".pl", ".psgi", ".lua", ".sh", ".bash", ".R", ".scm"],
            )
            .into()
        }
        _ => Naming::Unknown,
    }
}

/// Releases name themselves in the environment, nodes with `-sname` or `-name`.
pub fn erlang(process: &Snapshot) -> Naming {
    let node = option(&process.args, &["-sname", "-name"]).and_then(|n| n.split('@').next());
    let release = process.environ.get("RELEASE_NAME");
    release.or(node).map(str::to_owned).into()
}
