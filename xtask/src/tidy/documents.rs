//! Documents that say what is.

use super::{Finding, Tree};

/// Links to files of the repository lead somewhere.
pub fn links(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (n, line) in file.text.lines().enumerate() {
            for target in line.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let target = target.split('#').next().unwrap_or_default();
                if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                    continue;
                }
                if !resolve(folder, target).is_some_and(|path| tree.has(&path)) {
                    found.push(Finding {
                        path: file.path.clone(),
                        line: n + 1,
                        what: format!("the link to {target} is dead"),
                        mend: "name a file of the repository, from this file's folder".to_owned(),
                    });
                }
            }
        }
    }
    found
}

/// The path from the root of what a document in `folder` calls `target`.
fn resolve(folder: &str, target: &str) -> Option<String> {
    let mut path: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => _ = path.pop()?,
            part => path.push(part),
        }
    }
    Some(path.join("/"))
}

/// Every `cargo xtask <subcommand>` that a document or `.ci/run` mentions exists.
pub fn commands(tree: &Tree, cli: &clap::Command) -> Vec<Finding> {
    let mut found = Vec::new();
    for file in tree
        .files
        .iter()
        .filter(|file| file.path.ends_with(".md") || file.path == ".ci/run")
    {
        for (n, line) in file.text.lines().enumerate() {
            for rest in line.split("cargo xtask ").skip(1) {
                let name: String = rest
                    .chars()
                    .take_while(|c| c.is_ascii_alphanumeric() || *c == '-')
                    .collect();
                if !name.is_empty() && cli.find_subcommand(&name).is_none() {
                    let have: Vec<_> = cli.get_subcommands().map(clap::Command::get_name).collect();
                    found.push(Finding {
                        path: file.path.clone(),
                        line: n + 1,
                        what: format!("`cargo xtask {name}` does not exist"),
                        mend: format!("there are: {}", have.join(", ")),
                    });
                }
            }
        }
    }
    found
}

/// What every release carries.
pub fn present(tree: &Tree) -> Vec<Finding> {
    let mut found = Vec::new();
    for path in [
        "README.md",
        "ARCHITECTURE.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "deny.toml",
        ".ci/run",
    ] {
        if tree.text(path).is_none_or(str::is_empty) {
            found.push(Finding {
                path: path.to_owned(),
                line: 0,
                what: "is missing or empty".to_owned(),
                mend: "write it".to_owned(),
            });
        }
    }
    let readme = tree.text("README.md").unwrap_or_default();
    for command in ["cargo xtask run", "cargo xtask test"] {
        if !readme.is_empty() && !readme.contains(command) {
            found.push(Finding {
                path: "README.md".to_owned(),
                line: 0,
                what: format!("does not name `{command}`"),
                mend: "name the two commands with which a newcomer starts".to_owned(),
            });
        }
    }
    found
}

/// No path of the machine that somebody worked on.
pub fn machine_paths(tree: &Tree) -> Vec<Finding> {
    // In two parts each, so that this file is clean itself.
    let roots = [
        concat!("/ro", "ot/"),
        concat!("/wo", "rk/"),
        concat!("/home/", "user/"),
        concat!("/opt/", "wheels"),
    ];
    let mut found = Vec::new();
    for file in tree.files.iter().filter(|file| !file.path.ends_with(".lock")) {
        for (n, line) in file.text.lines().enumerate() {
            let hit = roots.iter().find(|root| {
                line.match_indices(*root).any(|(at, _)| {
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "}._-)".contains(c))
                })
            });
            if let Some(root) = hit {
                found.push(Finding {
                    path: file.path.clone(),
                    line: n + 1,
                    what: format!("names a path of one machine ({root}…)"),
                    mend: "make it relative to the repository, or take it from the environment".to_owned(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::{check, tree};
    use super::*;

    #[test]
    fn dead_links_are_found() {
        let tree = tree(&[
            (
                "README.md",
                "[a](docs/a.md) [b](docs/b.md#part)\n[c](https://example.org/x) [d](#here)\n",
            ),
            ("docs/a.md", "[up](../README.md) [down](./b/)\n[out](../../x)\n"),
        ]);
        check(links(&tree), &["README.md:1", "docs/a.md:1", "docs/a.md:2"]);
    }

    #[test]
    fn commands_that_do_not_exist_are_found() {
        let cli = clap::Command::new("x").subcommand(clap::Command::new("test"));
        let tree = tree(&[
            (
                "README.md",
                "`cargo xtask test`, `cargo xtask`\n`cargo xtask fly --high`\n",
            ),
            ("src/a.rs", "// cargo xtask swim\n"),
        ]);
        check(commands(&tree, &cli), &["README.md:2"]);
    }

    #[test]
    fn documents_are_there() {
        let mut files: Vec<(&str, &str)> = [
            "ARCHITECTURE.md",
            "CHANGELOG.md",
            "LICENSE-MIT",
            "LICENSE-APACHE",
            "deny.toml",
            ".ci/run",
        ]
        .map(|path| (path, "text"))
        .into();
        check(present(&tree(&files)), &["README.md:0"]);
        files.push(("README.md", "cargo xtask run"));
        check(present(&tree(&files)), &["README.md:0"]);
        files.pop();
        files.push(("README.md", "cargo xtask run; cargo xtask test"));
        check(present(&tree(&files)), &[]);
    }

    #[test]
    fn paths_of_a_machine_are_found() {
        let mine = concat!("see /ro", "ot/notes\nand ./wo", "rk/x, $DIR/ro", "ot/x\n");
        check(machine_paths(&tree(&[("a.md", mine)])), &["a.md:1"]);
    }
}
