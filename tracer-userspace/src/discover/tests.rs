//! Tables of processes, from trees that look like procfs.

use super::*;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

struct Tree(PathBuf);

impl Tree {
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("tracer-discover-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&root).unwrap();
        Self(root)
    }

    /// A process; arguments and variables are separated by `|`.
    fn process(&self, pid: u32, exe: &str, args: &str, environ: &str, cgroup: &str, cwd: &str) {
        let dir = self.0.join(pid.to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let stat = format!(
            "{pid} (a (b) c) S 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {} 0 0",
            pid * 10
        );
        std::fs::write(dir.join("stat"), stat).unwrap();
        std::fs::write(dir.join("cmdline"), args.replace('|', "\0") + "\0").unwrap();
        std::fs::write(dir.join("environ"), environ.replace('|', "\0") + "\0").unwrap();
        std::fs::write(dir.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
        for link in ["exe", "cwd"] {
            let _ = std::fs::remove_file(dir.join(link));
        }
        symlink(exe, dir.join("exe")).unwrap();
        symlink(cwd, dir.join("cwd")).unwrap();
    }

    /// A process that another one forked, from a program that exists.
    fn fork(&self, pid: u32, parent: u32, exe: &Path, title: &str) {
        self.process(pid, exe.to_str().unwrap(), title, "", "/", "/");
        let stat = self.0.join(pid.to_string()).join("stat");
        let text = std::fs::read_to_string(&stat).unwrap();
        let text = text.replace("S 1 1 1 0 -1 0", &format!("S {parent} 1 1 0 -1 4194624"));
        std::fs::write(stat, text).unwrap();
    }

    fn processes(&self) -> Processes {
        Processes::new(
            Selection::default(),
            Host::read_from(&self.0, Path::new("/nowhere")),
        )
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Executable, arguments, environment, control group, current directory, name.
type Row = (
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
    &'static str,
);

const PY: &str = "/x/bin/python3.11";
const NODE: &str = "/x/bin/node";
const JAVA: &str = "/x/bin/java";
const RUBY: &str = "/x/bin/ruby3.1";

const NAMES: &[Row] = &[
    ("/x/nginx", "nginx: worker process", "", "/", "/", "nginx"),
    (
        "/x/postgres",
        "postgres: user db 127.0.0.1(4) idle",
        "",
        "/",
        "/",
        "postgres",
    ),
    (
        "/x/redis-server (deleted)",
        "redis-server *:6379",
        "",
        "/",
        "/",
        "redis-server",
    ),
    (
        "/x/nginx",
        "nginx",
        "OTEL_SERVICE_NAME=edge",
        "/system.slice/nginx.service",
        "/",
        "edge",
    ),
    (
        "/x/nginx",
        "nginx",
        "OTEL_RESOURCE_ATTRIBUTES=a=b,service.name=my%20edge",
        "/",
        "/",
        "my edge",
    ),
    ("/x/nginx", "nginx", "", "/system.slice/web.service", "/", "web"),
    (
        "/x/nginx",
        "nginx",
        "",
        "/user.slice/user-1.slice/session-1.scope",
        "/",
        "nginx",
    ),
    (PY, "python3|/srv/shop/main.py", "", "/", "/", "shop"),
    (PY, "python3|main.py", "", "/", "/srv/shop", "shop"),
    (
        PY,
        "python3|-u|-W|ignore|orders.py",
        "",
        "/",
        "/srv/shop",
        "orders",
    ),
    (
        PY,
        "python3|-um|http.server|80",
        "",
        "/",
        "/srv/shop",
        "http.server",
    ),
    (
        PY,
        "python3|-m|uvicorn|pay.main:app|--host|0.0.0.0",
        "",
        "/",
        "/",
        "pay",
    ),
    (
        PY,
        "python3|/usr/bin/gunicorn|-b|127.0.0.1:80|shop.wsgi:application",
        "",
        "/",
        "/",
        "shop",
    ),
    (
        PY,
        "python3|/usr/bin/gunicorn|app:app",
        "",
        "/",
        "/srv/basket",
        "basket",
    ),
    (
        PY,
        "python3|/usr/bin/gunicorn|--name|cart|app:app",
        "",
        "/",
        "/srv/basket",
        "cart",
    ),
    (
        PY,
        "gunicorn: worker [shop.wsgi:application]",
        "",
        "/",
        "/",
        "shop",
    ),
    (PY, "python3|/usr/bin/celery|-A|jobs|worker", "", "/", "/", "jobs"),
    (
        PY,
        "python3|manage.py|runserver",
        "DJANGO_SETTINGS_MODULE=store.settings",
        "/",
        "/srv/x",
        "store",
    ),
    (PY, "python3|-c|print()", "", "/", "/", "python"),
    (NODE, "node|/srv/cart/server.js", "", "/", "/", "cart"),
    (
        NODE,
        "node|-r|dotenv/config|checkout.js",
        "",
        "/",
        "/srv/y",
        "checkout",
    ),
    (
        JAVA,
        "java|-Xmx1g|-jar|/app/orders-1.4.2.jar",
        "",
        "/",
        "/",
        "orders",
    ),
    (
        JAVA,
        "java|-jar|/app/orders-1.4.2-SNAPSHOT-exec.jar",
        "",
        "/",
        "/",
        "orders",
    ),
    (JAVA, "java|-cp|a:b|com.acme.shop.Main", "", "/", "/", "shop"),
    (
        JAVA,
        "java|-cp|a:b|com.acme.OrderService|x",
        "",
        "/",
        "/",
        "OrderService",
    ),
    (
        JAVA,
        "java|-Dspring.application.name=pay|-jar|x.jar",
        "",
        "/",
        "/",
        "pay",
    ),
    (
        JAVA,
        "java|-Dotel.service.name=bill|-jar|x.jar",
        "",
        "/",
        "/",
        "bill",
    ),
    (JAVA, "java|kafka.Kafka|server.properties", "", "/", "/", "kafka"),
    (RUBY, "ruby|-W0|/srv/hook.rb", "", "/", "/", "hook"),
    (
        RUBY,
        "puma 6.4.0 (tcp://0.0.0.0:3000) [shop]",
        "",
        "/",
        "/",
        "shop",
    ),
    (RUBY, "puma: cluster worker 0: 12 [shop]", "", "/", "/", "shop"),
    (RUBY, "sidekiq 7.2.0 mail [0 of 5 busy]", "", "/", "/", "mail"),
    ("/x/php-fpm8.2", "php-fpm: pool blog", "", "/", "/", "blog"),
    ("/x/php-fpm8.2", "php-fpm: pool www", "", "/", "/", "php-fpm"),
    (
        "/x/php-fpm8.2",
        "php-fpm: master process (/etc/php.conf)",
        "",
        "/",
        "/",
        "php-fpm",
    ),
    ("/x/php8.2", "php|artisan|serve", "", "/", "/srv/forum", "forum"),
    ("/x/dotnet", "dotnet|/app/Billing.dll", "", "/", "/", "Billing"),
    ("/x/bash", "bash|/dev/fd/3", "", "/", "/", "bash"),
    ("/x/bash", "bash|-c|sleep 1", "", "/", "/", "bash"),
    ("/x/perl", "perl|/srv/report.pl", "", "/", "/", "report"),
    (
        "/srv/ledger/target/release/server",
        "server",
        "",
        "/",
        "/",
        "ledger",
    ),
];

#[test]
fn services_have_the_names_that_their_operators_know() {
    let tree = Tree::new("names");
    for (at, (exe, args, environ, cgroup, cwd, expected)) in NAMES.iter().enumerate() {
        let pid = 100 + at as u32;
        tree.process(pid, exe, args, environ, cgroup, cwd);
        assert_eq!(
            &*tree.processes().service(pid).name,
            *expected,
            "{exe} {args} {environ} {cgroup}"
        );
    }
}

#[test]
fn the_gone_have_a_name_and_the_forgotten_are_read_again() {
    let tree = Tree::new("reuse");
    let mut processes = tree.processes();
    assert_eq!(&*processes.service(7).name, "unknown_service");
    tree.process(8, "/x/nginx", "nginx", "", "/", "/");
    let first = processes.service(8);
    assert!(Arc::ptr_eq(&first, &processes.service(8)));
    tree.process(8, "/x/caddy", "caddy", "", "/", "/");
    processes.forget(8);
    assert_eq!(&*processes.service(8).name, "caddy");
}

/// A process that started `started` clock ticks after boot, with arguments and variables separated by `|`.
fn tell(
    processes: &mut Processes,
    tgid: u32,
    started: u64,
    path: &str,
    args: &str,
    environ: &str,
    at: u64,
) -> bool {
    let executable = path.rsplit('/').next().unwrap_or_default();
    let (arguments, environment) = (args.replace('|', "\0") + "\0", environ.replace('|', "\0") + "\0");
    let facts = ProcessFacts {
        tgid,
        parent: 1,
        started: started * 10_000_000 + 7,
        cgroup: 1,
        is_exec: false,
        comm: b"main",
        executable: executable.as_bytes(),
        path: path.as_bytes(),
        arguments: arguments.as_bytes(),
        environment: environment.as_bytes(),
    };
    processes.told(&facts, at)
}

#[test]
fn who_is_gone_goes_by_what_was_told() {
    let tree = Tree::new("told");
    for (at, (exe, args, environ, _, cwd, expected)) in NAMES.iter().enumerate() {
        // Of what needs files of the process nothing is left.
        let exe = exe.trim_end_matches(" (deleted)");
        if *cwd != "/" || args.contains("/srv") || args.contains("/app") || expected.contains(' ') {
            continue;
        }
        let mut processes = tree.processes();
        let known = *expected == "web"; // by its control group, which nobody could look at
        assert!(!tell(&mut processes, 900 + at as u32, 5, exe, args, environ, 1));
        let service = processes.service(900 + at as u32);
        if !known {
            assert_eq!(&*service.name, *expected, "{exe} {args} {environ}");
        }
        assert!(service.selected);
    }
}

#[test]
fn the_living_are_read_and_the_gone_are_not_taken_for_their_successors() {
    let tree = Tree::new("living");
    let mut processes = tree.processes();
    tree.process(50, "/x/nginx", "nginx", "OTEL_SERVICE_NAME=edge", "/", "/");
    // Its environment holds more than the kernel side could tell.
    assert!(!tell(&mut processes, 50, 500, "/x/nginx", "nginx", "", 1));
    assert_eq!(&*processes.service(50).name, "edge");
    let first = processes.service(50);
    assert!(
        !tell(&mut processes, 50, 500, "/x/nginx", "nginx", "", 2),
        "nothing new"
    );
    assert!(Arc::ptr_eq(&first, &processes.service(50)));
    // The id is another process's already: this one had another program, or began at another time.
    for (tgid, started, path) in [(51, 510, "/x/job"), (52, 519, "/x/caddy")] {
        tree.process(tgid, "/x/caddy", "caddy", "OTEL_SERVICE_NAME=other", "/", "/");
        tell(
            &mut processes,
            tgid,
            started,
            path,
            "x",
            "OTEL_SERVICE_NAME=mine",
            1,
        );
        assert_eq!(&*processes.service(tgid).name, "mine", "{path}");
    }
}

#[test]
fn a_program_has_its_name_until_the_next_one_takes_its_place() {
    let tree = Tree::new("exec");
    let mut processes = tree.processes();
    let told = |processes: &mut Processes, name: &str, at| {
        tell(processes, 60, 5, &format!("/x/{name}"), name, "", at)
    };
    assert!(!told(&mut processes, "a", 10));
    for (at, name) in [(20, "b"), (30, "c")] {
        assert!(told(&mut processes, name, at), "{name}");
    }
    for (at, name) in [(10, "a"), (19, "a"), (20, "b"), (29, "b"), (30, "c"), (90, "c")] {
        assert_eq!(&*processes.service_at(60, at).name, name, "{at}");
    }
    // More programs than are remembered: the oldest are forgotten.
    for at in 4..40 {
        told(&mut processes, &at.to_string(), 10 * at);
    }
    assert_eq!(&*processes.service_at(60, 385).name, "38");
    assert_eq!(&*processes.service_at(60, u64::MAX).name, "39");
    processes.ended(60);
    assert_eq!(
        &*processes.service(60).name,
        "39",
        "its last exchanges are on their way"
    );
}

/// PHP-FPM's workers are services of their own, named after their pools.
#[test]
fn a_rule_about_a_process_holds_for_what_it_forked() {
    let tree = Tree::new("forks");
    let exe = tree.0.join("php-fpm8.2");
    std::fs::write(&exe, "").unwrap();
    tree.process(50, exe.to_str().unwrap(), "php-fpm: master process", "", "/", "/");
    tree.fork(51, 50, &exe, "php-fpm: pool shop");
    tree.fork(52, 51, &exe, "php-fpm: pool blog");
    tree.process(53, exe.to_str().unwrap(), "php-fpm: pool other", "", "/", "/");
    let mut selection = Selection::default();
    selection.include.pids = vec![50];
    let mut processes = Processes::new(selection, Host::read_from(&tree.0, Path::new("/nowhere")));
    let selected = [50, 51, 52, 53].map(|pid| processes.service(pid).selected);
    assert_eq!(selected, [true, true, true, false]);
    assert_ne!(processes.service(51).name, processes.service(50).name);
}

#[test]
fn this_process_is_known_and_not_selected() {
    let mut processes = Processes::new(Selection::default(), Host::read());
    let own = processes.service(std::process::id());
    assert_eq!(
        (own.tgid, own.language, own.selected),
        (std::process::id(), Language::Rust, false)
    );
}
