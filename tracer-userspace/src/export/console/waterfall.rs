//! A trace as a tree over its time line:
//!
//! ```text
//! 12:41:07.318  GET /cart/{id}  34.2 ms  4 spans  trace 5b8efff798038103d269b633813fc60c
//!   shop  GET /cart/{id}              ██████████████████████████████████  34.2 ms  200
//!   └─ shop → GET                       ███████████████████               20.1 ms  200
//!      └─ cart  GET /{id}                ████████████████▌                17.4 ms  200
//!         └─ cart → ~SELECT carts              █████▎                     6.02 ms
//! ```
//!
//! `→` marks spans of the calling end; `~` a parent that is likely and `?` one that is inferred. A trace of one span is one line.

use std::collections::HashMap;

use super::super::clock::Clock;
use super::style::{Ink, Palette, ink_of};
use super::traces::{Node, Trace};
use crate::model::{Confidence, Nanos, SpanId};

/// Rows of one trace; a trace with more says how many are missing.
const MAX_ROWS: usize = 100;
/// Columns of duration, and of the widest status that is not cut.
const DURATION: usize = 8;
const STATUS: usize = 16;
/// Columns of the bars at least.
const MIN_BAR: usize = 12;
/// Deeper levels are drawn at this one.
const MAX_DEPTH: usize = 16;

/// Lines that a trace of so many spans takes.
pub(super) fn lines(spans: usize) -> usize {
    // The head, and an empty line that parts it from the next.
    if spans == 1 { 1 } else { spans.min(MAX_ROWS) + 2 }
}

/// Says what is not shown.
pub(super) fn notice(out: &mut Vec<u8>, traces: u64, spans: u64, palette: Palette) {
    let what = if traces > 0 {
        format!("{traces} traces, {spans} spans")
    } else {
        format!("{spans} spans")
    };
    palette.paint(
        out,
        Ink::Dim,
        &format!("  … {what} not shown: more than a screen can take"),
    );
    out.push(b'\n');
}

/// Appends a trace.
pub(super) fn render(out: &mut Vec<u8>, trace: &Trace, clock: &Clock, palette: Palette, width: usize) {
    let Some(start) = trace.nodes.iter().map(|node| node.start).min() else {
        return;
    };
    let end = trace
        .nodes
        .iter()
        .map(|node| node.start.saturating_add(node.duration))
        .max()
        .unwrap_or(start);
    let rows = tree(trace);
    let Some(root) = rows.first() else { return };
    palette.paint(out, Ink::Dim, &time_of_day(clock.unix(start)));
    out.extend_from_slice(b"  ");
    if rows.len() == 1 {
        label(out, root, palette);
        out.extend_from_slice(b"  ");
        out.extend_from_slice(span_text(root.node.duration).as_bytes());
        status(out, root.node, palette);
        out.push(b'\n');
        return;
    }
    palette.paint(out, Ink::Bold, &clean(&root.node.name));
    let total = span_text(end.saturating_sub(start));
    out.extend_from_slice(format!("  {total}  {} spans  ", rows.len()).as_bytes());
    palette.paint(out, Ink::Dim, &format!("trace {}", hex(&trace.id.0)));
    out.push(b'\n');

    let shown = rows
        .get(..MAX_ROWS - 1)
        .filter(|_| rows.len() > MAX_ROWS)
        .unwrap_or(&rows);
    let widest = shown.iter().map(Row::label_width).max().unwrap_or_default();
    let statuses = shown
        .iter()
        .map(|row| row.node.status.chars().count().min(STATUS))
        .max()
        .unwrap_or_default();
    // Indent, gap, label, gap, bar, gap, duration, gap, status.
    let rest = width.saturating_sub(2 + 2 + 2 + DURATION + 2 + statuses);
    let label_width = widest.min(rest.saturating_sub(MIN_BAR).max(rest * 55 / 100));
    let bar_width = rest.saturating_sub(label_width).max(MIN_BAR);
    for row in shown {
        out.extend_from_slice(b"  ");
        let used = row_label(out, row, palette, label_width);
        pad(out, label_width.saturating_sub(used) + 2);
        bar(out, row.node, start, end, bar_width, palette);
        let text = span_text(row.node.duration);
        pad(out, 2 + DURATION.saturating_sub(text.chars().count()));
        out.extend_from_slice(text.as_bytes());
        status(out, row.node, palette);
        out.push(b'\n');
    }
    if shown.len() < rows.len() {
        palette.paint(
            out,
            Ink::Dim,
            &format!("  … {} more spans", rows.len() - shown.len()),
        );
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// A span and its place in the tree.
struct Row<'a> {
    node: &'a Node,
    /// `│  `, `├─ ` and so on.
    guides: String,
    service: String,
    /// The kind's arrow, the parent's certainty, the name.
    text: String,
}

impl<'a> Row<'a> {
    fn new(node: &'a Node, guides: String) -> Self {
        let arrow = if node.role.is_inbound() { " " } else { "→ " };
        let mark = match node.confidence {
            Some(Confidence::Likely) => "~",
            Some(Confidence::Inferred) => "?",
            Some(Confidence::Certain) | None => "",
        };
        let text = format!("{arrow}{mark}{}", clean(&node.name));
        Self {
            node,
            guides,
            service: clean(&node.share.service.name),
            text,
        }
    }

    fn label_width(&self) -> usize {
        self.guides.chars().count() + self.service.chars().count() + 1 + self.text.chars().count()
    }
}

/// Spans in the order of the tree: parents before children, siblings by start. A span whose parent is not there is a root; so is one
/// of each circle, which only a faulty trace context can make.
fn tree(trace: &Trace) -> Vec<Row<'_>> {
    let index: HashMap<SpanId, usize> = trace
        .nodes
        .iter()
        .enumerate()
        .map(|(i, node)| (node.id, i))
        .collect();
    let mut children: HashMap<Option<usize>, Vec<usize>> = HashMap::new();
    for (i, node) in trace.nodes.iter().enumerate() {
        let parent = node
            .parent
            .and_then(|parent| index.get(&parent).copied())
            .filter(|&parent| parent != i);
        children.entry(parent).or_default().push(i);
    }
    let start = |i: &usize| {
        trace
            .nodes
            .get(*i)
            .map(|node| (node.start, u64::MAX - node.duration))
    };
    children
        .values_mut()
        .for_each(|siblings| siblings.sort_by_key(start));

    let mut roots = children.remove(&None).unwrap_or_default();
    let mut rows = Vec::with_capacity(trace.nodes.len());
    let mut drawn = vec![false; trace.nodes.len()];
    loop {
        // A span, the guides of the columns before it, and its own branch.
        let mut stack: Vec<_> = roots.drain(..).rev().map(|i| (i, String::new(), "")).collect();
        while let Some((i, above, branch)) = stack.pop() {
            let (Some(node), Some(seen)) = (trace.nodes.get(i), drawn.get_mut(i)) else {
                continue;
            };
            if std::mem::replace(seen, true) {
                continue;
            }
            let below = match branch {
                _ if above.chars().count() >= MAX_DEPTH * 3 => above.clone(),
                "├─ " => format!("{above}│  "),
                "└─ " => format!("{above}   "),
                _ => above.clone(),
            };
            rows.push(Row::new(node, above + branch));
            let mut kids = children.remove(&Some(i)).unwrap_or_default();
            let last = kids.pop();
            stack.extend(last.map(|kid| (kid, below.clone(), "└─ ")));
            stack.extend(kids.into_iter().rev().map(|kid| (kid, below.clone(), "├─ ")));
        }
        match drawn.iter().position(|drawn| !drawn) {
            Some(i) => roots.push(i),
            None => return rows,
        }
    }
}

/// The whole label; used where there is no column to fit.
fn label(out: &mut Vec<u8>, row: &Row<'_>, palette: Palette) {
    row_label(out, row, palette, usize::MAX);
}

/// The label, cut to `width` columns; returns the columns used.
fn row_label(out: &mut Vec<u8>, row: &Row<'_>, palette: Palette, width: usize) -> usize {
    let mut left = width;
    let parts = [
        (Ink::Dim, &row.guides),
        (ink_of(&row.service), &row.service),
        (Ink::Plain, &row.text),
    ];
    for (n, (ink, text)) in parts.into_iter().enumerate() {
        if n == 2 && left > 0 {
            out.push(b' ');
            left -= 1;
        }
        let ink = if n == 2 && row.node.is_error {
            Ink::Error
        } else {
            ink
        };
        let columns = text.chars().count();
        if columns <= left {
            palette.paint(out, ink, text);
            left -= columns;
        } else {
            let cut: String = text
                .chars()
                .take(left.saturating_sub(1))
                .chain((left > 0).then_some('…'))
                .collect();
            palette.paint(out, ink, &cut);
            left = 0;
        }
    }
    width - left
}

/// The bar, as wide as its part of the trace's time, in eighths of a column; never invisible.
fn bar(out: &mut Vec<u8>, node: &Node, start: Nanos, end: Nanos, width: usize, palette: Palette) {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let total = u128::from(end.saturating_sub(start)).max(1);
    let scale = |nanos: Nanos, steps: usize| (u128::from(nanos) * steps as u128 / total) as usize;
    let offset = scale(node.start.saturating_sub(start), width).min(width - 1);
    let eighths = scale(node.duration, width * 8).clamp(1, (width - offset) * 8);
    let mut text = "█".repeat(eighths / 8);
    text.push_str(EIGHTHS.get(eighths % 8).copied().unwrap_or_default());
    pad(out, offset);
    palette.paint(
        out,
        if node.is_error {
            Ink::Error
        } else {
            ink_of(&node.share.service.name)
        },
        &text,
    );
    pad(out, width - offset - eighths.div_ceil(8));
}

fn status(out: &mut Vec<u8>, node: &Node, palette: Palette) {
    if node.status.is_empty() {
        return;
    }
    let text: String = clean(&node.status).chars().take(STATUS).collect();
    out.extend_from_slice(b"  ");
    palette.paint(out, if node.is_error { Ink::Error } else { Ink::Dim }, &text);
}

fn pad(out: &mut Vec<u8>, columns: usize) {
    out.resize(out.len() + columns, b' ');
}

/// Three digits and a unit.
fn span_text(nanos: Nanos) -> String {
    let (value, unit) = match nanos {
        0..1_000 => return format!("{nanos} ns"),
        1_000..1_000_000 => (nanos as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (nanos as f64 / 1e6, "ms"),
        _ => (nanos as f64 / 1e9, "s"),
    };
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// UTC, as a trace in a backend is searched for.
fn time_of_day(unix: u64) -> String {
    let millis = unix / 1_000_000 % 86_400_000;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    format!(
        "{:02}:{:02}:{:02}.{millis:03}",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60
    )
}

/// Names come from strangers' traffic: nothing in them may steer the terminal.
fn clean(text: &str) -> String {
    let steers = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    text.chars().map(|c| if steers(c) { '·' } else { c }).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
