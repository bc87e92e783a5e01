//! Splits SQL text into tokens, fast and without judgement: any bytes are some tokens.
//!
//! Only what decides where a literal begins and ends is known here (PostgreSQL manual section 4.1, MySQL manual section
//! 11.1). A literal or comment that does not end before the text does is one token up to the end, so that no part of it is
//! ever taken for something that may be shown.

/// Lexical rules that differ between databases.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Dialect {
    /// Dollar quotes, nested comments, double quotes around identifiers.
    PostgreSql,
    /// Backslash escapes, backticks around identifiers, double quotes around strings, `#` comments.
    MySql,
}

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A keyword or an unquoted identifier.
    Word,
    /// A quoted identifier, quotes included.
    Quoted,
    /// A string or number.
    Literal,
    /// A parameter marker: `$1`, `?`, `:name`.
    Parameter,
    /// One character of punctuation.
    Punctuation(u8),
}

/// One token; whitespace and comments are between tokens.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Offset of its first byte.
    pub start: u32,
    /// Offset behind its last byte.
    pub end: u32,
    /// Whether whitespace or a comment precedes it.
    pub spaced: bool,
}

impl Token {
    /// Its bytes in the text it was split from.
    #[must_use]
    pub fn of<'t>(&self, text: &'t [u8]) -> &'t [u8] {
        text.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    /// Whether it is this character.
    #[must_use]
    pub fn is(&self, punctuation: u8) -> bool {
        self.kind == Kind::Punctuation(punctuation)
    }

    /// Whether it is this keyword, in any case.
    #[must_use]
    pub fn is_word(&self, text: &[u8], word: &str) -> bool {
        self.kind == Kind::Word && self.of(text).eq_ignore_ascii_case(word.as_bytes())
    }
}

/// Splits `text` into `tokens`, which are cleared first.
pub fn tokenize(text: &[u8], dialect: Dialect, tokens: &mut Vec<Token>) {
    tokens.clear();
    let mut lexer = Lexer { text, dialect, at: 0 };
    loop {
        let before = lexer.at;
        lexer.skip_blank();
        let (start, spaced) = (lexer.at, lexer.at > before);
        let Some(kind) = lexer.token() else { return };
        tokens.push(Token {
            kind,
            start: start as u32,
            end: lexer.at.min(text.len()) as u32,
            spaced,
        });
    }
}

struct Lexer<'t> {
    text: &'t [u8],
    dialect: Dialect,
    at: usize,
}

impl Lexer<'_> {
    fn peek(&self, ahead: usize) -> Option<u8> {
        self.text.get(self.at.saturating_add(ahead)).copied()
    }

    fn rest(&self) -> &[u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// Moves behind the next `needle`, or to the end if there is none.
    fn skip_past(&mut self, needle: &[u8]) {
        self.at = match memchr::memmem::find(self.rest(), needle) {
            Some(found) => self.at.saturating_add(found).saturating_add(needle.len()),
            None => self.text.len(),
        };
    }

    fn skip_while(&mut self, accept: impl Fn(u8) -> bool) {
        let rest = self.rest();
        let n = rest.iter().position(|&b| !accept(b)).unwrap_or(rest.len());
        self.at = self.at.saturating_add(n);
    }

    fn skip_blank(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some(b), _) if b.is_ascii_whitespace() || b == 0 => self.at += 1,
                (Some(b'-'), Some(b'-')) => self.skip_past(b"\n"),
                (Some(b'#'), _) if self.dialect == Dialect::MySql => self.skip_past(b"\n"),
                (Some(b'/'), Some(b'*')) => self.skip_comment(),
                _ => return,
            }
        }
    }

    fn skip_comment(&mut self) {
        self.at += 2;
        if self.dialect == Dialect::MySql {
            return self.skip_past(b"*/");
        }
        let mut depth = 1_u32;
        while depth > 0 {
            match (self.peek(0), self.peek(1)) {
                (Some(b'/'), Some(b'*')) => {
                    depth = depth.saturating_add(1);
                    self.at += 2;
                }
                (Some(b'*'), Some(b'/')) => {
                    depth -= 1;
                    self.at += 2;
                }
                (Some(_), _) => self.at += 1,
                (None, _) => return,
            }
        }
    }

    fn token(&mut self) -> Option<Kind> {
        let first = self.peek(0)?;
        Some(match first {
            b'\'' => self.quoted(b'\'', self.dialect == Dialect::MySql, Kind::Literal),
            b'"' if self.dialect == Dialect::MySql => self.quoted(b'"', true, Kind::Literal),
            b'"' => self.quoted(b'"', false, Kind::Quoted),
            b'`' => self.quoted(b'`', false, Kind::Quoted),
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|b| b.is_ascii_digit()) => self.number(),
            b'?' => {
                self.at += 1;
                Kind::Parameter
            }
            b':' if self.peek(1) == Some(b':') => self.punctuation(first),
            b':' if self.peek(1).is_some_and(starts_word) && !self.follows_colon() => {
                self.at += 1;
                self.skip_while(continues_word);
                Kind::Parameter
            }
            b if starts_word(b) => self.word(),
            b => self.punctuation(b),
        })
    }

    fn follows_colon(&self) -> bool {
        let before = self.at.checked_sub(1).and_then(|at| self.text.get(at));
        before == Some(&b':')
    }

    fn punctuation(&mut self, byte: u8) -> Kind {
        self.at += 1;
        Kind::Punctuation(byte)
    }

    fn word(&mut self) -> Kind {
        let start = self.at;
        self.skip_while(continues_word);
        let word = self.text.get(start..self.at).unwrap_or_default();
        match (self.peek(0), self.peek(1)) {
            // A prefix belongs to the string behind it: E'', B'', X'', N'', and MySQL's _charset''.
            (Some(b'\''), _) => {
                let escapes = self.dialect == Dialect::MySql || word.eq_ignore_ascii_case(b"e");
                let prefix = word.len() == 1 || word.first() == Some(&b'_');
                if prefix {
                    self.quoted(b'\'', escapes, Kind::Literal)
                } else {
                    Kind::Word
                }
            }
            (Some(b'&'), Some(b'\'')) if word.eq_ignore_ascii_case(b"u") => {
                self.at += 1;
                self.quoted(b'\'', false, Kind::Literal)
            }
            _ => Kind::Word,
        }
    }

    fn number(&mut self) -> Kind {
        // Exponents with a sign are the only part of a number that is no word character.
        loop {
            self.skip_while(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
            let exponent = matches!(
                self.at.checked_sub(1).and_then(|at| self.text.get(at)),
                Some(b'e' | b'E')
            );
            let signed = matches!(self.peek(0), Some(b'+' | b'-'));
            let digit = self.peek(1).is_some_and(|b| b.is_ascii_digit());
            if exponent && signed && digit {
                self.at += 1;
            } else {
                return Kind::Literal;
            }
        }
    }

    fn dollar(&mut self) -> Kind {
        let rest = self.rest().get(1..).unwrap_or_default();
        let tag = rest
            .iter()
            .position(|&b| !(b.is_ascii_alphanumeric() || b == b'_' || b >= 0x80))
            .unwrap_or(rest.len());
        let numbered = rest.first().is_some_and(u8::is_ascii_digit);
        if self.dialect == Dialect::PostgreSql && !numbered && rest.get(tag) == Some(&b'$') {
            let delimiter_len = tag.saturating_add(2);
            let delimiter = self.rest().get(..delimiter_len).unwrap_or_default().to_vec();
            self.at = self.at.saturating_add(delimiter_len);
            self.skip_past(&delimiter);
            return Kind::Literal;
        }
        self.at += 1;
        if numbered {
            self.skip_while(|b| b.is_ascii_digit());
            return Kind::Parameter;
        }
        Kind::Punctuation(b'$')
    }

    /// From the opening quote to behind the closing one; a doubled quote is part of the text.
    fn quoted(&mut self, quote: u8, backslash: bool, kind: Kind) -> Kind {
        self.at += 1;
        while let Some(byte) = self.peek(0) {
            self.at += 1;
            if backslash && byte == b'\\' {
                self.at += 1;
            } else if byte == quote {
                if self.peek(0) != Some(quote) {
                    return kind;
                }
                self.at += 1;
            }
        }
        self.at = self.text.len();
        // The text was cut inside: whether it was an identifier can't be shown any more.
        Kind::Literal
    }
}

fn starts_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte == b'@' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    starts_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dialect: Dialect, text: &str, expected: &[&str]) {
        let mut tokens = Vec::new();
        tokenize(text.as_bytes(), dialect, &mut tokens);
        let got: Vec<String> = tokens
            .iter()
            .map(|t| {
                let mark = match t.kind {
                    Kind::Word => "w",
                    Kind::Quoted => "q",
                    Kind::Literal => "l",
                    Kind::Parameter => "p",
                    Kind::Punctuation(_) => "",
                };
                format!("{mark}{}", String::from_utf8_lossy(t.of(text.as_bytes())))
            })
            .collect();
        assert_eq!(got, expected, "{text}");
    }

    #[test]
    fn literals_end_where_the_database_says() {
        use Dialect::{MySql, PostgreSql};
        for (dialect, text, expected) in [
            (PostgreSql, "select 1", &["wselect", "l1"][..]),
            (PostgreSql, "'it''s' x", &["l'it''s'", "wx"]),
            (PostgreSql, r"'a\' b", &[r"l'a\'", "wb"]),
            (PostgreSql, r"E'a\' b' c", &[r"lE'a\' b'", "wc"]),
            (MySql, r"'a\' b' c", &[r"l'a\' b'", "wc"]),
            (PostgreSql, "X'1F' B'01' N'n'", &["lX'1F'", "lB'01'", "lN'n'"]),
            (PostgreSql, r"U&'d\0061t' x", &[r"lU&'d\0061t'", "wx"]),
            (MySql, "_utf8'abc'", &["l_utf8'abc'"]),
            (PostgreSql, "date '2020-01-01'", &["wdate", "l'2020-01-01'"]),
            (PostgreSql, "date'2020-01-01'", &["wdate", "l'2020-01-01'"]),
            (PostgreSql, "$$ se'cret $$ x", &["l$$ se'cret $$", "wx"]),
            (PostgreSql, "$a$ $$ $b$ $a$ x", &["l$a$ $$ $b$ $a$", "wx"]),
            (PostgreSql, "$1 $12, x$1", &["p$1", "p$12", ",", "wx$1"]),
            (PostgreSql, "$$ never ends", &["l$$ never ends"]),
            (PostgreSql, "'never ends", &["l'never ends"]),
            (PostgreSql, "\"cut ident", &["l\"cut ident"]),
            (PostgreSql, "\"T\"\"x\".a", &["q\"T\"\"x\"", ".", "wa"]),
            (MySql, "`a b`.c \"s\"", &["q`a b`", ".", "wc", "l\"s\""]),
            (PostgreSql, "1.5e-3+2", &["l1.5e-3", "+", "l2"]),
            (PostgreSql, ".5 0x1F 1_000", &["l.5", "l0x1F", "l1_000"]),
            (PostgreSql, "a::int", &["wa", ":", ":", "wint"]),
            (PostgreSql, "a = :name", &["wa", "=", "p:name"]),
            (PostgreSql, "a/* x /* y */ z */b", &["wa", "wb"]),
            (MySql, "a/* x /* y */ z", &["wa", "wz"]),
            (PostgreSql, "a -- secret\nb", &["wa", "wb"]),
            (PostgreSql, "a -- secret", &["wa"]),
            (PostgreSql, "a /* secret", &["wa"]),
            (MySql, "a # secret\nb", &["wa", "wb"]),
            (PostgreSql, "a #> b", &["wa", "#", ">", "wb"]),
            (PostgreSql, "größe", &["wgröße"]),
            (PostgreSql, "", &[]),
        ] {
            check(dialect, text, expected);
        }
    }
}
