//! How long files are.

use std::fmt::Write as _;

use super::{File, Finding, Tree, code};

/// Most lines of one source file, tests not counted.
const MOST: usize = 600;
/// From here on a file is listed, so that its growth is seen.
const LONG: usize = 400;

fn length(file: &File) -> usize {
    code(file).count()
}

/// Files that nobody reads to the end.
pub fn long_files(tree: &Tree) -> Vec<Finding> {
    let long = tree.rust("").filter(|file| length(file) > MOST);
    long.map(|file| Finding {
        path: file.path.clone(),
        line: 0,
        what: format!("{} lines without its tests (most: {MOST})", length(file)),
        mend: "split it by subject into a folder".to_owned(),
    })
    .collect()
}

/// The long files and the median.
pub fn report(tree: &Tree) -> String {
    let mut sizes: Vec<(usize, &str)> = tree
        .rust("")
        .map(|file| (length(file), file.path.as_str()))
        .collect();
    sizes.sort_unstable();
    let median = sizes.get(sizes.len() / 2).map_or(0, |(lines, _)| *lines);
    let mut text = format!(
        "{} source files, median {median} lines without tests\n",
        sizes.len()
    );
    for (lines, path) in sizes.iter().rev().take_while(|(lines, _)| *lines > LONG) {
        _ = writeln!(text, "    {lines} {path}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{check, tree};
    use super::*;

    #[test]
    fn tests_do_not_count() {
        let long = "x\n".repeat(601);
        let tested = format!("{}#[cfg(test)]\n{long}", "x\n".repeat(10));
        let tree = tree(&[("a.rs", &long), ("b.rs", &tested), ("c.txt", &long)]);
        check(long_files(&tree), &["a.rs:0"]);
        assert_eq!(
            report(&tree),
            "2 source files, median 601 lines without tests\n    601 a.rs\n"
        );
    }
}
