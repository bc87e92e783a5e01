//! Everything that `cargo xtask test` does: installs what is missing, builds, runs the unit tests and the end-to-end tests.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::{install, shell};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub struct Args {
    /// Only the unit tests (they need neither root nor packages)
    #[arg(long)]
    unit: bool,
    /// Only the end-to-end tests, or those of them whose name contains FILTER
    #[arg(long, value_name = "FILTER", num_args = 0..=1, default_missing_value = "", conflicts_with = "unit")]
    e2e: Option<String>,
    /// Install nothing; fail where something is missing
    #[arg(long)]
    no_install: bool,
    /// Tests that skip themselves (no root, no kernel BTF) are no failure
    #[arg(long)]
    allow_skips: bool,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<()> {
    let target = shell::target_dir()?;
    fs::create_dir_all(&target)?;
    let skips = target.join("test-skips.txt");
    fs::write(&skips, "")?;

    if !args.unit && !args.no_install {
        step("what the tests need", || install::everything(&target))?;
    }
    if args.e2e.is_none() {
        step("unit tests", || {
            let mut tests = shell::cargo();
            tests.args(["test", "--workspace", "--lib", "--bins"]);
            if !args.unit {
                tests.env("TRACER_TEST_SKIPS", &skips);
                // Where a Go was installed for the tests.
                let programs = target.join("test-venv").join("bin");
                if programs.join("go").exists() {
                    let path = std::env::var_os("PATH").unwrap_or_default();
                    let path = std::iter::once(programs).chain(std::env::split_paths(&path));
                    tests.env("PATH", std::env::join_paths(path)?);
                }
            }
            shell::run(&mut tests)?;
            shell::run(shell::cargo().args(["test", "--workspace", "--doc", "--quiet"]))
        })?;
    }
    if !args.unit {
        step("build", || {
            shell::run(shell::cargo().args(["build", "--workspace", "--bins"]))
        })?;
        step("end-to-end tests", || end_to_end(args.e2e.as_deref(), &skips))?;
    }
    report_skips(&skips, args.allow_skips)
}

/// Runs the tests on the kernel and with real programs, one at a time, as root.
///
/// Always with `--workspace`: with one package selected, cargo would build the dependencies again with that package's features.
fn end_to_end(filter: Option<&str>, skips: &Path) -> Result<()> {
    let mut cargo = shell::cargo();
    cargo
        .args(["test", "--workspace", "--no-fail-fast"])
        .env("TRACER_TEST_SKIPS", skips);
    for name in integration_tests(&shell::metadata()?) {
        cargo.arg("--test").arg(name);
    }
    cargo
        .args(["--", "--test-threads=1"])
        .args(filter.filter(|filter| !filter.is_empty()));
    if !shell::is_root() {
        // Cargo starts the test executables through the runner, so that only they run as root.
        let target = shell::output(shell::command("rustc").args(["--print", "host-tuple"]))?;
        let target = target.trim().replace('-', "_").to_uppercase();
        cargo.env(format!("CARGO_TARGET_{target}_RUNNER"), "sudo -E");
    }
    shell::run(&mut cargo)
}

/// The names of the workspace's integration tests (`tests/` of each package).
fn integration_tests(metadata: &serde_json::Value) -> Vec<String> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let targets = list(&metadata["packages"])
        .into_iter()
        .flat_map(|package| list(&package["targets"]));
    let tests = targets.filter(|target| list(&target["kind"]).iter().any(|kind| kind == "test"));
    tests
        .filter_map(|target| target["name"].as_str().map(str::to_owned))
        .collect()
}

fn step(name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
    eprintln!("==> {name}");
    let start = Instant::now();
    work().with_context(|| name.to_owned())?;
    eprintln!("==> {name}: {:.0} s", start.elapsed().as_secs_f64());
    Ok(())
}

/// Tests record in `TRACER_TEST_SKIPS` why they did not run.
fn report_skips(path: &Path, allowed: bool) -> Result<()> {
    let skips = fs::read_to_string(path)?;
    if skips.is_empty() {
        eprintln!("==> no test was skipped");
        return Ok(());
    }
    eprintln!("==> skipped:\n{skips}");
    if allowed {
        return Ok(());
    }
    bail!(
        "{} tests were skipped (--allow-skips accepts that)",
        skips.lines().count()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integration_tests_are_found() {
        let metadata = serde_json::json!({"packages": [
            {"targets": [{"kind": ["lib"], "name": "a"}, {"kind": ["test"], "name": "b"}]},
            {"targets": [{"kind": ["test"], "name": "c"}, {"kind": ["bench"], "name": "d"}]},
        ]});
        assert_eq!(integration_tests(&metadata), ["b", "c"]);
    }

    #[test]
    fn skips_fail_unless_allowed() {
        let path = std::env::temp_dir().join(format!("xtask-skips-{}", std::process::id()));
        fs::write(&path, "").expect("a file");
        report_skips(&path, false).expect("nothing was skipped");
        fs::write(&path, "a: no root\n").expect("a file");
        report_skips(&path, true).expect("allowed");
        report_skips(&path, false).expect_err("not allowed");
        fs::remove_file(&path).expect("remove the file");
    }
}
