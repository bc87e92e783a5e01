//! Work that requests put off and workers do later, by Celery, rq and a plain list in Redis: what a worker does for a job is linked to
//! what had put it off.

use std::time::{Duration, Instant};

use tracer_tests::apps::{self, App, Setup};
use tracer_tests::client::drive;
use tracer_tests::{Host, Kind, Selection, Span, Spans};

/// The first of them; those before are not judged.
const SETTLED: u64 = 40;

/// How many links of some spans lead to the request of the same marker, to another, and how many spans have none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links {
    right: usize,
    wrong: usize,
    missing: usize,
}

/// The marker of the request that put off what `span` links to.
fn origin(spans: &Spans, span: &Span) -> Option<u64> {
    let [(trace, id)] = &span.links[..] else {
        assert!(span.links.is_empty(), "a job has one origin: {span}");
        return None;
    };
    let put = spans.by_id(id).expect("a link leads to a span");
    assert_eq!((&put.trace_id, put.service.as_str()), (trace, "shop"), "{put}");
    assert!(["LPUSH", "RPUSH"].contains(&put.name.as_str()), "{put}");
    let request = spans
        .by_id(put.parent.as_ref().expect("a request has put it off"))
        .expect("the request's span");
    assert_eq!(request.kind, Kind::Server);
    Some(request.marker().expect("the request's marker"))
}

/// Puts off jobs at `path` from several clients at once, waits until the workers have done them, and counts the links of what they called
/// for, and of what took the jobs.
fn check(
    path: &str,
    takes: &str,
    worker: fn(Setup) -> App,
    workers: usize,
    jobs: u64,
) -> Option<(Links, usize)> {
    let host = Host::ready()?;
    let leaf = apps::go(Setup::named("leaf"));
    let redis = apps::redis(Setup::default());
    let setup = |name| Setup::named(name).env("REDIS", &redis.redis_url()).calling(&leaf);
    let shop = apps::jobs::shop(setup("shop"));
    let workers: Vec<App> = (0..workers).map(|_| worker(setup("worker"))).collect();
    let done = || -> usize {
        let count = |app: &App| app.program.output().matches("done ").count();
        workers.iter().map(count).sum()
    };
    let run = |range: std::ops::Range<u64>| {
        let wanted = range.end as usize;
        drive(shop.port, 8, range, |client, n| {
            let record = client.get(&format!("{path}/{n}"));
            assert_eq!(record.status, 200, "{record:?}");
            record
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while done() < wanted {
            assert!(Instant::now() < deadline, "{} jobs are done", done());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    run(0..20);
    let tracer = host.trace(&Selection::of(&[&shop, &redis, &leaf]));
    // A worker that waited for a job when the daemon came has asked for it unseen.
    run(20..SETTLED);
    run(SETTLED..SETTLED + jobs);
    // Whoever waits for the next job, or listens to orders, does so when the daemon stops.
    let spans = tracer.finish_with_drops(&["abandoned"]).spans;

    let own = spans.service("worker").kind(Kind::Client);
    let calls = own.filter(|span| span.marker() >= Some(SETTLED));
    calls.assert_len(2 * jobs as usize, "calls of the jobs");
    let mut links = Links::default();
    for call in &calls {
        assert_eq!(call.parent, None, "the request is over: {call}");
        match origin(&spans, call) {
            None => links.missing += 1,
            Some(marker) if Some(marker) == call.marker() => links.right += 1,
            Some(_) => links.wrong += 1,
        }
    }
    let taken = own.filter(|span| span.name == takes && origin(&spans, span) >= Some(SETTLED));
    let mut origins: Vec<u64> = taken.iter().filter_map(|span| origin(&spans, span)).collect();
    origins.sort_unstable();
    origins.dedup();
    assert_eq!(origins.len(), taken.len(), "each job is taken once");
    eprintln!(
        "{path} {takes}: calls {links:?}, takers with a link: {}",
        taken.len()
    );
    Some((links, taken.len()))
}

/// Every call, and whatever took a job, is linked to the right request.
fn check_all(path: &str, takes: &str, worker: fn(Setup) -> App) {
    let jobs = 100;
    let Some((links, taken)) = check(path, takes, worker, 2, jobs) else {
        return;
    };
    let right = 2 * jobs as usize;
    assert_eq!(
        links,
        Links {
            right,
            ..Links::default()
        }
    );
    assert_eq!(taken, jobs as usize);
}

/// Who takes the jobs hands them to other processes: only what took them is linked.
fn check_takers(path: &str, takes: &str, worker: fn(Setup) -> App, jobs: u64) {
    let Some((links, taken)) = check(path, takes, worker, 1, jobs) else {
        return;
    };
    assert_eq!((links.wrong, taken), (0, jobs as usize), "{links:?}");
}

fn celery(setup: Setup, pool: &str) -> App {
    let arguments = [
        "celery",
        "-A",
        "work",
        "worker",
        "--concurrency",
        "3",
        "--loglevel",
        "INFO",
        "--pool",
        pool,
    ];
    apps::jobs::worker(setup, &arguments, " ready.")
}

#[test]
fn a_plain_list() {
    check_all("/list", "BRPOP", |setup| {
        apps::jobs::worker(setup, &["work"], "ready")
    });
}

#[test]
fn celery_alone() {
    check_all("/celery", "BRPOP", |setup| celery(setup, "solo"));
}

#[test]
fn celery_processes() {
    check_takers("/celery", "BRPOP", |setup| celery(setup, "prefork"), 100);
}

#[test]
fn rq_alone() {
    check_all("/rq", "BLMOVE", |setup| rq(setup, "rq.SimpleWorker"));
}

#[test]
fn rq_processes() {
    check_takers("/rq", "BLMOVE", |setup| rq(setup, "rq.Worker"), 30);
}

fn rq(setup: Setup, class: &str) -> App {
    let url = setup.variable("REDIS").to_owned();
    let arguments = [
        "rq.cli",
        "worker",
        "--url",
        &url,
        "--worker-class",
        class,
        "--results-ttl",
        "0",
    ];
    apps::jobs::worker(setup, &arguments, "Listening on")
}
