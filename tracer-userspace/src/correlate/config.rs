//! Bounds of the correlation stage.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Bounds of the correlation stage. Times are in milliseconds.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Most exchanges kept at one time: open ones, ended ones whose trace is not decided, and for a moment those that
    /// were handed on. An exchange that begins beyond the bound is dropped and counted (`correlation_full`).
    pub max_open: usize,
    /// How long a span is held after its end while the parent of one of its ancestors is undecided. Then it is handed on
    /// with what is known, and a parent found later gets a link.
    pub max_hold_ms: u64,
    /// Most spans of one trace. Further ones start a trace of their own that links to the first.
    pub max_trace_spans: u32,
    /// How long a trace takes spans after its first one began. Later ones start a trace of their own that links to it.
    pub max_trace_age_ms: u64,
    /// How long a request that arrived waits for the end that sent it. Both ends lie on this host and are seen within
    /// microseconds, unless the sender is suspended inside its system call.
    pub peer_wait_ms: u64,
    /// Most threads and runtime tasks remembered.
    pub max_units: usize,
    /// Whether spans tell what their parents were decided from: who moved the first byte of the request (`thread.id`,
    /// `tracer.task.id`) and of the response (`tracer.response.thread.id`, `tracer.response.task.id`).
    pub explain: bool,
    /// What times alone may decide of calls that no rule gives an owner (E8).
    pub infer: Infer,
}

/// What the joint inference may decide. It costs far more than a rule does, and holds such calls for half a second.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Infer {
    /// Nothing: it does not run.
    #[default]
    Off,
    /// Links to the requests that probably made the calls.
    Links,
    /// Parents where it is nearly certain and has shown that it is right then; else links.
    Parents,
}

impl FromStr for Infer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "off" => Ok(Self::Off),
            "links" => Ok(Self::Links),
            "parents" => Ok(Self::Parents),
            _ => Err("use off, links or parents".to_owned()),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_open: 65_536,
            max_hold_ms: 10_000,
            max_trace_spans: 5_000,
            max_trace_age_ms: 3_600_000,
            peer_wait_ms: 50,
            max_units: 65_536,
            explain: false,
            infer: Infer::Off,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_optional_and_unknown_ones_are_refused() {
        let config: Config = serde_json::from_str(r#"{"max_hold_ms": 5}"#).unwrap();
        assert_eq!(
            config,
            Config {
                max_hold_ms: 5,
                ..Config::default()
            }
        );
        let error = serde_json::from_str::<Config>(r#"{"max_holt_ms": 5}"#).unwrap_err();
        assert!(error.to_string().contains("max_hold_ms"), "{error}");
    }
}
