//! The rules of the house (ARCHITECTURE.md), checked on the sources; each finding says how to mend it.

mod documents;
mod layers;
mod size;

use std::fmt;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// A file of the repository: its path from the root, and its text (empty if it is not text).
pub struct File {
    pub path: String,
    pub text: String,
}

/// The files of the repository.
pub struct Tree {
    pub files: Vec<File>,
}

impl Tree {
    /// Every file that git tracks or would track.
    fn of_repository(root: &Path) -> Result<Self> {
        let list = shell::output(shell::command("git").args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
        ]))?;
        let paths = list
            .split('\0')
            .filter(|path| !path.is_empty() && root.join(path).is_file());
        let files = paths.map(|path| {
            let bytes = fs::read(root.join(path)).with_context(|| path.to_owned())?;
            let text = String::from_utf8(bytes).unwrap_or_default();
            Ok(File {
                path: path.to_owned(),
                text,
            })
        });
        Ok(Self {
            files: files.collect::<Result<_>>()?,
        })
    }

    /// The text of a file, if it is there.
    pub fn text(&self, path: &str) -> Option<&str> {
        self.files
            .iter()
            .find(|file| file.path == path)
            .map(|file| file.text.as_str())
    }

    /// Whether a file or folder is there.
    pub fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        path.is_empty()
            || self
                .files
                .iter()
                .any(|file| file.path == path || file.path.starts_with(&folder))
    }

    /// Rust sources under a folder.
    pub fn rust(&self, folder: &str) -> impl Iterator<Item = &File> {
        self.files
            .iter()
            .filter(move |file| file.path.starts_with(folder) && file.path.ends_with(".rs"))
    }
}

/// A broken rule.
pub struct Finding {
    pub path: String,
    /// Counted from 1; 0: the file as a whole.
    pub line: usize,
    pub what: String,
    pub mend: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            line,
            what,
            mend,
        } = self;
        match line {
            0 => write!(f, "{path}: {what}\n    mend: {mend}"),
            line => write!(f, "{path}:{line}: {what}\n    mend: {mend}"),
        }
    }
}

/// The lines of the code itself, numbered from 1: comment lines are blank, and what follows the first `#[cfg(test)]` is left out.
pub fn code(file: &File) -> impl Iterator<Item = (usize, &str)> {
    let is_test = file.path.ends_with("/tests.rs") || file.path.contains("/tests/");
    let lines = file.text.lines().take_while(|line| line.trim() != "#[cfg(test)]");
    lines
        .take(if is_test { 0 } else { usize::MAX })
        .enumerate()
        .map(|(n, line)| {
            let comment = line.trim_start().starts_with("//");
            (n + 1, if comment { "" } else { line })
        })
}

/// Whether `word` stands in the line as a whole identifier.
pub fn names(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

/// Runs the subcommand. `cli` is xtask's own command line, against which the documents are checked.
pub fn run(cli: &clap::Command) -> Result<()> {
    let tree = Tree::of_repository(shell::root())?;
    let findings: Vec<Finding> = [
        layers::stages(&tree),
        layers::crates(&tree),
        layers::purity(&tree),
        layers::captures(&tree),
        size::long_files(&tree),
        documents::links(&tree),
        documents::commands(&tree, cli),
        documents::present(&tree),
        documents::machine_paths(&tree),
    ]
    .into_iter()
    .flatten()
    .collect();
    eprint!("{}", size::report(&tree));
    for finding in &findings {
        eprintln!("{finding}");
    }
    match findings.len() {
        0 => Ok(()),
        n => bail!("{n} rules of the house are broken"),
    }
}

#[cfg(test)]
pub fn tree(files: &[(&str, &str)]) -> Tree {
    let file = |&(path, text): &(&str, &str)| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    Tree {
        files: files.iter().map(file).collect(),
    }
}

/// Asserts which lines of a fake tree are found fault with, as `path:line`.
#[cfg(test)]
pub fn check(found: Vec<Finding>, expected: &[&str]) {
    let places: Vec<_> = found.iter().map(|f| format!("{}:{}", f.path, f.line)).collect();
    assert_eq!(places, expected);
    assert!(found.iter().all(|f| !f.what.is_empty() && !f.mend.is_empty()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_whole() {
        for (line, word, is) in [
            ("use aya::Ebpf;", "aya", true),
            ("use aya_log::EbpfLogger;", "aya", false),
            ("let playa = 1;", "aya", false),
            ("(aya)", "aya", true),
        ] {
            assert_eq!(names(line, word), is, "{line}");
        }
    }

    #[test]
    fn comments_and_tests_are_not_code() {
        let tree = tree(&[("a.rs", "// x\nlet a = 1;\n#[cfg(test)]\nmod tests {}\n")]);
        let lines: Vec<_> = code(&tree.files[0]).collect();
        assert_eq!(lines, [(1, ""), (2, "let a = 1;")]);
    }

    #[test]
    fn folders_are_there() {
        let tree = tree(&[("docs/a/b.md", "")]);
        assert!(tree.has("docs") && tree.has("docs/a/") && tree.has("docs/a/b.md"));
        assert!(!tree.has("doc") && !tree.has("docs/a/b"));
    }
}
