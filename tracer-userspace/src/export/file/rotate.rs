//! A file of lines that makes room for the next once it is full.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// The file that is written, and the older ones beside it.
pub(super) struct Rotating {
    path: PathBuf,
    file: File,
    len: u64,
    max_bytes: u64,
    max_files: u32,
}

impl Rotating {
    /// Opens the file to go on where it ends. It and its folder are made if they are missing, for their owner alone: traces tell
    /// much about a host.
    ///
    /// # Errors
    /// Names the path.
    pub fn open(path: &Path, max_bytes: u64, max_files: u32) -> anyhow::Result<Self> {
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .with_context(|| format!("cannot make the folder `{}`", folder.display()))?;
        }
        let (file, len) = open(path).with_context(|| {
            format!(
                "cannot write `{}`: check the path and its permissions",
                path.display()
            )
        })?;
        Ok(Self {
            path: path.to_owned(),
            file,
            len,
            max_bytes: max_bytes.max(1),
            max_files: max_files.max(1),
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, which ends with a newline, to this file or the next. A line is never split; one that is longer than a
    /// file may be has a file of its own.
    ///
    /// # Errors
    /// The line was not written, or not whole; then what was written of it is taken back.
    pub fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.len > 0 && self.len.saturating_add(line.len() as u64) > self.max_bytes {
            self.rotate()?;
        }
        if let Err(error) = self.file.write_all(line) {
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.len += line.len() as u64;
        Ok(())
    }

    /// `spans.jsonl` becomes `spans.jsonl.1`, and so on; the oldest goes.
    fn rotate(&mut self) -> io::Result<()> {
        let older = self.max_files - 1;
        if older == 0 {
            self.file.set_len(0)?;
            self.len = 0;
            return Ok(());
        }
        for number in (1..older).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::rename(&self.path, self.numbered(1))?;
        (self.file, self.len) = open(&self.path)?;
        Ok(())
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

/// Opens for appending. A link is not followed: who can make one in that folder shall not choose what the tracer writes to.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
        .open(path)?;
    let mut len = file.metadata()?.len();
    if len > 0 {
        // A line that a crash cut off must not run into the next.
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            len += 1;
        }
    }
    Ok((file, len))
}
