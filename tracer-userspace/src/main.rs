//! The `tracer` daemon: parse, plan, run. Exit codes are those of `tracer --help`.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use tracer_userspace::allocator::{self, Allocator};
use tracer_userspace::cli::{self, Command};
use tracer_userspace::config::Config;
use tracer_userspace::discover::{Host, Processes, Selection};
use tracer_userspace::{agent, attach, kernel};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::give_back();
    match cli::parse() {
        Ok(Command::Run(config)) => run(&config),
        Ok(Command::Doctor { json }) => doctor(json),
        Ok(Command::Replay { file }) => replay(&file),
        Ok(Command::Explain { file, id }) => explain(&file, &id),
        Err(exit) => exit.print(),
    }
}

fn run(config: &Config) -> ExitCode {
    log_to_stderr(&config.log_level);
    let plan = match kernel::plan_for_this_host(config.capture.backend.wanted()) {
        Ok(plan) => plan,
        Err(why) => {
            eprintln!("tracer: this host can't be traced\n{why:#}\n'tracer doctor' tells more.");
            return ExitCode::from(cli::EXIT_UNABLE);
        }
    };
    match agent::run(config, &plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tracer: {why:#}");
            ExitCode::from(cli::EXIT_FAILED)
        }
    }
}

fn doctor(json: bool) -> ExitCode {
    let features = kernel::Features::probe();
    let mut report = kernel::report(&features, None);
    // What a verifier takes is known only by asking it.
    if let Some(plan) = kernel::plan(&features, None) {
        let outcome = attach::try_out(&plan).map(attach::Recipes::missing);
        report.tried(outcome.map_err(|why| format!("{why:#}")));
    }
    let budget = std::env::var("TRACER_CPU_BUDGET").ok();
    report.budget(budget.as_deref(), agent::bpf_stats_enabled());
    let census = Processes::new(Selection::default(), Host::read()).census();
    let (text, code) = cli::doctor(&report, &census, json);
    // A closed pipe does not change what was found.
    let _ = std::io::stdout().write_all(text.as_bytes());
    ExitCode::from(code)
}

fn replay(file: &Path) -> ExitCode {
    match agent::replay(file, std::io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("tracer: {why:#}");
            ExitCode::from(cli::EXIT_FAILED)
        }
    }
}

fn explain(file: &Path, id: &str) -> ExitCode {
    match cli::explain(file, id) {
        Ok(text) => {
            // A closed pipe does not change what was found.
            let _ = std::io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(why) => {
            eprintln!("tracer: {why}");
            ExitCode::from(cli::EXIT_FAILED)
        }
    }
}

fn log_to_stderr(level: &str) {
    use std::io::IsTerminal as _;
    let stderr = std::io::stderr();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(level))
        .with_ansi(stderr.is_terminal())
        .with_writer(std::io::stderr)
        .init();
}
