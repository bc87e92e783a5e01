//! The command line: `tracer [options]` runs, `tracer doctor` explains what this host allows, `tracer explain` why spans have their parents.

mod doctor;
mod explain;

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;

use crate::config::{self, Config, SETTINGS, Setting};
use clap::builder::{PossibleValuesParser, Styles};
use clap::{Arg, ArgAction, ArgMatches, error::ErrorKind, value_parser};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

pub use doctor::doctor;
pub use explain::explain;

/// The main job failed while it ran.
pub const EXIT_FAILED: u8 = 1;
/// The command line, the environment or the config file is wrong.
pub const EXIT_USAGE: u8 = 2;
/// This host cannot run the main job.
pub const EXIT_UNABLE: u8 = 3;

/// What to do.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Trace.
    Run(Box<Config>),
    /// Say what this host allows.
    Doctor {
        /// As JSON.
        json: bool,
    },
    /// Decide a recorded run's parents once more.
    Replay {
        /// The recording.
        file: PathBuf,
    },
    /// Say why spans have their parents.
    Explain {
        /// Spans, one a line as JSON.
        file: PathBuf,
        /// Of a span or a trace.
        id: String,
    },
}

/// Why there is nothing to do: help was asked for, or something is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exit {
    /// Exit code of the program.
    pub code: u8,
    /// For standard output if the code is 0, else for standard error.
    pub message: String,
}

impl Exit {
    fn usage(reason: &str) -> Self {
        Self {
            code: EXIT_USAGE,
            message: format!("tracer: {reason}\nTry 'tracer --help'.\n"),
        }
    }

    /// Prints the message where it belongs.
    #[must_use]
    pub fn print(&self) -> ExitCode {
        use std::io::Write as _;
        // Nobody is left to tell if the terminal is gone.
        let _ = match self.code {
            0 => std::io::stdout().write_all(self.message.as_bytes()),
            _ => std::io::stderr().write_all(self.message.as_bytes()),
        };
        ExitCode::from(self.code)
    }
}

/// Reads this process's command line and environment, and the config file that they name.
///
/// # Errors
/// What to print and with which code to exit.
pub fn parse() -> Result<Command, Exit> {
    let environment = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    parse_from(std::env::args_os(), &environment)
}

/// Like [`parse`], for any command line and environment.
///
/// # Errors
/// What to print and with which code to exit.
pub fn parse_from<I>(args: I, environment: &dyn Fn(&str) -> Option<String>) -> Result<Command, Exit>
where
    I: IntoIterator,
    I::Item: Into<OsString> + Clone,
{
    let matches = command()
        .try_get_matches_from(args)
        .map_err(|error| match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Exit {
                code: 0,
                message: error.to_string(),
            },
            _ => Exit {
                code: EXIT_USAGE,
                message: error.to_string(),
            },
        })?;
    if let Some(("doctor", matches)) = matches.subcommand() {
        return Ok(Command::Doctor {
            json: matches.get_flag("json"),
        });
    }
    if let Some(("replay", matches)) = matches.subcommand() {
        return Ok(Command::Replay {
            file: matches.get_one::<PathBuf>("file").cloned().unwrap_or_default(),
        });
    }
    if let Some(("explain", matches)) = matches.subcommand() {
        return Ok(Command::Explain {
            file: matches.get_one::<PathBuf>("file").cloned().unwrap_or_default(),
            id: matches.get_one::<String>("id").cloned().unwrap_or_default(),
        });
    }
    let path = matches.get_one::<PathBuf>("config").cloned();
    let path = path.or_else(|| {
        environment("TRACER_CONFIG")
            .filter(|p| !p.is_empty())
            .map(PathBuf::from)
    });
    let config =
        config::load(path.as_deref(), environment, &given(&matches)).map_err(|why| Exit::usage(&why))?;
    Ok(Command::Run(Box::new(config)))
}

/// The settings on the command line. Flags that are repeated add up if they are lists, else the last counts.
fn given(matches: &ArgMatches) -> Vec<(&'static Setting, Vec<String>)> {
    SETTINGS
        .iter()
        .filter_map(|setting| {
            let values = matches.get_many::<String>(setting.flag)?;
            Some((setting, values.flat_map(|value| setting.split(value)).collect()))
        })
        .collect()
}

const ABOUT: &str =
    "Traces every service on this host, with no code changes, and shows or exports the traces";

const LONG_ABOUT: &str = "\
Traces every service on this host, with no code changes, and shows or exports the traces.

Without options it watches all processes and prints each trace in this terminal. With an OTLP endpoint it sends the
spans there instead. It needs root (sudo tracer); 'tracer doctor' tells what this host allows and what is missing.";

const AFTER: &str = "\
Every option can also be set in the config file (--config; docs/tracer.example.yaml describes all keys) and most by a
variable. Options win over variables, variables over the file. The standard OTEL_EXPORTER_OTLP_* variables all work.

Examples:
  sudo tracer                                          show every trace here
  sudo tracer --include-exe nginx --include-port 8080  only this service
  sudo tracer --otlp-endpoint http://localhost:4318    send spans to a backend
  sudo tracer --format json > spans.jsonl              one span a line
  sudo tracer doctor                                   can this host be traced?
  tracer explain spans.jsonl 4c1b7429a3d4499b          why has this span that parent?

Exit codes:
  0  stopped as asked (or: help, version, a healthy doctor)
  1  failed while running
  2  wrong option, variable or config file
  3  this host cannot run the tracer; 'tracer doctor' says why";

fn command() -> clap::Command {
    let run = SETTINGS.iter().map(|setting| {
        let mut help = setting.help.to_owned();
        if let Some(variable) = setting.variables.first() {
            help = format!("{help} [env: {variable}]");
        }
        let mut arg = Arg::new(setting.flag)
            .long(setting.flag)
            .value_name(setting.value)
            .help(help)
            .help_heading(setting.group)
            .action(ArgAction::Append)
            .allow_hyphen_values(false);
        if let Some(alias) = setting.alias {
            arg = arg.visible_alias(alias);
        }
        if !setting.possible.is_empty() {
            arg = arg.value_parser(PossibleValuesParser::new(setting.possible));
        }
        arg
    });
    let config = Arg::new("config")
        .long("config")
        .value_name("FILE")
        .help("Read this YAML file [env: TRACER_CONFIG]")
        .value_parser(value_parser!(PathBuf));
    let json = Arg::new("json")
        .long("json")
        .action(ArgAction::SetTrue)
        .help("Print the findings as JSON");
    clap::Command::new("tracer")
        .version(env!("CARGO_PKG_VERSION"))
        .styles(Styles::plain())
        .about(ABOUT)
        .long_about(LONG_ABOUT)
        .after_help("Run 'tracer --help' for examples and exit codes.")
        .after_long_help(AFTER)
        .arg(config)
        .args(run)
        .args_conflicts_with_subcommands(true)
        .disable_help_subcommand(true)
        .subcommand(
            clap::Command::new("doctor")
                .about("Say what this kernel and these privileges allow, what is missing, and the remedy")
                .arg(json),
        )
        .subcommand(
            clap::Command::new("replay")
                .about("Decide the parents of a recorded run once more, and print its spans, one a line as JSON")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .required(true)
                        .help("What 'tracer --record FILE' has written")
                        .value_parser(value_parser!(PathBuf)),
                ),
        )
        .subcommand(
            clap::Command::new("explain")
                .about("Say why spans have their parents: which evidence chose them, and what the other candidates were")
                .arg(
                    Arg::new("file")
                        .value_name("FILE")
                        .required(true)
                        .help("What 'tracer --format json --explain true' has printed")
                        .value_parser(value_parser!(PathBuf)),
                )
                .arg(
                    Arg::new("id")
                        .value_name("ID")
                        .required(true)
                        .help("A span's id or a trace's, or how it begins"),
                ),
        )
}
