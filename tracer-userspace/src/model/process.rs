//! Who is behind a process id.

use serde::{Deserialize, Serialize};

/// Language of a process (`telemetry.sdk.language` values of the semantic conventions).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
pub enum Language {
    /// C or C++ (`cpp`).
    Cpp,
    /// .NET (`dotnet`).
    DotNet,
    /// Go.
    Go,
    /// Java and other JVM languages.
    Java,
    /// Node.js.
    NodeJs,
    /// PHP.
    Php,
    /// Python.
    Python,
    /// Ruby.
    Ruby,
    /// Rust.
    Rust,
    /// Not recognised.
    #[default]
    Unknown,
}

impl Language {
    /// The value of `telemetry.sdk.language`, `None` if unknown.
    #[must_use]
    pub const fn as_str(self) -> Option<&'static str> {
        Some(match self {
            Self::Cpp => "cpp",
            Self::DotNet => "dotnet",
            Self::Go => "go",
            Self::Java => "java",
            Self::NodeJs => "nodejs",
            Self::Php => "php",
            Self::Python => "python",
            Self::Ruby => "ruby",
            Self::Rust => "rust",
            Self::Unknown => return None,
        })
    }
}

/// The attributes of an OTLP resource.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Resource {
    /// Name and text value; values that are lists or numbers in the conventions are in the other fields.
    pub text: Vec<(Box<str>, Box<str>)>,
    /// Name and integer value.
    pub ints: Vec<(Box<str>, i64)>,
    /// Name and list of texts (`process.command_args`).
    pub lists: Vec<(Box<str>, Vec<Box<str>>)>,
}

/// A process as its operator knows it.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Service {
    /// `service.name`.
    pub name: Box<str>,
    /// Process.
    pub tgid: u32,
    /// Language, by its runtime.
    pub language: Language,
    /// Everything the exporter sends as the resource, `service.name` included.
    pub resource: Resource,
    /// Whether the selection (include / exclude) takes this process.
    pub selected: bool,
    /// Whether its runtime moves tasks between threads: what a thread does proves nothing.
    pub tasks_move: bool,
}
