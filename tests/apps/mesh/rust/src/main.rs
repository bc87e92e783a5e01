//! axum and reqwest on tokio: several threads, or one if `RUNTIME` is `current`. With `actix`, actix-web serves the same.

mod actix;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::LazyLock;
use std::time::Duration;

use axum::Router;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use futures::future::{join_all, try_join_all};
use futures::stream::{FuturesUnordered, StreamExt, TryStreamExt};
use mesh_rust::{BASES, Done, child, setting, work};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

static CLIENT: LazyLock<reqwest::Client> = LazyLock::new(|| {
    reqwest::Client::builder()
        .pool_max_idle_per_host(512)
        .no_proxy()
        .build()
        .expect("a client")
});

/// Waits up to seven milliseconds, by a digit of the marker.
async fn pause(marker: &str, digit: usize) {
    let n = u64::from_str_radix(&marker[digit..=digit], 16).unwrap_or(0);
    sleep(Duration::from_millis(n / 2)).await;
}

async fn fetch(url: String) -> Done {
    let text = |error: reqwest::Error| error.to_string();
    let response = CLIENT.get(url).send().await.map_err(text)?;
    let response = response.error_for_status().map_err(text)?;
    // To its end, so that the connection goes back to the pool.
    response.bytes().await.map_err(text)?;
    Ok(())
}

async fn call(marker: String, i: usize) -> Done {
    fetch(BASES[i % 2].clone() + &child(&marker, i)).await
}

fn all(results: impl IntoIterator<Item = Done>) -> Done {
    results.into_iter().collect()
}

/// The task's result, whether or not it could be had.
async fn joined(task: tokio::task::JoinHandle<Done>) -> Done {
    task.await.map_err(|error| error.to_string())?
}

async fn leaf(m: String) -> Done {
    pause(&m, 0).await;
    Ok(())
}

async fn branch(m: String) -> Done {
    fetch(BASES[0].clone() + &child(&m, 0)).await
}

async fn seq(m: String) -> Done {
    for i in 0..3 {
        call(m.clone(), i).await?;
    }
    Ok(())
}

async fn par(m: String) -> Done {
    all(join_all((0..3).map(|i| call(m.clone(), i))).await)
}

async fn slept(m: String) -> Done {
    for i in 0..2 {
        pause(&m, i + 1).await;
        call(m.clone(), i).await?;
    }
    Ok(())
}

async fn cpu(m: String) -> Done {
    for i in 0..2 {
        work(&m);
        call(m.clone(), i).await?;
    }
    Ok(())
}

/// Two branches at once, as tasks; the second one makes tasks of its own.
async fn nested(m: String) -> Done {
    let (one, two) = (m.clone(), m);
    let first = tokio::spawn(async move {
        call(one.clone(), 0).await?;
        call(one, 1).await
    });
    let second = tokio::spawn(async move {
        let tasks = (2..4).map(|i| joined(tokio::spawn(call(two.clone(), i))));
        all(join_all(tasks).await)
    });
    all(join_all([joined(first), joined(second)]).await)
}

/// A future that can be polled with others in a set.
async fn unordered(m: String) -> Done {
    let calls: FuturesUnordered<_> = (0..3).map(|i| call(m.clone(), i)).collect();
    calls.try_collect().await
}

async fn buffered(m: String) -> Done {
    let calls = futures::stream::iter((0..3).map(|i| call(m.clone(), i)));
    all(calls.buffered(2).collect::<Vec<_>>().await)
}

async fn spawned(m: String) -> Done {
    let tasks = (0..3).map(|i| joined(tokio::spawn(call(m.clone(), i))));
    try_join_all(tasks).await.map(drop)
}

async fn set(m: String) -> Done {
    let mut tasks: JoinSet<Done> = (0..3).map(|i| call(m.clone(), i)).collect();
    while let Some(done) = tasks.join_next().await {
        done.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// Tasks that are begun at once and awaited one after the other.
async fn ordered(m: String) -> Done {
    let tasks: Vec<_> = (0..3).map(|i| tokio::spawn(call(m.clone(), i))).collect();
    for task in tasks {
        joined(task).await?;
    }
    Ok(())
}

/// The same in a map, where the tracer does not look.
async fn mapped(m: String) -> Done {
    let mut tasks: BTreeMap<usize, _> = (0..3).map(|i| (i, tokio::spawn(call(m.clone(), i)))).collect();
    while let Some((_, task)) = tasks.pop_first() {
        joined(task).await?;
    }
    Ok(())
}

async fn limited(m: String) -> Done {
    for i in 0..2 {
        let within = timeout(Duration::from_secs(20), call(m.clone(), i));
        within.await.map_err(|error| error.to_string())??;
    }
    Ok(())
}

/// A route whose handler runs `style`.
fn style<F>(app: Router, name: &str, style: impl Fn(String) -> F + Copy + Send + Sync + 'static) -> Router
where
    F: Future<Output = Done> + Send + 'static,
{
    app.route(
        &format!("/{name}/{{marker}}"),
        get(move |Path(marker): Path<String>| async move {
            match style(marker).await {
                Ok(()) => (StatusCode::OK, "ok".to_owned()),
                Err(error) => (StatusCode::BAD_GATEWAY, error),
            }
        }),
    )
}

/// Every style, each given to `$route` with what the one before gave.
macro_rules! styles {
    ($app:expr, $route:path) => {{
        let app = $route($app, "leaf", crate::leaf);
        let app = $route(app, "branch", crate::branch);
        let app = $route(app, "seq", crate::seq);
        let app = $route(app, "par", crate::par);
        let app = $route(app, "sleep", crate::slept);
        let app = $route(app, "cpu", crate::cpu);
        let app = $route(app, "nested", crate::nested);
        let app = $route(app, "unordered", crate::unordered);
        let app = $route(app, "buffered", crate::buffered);
        let app = $route(app, "spawn", crate::spawned);
        let app = $route(app, "set", crate::set);
        let app = $route(app, "ordered", crate::ordered);
        let app = $route(app, "mapped", crate::mapped);
        $route(app, "timeout", crate::limited)
    }};
}
use styles;

async fn serve() {
    let app = styles!(Router::new(), style);
    let listener = tokio::net::TcpListener::bind(format!("0.0.0.0:{}", setting("PORT")))
        .await
        .expect("the port");
    axum::serve(listener, app).await.expect("a server");
}

fn main() {
    if setting("RUNTIME") == "actix" {
        return actix::serve();
    }
    let mut runtime = match setting("RUNTIME").as_str() {
        "current" => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().expect("a runtime");
    // On a task of its own: the thread of `block_on` is no worker.
    runtime.block_on(async { tokio::spawn(serve()).await.expect("the server") });
}
