//! `tracer doctor`: what was found about this host, for people and for programs.

use super::EXIT_UNABLE;
use crate::discover::Census;
use crate::kernel::{Report, Status};
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
        object.insert("processes_by_language".to_owned(), serde_json::json!(processes));
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
    let seen: Vec<String> = processes
        .iter()
        .map(|(language, count)| format!("{language} {count}"))
        .collect();
    let seen = if seen.is_empty() {
        "none (is /proc mounted?)".to_owned()
    } else {
        seen.join(", ")
    };
    let _ = writeln!(text, "processes by language: {seen}");
    text
}
