//! `tracer doctor`: what was found about this host, for people and for programs.

use super::EXIT_UNABLE;
use crate::discover::Census;
use crate::kernel::{Report, Status};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The report as text or JSON, and the exit code: 0 only if the main job can run.
#[must_use]
pub fn doctor(report: &Report, processes: &Census, json: bool) -> (String, u8) {
    let text = if json {
        as_json(report, processes)
    } else {
        as_text(report, processes)
    };
    (text, if report.can_run { 0 } else { EXIT_UNABLE })
}

fn as_json(report: &Report, processes: &Census) -> String {
    let mut json = serde_json::to_value(report).unwrap_or_default();
    if let Some(object) = json.as_object_mut() {
        object.insert("version".to_owned(), env!("CARGO_PKG_VERSION").into());
        object.insert(
            "processes_by_language".to_owned(),
            serde_json::json!(processes.languages),
        );
        object.insert("tasks_read".to_owned(), serde_json::json!(processes.tasks));
        object.insert(
            "tasks_not_read".to_owned(),
            serde_json::json!(processes.unread_tasks),
        );
    }
    let mut text = serde_json::to_string_pretty(&json).unwrap_or_default();
    text.push('\n');
    text
}

fn as_text(report: &Report, processes: &Census) -> String {
    let mut text = String::new();
    let verdict = match (report.can_run, report.backend) {
        (true, Some(backend)) => format!("this host can be traced (capture back end: {backend})"),
        (true, None) => "this host can be traced".to_owned(),
        (false, _) => "this host cannot be traced as it is".to_owned(),
    };
    // Writing to a String cannot fail.
    let _ = writeln!(
        text,
        "tracer {}, Linux {}: {verdict}\n",
        env!("CARGO_PKG_VERSION"),
        report.kernel
    );
    let width = report
        .findings
        .iter()
        .map(|f| f.name.chars().count())
        .max()
        .unwrap_or_default();
    for finding in &report.findings {
        let mark = match (finding.status, finding.required) {
            (Status::Ok, _) => "ok",
            (Status::Missing, true) => "MISSING",
            (Status::Missing, false) => "missing",
            (Status::Unknown, _) => "unknown",
        };
        let need = if finding.required { "needed" } else { "optional" };
        let _ = writeln!(
            text,
            "{mark:<8} {:<width$}  {need}: {}",
            finding.name, finding.needed_for
        );
        let indent = " ".repeat(width.saturating_add(11));
        if let Some(detail) = &finding.detail {
            let _ = writeln!(text, "{indent}found: {detail}");
        }
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{indent}remedy: {remedy}");
        }
    }
    if !report.hooks.is_empty() {
        let _ = writeln!(text, "\nhooks that will be used: {}", report.hooks.join(", "));
    }
    let _ = writeln!(
        text,
        "processes by language: {}",
        counts(&processes.languages).unwrap_or_else(|| "none (is /proc mounted?)".to_owned())
    );
    if let Some(kinds) = counts(&processes.tasks) {
        let _ = writeln!(text, "processes whose tasks can be read: {kinds}");
    }
    for (why, pid) in &processes.unread_tasks {
        let _ = writeln!(
            text,
            "tasks that can't be read, so that parents there rest on weaker evidence: {why} (process {pid})"
        );
    }
    text
}

fn counts(counts: &BTreeMap<&str, usize>) -> Option<String> {
    let texts: Vec<String> = counts
        .iter()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
