//! The `sample` section of the configuration.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// Which traces are exported. Without a sampler and without tail sampling: all.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The head sampler, by its standard name (`OTEL_TRACES_SAMPLER`).
    pub sampler: Option<Kind>,
    /// Its ratio, from 0 to 1 (`OTEL_TRACES_SAMPLER_ARG`).
    #[serde(deserialize_with = "ratio")]
    pub ratio: f64,
    /// Decisions when a trace is known.
    pub tail: Tail,
}

/// Names of samplers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// All traces.
    AlwaysOn,
    /// None.
    AlwaysOff,
    /// A share of the traces, by their ids.
    #[serde(rename = "traceidratio")]
    TraceIdRatio,
    /// As the caller decided, else all.
    #[serde(rename = "parentbased_always_on")]
    ParentBasedAlwaysOn,
    /// As the caller decided, else none.
    #[serde(rename = "parentbased_always_off")]
    ParentBasedAlwaysOff,
    /// As the caller decided, else a share.
    #[serde(rename = "parentbased_traceidratio")]
    ParentBasedTraceIdRatio,
}

impl Kind {
    /// All of them by name.
    pub const NAMES: [(&'static str, Self); 6] = [
        ("always_on", Self::AlwaysOn),
        ("always_off", Self::AlwaysOff),
        ("traceidratio", Self::TraceIdRatio),
        ("parentbased_always_on", Self::ParentBasedAlwaysOn),
        ("parentbased_always_off", Self::ParentBasedAlwaysOff),
        ("parentbased_traceidratio", Self::ParentBasedTraceIdRatio),
    ];

    /// Finds it by its standard name.
    ///
    /// # Errors
    /// Says what is possible instead.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::NAMES.iter().find(|(known, _)| *known == name);
        found.map(|(_, kind)| *kind).ok_or_else(|| {
            let names: Vec<&str> = Self::NAMES.iter().map(|(name, _)| *name).collect();
            format!("{name:?} is not a sampler here: use {}", names.join(", "))
        })
    }
}

/// Decisions when a trace is known: the first that says keep counts.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tail {
    /// Whether traces wait for such a decision. The head sampler then only decides where memory runs out.
    pub enabled: bool,
    /// Keep traces with a failed exchange.
    pub errors: bool,
    /// Keep traces with a request that took longer (`500ms`).
    #[serde(deserialize_with = "optional_duration")]
    pub slow: Option<Duration>,
    /// Keep traces with a request that took longer than 99% of those at its endpoint.
    pub slow_p99: bool,
    /// Keep the first so many traces of every endpoint in a minute.
    pub rare_per_minute: u32,
    /// Of the others, keep about so many a second.
    pub traces_per_second: f64,
    /// Beyond that, keep this share.
    #[serde(deserialize_with = "ratio")]
    pub base_ratio: f64,
    /// How long a trace waits for its spans (`5s`).
    #[serde(deserialize_with = "duration")]
    pub decision_wait: Duration,
    /// Spans that may wait; then the oldest traces go as the head sampler says.
    pub max_spans: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            sampler: None,
            ratio: 1.0,
            tail: Tail::default(),
        }
    }
}

impl Default for Tail {
    fn default() -> Self {
        Self {
            enabled: false,
            errors: true,
            slow: None,
            slow_p99: true,
            rare_per_minute: 1,
            traces_per_second: 10.0,
            base_ratio: 0.01,
            decision_wait: Duration::from_secs(5),
            max_spans: 50_000,
        }
    }
}

/// Reads a ratio.
///
/// # Errors
/// Says what is possible instead.
pub fn parse_ratio(text: &str) -> Result<f64, String> {
    let found = text.parse().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    found.ok_or_else(|| format!("{text:?} is not a ratio: write a number from 0 to 1, such as 0.1"))
}

fn ratio<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
    let ratio = f64::deserialize(from)?;
    if (0.0..=1.0).contains(&ratio) {
        return Ok(ratio);
    }
    Err(D::Error::custom(format!(
        "{ratio} is not a ratio: write a number from 0 to 1"
    )))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("`{text}` is not a duration ({error}); write 500ms, 10s or 5m"))
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn optional_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(from)?;
    text.map(|text| parse_duration(&text).map_err(D::Error::custom))
        .transpose()
}
