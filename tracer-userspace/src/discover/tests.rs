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

#[test]
fn this_process_is_known_and_not_selected() {
    let mut processes = Processes::new(Selection::default(), Host::read());
    let own = processes.service(std::process::id());
    assert_eq!(
        (own.tgid, own.language, own.selected),
        (std::process::id(), Language::Rust, false)
    );
}
