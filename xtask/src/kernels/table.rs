//! The table: back end x kernel x case, in Markdown.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use super::cases::CASES;
use super::limits::LIMITS;
use super::verdict::{DOCTOR, ENDS, LEDGER, LOADS, Verdict, Verdicts, WAYS, WHOLE};
use crate::guest::Arch;

/// A kernel's column.
pub struct Column {
    pub arch: Arch,
    /// `6.12.117+deb13-cloud-amd64`
    pub release: String,
    pub verdicts: Verdicts,
    /// Seconds that the guest ran.
    pub seconds: u64,
}

/// The whole as Markdown.
pub fn markdown(columns: &[&Column], backends: &[String]) -> String {
    let mut text = String::new();
    let heading: String = columns
        .iter()
        .map(|column| format!(" {} |", column.release))
        .collect();
    let rule = "---|".repeat(columns.len());
    let mut used = BTreeSet::new();
    let mut row = |text: &mut String, backend: &str, row: &str, label: &str| {
        let cells: Vec<String> = columns
            .iter()
            .map(|column| {
                let verdict = column.verdicts.get(&(backend.to_owned(), row.to_owned()));
                if let Some(Verdict::Limit(number)) = verdict {
                    used.insert(*number);
                }
                cell(verdict)
            })
            .collect();
        if cells.iter().any(|cell| !cell.is_empty()) {
            let _ = writeln!(text, "| {label} | {} |", cells.join(" | "));
        }
    };
    let _ = writeln!(text, "| |{heading}\n|---|{rule}");
    row(&mut text, "", DOCTOR, DOCTOR);
    row(&mut text, "", ENDS, ENDS);
    for backend in backends {
        let _ = writeln!(text, "\n### `{backend}`\n\n| |{heading}\n|---|{rule}");
        row(&mut text, backend, LOADS, LOADS);
        row(&mut text, backend, WHOLE, WHOLE);
        for case in CASES {
            row(
                &mut text,
                backend,
                case.name,
                &format!("{}: {}", case.name, case.what),
            );
        }
        row(&mut text, backend, LEDGER, LEDGER);
        for way in ways(columns, backend) {
            row(&mut text, backend, &way, &way);
        }
    }
    if !used.is_empty() {
        text.push('\n');
    }
    for number in used {
        if let Some(limit) = LIMITS.get(number - 1) {
            let _ = writeln!(text, "- limit {number}: {}", limit.why);
        }
    }
    let failures = failures(columns.iter().copied());
    if !failures.is_empty() {
        text.push('\n');
    }
    for failure in failures {
        let line = failure.lines().next().unwrap_or_default();
        let _ = writeln!(
            text,
            "- **fails**: {}",
            line.chars().take(300).collect::<String>()
        );
    }
    text
}

/// Rows of the C cases that any column has.
fn ways(columns: &[&Column], backend: &str) -> BTreeSet<String> {
    let rows = columns.iter().flat_map(|column| column.verdicts.keys());
    rows.filter(|(of, row)| of == backend && row.starts_with(WAYS))
        .map(|(_, row)| row.clone())
        .collect()
}

fn cell(verdict: Option<&Verdict>) -> String {
    match verdict {
        None => String::new(),
        Some(Verdict::Passed) => "✓".to_owned(),
        Some(Verdict::Failed(_)) => "**fails**".to_owned(),
        Some(Verdict::Limit(number)) => format!("limit {number}"),
    }
}

/// What failed, a line each.
pub fn failures<'a>(columns: impl IntoIterator<Item = &'a Column>) -> Vec<String> {
    let failures = columns.into_iter().flat_map(|column| {
        column
            .verdicts
            .iter()
            .filter_map(|((backend, row), verdict)| match verdict {
                Verdict::Failed(why) => Some(format!("{}: {backend} {row}: {why}", column.release)),
                _ => None,
            })
    });
    failures.collect()
}
