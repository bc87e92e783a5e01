//! The text of a statement as it may be shown: literals replaced by `?`, comments removed, blanks collapsed, and lists of
//! values folded so that statements that differ in their number alone have one text.

use super::lexer::{Kind, Token};

/// Writes the showable text of `tokens`.
pub fn normalise(text: &[u8], tokens: &[Token]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    // Where the last row of VALUES closed.
    let mut row_close = None;
    while let Some(token) = tokens.get(at) {
        if token.spaced && !out.is_empty() {
            out.push(' ');
        }
        match token.kind {
            Kind::Literal => out.push('?'),
            // `IS TRUE` and `IS NOT TRUE` are operators.
            Kind::Word if is_boolean(text, token) && !preceded_by(text, tokens, at, &["is", "not"]) => {
                out.push('?')
            }
            Kind::Punctuation(b'(' | b'[') => {
                if let Some(close) = folded(text, tokens, at) {
                    out.push(if token.is(b'(') { '(' } else { '[' });
                    out.push('?');
                    out.push(if token.is(b'(') { ')' } else { ']' });
                    at = close + 1;
                    continue;
                }
                if preceded_by(text, tokens, at, &["values"]) {
                    row_close = row(text, tokens, at);
                }
                out.push(if token.is(b'(') { '(' } else { '[' });
            }
            Kind::Punctuation(b',') if row_close.is_some_and(|close| close + 1 == at) => {
                // Further rows of VALUES say nothing that the first does not.
                row_close = row(text, tokens, at + 1);
                if let Some(close) = row_close {
                    at = close + 1;
                    continue;
                }
                out.push(',');
            }
            _ => match std::str::from_utf8(token.of(text)) {
                Ok(shown) => out.push_str(shown),
                Err(_) => out.push_str(&String::from_utf8_lossy(token.of(text))),
            },
        }
        at += 1;
    }
    out
}

fn is_boolean(text: &[u8], token: &Token) -> bool {
    token.is_word(text, "true") || token.is_word(text, "false")
}

fn preceded_by(text: &[u8], tokens: &[Token], at: usize, words: &[&str]) -> bool {
    at.checked_sub(1)
        .and_then(|i| tokens.get(i))
        .is_some_and(|before| words.iter().any(|w| before.is_word(text, w)))
}

/// If a list of values alone opens at `open`, behind IN, ANY, ARRAY or the like, the place where it closes.
fn folded(text: &[u8], tokens: &[Token], open: usize) -> Option<usize> {
    if !preceded_by(text, tokens, open, &["in", "any", "all", "array"]) {
        return None;
    }
    let close = row(text, tokens, open)?;
    let list = tokens.get(open..close).unwrap_or_default();
    list.iter().any(|t| t.is(b',')).then_some(close)
}

/// If a list of values alone opens at `open`, the place where it closes.
fn row(text: &[u8], tokens: &[Token], open: usize) -> Option<usize> {
    let close = match tokens.get(open)?.kind {
        Kind::Punctuation(b'(') => b')',
        Kind::Punctuation(b'[') => b']',
        _ => return None,
    };
    for (at, token) in tokens.iter().enumerate().skip(open + 1) {
        match token.kind {
            Kind::Literal | Kind::Parameter | Kind::Punctuation(b',' | b'-' | b'+' | b':') => {}
            Kind::Punctuation(b) if b == close => return Some(at),
            Kind::Word if value_word(text, tokens, at) => {}
            _ => return None,
        }
    }
    None
}

/// A word that is a value, or the type of a cast.
fn value_word(text: &[u8], tokens: &[Token], at: usize) -> bool {
    let Some(token) = tokens.get(at) else { return false };
    let cast = at
        .checked_sub(1)
        .and_then(|i| tokens.get(i))
        .is_some_and(|t| t.is(b':'));
    cast || ["null", "true", "false", "default"]
        .iter()
        .any(|w| token.is_word(text, w))
}

#[cfg(test)]
mod tests {
    use super::super::lexer::{Dialect, tokenize};
    use super::*;

    fn check(text: &str, expected: &str) {
        let mut tokens = Vec::new();
        tokenize(text.as_bytes(), Dialect::PostgreSql, &mut tokens);
        assert_eq!(normalise(text.as_bytes(), &tokens), expected, "{text}");
    }

    #[test]
    fn no_literal_is_shown() {
        for (text, expected) in [
            ("SELECT 1", "SELECT ?"),
            ("SELECT  *\n FROM t -- x\n", "SELECT * FROM t"),
            (
                "SELECT * FROM t WHERE a='x' AND b = -5.5",
                "SELECT * FROM t WHERE a=? AND b = -?",
            ),
            ("SELECT $1::int", "SELECT $1::int"),
            ("SELECT 'a'::text", "SELECT ?::text"),
            ("SELECT a IN (1, 2, 3)", "SELECT a IN (?)"),
            ("SELECT a IN (1)", "SELECT a IN (?)"),
            ("SELECT a IN ($1,$2)", "SELECT a IN (?)"),
            ("SELECT a NOT IN (1,-2)", "SELECT a NOT IN (?)"),
            ("SELECT a IN (SELECT 1)", "SELECT a IN (SELECT ?)"),
            ("SELECT a = ANY (ARRAY[1,2])", "SELECT a = ANY (ARRAY[?])"),
            ("SELECT a = ANY($1)", "SELECT a = ANY($1)"),
            (
                "INSERT INTO t (a,b) VALUES (1,'x')",
                "INSERT INTO t (a,b) VALUES (?,?)",
            ),
            (
                "INSERT INTO t VALUES (1,2), (3,4),(5,6)",
                "INSERT INTO t VALUES (?,?)",
            ),
            (
                "INSERT INTO t VALUES (1,2), (3,4) RETURNING id",
                "INSERT INTO t VALUES (?,?) RETURNING id",
            ),
            (
                "INSERT INTO t VALUES (now(),2), (3,4)",
                "INSERT INTO t VALUES (now(),?), (?,?)",
            ),
            ("SELECT coalesce(a, 0), (1, 2)", "SELECT coalesce(a, ?), (?, ?)"),
            ("SELECT true, a IS NOT TRUE", "SELECT ?, a IS NOT TRUE"),
            ("SELECT NULL", "SELECT NULL"),
            ("SELECT \"A b\".c FROM \"T\"", "SELECT \"A b\".c FROM \"T\""),
            ("SELECT 'cut of", "SELECT ?"),
            ("/* secret */ SELECT/**/1", "SELECT ?"),
            ("ALTER ROLE r PASSWORD 'hunter2'", "ALTER ROLE r PASSWORD ?"),
            ("DO $$ BEGIN x := 'secret'; END $$", "DO ?"),
            ("SELECT a->>'key' FROM t LIMIT 10", "SELECT a->>? FROM t LIMIT ?"),
            ("SELECT interval '1 day'", "SELECT interval ?"),
            ("", ""),
        ] {
            check(text, expected);
        }
    }

    #[test]
    fn many_rows_cost_no_stack() {
        let mut text = String::from("INSERT INTO t VALUES (1)");
        for _ in 0..100_000 {
            text.push_str(",(1)");
        }
        check(&text, "INSERT INTO t VALUES (?)");
    }
}
