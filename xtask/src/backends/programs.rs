//! The backends' own programs, from the package registries, at pinned versions, into the user's cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{install, shell};

const JAEGER: &str = "v1.76.0";
const COLLECTOR: &str = "v0.155.0";
const ZIPKIN: &str = "3.6.1";
/// What the judge imports.
const PYTHON: [&str; 4] = [
    "botocore==1.44.5",
    "PyJWT==2.15.1",
    "cryptography==50.0.2",
    "opentelemetry-proto==1.45.2",
];

/// Installs what is missing, and says where it is.
pub fn install() -> Result<PathBuf> {
    install::ensure(&[
        ("java", "default-jre-headless"),
        ("mvn", "maven"),
        ("go", "golang"),
    ])?;
    let folder = cache()?;
    fs::create_dir_all(folder.join("bin"))?;
    step(&folder, &format!("zipkin-{ZIPKIN}.jar"), zipkin)?;
    step(&folder, &format!("bin/jaeger-{JAEGER}"), jaeger)?;
    step(&folder, &format!("bin/collector-{COLLECTOR}"), collector)?;
    step(&folder, "judge-venv/ready-1", judge)?;
    for (name, versioned) in [
        ("jaeger", format!("bin/jaeger-{JAEGER}")),
        ("collector", format!("bin/collector-{COLLECTOR}")),
        ("zipkin.jar", format!("zipkin-{ZIPKIN}.jar")),
    ] {
        let link = folder.join(name);
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(folder.join(versioned), link)?;
    }
    Ok(folder)
}

/// `$XDG_CACHE_HOME/tracer/backends`, outside the repository.
fn cache() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"));
    let base = base
        .or_else(home)
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    Ok(base.join("tracer").join("backends"))
}

/// Makes one thing if it is not there.
fn step(folder: &Path, name: &str, make: fn(&Path, &Path) -> Result<()>) -> Result<()> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    eprintln!("==> {name}, into {}", folder.display());
    make(folder, &path).with_context(|| format!("making {name}"))
}

fn zipkin(folder: &Path, jar: &Path) -> Result<()> {
    let artifact = format!("io.zipkin:zipkin-server:{ZIPKIN}:jar:exec");
    let into = folder.join("zipkin");
    shell::run(
        shell::command("mvn")
            .args(["-q", "-B", "dependency:copy", "-Dtransitive=false"])
            .args([
                format!("-Dartifact={artifact}"),
                format!("-DoutputDirectory={}", into.display()),
            ]),
    )?;
    Ok(fs::rename(
        into.join(format!("zipkin-server-{ZIPKIN}-exec.jar")),
        jar,
    )?)
}

fn go(folder: &Path) -> std::process::Command {
    let mut go = shell::command("go");
    go.current_dir(folder)
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "");
    go
}

/// `go install` refuses a module with `replace` lines, so a module of our own takes over Jaeger's requirements.
fn jaeger(folder: &Path, program: &Path) -> Result<()> {
    let module = format!("github.com/jaegertracing/jaeger@{JAEGER}");
    let build = folder.join("jaeger-build");
    fs::create_dir_all(&build)?;
    let found = shell::output(go(&build).args(["mod", "download", "-json", &module]))?;
    let found: serde_json::Value = serde_json::from_str(&found)?;
    let source = Path::new(found["Dir"].as_str().context("no folder of the module")?);
    let requirements = fs::read_to_string(source.join("go.mod"))?;
    let (_, rest) = requirements.split_once('\n').context("an empty go.mod")?;
    fs::write(build.join("go.mod"), format!("module tracer.test/jaeger\n{rest}"))?;
    fs::write(build.join("go.sum"), fs::read(source.join("go.sum"))?)?;
    shell::run(go(&build).args(["mod", "edit", &format!("-require={module}")]))?;
    let package = format!("github.com/jaegertracing/jaeger/cmd/jaeger@{JAEGER}");
    shell::run(go(&build).args(["get", "-tool", &package]))?;
    let package = "github.com/jaegertracing/jaeger/cmd/jaeger";
    shell::run(
        go(&build)
            .args(["build", "-ldflags", "-s -w", "-o"])
            .arg(program)
            .arg(package),
    )
}

const COLLECTOR_PARTS: &str = "\
dist:
  module: tracer.test/collector
  name: collector
  output_path: .
receivers:
  - gomod: go.opentelemetry.io/collector/receiver/otlpreceiver @
exporters:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter @
extensions:
  - gomod: github.com/open-telemetry/opentelemetry-collector-contrib/extension/bearertokenauthextension @
";

fn collector(folder: &Path, program: &Path) -> Result<()> {
    let build = folder.join("collector-build");
    fs::create_dir_all(&build)?;
    let builder = format!("go.opentelemetry.io/collector/cmd/builder@{COLLECTOR}");
    shell::run(
        go(&build)
            .env("GOBIN", folder.join("bin"))
            .args(["install", &builder]),
    )?;
    fs::write(
        build.join("builder.yaml"),
        COLLECTOR_PARTS.replace('@', COLLECTOR),
    )?;
    let mut generate = shell::command(folder.join("bin/builder"));
    generate
        .current_dir(&build)
        .args(["--skip-compilation", "--config", "builder.yaml"]);
    shell::run(&mut generate)?;
    // What only the tests of a part need may be missing from the proxy; the build says if something that counts is.
    shell::succeeds(go(&build).args(["mod", "tidy", "-e"]));
    shell::run(
        go(&build)
            .args(["build", "-ldflags", "-s -w", "-o"])
            .arg(program)
            .arg("."),
    )
}

fn judge(folder: &Path, stamp: &Path) -> Result<()> {
    let venv = folder.join("judge-venv");
    shell::run(shell::command("python3").args(["-m", "venv"]).arg(&venv))?;
    let mut pip = shell::command(venv.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
    shell::run(pip.args(PYTHON))?;
    Ok(fs::write(stamp, "")?)
}
