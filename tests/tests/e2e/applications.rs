//! The applications themselves, without the tracer: what fails here is not the tracer's fault.

use tracer_tests::Client;
use tracer_tests::apps::{self, Setup, Start};

fn answers(start: Start, paths: &[&str]) {
    let next = apps::nginx(Setup::named("next"));
    let app = start(Setup::named("app").calling(&next));
    for path in paths {
        let mut client = Client::connect(app.port);
        let record = client.get(&format!("{path}/7"));
        assert_eq!((record.status, record.received), (200, 8), "{path}");
    }
    let mut client = Client::connect(app.port);
    assert_eq!(client.get("/status/404").status, 404);
    assert_eq!(Client::connect(app.port).get("/status/503").status, 503);
}

macro_rules! applications {
    ($($name:ident: $($path:literal),+;)+) => {
        $(#[test] fn $name() { answers(apps::$name, &[$($path),+]); })+
    };
}

applications! {
    nginx: "/hello", "/call";
    apache: "/hello", "/call";
    go: "/hello", "/call", "/fanout";
    node: "/hello", "/call", "/fetch";
    python_http: "/hello", "/call";
    flask: "/hello", "/call";
    flask_sync: "/hello", "/call";
    java: "/hello", "/call", "/client";
    ruby: "/hello", "/call";
}

#[test]
fn databases() {
    let postgresql = apps::postgresql(Setup::named("postgresql"));
    let redis = apps::redis(Setup::named("redis"));
    let setup = Setup::named("app")
        .env("PG", &postgresql.postgresql_url())
        .env("REDIS", &redis.redis_url());
    let app = apps::flask(setup);
    let mut client = Client::connect(app.port);
    assert_eq!(client.get("/db/3").status, 200);
    assert_eq!(client.get("/dberror/3").status, 500);
    let unix = Setup::named("app")
        .env("PG", &postgresql.postgresql_unix())
        .env("REDIS", &redis.redis_url());
    assert_eq!(Client::connect(apps::flask(unix).port).get("/db/4").status, 200);
}

#[test]
fn addresses() {
    let app = apps::nginx(Setup::named("app"));
    assert_eq!(Client::to(app.ipv6()).get("/hello/7").status, 200);
    assert_eq!(
        Client::unix(&app.program.dir.path().join("nginx.sock"))
            .get("/hello/7")
            .status,
        200
    );
}
