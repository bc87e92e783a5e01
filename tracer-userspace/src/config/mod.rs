//! The configuration: one YAML file, the environment, flags. Flags beat the environment, the environment beats the file, the
//! file beats the defaults. Every key is described in `docs/tracer.example.yaml`; each section's type belongs to its stage.

mod file;
mod keys;
mod settings;

#[cfg(test)]
mod tests;

use crate::{correlate, discover::Selection, export, kernel, metrics, sample};
use serde::{Deserialize, Deserializer, de::Error as _};
use std::path::PathBuf;
use std::time::Duration;

pub use settings::{SETTINGS, Setting};

/// Everything that can be configured.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What the tracer says about itself on standard error: `off`, `error`, `warn`, `info`, `debug`, `trace`, or a list
    /// such as `warn,tracer_userspace::export=debug`.
    #[serde(deserialize_with = "log_level")]
    pub log_level: String,
    /// Worker threads; `None` (`auto`) lets the tracer choose by the number of CPUs.
    #[serde(deserialize_with = "workers")]
    pub workers: Option<u16>,
    /// Cores that the tracer may use (0.05: a twentieth of one); `None`: as many as it needs.
    #[serde(deserialize_with = "cpu_budget")]
    pub cpu_budget: Option<f64>,
    /// How long spans are flushed for after SIGINT or SIGTERM; what is left then is counted as dropped.
    #[serde(deserialize_with = "duration")]
    pub shutdown_timeout: Duration,
    /// Capture in the kernel.
    pub capture: Capture,
    /// Which processes and connections are traced.
    pub selection: Selection,
    /// Bounds of the correlation stage.
    pub correlate: correlate::Config,
    /// Bounds of the metrics stage.
    pub metrics: metrics::Config,
    /// Which traces are exported.
    pub sample: sample::Config,
    /// Where spans go.
    pub export: export::Config,
}

/// Which processes get probes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Probes {
    /// Those that are there when the tracer starts; later ones where the kernel allows that without `CAP_SYS_ADMIN`, which is given up.
    Auto,
    /// Later ones as well: keeps `CAP_SYS_ADMIN`.
    Always,
    /// None.
    Never,
}

/// How to capture.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Capture {
    /// Back end.
    pub backend: Backend,
    /// Bytes of each ring buffer, of which there is one for each CPU, at most eight.
    #[serde(deserialize_with = "ring_bytes")]
    pub ring_bytes: u32,
    /// Let the BPF programs log (into the tracer's own log).
    pub log: bool,
    /// Whether to place probes in functions of traced processes where nothing cheaper tells who works for whom.
    pub probes: Probes,
    /// Record there what the correlation stage is told.
    pub record: Option<PathBuf>,
    /// Most bytes of that recording.
    pub record_bytes: u64,
}

/// What hooks the kernel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// The first that the kernel allows.
    #[default]
    Auto,
    /// The socket tracepoints (Linux 6.3 and later), or nothing.
    Tracepoint,
    /// The ends of the socket functions (fexit), or nothing.
    Fentry,
    /// The exits of system calls, or nothing.
    Syscall,
}

impl Backend {
    /// The one that was asked for, if any.
    #[must_use]
    pub const fn wanted(self) -> Option<kernel::Backend> {
        match self {
            Self::Auto => None,
            Self::Tracepoint => Some(kernel::Backend::Tracepoint),
            Self::Fentry => Some(kernel::Backend::Fentry),
            Self::Syscall => Some(kernel::Backend::Syscall),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            workers: None,
            cpu_budget: None,
            shutdown_timeout: Duration::from_secs(5),
            capture: Capture::default(),
            selection: Selection::default(),
            correlate: correlate::Config::default(),
            metrics: metrics::Config::default(),
            sample: sample::Config::default(),
            export: export::Config::default(),
        }
    }
}

impl Default for Capture {
    fn default() -> Self {
        Self {
            backend: Backend::Auto,
            ring_bytes: 2 << 20,
            log: false,
            probes: Probes::Never,
            record: None,
            record_bytes: 256 << 20,
        }
    }
}

/// Worker threads that are allowed.
const MAX_WORKERS: u16 = 64;
/// Sizes of a ring buffer that are allowed: the largest event fits several times, and no host is emptied by a slip.
const RING_BYTES: std::ops::RangeInclusive<u32> = 256 << 10..=256 << 20;
/// Budgets of processor time that are allowed: the least is what an idle tracer needs.
const CPU_BUDGETS: std::ops::RangeInclusive<f64> = 0.001..=1024.0;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Lays the layers over each other: defaults, file, environment, flags.
///
/// # Errors
/// A text that names the file and line, the variable or the flag, the reason, and what to write instead.
pub fn load(
    path: Option<&std::path::Path>,
    environment: &dyn Fn(&str) -> Option<String>,
    flags: &[(&'static Setting, Vec<String>)],
) -> Result<Config, String> {
    let mut config = match path {
        Some(path) => file::read(path)?,
        None => Config::default(),
    };
    config
        .export
        .apply_env(environment)
        .map_err(|error| error.to_string())?;
    for setting in SETTINGS {
        let given = setting
            .variables
            .iter()
            .find_map(|&name| Some((name, environment(name).filter(|value| !value.trim().is_empty())?)));
        if let Some((name, value)) = given {
            (setting.set)(&mut config, &setting.split(&value))
                .map_err(|why| format!("{name}={}: {why}", setting.shown(&value)))?;
        }
    }
    for (setting, values) in flags {
        (setting.set)(&mut config, values)
            .map_err(|why| format!("--{} {}: {why}", setting.flag, setting.shown(&values.join(","))))?;
    }
    Ok(config)
}

fn parse_log_level(text: &str) -> Result<String, String> {
    for directive in text.split(',') {
        let level = directive.rsplit('=').next().unwrap_or_default().trim();
        // The filter takes any bare word for the name of a module: a slip would silence the log.
        if !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
            let near = keys::nearest(level, LEVELS)
                .map(|near| format!("did you mean {near}? "))
                .unwrap_or_default();
            return Err(format!(
                "{level:?} is not a log level: {near}use {}",
                LEVELS.join(", ")
            ));
        }
    }
    Ok(text.to_owned())
}

fn parse_workers(text: &str) -> Result<Option<u16>, String> {
    if text == "auto" {
        return Ok(None);
    }
    match text.parse() {
        Ok(count @ 1..=MAX_WORKERS) => Ok(Some(count)),
        _ => Err(format!(
            "{text:?} is not a number of workers: use auto or a number from 1 to {MAX_WORKERS}"
        )),
    }
}

fn parse_cpu_budget(text: &str) -> Result<Option<f64>, String> {
    let text = text.trim();
    if text == "off" {
        return Ok(None);
    }
    let number = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse().map(|percent: f64| percent / 100.0),
        None => text.parse(),
    };
    let cores = number.ok().filter(|cores| CPU_BUDGETS.contains(cores));
    cores
        .map(Some)
        .ok_or_else(|| format!("{text:?} is not a share of one core: write 0.05 or 5%, or off"))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|error| format!("{text:?} is not a duration ({error}): write 500ms, 10s or 5m"))
}

fn parse_ring_bytes(bytes: u64) -> Result<u32, String> {
    u32::try_from(bytes).ok().filter(|b| RING_BYTES.contains(b) && b.is_power_of_two()).ok_or_else(|| {
        let near = bytes.clamp(u64::from(*RING_BYTES.start()), u64::from(*RING_BYTES.end())).next_power_of_two();
        format!(
            "{bytes} is not the size of a ring: use a power of two from 262144 (256 KiB) to 268435456 (256 MiB), such as {near}"
        )
    })
}

fn log_level<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    parse_log_level(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn workers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    parse_workers(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn cpu_budget<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Number(f64),
        Text(String),
    }
    let text = match Option::<Written>::deserialize(from)? {
        None => return Ok(None),
        Some(Written::Number(number)) => number.to_string(),
        Some(Written::Text(text)) => text,
    };
    parse_cpu_budget(&text).map_err(D::Error::custom)
}

fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    parse_duration(&String::deserialize(from)?).map_err(D::Error::custom)
}

fn ring_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    parse_ring_bytes(u64::deserialize(from)?).map_err(D::Error::custom)
}
