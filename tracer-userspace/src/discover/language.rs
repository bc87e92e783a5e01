//! The language of a process, by its executable and the libraries that it has mapped.

use super::elf::Elf;
use super::go::GoBinary;
use super::procfs::Snapshot;
use super::runtimes::runtime_name;
use super::tasks::{Subject, tokio::TokioBinary};
use crate::model::Language;
use std::io::Read;

/// Bytes of read-only data searched for what the Rust compiler leaves in every panic location.
const MAX_RODATA: u64 = 4 << 20;
const MAX_COMMENT: u64 = 64 << 10;
const MAX_MAPS: u64 = 1 << 20;

/// What an executable file tells, whatever process runs it.
#[derive(Clone, Default, Debug)]
pub struct Binary {
    /// Its language, as far as the file alone says.
    pub language: Language,
    /// Go's build information.
    pub go: Option<GoBinary>,
    /// What it says about tokio, if it has that in it.
    pub tokio: Option<TokioBinary>,
    /// Libraries may say more: the file is a plain native program.
    ask_maps: bool,
}

impl Binary {
    /// Reads the executable of a process (through `/proc/PID/exe`, so that a deleted one is read too).
    #[must_use]
    pub fn read(process: &Snapshot) -> Self {
        if let Some(language) = process.exe_name().and_then(by_name) {
            return Self {
                language,
                ..Self::default()
            };
        }
        let elf = super::procfs::open_regular(&process.dir.join("exe")).and_then(Elf::open);
        let Some(elf) = elf else { return Self::default() };
        if let Some(go) = GoBinary::read(&elf) {
            return Self {
                language: Language::Go,
                go: Some(go),
                ..Self::default()
            };
        }
        // GraalVM's native images have their heap in a section of its own.
        if elf.has_section(".svm_heap") {
            return Self {
                language: Language::Java,
                ..Self::default()
            };
        }
        let language = if is_rust(&elf) {
            Language::Rust
        } else {
            Language::Cpp
        };
        let tokio = (language == Language::Rust)
            .then(|| TokioBinary::read(&elf))
            .flatten();
        Self {
            language,
            go: None,
            tokio,
            ask_maps: true,
        }
    }

    /// A process of that language that runs this executable, for the recipes of its tasks.
    #[must_use]
    pub fn subject<'a>(&'a self, process: &'a Snapshot, language: Language) -> Subject<'a> {
        Subject {
            process,
            language,
            go: self.go.as_ref(),
            tokio: self.tokio.as_ref(),
        }
    }

    /// The language of a process that runs this executable.
    #[must_use]
    pub fn language_of(&self, process: &Snapshot) -> Language {
        if !self.ask_maps {
            return self.language;
        }
        let mut maps = Vec::new();
        let file = std::fs::File::open(process.dir.join("maps"));
        if file
            .and_then(|f| f.take(MAX_MAPS).read_to_end(&mut maps))
            .is_err()
        {
            return self.language;
        }
        by_libraries(&String::from_utf8_lossy(&maps)).unwrap_or(self.language)
    }
}

/// Interpreters are known by name; those whose language the conventions do not name are [`Language::Unknown`], not C++.
fn by_name(exe: &str) -> Option<Language> {
    Some(match runtime_name(exe) {
        "python" | "pypy" => Language::Python,
        "node" | "nodejs" | "bun" | "deno" => Language::NodeJs,
        "java" => Language::Java,
        "ruby" => Language::Ruby,
        "php" | "php-fpm" | "php-cgi" => Language::Php,
        "dotnet" => Language::DotNet,
        "perl" | "lua" | "luajit" | "bash" | "dash" | "sh" | "zsh" | "busybox" | "beam.smp" | "Rscript"
        | "guile" => Language::Unknown,
        _ => return None,
    })
}

/// Runtimes embedded as libraries: own launchers, application servers, self-contained programs.
fn by_libraries(maps: &str) -> Option<Language> {
    let mut found = None;
    for line in maps.lines() {
        let Some(path) = line.find('/').and_then(|at| line.get(at..)) else {
            continue;
        };
        let library = path.rsplit('/').next().unwrap_or(path);
        let language = match library {
            "libjvm.so" => Language::Java,
            "libcoreclr.so" => Language::DotNet,
            _ if library.starts_with("libnode.so") => Language::NodeJs,
            _ if library.starts_with("libpython") => Language::Python,
            _ if library.starts_with("libruby") => Language::Ruby,
            _ if library.starts_with("libphp") => Language::Php,
            _ => continue,
        };
        // A database with a plug-in language stays what it is only if no virtual machine runs it; those win.
        found = match (found, language) {
            (None, _) | (_, Language::Java | Language::DotNet) => Some(language),
            (kept, _) => kept,
        };
    }
    found
}

/// `.comment` names the compiler; stripped programs keep the paths of the standard library's panic locations.
fn is_rust(elf: &Elf) -> bool {
    let holds =
        |bytes: Option<Vec<u8>>, text: &[u8]| bytes.is_some_and(|b| memchr::memmem::find(&b, text).is_some());
    holds(elf.section(".comment", MAX_COMMENT), b"rustc version")
        || holds(elf.section(".rodata", MAX_RODATA), b"library/std/src/")
        || holds(elf.section(".rodata", MAX_RODATA), b"library/core/src/")
}
