//! Names that the program knows as constants, read from a file.

use std::collections::HashSet;

/// Most names that are kept; a program has fewer.
const MOST: usize = 256;
const MOST_BYTES: usize = 64;

/// Names that live as long as the program, each once.
#[derive(Default)]
pub struct Names(HashSet<&'static str>);

impl Names {
    pub fn get(&mut self, name: &str) -> &'static str {
        if let Some(known) = self.0.get(name) {
            return known;
        }
        if self.0.len() >= MOST || name.len() > MOST_BYTES {
            return "unknown";
        }
        let name: &'static str = Box::leak(name.into());
        self.0.insert(name);
        name
    }
}
