//! The guest's file system: an initramfs with the programs, the libraries that they name, and nothing else.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;

/// Files by their path in the guest (no leading slash), with their modes.
#[derive(Default)]
pub struct Image {
    files: BTreeMap<String, (u32, Vec<u8>)>,
}

impl Image {
    /// The directories that the first process mounts things on, and the two users that Debian's programs look up.
    pub fn new() -> Self {
        let mut image = Self::default();
        for directory in [
            "dev",
            "proc",
            "sys",
            "tmp",
            "run",
            "var/log/nginx",
            "var/lib/nginx",
        ] {
            image.directory(Path::new(directory));
        }
        image.text(
            "etc/passwd",
            "root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
        );
        image.text("etc/group", "root:x:0:\nnogroup:x:65534:\n");
        image.text("etc/hosts", "127.0.0.1 localhost\n");
        image
    }

    /// Puts a program at `path` with its loader and libraries at their own paths.
    pub fn program(&mut self, program: &Path, path: &str) -> anyhow::Result<()> {
        self.copy(program, path)?;
        let output = Command::new("ldd").arg(program).output().context("running ldd")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !text.contains("not found"),
            "ldd {}: {text}",
            program.display()
        );
        for library in text.lines().filter_map(library) {
            self.copy(Path::new(library), library)?;
        }
        Ok(())
    }

    /// Writes the archive (Documentation/driver-api/early-userspace/buffer-format.rst, `070701`).
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for (inode, (path, (mode, data))) in self.files.iter().enumerate() {
            entry(out, inode + 1, path, *mode, data)?;
        }
        entry(out, 0, "TRAILER!!!", 0, &[])
    }

    /// Puts a program that needs no other file at `path`.
    pub fn static_program(&mut self, program: &Path, path: &str) -> anyhow::Result<()> {
        self.copy(program, path)
    }

    fn text(&mut self, path: &str, text: &str) {
        self.insert(path, TEXT, text.as_bytes().to_vec());
    }

    fn copy(&mut self, from: &Path, to: &str) -> anyhow::Result<()> {
        let data = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
        self.insert(to.trim_start_matches('/'), PROGRAM, data);
        Ok(())
    }

    fn insert(&mut self, path: &str, mode: u32, data: Vec<u8>) {
        if let Some(parent) = Path::new(path).parent() {
            self.directory(parent);
        }
        self.files.insert(path.to_owned(), (mode, data));
    }

    fn directory(&mut self, path: &Path) {
        let mut whole = PathBuf::new();
        for part in path {
            whole.push(part);
            self.files
                .entry(whole.to_string_lossy().into_owned())
                .or_insert((DIRECTORY, Vec::new()));
        }
    }
}

/// The path in `libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)` or `/lib64/ld-linux-x86-64.so.2 (0x…)`.
fn library(line: &str) -> Option<&str> {
    line.split_whitespace().find(|word| word.starts_with('/'))
}

fn entry(out: &mut impl Write, inode: usize, path: &str, mode: u32, data: &[u8]) -> io::Result<()> {
    let header = [
        inode,
        mode as usize,
        0,
        0,
        1,
        0,
        data.len(),
        0,
        0,
        0,
        0,
        path.len() + 1,
        0,
    ];
    write!(out, "070701")?;
    for field in header {
        write!(out, "{field:08x}")?;
    }
    write!(out, "{path}\0")?;
    pad(out, 110 + path.len() + 1)?;
    out.write_all(data)?;
    pad(out, data.len())
}

/// Header with name, and contents, end at multiples of four.
fn pad(out: &mut impl Write, written: usize) -> io::Result<()> {
    let zeroes: &[u8] = &[0; 3];
    out.write_all(
        zeroes
            .get(..written.next_multiple_of(4) - written)
            .unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_come_before_their_children() {
        let mut image = Image::new();
        image.text("a/b/c", "x");
        let paths: Vec<_> = image
            .files
            .keys()
            .map(String::as_str)
            .filter(|path| path.starts_with('a'))
            .collect();
        assert_eq!(paths, ["a", "a/b", "a/b/c"]);
    }

    #[test]
    fn entries_are_aligned() {
        for length in 0..5 {
            let mut out = Vec::new();
            entry(&mut out, 1, "name", TEXT, &vec![b'x'; length]).expect("memory");
            assert_eq!((out.len() % 4, out.len()), (0, 116 + length.next_multiple_of(4)));
        }
    }

    #[test]
    fn libraries_are_read() {
        for (line, path) in [
            ("\tlibc.so.6 => /lib/libc.so.6 (0x00007f)", Some("/lib/libc.so.6")),
            (
                "\t/lib64/ld-linux-x86-64.so.2 (0x00007f)",
                Some("/lib64/ld-linux-x86-64.so.2"),
            ),
            ("\tlinux-vdso.so.1 (0x00007f)", None),
        ] {
            assert_eq!(library(line), path);
        }
    }
}
