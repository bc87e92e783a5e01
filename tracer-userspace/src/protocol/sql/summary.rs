//! What a statement does and to what, in few words (`db.query.summary`).

/// Longest summary, by the semantic conventions.
const MAX_SUMMARY: usize = 255;

/// Collects operations and targets in the order of the text.
#[derive(Default, Debug)]
pub struct Summary {
    text: String,
    full: bool,
    operations: u32,
    operation: Option<String>,
    same_operation: bool,
    target: Option<String>,
    several_targets: bool,
}

impl Summary {
    /// An operation: `SELECT`, `CREATE TABLE`. Upper case.
    pub fn operation(&mut self, operation: &str) {
        self.add(operation);
        self.operations += 1;
        match &self.operation {
            None => {
                self.operation = Some(operation.to_owned());
                self.same_operation = true;
            }
            Some(first) => self.same_operation &= first == operation,
        }
    }

    /// A table, view or the like that the operation before it works on.
    pub fn target(&mut self, target: &str) {
        self.add(target);
        match &self.target {
            None => self.target = Some(target.to_owned()),
            Some(first) => self.several_targets |= first != target,
        }
    }

    /// A part that is too long is left out, and so is all that follows it.
    fn add(&mut self, part: &str) {
        let blank = usize::from(!self.text.is_empty());
        self.full |= self.text.len() + blank + part.len() > MAX_SUMMARY;
        if !self.full {
            if blank == 1 {
                self.text.push(' ');
            }
            self.text.push_str(part);
        }
    }

    /// How many operations were added.
    #[must_use]
    pub fn operations(&self) -> u32 {
        self.operations
    }

    /// Operation, collection and summary of a text of `statements` statements. The collection is named only if there is
    /// one alone; the operation of several alike is `BATCH …`.
    #[must_use]
    pub fn finish(self, statements: usize) -> (Option<Box<str>>, Option<Box<str>>, Box<str>) {
        let operation = self.operation.map(|first| {
            if statements > 1 && self.same_operation {
                format!("BATCH {first}").into_boxed_str()
            } else {
                first.into_boxed_str()
            }
        });
        let collection = self
            .target
            .filter(|_| !self.several_targets)
            .map(String::into_boxed_str);
        (operation, collection, self.text.into_boxed_str())
    }
}
