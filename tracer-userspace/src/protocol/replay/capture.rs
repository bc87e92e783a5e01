//! The text format of captures; `captures/README.md` describes it.

use crate::model::Close;
use crate::protocol::Side;

/// A recorded conversation and what must come of it.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// The listening port, 0 if not said.
    pub port: u16,
    /// Whether it starts in the middle of the connection.
    pub late: bool,
    /// Whether it may not be split.
    pub unsplit: bool,
    /// What happened.
    pub steps: Vec<Step>,
    /// The exchanges that must come of it, in the order in which they end.
    pub exchanges: Vec<Expected>,
    /// Dropped exchanges: name of the reason and number.
    pub dropped: Vec<(Only, String, u64)>,
    /// What the connection must be handed to.
    pub switch: Option<String>,
}

/// One step of a conversation.
#[derive(Clone, Debug)]
pub enum Step {
    /// A chunk.
    Data {
        /// Who sent it.
        side: Side,
        /// What it holds.
        parts: Vec<Part>,
    },
    /// An unknown number of bytes was lost.
    Lost(Side),
    /// One side has finished sending.
    Fin(Side),
    /// The connection is over.
    Close(Close),
}

/// A piece of a chunk.
#[derive(Clone, Debug)]
pub enum Part {
    /// Captured bytes.
    Bytes(Vec<u8>),
    /// A number of bytes that were not captured.
    Skip(u64),
}

/// At which ends a line of the expectation holds; `None`: at both.
pub type Only = Option<Side>;

/// An expected exchange.
#[derive(Clone, Debug, Default)]
pub struct Expected {
    /// Line in the file.
    pub line: usize,
    /// Span name.
    pub name: String,
    /// The end at which it is seen.
    pub only: Only,
    /// Steps of start, first byte of the response (0: none) and end.
    pub at: Vec<(Only, [u64; 3])>,
    /// Bytes of the request.
    pub request: Vec<(Only, u64)>,
    /// Bytes of the response.
    pub response: Vec<(Only, u64)>,
    /// `None` for unset, else the error's type.
    pub outcome: Vec<(Only, Option<String>)>,
    /// Attributes; `None`: absent.
    pub attributes: Vec<(Only, String, Option<Scalar>)>,
    /// Trace context: format, trace id and span id in hexadecimal (`-`: none).
    pub context: Option<[String; 3]>,
}

/// An attribute's expected value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scalar {
    /// Text.
    Str(String),
    /// Integer.
    Int(i64),
    /// Boolean.
    Bool(bool),
}

impl Capture {
    /// Reads a capture.
    ///
    /// # Errors
    /// The line that is not understood.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut capture = Self::default();
        let mut expecting = false;
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let trimmed = line.trim();
            if trimmed.is_empty() || trimmed.starts_with('#') {
                continue;
            }
            let done = if trimmed == "---" {
                expecting = true;
                Some(())
            } else if expecting {
                capture.expectation(line, number)
            } else {
                capture.happening(line)
            };
            done.ok_or_else(|| format!("line {number}: not understood: {line}"))?;
        }
        Ok(capture)
    }

    fn happening(&mut self, line: &str) -> Option<()> {
        if line.starts_with([' ', '\t']) {
            let Some(Step::Data { parts, .. }) = self.steps.last_mut() else {
                return None;
            };
            return literals(line, parts);
        }
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        let side = |text: &str| match text {
            "C" => Some(Side::Client),
            "S" => Some(Side::Server),
            _ => None,
        };
        if let Some(side) = word.strip_suffix('>').and_then(side) {
            let mut parts = Vec::new();
            literals(rest, &mut parts)?;
            self.steps.push(Step::Data { side, parts });
            return Some(());
        }
        self.steps.push(match (word, rest.trim()) {
            ("port", port) => {
                self.port = port.parse().ok()?;
                return Some(());
            }
            ("late", "") => {
                self.late = true;
                return Some(());
            }
            ("unsplit", "") => {
                self.unsplit = true;
                return Some(());
            }
            ("reset", "") => Step::Close(Close::Reset),
            ("close", "") => Step::Close(Close::Closed),
            ("forget", "") => Step::Close(Close::Forgotten),
            (word, "lost") => Step::Lost(side(word)?),
            (word, "fin") => Step::Fin(side(word)?),
            _ => return None,
        });
        Some(())
    }

    fn expectation(&mut self, line: &str, number: usize) -> Option<()> {
        let trimmed = line.trim();
        let (only, rest) = match trimmed.split_once(' ') {
            Some(("client", rest)) => (Some(Side::Client), rest.trim()),
            Some(("server", rest)) => (Some(Side::Server), rest.trim()),
            _ => (None, trimmed),
        };
        let (word, value) = rest.split_once(' ').unwrap_or((rest, ""));
        let value = value.trim();
        match word {
            "exchange" => {
                let Scalar::Str(name) = scalar(value)? else {
                    return None;
                };
                self.exchanges.push(Expected {
                    line: number,
                    name,
                    only,
                    ..Expected::default()
                });
                return Some(());
            }
            "dropped" => {
                let (reason, n) = value.split_once(' ')?;
                self.dropped.push((only, reason.into(), n.trim().parse().ok()?));
                return Some(());
            }
            "switch" => {
                self.switch = Some(value.into());
                return Some(());
            }
            "unsplit" => {
                self.unsplit = true;
                return Some(());
            }
            _ => {}
        }
        let exchange = self.exchanges.last_mut()?;
        match word {
            "at" => {
                let steps: Vec<u64> = value
                    .split_whitespace()
                    .map(|n| n.parse().ok())
                    .collect::<Option<_>>()?;
                exchange.at.push((only, steps.try_into().ok()?));
            }
            "request" => exchange.request.push((only, value.parse().ok()?)),
            "response" => exchange.response.push((only, value.parse().ok()?)),
            "outcome" => exchange.outcome.push((
                only,
                match value.split_once(' ') {
                    None if value == "unset" => None,
                    Some(("error", kind)) => Some(kind.trim().into()),
                    _ => return None,
                },
            )),
            "context" => {
                let words: Vec<String> = value.split_whitespace().map(Into::into).collect();
                exchange.context = Some(words.try_into().ok()?);
            }
            _ => {
                let attribute = match rest.strip_prefix('!') {
                    Some(key) => (only, key.into(), None),
                    None => {
                        let (key, value) = rest.split_once(" = ")?;
                        (only, key.trim().into(), Some(scalar(value.trim())?))
                    }
                };
                exchange.attributes.push(attribute);
            }
        }
        Some(())
    }
}

fn scalar(text: &str) -> Option<Scalar> {
    Some(match text {
        "true" => Scalar::Bool(true),
        "false" => Scalar::Bool(false),
        _ if text.starts_with('"') => {
            let (bytes, rest) = quoted(text.strip_prefix('"')?)?;
            if !rest.is_empty() {
                return None;
            }
            Scalar::Str(String::from_utf8(bytes).ok()?)
        }
        _ => Scalar::Int(text.parse().ok()?),
    })
}

/// Appends the literals of `text` to `parts`, neighbouring bytes joined.
fn literals(text: &str, parts: &mut Vec<Part>) -> Option<()> {
    let mut text = text.trim();
    while !text.is_empty() {
        if let Some(rest) = text.strip_prefix('+') {
            let (len, rest) = number(rest)?;
            parts.push(Part::Skip(len));
            text = rest.trim_start();
            continue;
        }
        let (bytes, rest) = match text.strip_prefix("x\"") {
            Some(rest) => {
                let (digits, rest) = rest.split_once('"')?;
                (hex(digits)?, rest)
            }
            None => quoted(text.strip_prefix('"')?)?,
        };
        let (times, rest) = match rest.strip_prefix('*') {
            Some(rest) => number(rest)?,
            None => (1, rest),
        };
        let bytes = bytes.repeat(usize::try_from(times).ok()?);
        match parts.last_mut() {
            Some(Part::Bytes(before)) => before.extend(bytes),
            _ => parts.push(Part::Bytes(bytes)),
        }
        text = rest.trim_start();
    }
    Some(())
}

fn number(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| !c.is_whitespace())
        .map(|c| c.to_digit(16).map(|d| d as u8))
        .collect::<Option<_>>()?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty()
        .then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// The bytes up to the closing quote and what follows it.
fn quoted(text: &str) -> Option<(Vec<u8>, &str)> {
    let mut bytes = Vec::new();
    let mut chars = text.chars();
    loop {
        match chars.next()? {
            '"' => return Some((bytes, chars.as_str())),
            '\\' => bytes.push(match chars.next()? {
                'r' => b'\r',
                'n' => b'\n',
                't' => b'\t',
                '0' => 0,
                '\\' => b'\\',
                '"' => b'"',
                '\'' => b'\'',
                'x' => {
                    let (high, low) = (chars.next()?.to_digit(16)?, chars.next()?.to_digit(16)?);
                    (high << 4 | low) as u8
                }
                _ => return None,
            }),
            other => bytes.extend(other.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_are_read() {
        let mut parts = Vec::new();
        literals(r#""a\r\n\x00\"" x"0a 0B" "z"*3 +12 "t""#, &mut parts).unwrap();
        let [Part::Bytes(a), Part::Skip(12), Part::Bytes(b)] = &parts[..] else {
            panic!("{parts:?}");
        };
        assert_eq!((&a[..], &b[..]), (&b"a\r\n\0\"\x0a\x0bzzz"[..], &b"t"[..]));
        for bad in ["\"a", "x\"0\"", "x\"0g\"", "\"\\q\"", "+", "a"] {
            assert!(literals(bad, &mut Vec::new()).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for (text, line) in [("C> \"a\"\nX> \"b\"", 2), ("---\n  request x", 2), ("  \"a\"", 1)] {
            let error = Capture::parse(text).unwrap_err();
            assert!(error.starts_with(&format!("line {line}:")), "{error}");
        }
    }
}
