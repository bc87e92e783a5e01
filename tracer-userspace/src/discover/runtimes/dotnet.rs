//! .NET: the assembly that `dotnet` runs. (Self-contained programs are executables of their own name.)

use super::{Naming, skip_options};
use crate::discover::procfs::Snapshot;
use crate::discover::words::program;
use std::path::Path;

const WITH_VALUE: &[&str] = &[
    "--depsfile",
    "--runtimeconfig",
    "--additionalprobingpath",
    "--fx-version",
    "--roll-forward",
    "--additional-deps",
];

pub fn named(process: &Snapshot) -> Naming {
    let mut rest = process.args.get(1..).unwrap_or_default();
    if let Some((verb, tail)) = rest.split_first()
        && matches!(verb.as_str(), "exec" | "run")
    {
        rest = tail;
    }
    match skip_options(rest, WITH_VALUE).first() {
        Some(file) if file.ends_with(".dll") || file.ends_with(".exe") => {
            program(&process.absolute(Path::new(file)), &[".dll", ".exe"]).into()
        }
        _ => Naming::Unknown,
    }
}
