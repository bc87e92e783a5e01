//! SQL as spans show it: operation, collection, summary, and the text without its literals.
//!
//! [`statement`] is cheap for a text seen before: one hash and one look-up. A text that differs from one seen before in its
//! literals alone (clients that write values into the text) costs a pass of the lexer. Only a statement of a new shape is
//! parsed.

mod cache;
mod comment;
pub mod key;
mod lexer;
mod normalise;
mod parse;
mod scan;
mod summary;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

pub use cache::Cache;
pub use comment::trace_context;
pub use lexer::Dialect;
use lexer::{Kind, Token};
use summary::Summary;

/// Most bytes of a statement that are looked at.
pub const MAX_TEXT: usize = 4096;
/// Most tokens that the parser gets: its trees nest as deep as a chain of operators is long.
const MAX_PARSED_TOKENS: usize = 600;
/// Most statements in one text that are summarised; more rarely fit into a summary anyway.
const MAX_STATEMENTS: usize = 64;
/// Statements remembered by their exact text, for each worker.
const TEXTS: usize = 1024;
/// Statements remembered by their shape, for each worker; the texts kept are at most twice this times [`MAX_TEXT`].
const SHAPES: usize = 512;

/// What is shown of one statement text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// `db.operation.name`: `SELECT`.
    pub operation: Option<Box<str>>,
    /// `db.collection.name`: the one table that it works on.
    pub collection: Option<Box<str>>,
    /// `db.query.summary`, empty if nothing was recognised.
    pub summary: Box<str>,
    /// `db.query.text`: literals replaced by `?`, comments removed.
    pub text: Box<str>,
    /// Span name; empty if nothing was recognised.
    pub name: Box<str>,
}

/// What is shown of a statement. `text` may be cut (its end was not captured); only its first [`MAX_TEXT`] bytes count.
#[must_use]
pub fn statement(text: &[u8], dialect: Dialect) -> Arc<Statement> {
    CACHES.with_borrow_mut(|caches| caches.statement(text, dialect))
}

thread_local! {
    static CACHES: RefCell<Caches> = RefCell::new(Caches::new());
}

struct Caches {
    hasher: hashbrown::DefaultHashBuilder,
    texts: Cache<Arc<Statement>>,
    shapes: Cache<Arc<Statement>>,
    tokens: Vec<Token>,
}

impl Caches {
    fn new() -> Self {
        Self {
            hasher: hashbrown::DefaultHashBuilder::default(),
            texts: Cache::new(TEXTS),
            shapes: Cache::new(SHAPES),
            tokens: Vec::new(),
        }
    }

    fn statement(&mut self, text: &[u8], dialect: Dialect) -> Arc<Statement> {
        let text = text.get(..MAX_TEXT).unwrap_or(text);
        let text_hash = self.hasher.hash_one((dialect, text));
        if let Some(known) = self.texts.get(text_hash) {
            return known;
        }
        lexer::tokenize(text, dialect, &mut self.tokens);
        let shape = normalise::normalise(text, &self.tokens);
        let shape_hash = self.hasher.hash_one((dialect, shape.as_str()));
        let found = self.shapes.get(shape_hash).unwrap_or_else(|| {
            let new = Arc::new(describe(text, dialect, &self.tokens, shape));
            self.shapes.insert(shape_hash, Arc::clone(&new));
            new
        });
        self.texts.insert(text_hash, Arc::clone(&found));
        found
    }
}

fn describe(text: &[u8], dialect: Dialect, tokens: &[Token], shape: String) -> Statement {
    let mut summary = Summary::default();
    let mut statements = 0;
    for part in split(tokens) {
        statements += 1_usize;
        if statements > MAX_STATEMENTS || !parse(text, dialect, part, &mut summary) {
            scan::scan(text, part, &mut summary);
        }
    }
    let (operation, collection, summary) = summary.finish(statements);
    let name = match (&operation, &collection) {
        (Some(operation), Some(collection)) => format!("{operation} {collection}").into_boxed_str(),
        _ => summary.clone(),
    };
    Statement {
        operation,
        collection,
        summary,
        text: shape.into_boxed_str(),
        name,
    }
}

/// The statements of a text; the body of a routine written between BEGIN ATOMIC and END is split too, which does no harm.
fn split(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    tokens
        .split(|t| t.kind == Kind::Punctuation(b';'))
        .filter(|part| !part.is_empty())
}

fn parse(text: &[u8], dialect: Dialect, tokens: &[Token], summary: &mut Summary) -> bool {
    // The parser takes ONLY for a table.
    let unknown = |t: &Token| t.is_word(text, "only");
    if tokens.len() > MAX_PARSED_TOKENS || tokens.iter().any(unknown) {
        return false;
    }
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else {
        return false;
    };
    let bytes = text
        .get(first.start as usize..last.end as usize)
        .unwrap_or_default();
    std::str::from_utf8(bytes).is_ok_and(|text| parse::parse(text, dialect, summary))
}
