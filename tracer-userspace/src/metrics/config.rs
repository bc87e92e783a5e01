//! Bounds of the metrics stage.

use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error as _};

/// The `metrics` section of the configuration.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Sets of attributes kept for one service; what is beyond is counted in one with `otel.metric.overflow`.
    pub max_series_per_service: usize,
    /// Sets of attributes kept in all.
    pub max_series: usize,
    /// Processes of one service that are told apart; further ones are counted together, without an instance.
    pub max_instances_per_service: usize,
    /// How long the series of a service whose process has ended are still told (`5m`).
    #[serde(deserialize_with = "duration")]
    pub expire_after: Duration,
    /// Whether a service graph is kept.
    pub service_graph: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_series_per_service: 2_000,
            max_series: 10_000,
            max_instances_per_service: 32,
            expire_after: Duration::from_secs(300),
            service_graph: true,
        }
    }
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(|error| {
        D::Error::custom(format!(
            "`{text}` is not a duration ({error}); write 500ms, 10s or 5m"
        ))
    })
}
