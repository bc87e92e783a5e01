//! All exporters, one line each. A new one is a file or folder with a section type that implements [`Exporter`], and a line here:
//! the line makes its section of the configuration, its name for `--export`, and the pipeline start it.

use std::sync::Arc;

use serde::{Deserialize, Deserializer};

use super::accounts::Account;
use super::clock::Clock;
#[cfg(feature = "cloudtrace")]
use super::cloudtrace;
use super::config::{Console, Queue, Retry};
use super::disk::Disk;
use super::intake::Intake;
use super::worker::Worker;
#[cfg(feature = "xray")]
use super::xray;
use super::{elastic, file, otlp, zipkin};

/// What an exporter is given to work with.
pub(super) struct Job {
    /// Its name, for logs and the ledger.
    pub name: &'static str,
    pub clock: Clock,
    /// Where it reports on every span.
    pub account: Account,
    /// Where its spans come from.
    pub intake: Arc<Intake>,
    pub queue: Queue,
    pub retry: Retry,
    /// Where requests wait that cannot be sent, if the operator named a folder.
    pub disk: Option<Arc<Disk>>,
}

/// Variables of the process, by name.
pub(super) type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The variable's value without spaces around it; `None` if it is not set, or set to nothing.
pub(super) fn variable(env: Env<'_>, name: &str) -> Option<String> {
    env(name)
        .map(|text| text.trim().to_owned())
        .filter(|text| !text.is_empty())
}

/// An exporter's section of the configuration, which builds it.
pub(super) trait Exporter {
    /// Whether it runs without being named in `export.to`.
    fn is_set(&self) -> bool {
        false
    }

    /// Whether spans leave the host: these wait on the disk if they must.
    fn is_remote(&self) -> bool {
        true
    }

    /// Sets where it sends spans (`--export name=target`), over whatever a weaker source said.
    fn set_target(&mut self, target: &str);

    /// Lays its variables over what the file said.
    ///
    /// # Errors
    /// Names the variable, its value and what to write instead.
    fn apply_env(&mut self, _env: Env<'_>) -> anyhow::Result<()> {
        Ok(())
    }

    /// Starts it on a thread of its own.
    ///
    /// # Errors
    /// Settings that cannot be used; nothing is sent to find out.
    fn start(&self, job: Job) -> anyhow::Result<Worker>;
}

macro_rules! exporters {
    ($($(#[doc = $doc:literal])* $(#[cfg($cfg:meta)])? $name:ident: $section:ty,)*) => {
        /// The `export` section of the configuration.
        #[derive(Clone, PartialEq, Debug, Default, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct Config {
            /// Names of the exporters that run, beside those that are on by themselves (`otlp` once it has an endpoint, the
            /// console where there is nothing else).
            pub to: Names,
            $($(#[doc = $doc])* $(#[cfg($cfg)])? pub $name: $section,)*
            /// Spans on standard output.
            pub console: Console,
            /// What waits for a slow or absent backend.
            pub queue: Queue,
            /// How long a request that failed is tried again.
            pub retry: Retry,
            /// Where metrics go.
            pub metrics: super::metrics::Config,
        }

        /// The names of all exporters.
        pub const NAMES: &[&str] = &[$($(#[cfg($cfg)])? stringify!($name),)* CONSOLE];

        impl Config {
            fn sections(&self) -> impl Iterator<Item = (&'static str, &dyn Exporter)> {
                [$($(#[cfg($cfg)])? (stringify!($name), &self.$name as &dyn Exporter)),*].into_iter()
            }

            fn sections_mut(&mut self) -> impl Iterator<Item = (&'static str, &mut dyn Exporter)> {
                [$($(#[cfg($cfg)])? (stringify!($name), &mut self.$name as &mut dyn Exporter)),*].into_iter()
            }
        }
    };
}

exporters! {
    /// Any OTLP backend; it runs once an endpoint is set.
    otlp: otlp::Otlp,
    /// Jaeger v2.
    jaeger: otlp::Jaeger,
    /// The OpenTelemetry Collector.
    collector: otlp::Collector,
    /// Grafana Tempo.
    tempo: otlp::Tempo,
    /// Elastic APM.
    elastic: elastic::Elastic,
    /// Zipkin.
    zipkin: zipkin::Zipkin,
    /// AWS X-Ray.
    #[cfg(feature = "xray")]
    xray: xray::Xray,
    /// Google Cloud Trace.
    #[cfg(feature = "cloudtrace")]
    cloudtrace: cloudtrace::CloudTrace,
    /// OTLP as JSON lines in files.
    file: file::File,
}

/// The exporter that writes to standard output; the pipeline knows it by name, because it may be a mere view.
const CONSOLE: &str = "console";

impl Config {
    /// The exporters that run, the console aside.
    pub(super) fn running(&self) -> Vec<(&'static str, &dyn Exporter)> {
        self.sections()
            .filter(|(name, exporter)| self.to.has(name) || exporter.is_set())
            .collect()
    }

    /// Whether spans are printed.
    pub(super) fn prints(&self) -> bool {
        let is_alone = || self.running().is_empty();
        self.console
            .enabled
            .unwrap_or_else(|| self.to.has(CONSOLE) || is_alone())
    }

    /// Names the exporters that run, each perhaps with its target: `zipkin`, `file=/tmp/spans.jsonl`.
    ///
    /// # Errors
    /// Says which names there are.
    pub fn choose(&mut self, chosen: &[String]) -> Result<(), String> {
        let mut names = Vec::new();
        for choice in chosen {
            let (name, target) = match choice.split_once('=') {
                Some((name, target)) => (name.trim(), Some(target.trim())),
                None => (choice.as_str(), None),
            };
            let name = known(name)?;
            names.push(name);
            if name == CONSOLE {
                self.console.enabled = Some(true);
            }
            let Some(target) = target else { continue };
            let mut sections = self.sections_mut();
            match sections.find(|(known, _)| *known == name) {
                Some((_, section)) if !target.is_empty() => section.set_target(target),
                _ => return Err(format!("`{choice}`: write `{name}` alone")),
            }
        }
        self.to = Names(names);
        Ok(())
    }

    /// Lays the environment over what the file said. Precedence is flags, environment, file, default: call this
    /// after the file and before the flags.
    ///
    /// # Errors
    /// Names the variable, its value and what to write instead.
    pub fn apply_env(&mut self, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
        let of_metrics = self.otlp.for_metrics(env)?;
        self.sections_mut()
            .try_for_each(|(_, section)| section.apply_env(env))?;
        self.metrics.apply_env(env, &self.otlp, &of_metrics)
    }
}

/// Names of exporters.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names(Vec<&'static str>);

impl Names {
    fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    /// The names, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().copied()
    }
}

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let names = Vec::<String>::deserialize(from)?;
        let known: Result<_, _> = names.iter().map(|name| known(name)).collect();
        known.map(Self).map_err(serde::de::Error::custom)
    }
}

fn known(name: &str) -> Result<&'static str, String> {
    let found = NAMES.iter().copied().find(|known| *known == name);
    found.ok_or_else(|| format!("`{name}` is not an exporter: use {}", NAMES.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exporters_are_chosen_by_name() {
        let choose = |config: &mut Config, chosen: &[&str]| {
            let chosen: Vec<String> = chosen.iter().map(|&name| name.to_owned()).collect();
            config.choose(&chosen)
        };
        let running = |config: &Config| -> Vec<_> {
            let mut names: Vec<_> = config.running().into_iter().map(|(name, _)| name).collect();
            names.extend(config.prints().then_some(CONSOLE));
            names
        };
        let mut config = Config::default();
        assert_eq!(running(&config), ["console"], "by default");
        choose(&mut config, &["jaeger=http://j:1", "file"]).unwrap();
        assert_eq!(running(&config), ["jaeger", "file"]);
        assert_eq!(config.jaeger.0.endpoint.as_deref(), Some("http://j:1"));
        config.otlp.set_endpoint("http://o:1");
        assert_eq!(
            running(&config),
            ["otlp", "jaeger", "file"],
            "an endpoint is enough for OTLP"
        );
        choose(&mut config, &["console"]).unwrap();
        assert_eq!(
            running(&config),
            ["otlp", "console"],
            "a later choice replaces the earlier one"
        );
        for (wrong, part) in [
            ("jager", "use otlp, jaeger"),
            ("console=x", "write `console` alone"),
            ("file=", "write `file` alone"),
        ] {
            let error = choose(&mut config, &[wrong]).unwrap_err();
            assert!(error.contains(part), "{wrong}: {error}");
        }
    }
}
