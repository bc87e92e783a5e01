//! What runs in an interpreter or a virtual machine, by its command line: one file per runtime, one line in [`named`].

mod dotnet;
mod java;
mod node;
mod php;
mod python;
mod ruby;
mod scripts;

use super::procfs::Snapshot;

/// A name found in a command line.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Program {
    /// Name of the service.
    pub name: String,
    /// `service.version`, where the program says it.
    pub version: Option<String>,
}

/// Answer of a runtime's file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Naming {
    /// Runs this program.
    Program(Program),
    /// Works for its parent, under the parent's name.
    Parent,
    /// Not this runtime, or nothing to name it by.
    Unknown,
}

impl From<Option<String>> for Naming {
    fn from(name: Option<String>) -> Self {
        match name {
            Some(name) if !name.is_empty() => Self::Program(Program { name, version: None }),
            _ => Self::Unknown,
        }
    }
}

impl From<Option<Program>> for Naming {
    fn from(program: Option<Program>) -> Self {
        program.map_or(Self::Unknown, Self::Program)
    }
}

/// Asks the runtime that the executable belongs to.
#[must_use]
pub fn named(process: &Snapshot) -> Naming {
    let Some(exe) = process.exe_name() else {
        return Naming::Unknown;
    };
    let runtime = runtime_name(exe);
    match runtime {
        "python" | "pypy" | "uwsgi" | "python-debug" => python::named(process),
        "node" | "nodejs" => node::named(process),
        "bun" | "deno" => node::alternative(process),
        "java" => java::named(process),
        "ruby" => ruby::named(process),
        "php" | "php-fpm" | "php-cgi" => php::named(process),
        "dotnet" => dotnet::named(process),
        "perl" | "lua" | "luajit" | "bash" | "dash" | "sh" | "zsh" | "busybox" | "Rscript" | "guile" => {
            scripts::named(process)
        }
        "beam.smp" => scripts::erlang(process),
        _ => Naming::Unknown,
    }
}

/// `python3.11` and `php-fpm8.2` are `python` and `php-fpm`.
#[must_use]
pub fn runtime_name(exe: &str) -> &str {
    let name = exe.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if name.is_empty() {
        exe
    } else {
        name.strip_suffix('-').unwrap_or(name)
    }
}

/// Arguments after the interpreter's own options: skips `with_value` (and the text that follows each) and everything
/// else that starts with `-`. `--` ends the options.
fn skip_options<'a>(args: &'a [String], with_value: &[&str]) -> &'a [String] {
    let mut rest = args;
    while let Some((first, tail)) = rest.split_first() {
        if first == "--" {
            return tail;
        }
        if !first.starts_with('-') || first == "-" {
            break;
        }
        rest = if with_value.contains(&first.as_str()) {
            tail.get(1..).unwrap_or_default()
        } else {
            tail
        };
    }
    rest
}

/// The value of an option, as `--name value`, `--name=value`, `-n value` or `-nvalue`.
fn option<'a>(args: &'a [String], names: &[&str]) -> Option<&'a str> {
    args.iter().enumerate().find_map(|(at, arg)| {
        names.iter().find_map(|name| {
            let rest = arg.strip_prefix(name)?;
            if rest.is_empty() {
                return args.get(at.checked_add(1)?).map(String::as_str);
            }
            match rest.strip_prefix('=') {
                Some(value) => Some(value),
                None => (!name.starts_with("--")).then_some(rest),
            }
        })
    })
}
