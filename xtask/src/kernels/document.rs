//! `docs/kernels.md`: a section for each architecture holds the table of its last whole run; all else is written by hand.

use std::fs;

use anyhow::Context as _;

use crate::guest::Arch;
use crate::shell;

/// The revision that is checked out.
pub fn revision() -> anyhow::Result<String> {
    let revision = shell::output(shell::command("git").args(["rev-parse", "--short=10", "HEAD"]))?;
    Ok(revision.trim().to_owned())
}

/// Replaces the table of an architecture. `options`: those that the run was told, besides the architecture.
pub fn write(arch: Arch, options: &str, revision: &str, table: &str) -> anyhow::Result<()> {
    let path = shell::root().join("docs/kernels.md");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let date = shell::output(shell::command("date").args(["--utc", "+%Y-%m-%d"]))?;
    let body = format!(
        "`cargo xtask kernels --arch {}{options}` on {}, at {revision}.\n\n{table}",
        arch.name(),
        date.trim()
    );
    let text = replaced(&text, &heading(arch), &body)
        .with_context(|| format!("{} has no line {:?}", path.display(), heading(arch)))?;
    Ok(fs::write(&path, text)?)
}

fn heading(arch: Arch) -> String {
    format!("## The table for {}\n", arch.name())
}

/// The text with another body under that heading of the second level.
fn replaced(text: &str, heading: &str, body: &str) -> Option<String> {
    let (before, rest) = text.split_once(heading)?;
    let after = rest
        .find("\n## ")
        .and_then(|at| rest.get(at..))
        .unwrap_or_default();
    Some(format!("{before}{heading}\n{body}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_section_of_that_name_changes() {
        let text = "# A\n\n## One\n\nold\n\n### Part\n\nold\n\n## Two\n\nkept\n";
        let expected = "# A\n\n## One\n\nnew\n\n## Two\n\nkept\n";
        assert_eq!(replaced(text, "## One\n", "new\n").as_deref(), Some(expected));
        let last = "# A\n\n## One\n\nold\n\n### Part\n\nold\n\n## Two\n\nnew\n";
        assert_eq!(replaced(text, "## Two\n", "new\n").as_deref(), Some(last));
        assert_eq!(replaced(text, "## Three\n", "new\n"), None);
    }
}
