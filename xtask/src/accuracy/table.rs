//! The judge's rows as tables of Markdown: by runtime and concurrency, by style, and how often each kind of answer is right.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use serde::Deserialize;

/// One run, as the judge writes it (`tests/tests/accuracy.rs`).
#[derive(Clone, Deserialize)]
pub struct Row {
    runtime: String,
    style: String,
    concurrency: u32,
    #[serde(flatten)]
    score: Score,
}

/// How right the parents of one run are, or of several.
#[derive(Clone, Default, Deserialize)]
struct Score {
    right: u64,
    wrong: u64,
    missing: u64,
    across_right: u64,
    across: u64,
    whole_right: u64,
    whole: u64,
    /// Right and all, by evidence and confidence.
    by_evidence: BTreeMap<String, (u64, u64)>,
    /// The same of what times alone name, by how likely that is said to be.
    by_probability: BTreeMap<String, (u64, u64)>,
    thread_rule: Rule,
}

#[derive(Clone, Default, Deserialize)]
struct Rule {
    right: u64,
    wrong: u64,
    missing: u64,
}

impl Score {
    fn add(&mut self, other: &Self) {
        self.right += other.right;
        self.wrong += other.wrong;
        self.missing += other.missing;
        self.across_right += other.across_right;
        self.across += other.across;
        self.whole_right += other.whole_right;
        self.whole += other.whole;
        self.thread_rule.right += other.thread_rule.right;
        self.thread_rule.wrong += other.thread_rule.wrong;
        self.thread_rule.missing += other.thread_rule.missing;
        add_shares(&mut self.by_evidence, &other.by_evidence);
        add_shares(&mut self.by_probability, &other.by_probability);
    }

    fn calls(&self) -> u64 {
        self.right + self.wrong + self.missing
    }

    fn precision(&self) -> String {
        percent(self.right, self.right + self.wrong)
    }

    fn recall(&self) -> String {
        percent(self.right, self.calls())
    }

    /// What each kind of evidence has told, of all that was told.
    fn evidence(&self) -> String {
        let told: u64 = self.by_evidence.values().map(|(_, all)| all).sum();
        let shares = self.by_evidence.iter();
        let shares = shares.map(|(name, (_, all))| format!("{name} {}", percent(*all, told)));
        shares.collect::<Vec<_>>().join(", ")
    }
}

fn add_shares(to: &mut BTreeMap<String, (u64, u64)>, of: &BTreeMap<String, (u64, u64)>) {
    for (name, (right, all)) in of {
        let sum = to.entry(name.clone()).or_default();
        sum.0 += right;
        sum.1 += all;
    }
}

fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.2}", 100.0 * part as f64 / whole as f64)
}

/// Of several scores of one style the last one.
pub fn latest(rows: Vec<Row>) -> Vec<Row> {
    let mut found: Vec<Row> = Vec::new();
    for row in rows {
        let known = found.iter_mut().find(|known| {
            known.runtime == row.runtime && known.style == row.style && known.concurrency == row.concurrency
        });
        match known {
            Some(known) => *known = row,
            None => found.push(row),
        }
    }
    found
}

/// All tables.
pub fn tables(rows: &[Row]) -> Result<String> {
    let mut all = Score::default();
    for row in rows {
        all.add(&row.score);
    }
    Ok(format!(
        "{}\nRecall, and whole traces, in % at each concurrency (precision where it is not 100):\n\n{}\n{}\n{}",
        by_runtime(rows)?,
        by_style(rows)?,
        shares("evidence and confidence", "parents", &all.by_evidence)?,
        shares(
            "probability told by times alone",
            "parents and links",
            &all.by_probability
        )?
    ))
}

/// All styles of a runtime at one concurrency.
fn by_runtime(rows: &[Row]) -> Result<String> {
    let mut text = String::from(
        "| runtime | concurrency | calls | precision % | recall % | across services % | whole traces % | evidence % | thread rule: precision %, recall % |\n\
         |---|---|---|---|---|---|---|---|---|\n",
    );
    for runtime in in_order(rows.iter().map(|row| row.runtime.as_str())) {
        let mut sums: BTreeMap<u32, Score> = BTreeMap::new();
        for row in rows.iter().filter(|row| row.runtime == runtime) {
            sums.entry(row.concurrency).or_default().add(&row.score);
        }
        for (concurrency, score) in sums {
            let rule = &score.thread_rule;
            writeln!(
                text,
                "| {runtime} | {concurrency} | {} | {} | {} | {} | {} | {} | {}, {} |",
                score.calls(),
                score.precision(),
                score.recall(),
                percent(score.across_right, score.across),
                percent(score.whole_right, score.whole),
                score.evidence(),
                percent(rule.right, rule.right + rule.wrong),
                percent(rule.right, rule.right + rule.wrong + rule.missing),
            )?;
        }
    }
    Ok(text)
}

/// Each style, with a column for each concurrency.
fn by_style(rows: &[Row]) -> Result<String> {
    let concurrencies: BTreeSet<u32> = rows.iter().map(|row| row.concurrency).collect();
    let mut text = String::from("| runtime | style |");
    for concurrency in &concurrencies {
        write!(text, " {concurrency} |")?;
    }
    writeln!(text, "\n|---|---|{}", "---|".repeat(concurrencies.len()))?;
    let mut cells: BTreeMap<(&str, &str, u32), &Score> = BTreeMap::new();
    for row in rows {
        cells.insert((&row.runtime, &row.style, row.concurrency), &row.score);
    }
    let styles = in_order(rows.iter().map(|row| (row.runtime.as_str(), row.style.as_str())));
    for (runtime, style) in styles {
        write!(text, "| {runtime} | `{style}` |")?;
        for &concurrency in &concurrencies {
            match cells.get(&(runtime, style, concurrency)) {
                None => text.push_str(" - |"),
                Some(score) => {
                    let whole = percent(score.whole_right, score.whole);
                    write!(text, " {}, {whole}", score.recall())?;
                    if score.wrong > 0 {
                        write!(text, " (precision {})", score.precision())?;
                    }
                    text.push_str(" |");
                }
            }
        }
        text.push('\n');
    }
    Ok(text)
}

/// Each once, in the order in which they come first.
fn in_order<T: PartialEq>(all: impl Iterator<Item = T>) -> Vec<T> {
    let mut found = Vec::new();
    for one in all {
        if !found.contains(&one) {
            found.push(one);
        }
    }
    found
}

/// How often what was told was right, by what was said of it: the calibration.
fn shares(what: &str, counted: &str, sums: &BTreeMap<String, (u64, u64)>) -> Result<String> {
    let mut text = format!("| {what} | {counted} | right % |\n|---|---|---|\n");
    for (name, &(right, all)) in sums {
        writeln!(text, "| {name} | {all} | {} |", percent(right, all))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_the_judge_become_tables() {
        let row = |style: &str, concurrency: u32, wrong: u64| -> Row {
            let row = serde_json::json!({
                "runtime": "Go", "style": style, "concurrency": concurrency, "right": 98, "wrong": wrong, "missing": 2 - wrong,
                "across_right": 3, "across": 4, "whole_right": 1, "whole": 2,
                "by_evidence": {"task certain": [98, 98 + wrong]}, "by_probability": {},
                "thread_rule": {"right": 1, "wrong": 3, "missing": 0},
            });
            serde_json::from_value(row).expect("a row")
        };
        let rows = [
            row("seq", 1, 1),
            row("seq", 50, 1),
            row("par", 50, 0),
            row("seq", 1, 0),
        ];
        let rows = latest(rows.into());
        let by_runtime = by_runtime(&rows).expect("a table");
        assert!(
            by_runtime.ends_with(
                "| Go | 1 | 100 | 100.00 | 98.00 | 75.00 | 50.00 | task certain 100.00 | 25.00, 25.00 |\n\
                 | Go | 50 | 200 | 99.49 | 98.00 | 75.00 | 50.00 | task certain 100.00 | 25.00, 25.00 |\n"
            ),
            "{by_runtime}"
        );
        let by_style = by_style(&rows).expect("a table");
        assert_eq!(
            by_style,
            "| runtime | style | 1 | 50 |\n|---|---|---|---|\n\
             | Go | `seq` | 98.00, 50.00 | 98.00, 50.00 (precision 98.99) |\n\
             | Go | `par` | - | 98.00, 50.00 |\n"
        );
        let evidence = tables(&rows).expect("tables");
        assert!(
            evidence.contains("| task certain | 295 | 99.66 |\n"),
            "{evidence}"
        );
    }
}
