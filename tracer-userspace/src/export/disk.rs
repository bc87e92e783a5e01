//! Requests that wait on the disk: a folder for each exporter, a file for each request.
//!
//! A file holds what one request carries, so requests can be taken in any order and each goes away by itself; nothing is ever
//! rewritten. Its name is `NUMBER-SPANS.request`: the order of arrival, and how many spans it has, which can be told even of a file
//! that is damaged. It is written under another name and renamed once it is whole.
//!
//! | bytes | |
//! |---|---|
//! | 8 | `tracer` and the version of the format, two digits |
//! | 4 | CRC-32 (IEEE) of all that follows, little-endian |
//! | 8 | bytes of the body, little-endian |
//! | rest | the body as the exporter encoded it, compressed by Zstandard |
//!
//! Nothing is synced: what was written survives the daemon's own end, however it comes. A power cut may cost files of the last
//! seconds; what is left of them is told by the checksum.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, bail};
use bytes::Bytes;
use tokio::sync::Notify;

use super::body::Body;

const MAGIC: &[u8; 8] = b"tracer01";
const HEAD: usize = 20;
/// The kernel gives files room in blocks; small requests would else be cheaper than they are.
const BLOCK: u64 = 4096;
/// Fast; spans still shrink to a tenth.
const LEVEL: i32 = 1;
/// A body is never larger, whatever a damaged file says: a request holds `batch_bytes` and one span more.
const MAX_BODY: u64 = 256 << 20;

/// The queue of one exporter.
pub(super) struct Disk {
    folder: PathBuf,
    max_bytes: u64,
    state: Mutex<State>,
    filled: Notify,
    /// Held as long as the queue is open.
    _lock: File,
}

#[derive(Default)]
struct State {
    next: u64,
    stored: BTreeMap<u64, Size>,
    bytes: u64,
    spans: u64,
}

#[derive(Clone, Copy)]
struct Size {
    spans: usize,
    bytes: u64,
}

/// A request on the disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stored {
    number: u64,
    /// Spans that it carries.
    pub spans: usize,
}

impl Disk {
    /// Opens the queue of `exporter` in `dir`, with what an earlier run left there.
    ///
    /// # Errors
    /// The folder cannot be made or read, or another daemon uses it.
    pub fn open(dir: &Path, exporter: &str, max_bytes: u64) -> anyhow::Result<Self> {
        let folder = dir.join(exporter);
        let shown = folder.display();
        // Spans tell what a host does: nobody else's business.
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| format!("making the queue folder `{shown}`"))?;
        let lock = File::create(folder.join("lock"))
            .with_context(|| format!("the queue folder `{shown}` cannot be written"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("the queue folder `{shown}` is in use by another tracer: give each its own --queue-dir")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("locking the queue folder `{shown}`"));
            }
        }
        let mut state = State::default();
        let files = fs::read_dir(&folder).with_context(|| format!("reading the queue folder `{shown}`"))?;
        for file in files {
            let file = file.with_context(|| format!("reading the queue folder `{shown}`"))?;
            let name = file.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".part") {
                // Was being written when the daemon was killed; its spans were in memory still.
                let _ = fs::remove_file(file.path());
            } else if let Some(stored) = parse(&name) {
                state.add(stored, file.metadata().map_or(0, |found| found.len()));
            }
        }
        Ok(Self {
            folder,
            max_bytes,
            state: Mutex::new(state),
            filled: Notify::new(),
            _lock: lock,
        })
    }

    /// Keeps a request. False if there is no room for it.
    pub fn put(&self, body: &Body, spans: usize) -> io::Result<bool> {
        let packed = zstd::bulk::compress(&body.joined(), LEVEL)?;
        let bytes = (HEAD + packed.len()) as u64;
        let stored = {
            let mut state = self.lock();
            if state.bytes + rounded(bytes) > self.max_bytes {
                return Ok(false);
            }
            let number = state.next;
            state.next += 1;
            Stored { number, spans }
        };
        let part = self.folder.join(format!("{:012}.part", stored.number));
        let written =
            write(&part, body.len() as u64, &packed).and_then(|()| fs::rename(&part, self.path(stored)));
        if let Err(error) = written {
            let _ = fs::remove_file(&part);
            return Err(error);
        }
        self.lock().add(stored, bytes);
        self.filled.notify_one();
        Ok(true)
    }

    /// The one that has waited longest.
    pub fn oldest(&self) -> Option<Stored> {
        let state = self.lock();
        let (&number, size) = state.stored.first_key_value()?;
        Some(Stored {
            number,
            spans: size.spans,
        })
    }

    /// Waits until something was put in.
    pub async fn filled(&self) {
        self.filled.notified().await;
    }

    /// The body of a request.
    ///
    /// # Errors
    /// The file cannot be read, or holds something else than was written.
    pub fn read(&self, stored: Stored) -> io::Result<Body> {
        read(&self.path(stored)).map(Body::from)
    }

    /// Forgets a request.
    pub fn remove(&self, stored: Stored) {
        if let Err(error) = fs::remove_file(self.path(stored)) {
            // It would be sent again by the next run.
            tracing::error!("{}: cannot be removed: {error}", self.path(stored).display());
        }
        let mut state = self.lock();
        if let Some(size) = state.stored.remove(&stored.number) {
            state.bytes -= size.bytes;
            state.spans -= size.spans as u64;
        }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lock().stored.is_empty()
    }

    /// Spans that wait.
    pub fn spans(&self) -> u64 {
        self.lock().spans
    }

    /// Bytes that are used, and that may be.
    pub fn level(&self) -> (u64, u64) {
        (self.lock().bytes, self.max_bytes)
    }

    fn path(&self, stored: Stored) -> PathBuf {
        let Stored { number, spans } = stored;
        self.folder.join(format!("{number:012}-{spans}.request"))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn add(&mut self, stored: Stored, bytes: u64) {
        let (spans, bytes) = (stored.spans, rounded(bytes));
        self.next = self.next.max(stored.number.saturating_add(1));
        self.bytes += bytes;
        self.spans += spans as u64;
        self.stored.insert(stored.number, Size { spans, bytes });
    }
}

fn rounded(bytes: u64) -> u64 {
    bytes.next_multiple_of(BLOCK)
}

/// `NUMBER-SPANS.request`
fn parse(name: &str) -> Option<Stored> {
    let (number, spans) = name.strip_suffix(".request")?.split_once('-')?;
    Some(Stored {
        number: number.parse().ok()?,
        spans: spans.parse::<u32>().ok()? as usize,
    })
}

fn write(path: &Path, body: u64, packed: &[u8]) -> io::Result<()> {
    let mut sum = crc32fast::Hasher::new();
    sum.update(&body.to_le_bytes());
    sum.update(packed);
    let head = [
        MAGIC.as_slice(),
        &sum.finalize().to_le_bytes(),
        &body.to_le_bytes(),
    ]
    .concat();
    let mut file = File::create(path)?;
    file.write_all(&head)?;
    file.write_all(packed)
}

fn read(path: &Path) -> io::Result<Bytes> {
    let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let mut all = Vec::new();
    File::open(path)?.take(MAX_BODY).read_to_end(&mut all)?;
    let (magic, rest) = all.split_first_chunk::<8>().ok_or_else(|| damaged("cut off"))?;
    if magic != MAGIC {
        return Err(damaged("of another version, or not a request at all"));
    }
    let (sum, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("cut off"))?;
    if crc32fast::hash(rest) != u32::from_le_bytes(*sum) {
        return Err(damaged("its checksum does not match"));
    }
    let (len, packed) = rest.split_first_chunk::<8>().ok_or_else(|| damaged("cut off"))?;
    let len = u64::from_le_bytes(*len);
    if len > MAX_BODY {
        return Err(damaged("too large"));
    }
    zstd::bulk::decompress(packed, len as usize).map(Bytes::from)
}

#[cfg(test)]
mod tests;
