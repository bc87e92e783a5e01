//! The `console` section of the configuration.

use std::time::Duration;

use serde::Deserialize;

use crate::export::config::duration;

/// Spans on standard output.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Console {
    /// Whether spans are printed. Unset: only where they go nowhere else.
    pub enabled: Option<bool>,
    /// `waterfall` (each trace as a tree) or `json` (one span a line).
    pub format: Format,
    /// `auto` (on a terminal, unless `NO_COLOR` is set), `always` or `never`.
    pub colour: Colour,
    /// `json` only: whether each line carries the whole resource, not only `service` and `pid`.
    pub resource: bool,
    /// `waterfall` only: how long a trace whose spans are all there stays quiet before it is printed (`300ms`).
    #[serde(deserialize_with = "duration")]
    pub settle: Duration,
    /// `waterfall` only: how long a trace with spans missing waits for them (`3s`).
    #[serde(deserialize_with = "duration")]
    pub patience: Duration,
    /// `waterfall` on a terminal: lines printed a second at most; what is beyond is left out by whole traces.
    pub lines_per_second: u32,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            enabled: None,
            format: Format::Waterfall,
            colour: Colour::Auto,
            resource: false,
            settle: Duration::from_millis(300),
            patience: Duration::from_secs(3),
            lines_per_second: 500,
        }
    }
}

/// How spans are printed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Each trace as a tree over its time line.
    #[default]
    Waterfall,
    /// One span a line.
    Json,
}

/// Whether output is coloured.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}
