//! Message bodies by count (RFC 9112 sections 6 to 8): where a body ends, never what it holds.

/// How the end of a body is found.
#[derive(Clone, Copy, Debug)]
pub enum Body {
    /// After this many more bytes.
    Length(u64),
    /// At the last chunk.
    Chunked(Chunked),
    /// Chunked, but bytes of it were not captured: at what looks like the last chunk.
    Blind(Window),
    /// When the connection closes.
    UntilClose,
}

/// What became of some bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Progress {
    /// Bytes that belong to this body, its framing included.
    pub taken: usize,
    /// Bytes of content among them.
    pub content: u64,
    /// Whether the body has ended.
    pub done: bool,
    /// Whether the framing is broken. Nothing after the taken bytes makes sense.
    pub malformed: bool,
}

/// What became of bytes that were not captured.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Skipped {
    /// Bytes that belong to this body.
    pub taken: u64,
    /// Bytes of content among them, if that is known.
    pub content: Option<u64>,
    /// Whether the body has ended.
    pub done: bool,
}

impl Body {
    /// Takes the next bytes.
    pub fn take(&mut self, bytes: &[u8]) -> Progress {
        match self {
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= taken as u64;
                Progress {
                    taken,
                    content: taken as u64,
                    done: *left == 0,
                    malformed: false,
                }
            }
            Self::Chunked(chunked) => chunked.take(bytes),
            Self::Blind(window) => {
                window.push(bytes);
                Progress {
                    taken: bytes.len(),
                    done: window.ends_body(),
                    ..Progress::default()
                }
            }
            Self::UntilClose => Progress {
                taken: bytes.len(),
                content: bytes.len() as u64,
                ..Progress::default()
            },
        }
    }

    /// Passes over `len` bytes.
    pub fn skip(&mut self, len: u64) -> Skipped {
        match self {
            Self::Length(left) => {
                let taken = len.min(*left);
                *left -= taken;
                Skipped {
                    taken,
                    content: Some(taken),
                    done: *left == 0,
                }
            }
            Self::Chunked(Chunked::Data(left)) if len <= *left => {
                *left -= len;
                if *left == 0 {
                    *self = Self::Chunked(Chunked::DataEnd);
                }
                Skipped {
                    taken: len,
                    content: Some(len),
                    done: false,
                }
            }
            Self::Chunked(_) | Self::Blind(_) => {
                *self = Self::Blind(Window::default());
                Skipped {
                    taken: len,
                    content: None,
                    done: false,
                }
            }
            Self::UntilClose => Skipped {
                taken: len,
                content: Some(len),
                done: false,
            },
        }
    }
}

/// Where in a chunked body (RFC 9112 section 7.1) the next byte is.
#[derive(Clone, Copy, Debug)]
pub enum Chunked {
    /// In a chunk's size.
    Size {
        /// The size so far.
        size: u64,
        /// Whether there was a digit.
        digits: bool,
    },
    /// Behind the size, in white space or extensions up to the end of the line.
    Extension(u64),
    /// In a chunk's content, with this much left.
    Data(u64),
    /// Behind a chunk's content, before its line end.
    DataEnd,
    /// In the trailer section.
    Trailer {
        /// Whether the current line is empty so far.
        blank: bool,
    },
}

impl Chunked {
    /// Before the first chunk.
    pub const START: Self = Self::Size {
        size: 0,
        digits: false,
    };

    fn take(&mut self, bytes: &[u8]) -> Progress {
        let mut progress = Progress::default();
        let mut rest = bytes;
        while let Some((&byte, after)) = rest.split_first() {
            rest = match *self {
                Self::Data(left) => {
                    let n = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    progress.content += n as u64;
                    let left = left - n as u64;
                    *self = if left == 0 {
                        Self::DataEnd
                    } else {
                        Self::Data(left)
                    };
                    rest.get(n..).unwrap_or_default()
                }
                Self::Extension(size) => match memchr::memchr(b'\n', rest) {
                    None => &[],
                    Some(end) => {
                        *self = Self::sized(size);
                        rest.get(end + 1..).unwrap_or_default()
                    }
                },
                Self::Size { size, digits } => {
                    match self.size_byte(byte, size, digits) {
                        Some(next) => *self = next,
                        None => progress.malformed = true,
                    }
                    after
                }
                Self::DataEnd => {
                    match byte {
                        b'\r' => {}
                        b'\n' => *self = Self::START,
                        _ => progress.malformed = true,
                    }
                    after
                }
                Self::Trailer { blank } => match byte {
                    b'\n' => {
                        progress.done = blank;
                        *self = Self::Trailer { blank: true };
                        after
                    }
                    b'\r' => after,
                    _ => {
                        *self = Self::Trailer { blank: false };
                        memchr::memchr(b'\n', rest).map_or(&[][..], |end| rest.get(end..).unwrap_or_default())
                    }
                },
            };
            if progress.done || progress.malformed {
                break;
            }
        }
        progress.taken = bytes.len() - rest.len();
        progress
    }

    /// The state behind one byte of a size line; `None` if it can't be there.
    fn size_byte(self, byte: u8, size: u64, digits: bool) -> Option<Self> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            b'\n' if digits => return Some(Self::sized(size)),
            b'\r' | b';' | b' ' | b'\t' if digits => return Some(Self::Extension(size)),
            _ => return None,
        };
        let size = size.checked_mul(16)?.checked_add(u64::from(digit))?;
        Some(Self::Size { size, digits: true })
    }

    const fn sized(size: u64) -> Self {
        match size {
            0 => Self::Trailer { blank: true },
            size => Self::Data(size),
        }
    }
}

/// The last bytes seen without a hole among them, to recognise the last chunk when chunk sizes passed unseen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    bytes: [u8; Self::SIZE],
    len: usize,
}

impl Window {
    const SIZE: usize = tracer_common::TAIL_BYTES;

    fn push(&mut self, new: &[u8]) {
        let new = new
            .get(new.len().saturating_sub(Self::SIZE)..)
            .unwrap_or_default();
        let out = (self.len + new.len()).saturating_sub(Self::SIZE);
        self.bytes.copy_within(out..self.len, 0);
        self.len -= out;
        if let Some(free) = self.bytes.get_mut(self.len..self.len + new.len()) {
            free.copy_from_slice(new);
            self.len += new.len();
        }
    }

    /// Whether the window ends with a last chunk: a line `0`, perhaps trailer fields, and an empty line.
    fn ends_body(&self) -> bool {
        let seen = self.bytes.get(..self.len).unwrap_or_default();
        let Some(seen) = seen.strip_suffix(b"\r\n\r\n") else {
            return false;
        };
        let mut lines = seen
            .rsplit(|b| *b == b'\n')
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        // The first item of the window may be the end of a line that began before it.
        let whole = lines.clone().count().saturating_sub(1);
        lines
            .by_ref()
            .take(whole)
            .take_while(|line| *line == b"0" || line.contains(&b':'))
            .any(|line| line == b"0")
    }
}
