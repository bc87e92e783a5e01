//! Where a process's runtime keeps its tasks (goroutines, coroutines, virtual threads), so that the kernel side can tell who
//! moved bytes and on whose behalf: one recipe per kind of task, one line in [`RECIPES`].
//!
//! A recipe recognises its runtime, finds the offsets (a table by version, symbols, exported tables) and verifies them
//! on the live process before it believes them. Where it fails it says why, nothing is read, and parents rest on weaker
//! evidence.

pub mod go;
mod java;
#[allow(dead_code)] // some of its users follow
mod live;
mod node;
mod python;
pub mod threads;
pub mod tokio;

use super::go::GoBinary;
use super::procfs::Snapshot;
use crate::model::Language;
use tracer_common::{RuntimeEntry, RuntimeKind};

/// What a recipe may look at.
pub struct Subject<'a> {
    /// The process.
    pub process: &'a Snapshot,
    /// Its language.
    pub language: Language,
    /// If its executable is a Go program: what that says.
    pub go: Option<&'a GoBinary>,
    /// If its executable has tokio in it: what that says.
    pub tokio: Option<&'a tokio::TokioBinary>,
}

/// `None` if the process has no such runtime.
type Recipe = fn(&Subject) -> Option<Result<RuntimeEntry, String>>;

/// Kinds of tasks, and how they are found.
const RECIPES: &[(&str, Recipe)] = &[
    ("goroutine", go::find),
    ("Java thread", java::find),
    ("tokio task", tokio::find),
    ("async resource", node::find),
    ("Python task", python::find),
];

/// Whether a process of that language may load the runtime of its tasks long after it has begun.
pub fn may_come_later(language: Language) -> bool {
    language == Language::Python
}

/// Kind of the process's tasks and where they are, or why that is not known. `None` if it has no runtime that we know.
pub fn find(subject: &Subject) -> Option<(&'static str, Result<RuntimeEntry, String>)> {
    RECIPES
        .iter()
        .find_map(|(kind, recipe)| Some((*kind, recipe(subject)?)))
}

/// A 64-bit value as the runtime table has it: the lower half first.
fn halves(value: u64) -> [u32; 2] {
    [(value & 0xffff_ffff) as u32, (value >> 32) as u32]
}

/// The value that [`halves`] were made of.
fn whole([low, high]: [u32; 2]) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// What is still looked for in a process whose entry is not complete.
pub enum Search {
    /// Tokio's sockets and callers.
    Tokio(tokio::Samples),
    /// Python's asyncio or executors, which may be loaded at any time: so often they were looked for or not, at ever longer intervals.
    Python(u32),
    /// Classes of Java, likewise.
    Java(u32),
}

/// How often [`Search::look`] is called before nothing is expected of such a process any more: about an hour.
const MOST_LOOKS: u32 = 4_096;

impl Search {
    /// What there is to look for, if anything.
    pub fn of(entry: &RuntimeEntry) -> Option<Self> {
        if python::is_incomplete(entry) {
            return Some(Self::Python(0));
        }
        if java::is_incomplete(entry) {
            return Some(Self::Java(0));
        }
        (entry.kind == RuntimeKind::TOKIO.0).then(|| Self::Tokio(tokio::Samples::default()))
    }

    /// Looks once more. Whether the entry has become better.
    pub fn look(&mut self, subject: &Subject, entry: &mut RuntimeEntry) -> bool {
        match self {
            Self::Tokio(samples) => tokio::look(subject, samples, entry),
            Self::Python(looks) => look_at_all(
                looks,
                subject,
                entry,
                python::find,
                python::is_incomplete,
                |_, _| false,
            ),
            Self::Java(looks) => look_at_all(
                looks,
                subject,
                entry,
                java::find,
                java::is_incomplete,
                java::is_worse,
            ),
        }
    }

    /// The kernel side asks where a task of the process, given by its address, has those that it awaits, given by the address of what names
    /// their type. Whether the entry has become better.
    pub fn seek(&mut self, subject: &Subject, entry: &mut RuntimeEntry, of: u64, by: u64) -> bool {
        match self {
            Self::Tokio(samples) => tokio::seek(subject, samples, entry, of, by),
            Self::Python(_) | Self::Java(_) => false,
        }
    }

    /// Whether there is nothing more to expect, unless the kernel side asks.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Tokio(samples) => !samples.wants_more(),
            Self::Python(looks) | Self::Java(looks) => *looks >= MOST_LOOKS,
        }
    }
}

/// Goes through a recipe once more, if it is time to. Whether the entry has become better.
fn look_at_all(
    looks: &mut u32,
    subject: &Subject,
    entry: &mut RuntimeEntry,
    recipe: Recipe,
    is_incomplete: fn(&RuntimeEntry) -> bool,
    is_worse: fn(&RuntimeEntry, &RuntimeEntry) -> bool,
) -> bool {
    *looks += 1;
    let found = looks
        .is_power_of_two()
        .then(|| recipe(subject)?.ok())
        .flatten()
        .filter(|found| found != entry && !is_worse(found, entry));
    if let Some(found) = found {
        *entry = found;
        if !is_incomplete(entry) {
            *looks = MOST_LOOKS;
        }
    }
    found.is_some()
}
