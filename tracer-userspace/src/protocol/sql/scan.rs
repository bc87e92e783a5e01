//! Summary of a statement from its tokens alone: for what the parser does not know, or is too long or too deep for it.

use super::lexer::{Kind, Token};
use super::summary::Summary;

/// Words between CREATE, ALTER or DROP and the kind of thing.
const MODIFIERS: [&str; 13] = [
    "or",
    "replace",
    "temp",
    "temporary",
    "unlogged",
    "unique",
    "global",
    "local",
    "materialized",
    "recursive",
    "foreign",
    "concurrently",
    "constraint",
];
/// Things that are named right behind their kind and are collections.
const COLLECTIONS: [&str; 2] = ["table", "view"];
/// Words after which INSERT, UPDATE and DELETE are no statements: row locks, conflicts, foreign keys, merges, names.
const NO_OPERATION_BEHIND: [&str; 6] = ["for", "on", "do", "key", "then", "as"];
/// Words that end the list of tables behind FROM.
const END_OF_FROM: [&str; 14] = [
    "where",
    "group",
    "order",
    "having",
    "limit",
    "offset",
    "fetch",
    "union",
    "intersect",
    "except",
    "returning",
    "set",
    "window",
    "for",
];

/// Adds what the statement in `tokens` does to `summary`. `tokens` hold one statement.
pub fn scan(text: &[u8], tokens: &[Token], summary: &mut Summary) {
    let Some(first) = tokens.iter().position(|t| t.kind == Kind::Word) else {
        return;
    };
    let mut scan = Scan {
        text,
        tokens,
        summary,
        ctes: Vec::new(),
        parens: Vec::new(),
        from: None,
    };
    let at = scan.head(first);
    scan.body(at);
}

struct Scan<'a> {
    text: &'a [u8],
    tokens: &'a [Token],
    summary: &'a mut Summary,
    /// Names that WITH has given: they are no collections.
    ctes: Vec<String>,
    /// For each open parenthesis whether a query stands in it, and `from` outside of it.
    parens: Vec<(bool, Option<usize>)>,
    /// How many parentheses were open where the current list of tables began.
    from: Option<usize>,
}

impl Scan<'_> {
    fn token(&self, at: usize) -> Option<&Token> {
        self.tokens.get(at)
    }

    fn is_word(&self, at: usize, words: &[&str]) -> bool {
        self.token(at)
            .is_some_and(|t| words.iter().any(|w| t.is_word(self.text, w)))
    }

    fn upper(&self, at: usize) -> String {
        let bytes = self.token(at).map(|t| t.of(self.text)).unwrap_or_default();
        String::from_utf8_lossy(bytes).to_uppercase()
    }

    /// The statement's own operation. Returns where to go on.
    fn head(&mut self, at: usize) -> usize {
        if self.is_word(at, &["select", "insert", "update", "delete", "merge", "with"]) {
            return at;
        }
        let word = self.upper(at);
        match word.as_str() {
            "CREATE" | "ALTER" | "DROP" => self.definition(at, &word),
            "TRUNCATE" => {
                self.summary.operation("TRUNCATE");
                let mut next = at + 1;
                while self.is_word(next, &["table", "only"]) {
                    next += 1;
                }
                self.targets(next)
            }
            "COPY" => {
                self.summary.operation("COPY");
                if self.opens(at + 1) {
                    return at + 1;
                }
                self.target(at + 1);
                self.tokens.len()
            }
            "LOCK" | "VACUUM" | "ANALYZE" | "CLUSTER" | "REFRESH" | "TABLE" => {
                self.summary.operation(&word);
                let mut next = at + 1;
                while self.is_word(
                    next,
                    &[
                        "table",
                        "only",
                        "full",
                        "freeze",
                        "verbose",
                        "analyze",
                        "materialized",
                        "view",
                        "concurrently",
                    ],
                ) {
                    next += 1;
                }
                self.target(next)
            }
            // The rest of these is a statement of its own.
            "EXPLAIN" | "PREPARE" | "DECLARE" => {
                self.summary.operation(&word);
                at + 1
            }
            // What follows names no collection (variables, savepoints, channels, roles).
            _ => {
                self.summary.operation(&word);
                self.tokens.len()
            }
        }
    }

    fn definition(&mut self, at: usize, word: &str) -> usize {
        let mut kind = at + 1;
        while self.is_word(kind, &MODIFIERS) {
            kind += 1;
        }
        self.summary.operation(&format!("{word} {}", self.upper(kind)));
        let mut name = kind + 1;
        while self.is_word(name, &["if", "not", "exists", "only", "concurrently"]) {
            name += 1;
        }
        if self.is_word(kind, &COLLECTIONS) {
            return if word == "DROP" {
                self.targets(name)
            } else {
                self.target(name)
            };
        }
        // An index, trigger, policy or rule names its table behind ON.
        if self.is_word(kind, &["index", "trigger", "policy", "rule"])
            && let Some(on) = (name..self.tokens.len()).find(|&i| self.is_word(i, &["on"]))
        {
            self.target(if self.is_word(on + 1, &["only"]) {
                on + 2
            } else {
                on + 1
            });
        }
        self.tokens.len()
    }

    fn body(&mut self, mut at: usize) {
        while let Some(token) = self.token(at) {
            at = match token.kind {
                Kind::Punctuation(b'(') => {
                    let query = self.is_word(
                        at + 1,
                        &["select", "insert", "update", "delete", "with", "values", "table"],
                    );
                    // Parentheses around joined tables are part of the list.
                    let list = self.from == Some(self.parens.len()) && !query && self.starts_list(at);
                    self.parens.push((query, self.from));
                    if list {
                        self.from = Some(self.parens.len());
                        self.target(at + 1)
                    } else {
                        at + 1
                    }
                }
                Kind::Punctuation(b')') => {
                    self.from = self.parens.pop().and_then(|(_, from)| from);
                    at + 1
                }
                Kind::Punctuation(b',') if self.from == Some(self.parens.len()) => self.target(at + 1),
                Kind::Word => self.word(at),
                _ => at + 1,
            };
        }
    }

    /// Whether the parenthesis at `at` stands where a table may stand.
    fn starts_list(&self, at: usize) -> bool {
        at.checked_sub(1).is_some_and(|before| {
            self.is_word(before, &["from", "join"]) || self.token(before).is_some_and(|t| t.is(b','))
        })
    }

    fn word(&mut self, at: usize) -> usize {
        let before = at.checked_sub(1);
        let behind = |words: &[&str]| before.is_some_and(|b| self.is_word(b, words));
        let member = before.and_then(|b| self.token(b)).is_some_and(|t| t.is(b'.'));
        if member {
            return at + 1;
        }
        if self.is_word(at, &["select", "insert", "update", "delete", "merge"]) {
            if behind(&NO_OPERATION_BEHIND) && !self.is_word(at, &["select"]) {
                return at + 1;
            }
            self.from = None;
            let operation = self.upper(at);
            self.summary.operation(&operation);
            if operation == "UPDATE" {
                return self.target(if self.is_word(at + 1, &["only"]) {
                    at + 2
                } else {
                    at + 1
                });
            }
            return at + 1;
        }
        // FROM in a function's arguments (EXTRACT, SUBSTRING, TRIM) and IS DISTINCT FROM name no table.
        let in_query = self.parens.last().is_none_or(|(query, _)| *query);
        if self.is_word(at, &["from"]) && in_query && !behind(&["distinct"]) {
            self.from = Some(self.parens.len());
            return self.target(at + 1);
        }
        if self.is_word(at, &["join"]) || (self.is_word(at, &["using"]) && !self.opens(at + 1)) {
            return self.target(at + 1);
        }
        if self.is_word(at, &["into"]) && in_query {
            return self.target(at + 1);
        }
        if self.is_word(at, &END_OF_FROM) && self.from == Some(self.parens.len()) {
            self.from = None;
        }
        if self.is_word(at + 1, &["as"]) && self.gives_name(at) {
            let name = self.upper(at);
            self.ctes.push(name);
        }
        at + 1
    }

    fn opens(&self, at: usize) -> bool {
        self.token(at).is_some_and(|t| t.is(b'('))
    }

    /// Whether the word at `at` is a name given by WITH: `name AS [NOT MATERIALIZED] (SELECT …`.
    fn gives_name(&self, at: usize) -> bool {
        let mut open = at + 2;
        while self.is_word(open, &["not", "materialized"]) {
            open += 1;
        }
        self.opens(open)
            && self.is_word(
                open + 1,
                &["select", "insert", "update", "delete", "with", "values"],
            )
    }

    /// The names of a list, each a target.
    fn targets(&mut self, mut at: usize) -> usize {
        loop {
            at = self.target(at);
            if !self.token(at).is_some_and(|t| t.is(b',')) {
                return self.tokens.len();
            }
            at += 1;
        }
    }

    /// Adds the qualified name at `at`, if there is one that is no function. Returns where to go on.
    fn target(&mut self, mut at: usize) -> usize {
        while self.is_word(
            at,
            &["only", "lateral", "table", "low_priority", "ignore", "quick"],
        ) {
            at += 1;
        }
        let start = at;
        let mut name = String::new();
        while let Some(token) = self.token(at) {
            let part = token.of(self.text);
            match token.kind {
                Kind::Word => name.push_str(&String::from_utf8_lossy(part)),
                Kind::Quoted => name.push_str(&unquoted(part)),
                _ => break,
            }
            at += 1;
            if !self.token(at).is_some_and(|t| t.is(b'.')) {
                break;
            }
            name.push('.');
            at += 1;
        }
        // INSERT INTO t (a, b) opens columns, and so may CREATE TABLE; elsewhere a parenthesis makes it a function.
        let call = self.opens(at)
            && start.checked_sub(1).is_some_and(|before| {
                self.is_word(before, &["from", "join", "lateral"])
                    || self.token(before).is_some_and(|t| t.is(b','))
            });
        if name.is_empty() || call {
            return start.max(at);
        }
        if self.is_word(start, &["select", "values", "set", "unnest"]) {
            return start;
        }
        if !self.ctes.iter().any(|cte| name.eq_ignore_ascii_case(cte)) {
            self.summary.target(&name);
        }
        at
    }
}

/// A quoted identifier without its quotes.
pub fn unquoted(part: &[u8]) -> String {
    let inner = part.get(1..part.len().saturating_sub(1)).unwrap_or_default();
    String::from_utf8_lossy(inner).into_owned()
}
