//! Where the lines of a head end.

/// The places of all LFs (a line ends with LF or CR LF, RFC 9112 section 2.2). Lines are some tens of bytes: a pass over words
/// of eight is cheaper than a search that is set up anew for every line.
pub struct Feeds<'a> {
    words: std::slice::Iter<'a, [u8; 8]>,
    rest: &'a [u8],
    /// Where the current word starts.
    base: usize,
    /// The high bit of each LF of the current word that is still to be told.
    marks: u64,
}

impl<'a> Feeds<'a> {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;

    /// The places in `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<8>();
        let mut feeds = Self {
            words: words.iter(),
            rest,
            base: 0,
            marks: 0,
        };
        feeds.advance();
        feeds
    }

    /// The next word; false at the end.
    fn advance(&mut self) -> bool {
        let word = match self.words.next() {
            Some(word) => *word,
            None if self.rest.is_empty() => return false,
            None => {
                let mut word = [0; 8];
                for (to, from) in word.iter_mut().zip(self.rest) {
                    *to = *from;
                }
                self.rest = &[];
                word
            }
        };
        // A byte of `other` is zero where an LF was; the sum has its high bit clear for zero only, without carries between bytes.
        let other = u64::from_le_bytes(word) ^ (0x0101_0101_0101_0101 * b'\n' as u64);
        self.marks = !(((other & Self::LOW) + Self::LOW) | other | Self::LOW);
        true
    }
}

impl Iterator for Feeds<'_> {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        while self.marks == 0 {
            if !self.advance() {
                return None;
            }
            self.base += 8;
        }
        let place = self.base + self.marks.trailing_zeros() as usize / 8;
        self.marks &= self.marks - 1;
        Some(place)
    }
}
