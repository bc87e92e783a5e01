//! Runtimes whose tasks the programs read.

use tracer_common::RuntimeKind;

/// A set of runtimes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Recipes(pub(super) u32);

const NAMES: [(RuntimeKind, &str); 5] = [
    (RuntimeKind::GO, "Go"),
    (RuntimeKind::JAVA, "Java"),
    (RuntimeKind::NODE, "Node.js"),
    (RuntimeKind::TOKIO, "Rust's tokio"),
    (RuntimeKind::PYTHON, "Python"),
];

impl Recipes {
    /// All that there are.
    pub const ALL: Self = Self(i32::MAX as u32); // fits into an instruction
    /// Those that follow no long chain of objects.
    pub const SHORT: Self = Self(RuntimeKind::GO.bit() | RuntimeKind::JAVA.bit() | RuntimeKind::NODE.bit());
    /// None.
    pub const NONE: Self = Self(0);

    /// What is tried, in this order.
    pub(super) const ATTEMPTS: [Self; 3] = [Self::ALL, Self::SHORT, Self::NONE];

    /// Whether the tasks of a [`RuntimeKind`] are read.
    #[must_use]
    pub const fn has(self, kind: u32) -> bool {
        self.0 & RuntimeKind(kind).bit() != 0
    }

    /// The names of the others.
    #[must_use]
    pub fn missing(self) -> Vec<&'static str> {
        let missing = NAMES.iter().filter(|(kind, _)| !self.has(kind.0));
        missing.map(|(_, name)| *name).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        assert!(Recipes::ALL.missing().is_empty());
        assert_eq!(Recipes::SHORT.missing(), ["Rust's tokio", "Python"]);
        assert_eq!(Recipes::NONE.missing().len(), NAMES.len());
        assert!(Recipes::SHORT.has(RuntimeKind::GO.0) && !Recipes::SHORT.has(RuntimeKind::PYTHON.0));
    }
}
