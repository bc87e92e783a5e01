//! The causality judge: parents of real applications, scored against markers that the tracer can't read anything from.
//!
//! With the other tests each style runs once, at a moderate concurrency, and must reach its floor. `cargo xtask accuracy` sets
//! `TRACER_ACCURACY` to a file: then every style runs at one concurrency after the other, before one daemon, and writes its scores there; `TRACER_ACCURACY_STYLES` (a
//! list with commas) and `TRACER_ACCURACY_CONCURRENCY` select some, and `TRACER_ACCURACY_REQUESTS` is how many requests there are at most.
//! `TRACER_ACCURACY_RECORD` is a directory for what `tracer replay` decides once more.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tracer_tests::apps::{App, Setup, Start, apache, haproxy, mesh as apps, nginx, postgresql, redis};
use tracer_tests::client::drive;
use tracer_tests::judge::Score;
use tracer_tests::mesh::{KEY, Shape, Tally, first, spans_with_parents, tally, thread_rule};
use tracer_tests::{Host, Selection, Spans};

/// A style of an application: its path, what it does, and the least recall in the reduced set. No parent may be wrong there.
struct Style {
    path: &'static str,
    shape: Shape,
    recall: f64,
    /// What tells the parents is learned at work: it has some before it is judged.
    learned: bool,
}

const fn style(path: &'static str, shape: Shape, recall: f64) -> Style {
    Style {
        path,
        shape,
        recall,
        learned: false,
    }
}

const fn calls(path: &'static str, calls: usize, recall: f64) -> Style {
    style(path, Shape::Calls(calls), recall)
}

const fn learned(path: &'static str, calls: usize, recall: f64) -> Style {
    Style {
        learned: true,
        ..style(path, Shape::Calls(calls), recall)
    }
}

/// With one call more after the answer.
const fn late(path: &'static str, calls: usize, recall: f64) -> Style {
    style(path, Shape::Late(calls), recall)
}

/// With a query and a look-up in a cache.
const fn stores(path: &'static str, calls: usize, recall: f64) -> Style {
    style(path, Shape::Stores(calls), recall)
}

/// Calls that name what the request names.
const fn named(path: &'static str, calls: usize, recall: f64) -> Style {
    style(path, Shape::Named(calls), recall)
}

impl Style {
    /// What the `n`th request asks for. There are so many orders that others have the same one at the same time.
    fn target(&self, n: u64) -> String {
        match self.shape {
            Shape::Named(_) => format!("/{}/o{}/{}", self.path, n % 61, first(n)),
            _ => format!("/{}/{}", self.path, first(n)),
        }
    }
}

/// Concurrency and number of requests.
const REDUCED: &[(usize, u64)] = &[(16, 200)];
const FULL: &[(usize, u64)] = &[(1, 60), (10, 240), (50, 600), (200, 800)];
/// Requests before the daemon starts, at the highest concurrency, so that connections are there, and what is compiled late is.
const WARM_UP: u64 = 300;
/// And after it started, for styles that are learned: so many times, with so much time between.
const LESSONS: (u32, Duration) = (8, Duration::from_millis(300));

/// Where the scores of a full run go.
fn results() -> Option<PathBuf> {
    std::env::var_os("TRACER_ACCURACY").map(PathBuf::from)
}

/// Whether a variable that selects is not set, or names it.
fn selected(variable: &str, name: &str) -> bool {
    std::env::var(variable).map_or(true, |list| list.split(',').any(|selected| selected == name))
}

fn check(runtime: &str, start: Start, styles: &[Style]) {
    check_with(runtime, start, styles, "off");
}

/// With what times alone may decide (`--infer`).
fn check_with(runtime: &str, start: Start, styles: &[Style], infer: &str) {
    let Some(host) = Host::ready() else { return };
    let leaf = apps::go(Setup::named("a"));
    let branch = apps::go(setup("b", &leaf, &leaf));
    let mut entry = setup("entry", &leaf, &branch).calling(&leaf);
    let asks_stores = |style: &Style| {
        matches!(style.shape, Shape::Stores(_)) && selected("TRACER_ACCURACY_STYLES", style.path)
    };
    let mut stores = Vec::new();
    if styles.iter().any(asks_stores) {
        stores.extend([postgresql(Setup::default()), redis(Setup::default())]);
        entry = entry
            .env("PG", &stores[0].postgresql_url())
            .env("REDIS", &stores[1].redis_url());
    }
    let entry = start(entry);
    let loads = if results().is_some() { FULL } else { REDUCED };
    let most = std::env::var("TRACER_ACCURACY_REQUESTS")
        .map_or(u64::MAX, |most| most.parse().expect("a number of requests"));
    let loads: Vec<(usize, u64)> = loads
        .iter()
        .copied()
        .filter(|(concurrency, _)| selected("TRACER_ACCURACY_CONCURRENCY", &concurrency.to_string()))
        .collect();
    let widest = loads
        .iter()
        .map(|&(concurrency, _)| concurrency)
        .max()
        .unwrap_or(1);
    let mut misses = String::new();
    let mut number = 0;
    for style in styles
        .iter()
        .filter(|style| selected("TRACER_ACCURACY_STYLES", style.path))
    {
        let mut run = |concurrency, requests| {
            let numbers = number..number + requests;
            number += requests;
            drive(entry.entrance, concurrency, numbers.clone(), |client, n| {
                let record = client.get(&style.target(n));
                assert_eq!(record.status, 200, "{record:?}");
                record
            });
            numbers
        };
        run(widest, WARM_UP);
        let apps = [&leaf, &branch, &entry].into_iter().chain(&stores);
        let mut selection = Selection::of(&apps.collect::<Vec<_>>())
            .with("--explain", "true")
            .with("--probes", "auto")
            .with("--infer", infer);
        if let [_, redis] = &stores[..] {
            selection = selection.with("--exclude-pid", &redis.program.pid().to_string());
        }
        if let Some(directory) = std::env::var_os("TRACER_ACCURACY_RECORD") {
            let file = path_for(&directory, &format!("{runtime} {}", style.path));
            selection = selection.with("--record", &file.to_string_lossy());
        }
        let tracer = host.trace(&selection);
        for _ in 0..if style.learned { LESSONS.0 } else { 0 } {
            run(widest, WARM_UP);
            thread::sleep(LESSONS.1);
        }
        let runs: Vec<_> = loads
            .iter()
            .map(|&(concurrency, requests)| (concurrency, run(concurrency, requests.min(most))))
            .collect();
        if let Shape::Late(_) = style.shape {
            // What comes after the last answers is not over with them.
            thread::sleep(Duration::from_secs(1));
        }
        let spans = tracer.finish().spans;
        for (concurrency, numbers) in runs {
            // A run with a span that is missing has no score; in a full run the others have.
            let score = || score(runtime, &entry.service, style, concurrency, &spans, numbers);
            match results() {
                None => misses.push_str(&score()),
                Some(_) => match catch_unwind(AssertUnwindSafe(score)) {
                    Ok(of_run) => misses.push_str(&of_run),
                    Err(_) => _ = writeln!(misses, "{} at {concurrency}: no score", style.path),
                },
            }
        }
    }
    assert!(misses.is_empty(), "{runtime}:\n{misses}");
}

/// Scores one run and tells it; returns what is not as it must be in the reduced set.
fn score(
    runtime: &str,
    entry: &str,
    style: &Style,
    concurrency: usize,
    spans: &Spans,
    numbers: Range<u64>,
) -> String {
    let score = tally(spans, entry, style.shape, numbers.clone().map(first));
    let plain = thread_rule(spans, entry, style.shape, numbers.clone().map(first));
    if let Some(directory) = std::env::var_os("TRACER_ACCURACY_SPANS") {
        let lines = spans_with_parents(spans, entry, style.shape, numbers.map(first));
        let name = format!("{runtime} {} {concurrency}", style.path);
        keep(&directory, &name, &lines);
    }
    eprintln!("{}", line(runtime, style.path, concurrency, &score, &plain));
    if let Some(path) = results() {
        record(&path, runtime, style.path, concurrency, &score, &plain);
        return String::new();
    }
    let is_good = score.calls.wrong == 0
        && is_calibrated(&score)
        && score.across.0 == score.across.1
        && score.calls.recall() >= style.recall;
    if is_good {
        return String::new();
    }
    format!("{}: {score:?}, recall must be {}\n", style.path, style.recall)
}

/// Of what is said to be likely, so much is right, with a margin for what chance does to few.
fn is_calibrated(score: &Tally) -> bool {
    let least = [
        ("0.8 to 0.9", 0.5),
        ("0.9 to 0.99", 0.7),
        ("0.99 to 0.999", 0.9),
        ("above 0.999", 0.97),
    ];
    least.iter().all(|(class, least)| {
        let (right, all) = score.by_probability.get(class).copied().unwrap_or_default();
        all < 30 || right as f64 >= least * all as f64
    })
}

/// Writes a set of spans, for `cargo xtask accuracy --offline`.
fn keep(directory: &OsStr, name: &str, lines: &[serde_json::Value]) {
    let mut text = lines
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    text.push('\n');
    std::fs::write(path_for(directory, name), text).expect("write the spans");
}

fn path_for(directory: &OsStr, name: &str) -> PathBuf {
    let name = name.replace(['/', ' '], "-");
    PathBuf::from(directory).join(format!("{name}.jsonl"))
}

fn setup(name: &str, leaf: &App, branch: &App) -> Setup {
    Setup::named(name)
        .env("A", &leaf.url())
        .env("B", &branch.url())
        .env("MARKER_KEY", KEY)
}

fn line(runtime: &str, style: &str, concurrency: usize, score: &Tally, plain: &Score) -> String {
    format!(
        "{runtime} {style} at {concurrency}: precision {:.4}, recall {:.4}, whole traces {:.4}, {:?}{}; \
         thread rule: precision {:.4}, recall {:.4}",
        score.calls.precision(),
        score.calls.recall(),
        score.whole_traces(),
        score.by_evidence,
        if score.by_probability.is_empty() {
            String::new()
        } else {
            format!(", by probability {:?}", score.by_probability)
        },
        plain.precision(),
        plain.recall(),
    )
}

fn record(path: &PathBuf, runtime: &str, style: &str, concurrency: usize, score: &Tally, plain: &Score) {
    let line = serde_json::json!({
        "runtime": runtime,
        "style": style,
        "concurrency": concurrency,
        "right": score.calls.right,
        "wrong": score.calls.wrong,
        "missing": score.calls.missing,
        "across_right": score.across.0,
        "across": score.across.1,
        "whole_right": score.whole.0,
        "whole": score.whole.1,
        "by_evidence": score.by_evidence,
        "by_probability": score.by_probability,
        "thread_rule": {"right": plain.right, "wrong": plain.wrong, "missing": plain.missing},
    });
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("the file of the scores");
    writeln!(file, "{line}").expect("write the scores");
}

/// Below `each` a reply is often there before anybody has to wait for it. Each worker's first job may be ambiguous: `orders`.
#[test]
fn go() {
    check(
        "Go",
        apps::go,
        &[
            calls("seq", 3, 0.99),
            calls("par", 3, 0.99),
            calls("sleep", 2, 0.99),
            calls("cpu", 2, 0.99),
            calls("nested", 4, 0.97),
            calls("deep", 2, 0.97),
            calls("errgroup", 3, 0.97),
            calls("channel", 3, 0.97),
            calls("limit", 4, 0.97),
            calls("within", 4, 0.97),
            calls("pool", 2, 0.95),
            calls("again", 2, 0.95),
            calls("orders", 2, 0.85),
            calls("queues", 2, 0.85),
            calls("batch", 2, 0.95),
            calls("tasks", 2, 0.95),
            calls("each", 2, 0.75),
            stores("stores", 2, 0.97),
            stores("storespar", 2, 0.97),
        ],
    );
}

/// Nothing tells whose replies come over a channel that all requests share: nobody is to be taken for the one who waits there.
#[test]
fn go_routed() {
    check(
        "Go, one channel for all replies",
        apps::go,
        &[calls("routed", 2, 0.0)],
    );
}

/// That the recipe holds for a version.
const NODE_SHORT: &[Style] = &[
    calls("seq", 3, 0.98),
    calls("sleep", 2, 0.93),
    calls("timer", 2, 0.93),
    stores("stores", 2, 0.95),
    stores("storespar", 2, 0.95),
];

const NODE: &[Style] = &[
    calls("seq", 3, 0.98),
    calls("par", 3, 0.98),
    calls("sleep", 2, 0.95),
    calls("cpu", 2, 0.98),
    calls("nested", 4, 0.98),
    calls("timer", 2, 0.93),
    calls("file", 2, 0.96),
    calls("dns", 2, 0.98),
    calls("worker", 2, 0.96),
    calls("fetchseq", 3, 0.95),
    calls("fetchpar", 3, 0.95),
    stores("stores", 2, 0.97),
    stores("storespar", 2, 0.95),
];

#[test]
fn node() {
    check("Node", apps::node, NODE);
}

#[test]
fn node_versions() {
    check("Node 22", apps::node22, NODE_SHORT);
    check("Node 24", apps::node24, NODE_SHORT);
    check("Node 26", apps::node26, NODE_SHORT);
}

#[test]
fn python_threads() {
    check(
        "Python threads",
        apps::python_threads,
        &[
            calls("seq", 3, 0.99),
            calls("par", 3, 0.97),
            calls("one", 2, 0.97),
            stores("stores", 2, 0.97),
            stores("storespar", 2, 0.95),
            calls("sleep", 2, 0.99),
            calls("cpu", 2, 0.99),
        ],
    );
}

#[test]
fn python_gunicorn_gthread() {
    check(
        "Python gunicorn gthread",
        apps::python_gthread,
        &[
            calls("seq", 3, 0.99),
            calls("sleep", 2, 0.99),
            calls("map", 3, 0.97),
        ],
    );
}

#[test]
fn python_gunicorn_sync() {
    check(
        "Python gunicorn sync",
        apps::python_sync,
        &[calls("seq", 3, 0.99)],
    );
}

#[test]
fn python_asyncio() {
    check(
        "Python aiohttp",
        apps::python_aiohttp,
        &[
            calls("seq", 3, 0.97),
            calls("par", 3, 0.97),
            calls("sleep", 2, 0.97),
            calls("cpu", 2, 0.97),
            calls("nested", 4, 0.97),
            calls("group", 3, 0.97),
            calls("spawn", 4, 0.97),
            calls("executor", 3, 0.97),
            calls("tasks", 3, 0.97),
            calls("named", 3, 0.97),
            calls("within", 4, 0.97),
            calls("beside", 3, 0.6),
            late("late", 2, 0.97),
            stores("stores", 2, 0.95),
            stores("storespar", 2, 0.95),
        ],
    );
}

/// What is the same on every Java, whatever serves.
const JAVA: [Style; 4] = [
    calls("seq", 3, 0.99),
    calls("sleep", 2, 0.99),
    calls("cpu", 2, 0.99),
    calls("send", 3, 0.98),
];

/// A thread waits for what others do for it.
const JAVA_ASYNC: [Style; 11] = [
    calls("par", 3, 0.97),
    calls("asyncjoin", 3, 0.85),
    calls("async", 3, 0.85),
    calls("compose", 3, 0.9),
    calls("supply", 2, 0.95),
    calls("supplysend", 2, 0.9),
    calls("common", 2, 0.97),
    calls("submit", 3, 0.9),
    calls("invokeall", 3, 0.9),
    calls("joins", 3, 0.9),
    calls("combine", 2, 0.97),
];

#[test]
fn python_uvicorn() {
    check(
        "Python uvicorn",
        apps::python_uvicorn,
        &[
            calls("seq", 3, 0.97),
            calls("par", 3, 0.97),
            calls("sleep", 2, 0.97),
            calls("nested", 4, 0.97),
            calls("group", 3, 0.97),
            calls("spawn", 4, 0.97),
            calls("executor", 3, 0.97),
            calls("tasks", 3, 0.97),
            calls("sync", 2, 0.97),
        ],
    );
}

#[test]
fn python_uvloop() {
    check(
        "Python uvicorn on uvloop",
        apps::python_uvloop,
        &[
            calls("seq", 3, 0.97),
            calls("par", 3, 0.97),
            calls("sleep", 2, 0.97),
            calls("group", 3, 0.97),
            calls("tasks", 3, 0.97),
            calls("sync", 2, 0.97),
        ],
    );
}

#[test]
fn python_middleware() {
    check(
        "Python uvicorn, middleware",
        apps::python_middleware,
        &[
            calls("seq", 3, 0.97),
            calls("par", 3, 0.97),
            calls("sync", 2, 0.97),
        ],
    );
}

#[test]
fn java() {
    check("Java pool", apps::java, &JAVA);
    check("Java pool", apps::java, &JAVA_ASYNC);
}

/// Below `later` a thread of the application's calls, and a third one answers: the job that calls has the asynchronous request.
#[test]
fn java_tomcat() {
    check("Tomcat", apps::java_tomcat, &JAVA);
    check(
        "Tomcat",
        apps::java_tomcat,
        &[calls("later/seq", 3, 0.97), calls("supply", 2, 0.95)],
    );
    if results().is_some() {
        check("Tomcat", apps::java_tomcat, &JAVA_ASYNC);
    }
}

/// Loops read and answer; what workers call is for the connection that their job names. Below `loop` the loops call themselves.
#[test]
fn java_netty() {
    check(
        "Netty",
        apps::java_netty,
        &[
            calls("seq", 3, 0.97),
            calls("send", 3, 0.97),
            late("late", 2, 0.95),
            late("after", 0, 0.0),
        ],
    );
    check(
        "Netty's loops",
        apps::java_netty,
        &[
            calls("loop/seq", 3, 0.9),
            calls("loop/par", 3, 0.8),
            calls("loop/task", 3, 0.6),
            calls("loop/back", 3, 0.0),
        ],
    );
}

/// What no rule tells, by times alone: links, of which as many are right as they say; parents where they have shown that they are.
#[test]
fn times_alone() {
    check_with(
        "Netty, by times",
        apps::java_netty,
        &[calls("untold/seq", 3, 0.0), named("named", 3, 0.0)],
        "links",
    );
    check_with(
        "tokio, by times",
        apps::rust,
        &[calls("mapped", 3, 0.55)],
        "parents",
    );
    check_with(
        "Node, by times",
        apps::node,
        &[calls("sleep", 2, 0.45)],
        "parents",
    );
}

#[test]
fn java_virtual() {
    check("Java 25 virtual", apps::java25_virtual, &JAVA);
    if results().is_some() {
        check("Java 25 virtual", apps::java25_virtual, &JAVA_ASYNC);
        check("Java 21 virtual", apps::java21_virtual, &JAVA);
        check("Java 25 pool", apps::java25, &JAVA);
        check("Java 25 pool", apps::java25, &JAVA_ASYNC);
    }
}

const fn proxy(recall: f64) -> Style {
    style("pass/leaf", Shape::Proxy, recall)
}

#[test]
fn nginx_proxy() {
    check("nginx", nginx, &[proxy(0.95)]);
}

/// To PHP-FPM, over FastCGI: each of nginx's connections is for one request.
#[test]
fn nginx_fastcgi() {
    check("nginx to PHP-FPM", apps::nginx_fastcgi, &[leaf(0.97)]);
}

/// Likewise, as Debian sets it up.
#[test]
fn nginx_fastcgi_unix() {
    check(
        "nginx to PHP-FPM, Unix socket",
        apps::nginx_fastcgi_unix,
        &[leaf(0.97)],
    );
}

const fn leaf(recall: f64) -> Style {
    style("leaf", Shape::Proxy, recall)
}

#[test]
fn php_fpm() {
    check(
        "PHP-FPM",
        apps::php_fpm,
        &[
            calls("seq", 3, 0.97),
            calls("par", 3, 0.97),
            calls("sleep", 2, 0.97),
            calls("cpu", 2, 0.97),
            calls("kept", 3, 0.97),
            late("late", 2, 0.97),
        ],
    );
}

#[test]
fn apache_proxy() {
    check("Apache", apache, &[proxy(0.99)]);
}

/// Each of its threads shows a dozen pairs before it is believed.
#[test]
fn haproxy_proxy() {
    let proxy = Style {
        learned: true,
        ..proxy(0.95)
    };
    check("HAProxy", haproxy, &[proxy]);
}

/// The calls of requests that waited have no parents until its workers were seen idle 32 times.
#[test]
fn c_pool() {
    check(
        "C pool",
        apps::c_pool,
        &[
            late("late", 2, 0.9),
            calls("seq", 3, 0.8),
            calls("sleep", 2, 0.8),
            calls("cpu", 2, 0.6),
            learned("helped", 2, 0.9),
        ],
    );
}

const TOKIO: &[Style] = &[
    calls("seq", 3, 0.97),
    calls("par", 3, 0.97),
    calls("sleep", 2, 0.97),
    calls("cpu", 2, 0.97),
    calls("timeout", 2, 0.97),
    calls("unordered", 3, 0.97),
    calls("buffered", 3, 0.97),
    calls("spawn", 3, 0.97),
    calls("set", 3, 0.97),
    learned("ordered", 3, 0.5),
    calls("nested", 4, 0.97),
];

#[test]
fn rust_tokio() {
    check("Rust tokio", apps::rust, TOKIO);
}

#[test]
fn rust_current_thread() {
    check("Rust tokio, one thread", apps::rust_current_thread, TOKIO);
}

/// That each of its workers is tokio.
const ACTIX_SHORT: &[Style] = &[
    calls("seq", 3, 0.95),
    calls("par", 3, 0.95),
    calls("sleep", 2, 0.95),
    calls("spawn", 3, 0.95),
    learned("ordered", 3, 0.5),
    calls("nested", 4, 0.95),
];

#[test]
fn rust_actix() {
    let styles = if results().is_some() { TOKIO } else { ACTIX_SHORT };
    check("Rust actix-web", apps::rust_actix, styles);
}

/// `par` makes a thread for each call. `pool` has a queue: that following who wakes whom is worth while shows at work.
#[test]
fn rust_blocking() {
    check(
        "Rust threads",
        apps::rust_blocking,
        &[
            calls("seq", 3, 0.99),
            calls("sleep", 2, 0.99),
            calls("cpu", 2, 0.99),
            calls("par", 3, 0.95),
            learned("pool", 2, 0.6),
        ],
    );
}

/// Threads that wait for a lock, too, are not to be taken for those that wait for replies.
#[test]
fn rust_locks() {
    check(
        "Rust threads with a lock",
        apps::rust_blocking,
        &[learned("locks", 2, 0.0)],
    );
}

/// Its threads that are made for a call run on threads that were there before.
#[test]
fn ruby_puma() {
    check(
        "Ruby Puma",
        apps::puma,
        &[
            calls("seq", 3, 0.99),
            calls("par", 3, 0.0),
            calls("sleep", 2, 0.99),
            calls("cpu", 2, 0.99),
        ],
    );
}

#[test]
fn ruby_puma_with_threads() {
    check(
        "Ruby 3.3 Puma",
        apps::puma_with_threads,
        &[
            calls("seq", 3, 0.99),
            calls("par", 3, 0.95),
            calls("sleep", 2, 0.99),
            calls("cpu", 2, 0.99),
        ],
    );
}
