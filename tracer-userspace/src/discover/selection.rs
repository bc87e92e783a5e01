//! Which processes and connections are traced.

use super::procfs::Snapshot;
use serde::{Deserialize, Serialize};

/// Include and exclude rules. Exclude wins. With no rule, everything but the tracer itself is traced.
///
/// Executables, commands and process ids name processes, and any match is enough. Ports then narrow the connections of the
/// processes taken: with `include.ports`, only connections with one of these ports at either end are traced.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Selection {
    /// What to trace; empty: everything.
    pub include: Rules,
    /// What not to trace.
    pub exclude: Rules,
}

/// One side of the selection.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// Glob patterns of executables: the whole path, or the base name if the pattern has no `/`.
    pub executables: Vec<Glob>,
    /// Parts of the command line, or glob patterns of all of it if they hold `*`, `?` or `[`.
    pub commands: Vec<Command>,
    /// TCP ports at either end of the connection.
    pub ports: Vec<u16>,
    /// Process ids.
    pub pids: Vec<u32>,
}

/// A glob pattern: `*` and `?` stay within a path segment, `**` crosses them, `[…]` is a set.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(glob::Pattern);

/// A rule about a command line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Command {
    /// The command line holds this text.
    Part(String),
    /// The whole command line matches.
    Whole(glob::Pattern),
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern matches nothing".to_owned());
        }
        glob::Pattern::new(&text)
            .map(Self)
            .map_err(|e| format!("bad glob pattern {text:?}: {}", e.msg))
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0.as_str().to_owned()
    }
}

impl TryFrom<String> for Command {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty text is part of every command line".to_owned());
        }
        if !text.contains(['*', '?', '[']) {
            return Ok(Self::Part(text));
        }
        glob::Pattern::new(&text)
            .map(Self::Whole)
            .map_err(|e| format!("bad glob pattern {text:?}: {}", e.msg))
    }
}

impl From<Command> for String {
    fn from(command: Command) -> Self {
        match command {
            Command::Part(text) => text,
            Command::Whole(pattern) => pattern.as_str().to_owned(),
        }
    }
}

impl Rules {
    pub(super) fn names_processes(&self) -> bool {
        !(self.executables.is_empty() && self.commands.is_empty() && self.pids.is_empty())
    }

    fn matches(&self, process: &Snapshot, forebears: &[u32]) -> bool {
        let is_meant = |pid: &u32| *pid == process.pid || forebears.contains(pid);
        if self.pids.iter().any(is_meant) {
            return true;
        }
        let path = process.exe.as_deref().and_then(|p| p.to_str());
        if path.is_some_and(|path| self.executables.iter().any(|glob| glob.matches(path))) {
            return true;
        }
        // Joined only if there is a rule to ask.
        !self.commands.is_empty() && {
            let line = process.args.join(" ");
            self.commands.iter().any(|command| match command {
                Command::Part(text) => line.contains(text.as_str()),
                Command::Whole(pattern) => pattern.matches(&line),
            })
        }
    }
}

impl Glob {
    fn matches(&self, path: &str) -> bool {
        let options = glob::MatchOptions {
            require_literal_separator: true,
            ..glob::MatchOptions::new()
        };
        let subject = if self.0.as_str().contains('/') {
            path
        } else {
            path.rsplit('/').next().unwrap_or(path)
        };
        self.0.matches_with(subject, options)
    }
}

impl Selection {
    /// Whether a process is taken. `forebears` are the main process of its service and the one that it was forked from: a rule about
    /// these holds for their workers.
    #[must_use]
    pub fn process_decides(&self, process: &Snapshot, forebears: &[u32]) -> bool {
        !self.exclude.matches(process, forebears)
            && (!self.include.names_processes() || self.include.matches(process, forebears))
    }

    /// Whether a connection of a taken process is traced, by its ports (0 for Unix sockets).
    #[must_use]
    pub fn port_decides(&self, local: u16, remote: u16) -> bool {
        let among = |ports: &[u16]| ports.iter().any(|&p| p == local || p == remote);
        !among(&self.exclude.ports) && (self.include.ports.is_empty() || among(&self.include.ports))
    }
}
