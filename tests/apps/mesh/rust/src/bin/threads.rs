//! Threads that block: a fixed pool serves connections, and calls with a client that blocks (ureq). There is no tokio in this program.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, LazyLock, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use mesh_rust::{BASES, Done, child, setting, work};

/// Connections served at a time: each has its thread until it closes.
const SERVERS: usize = 256;
/// Threads that call for others.
const CALLERS: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

static AGENT: LazyLock<ureq::Agent> = LazyLock::new(|| {
    ureq::Agent::config_builder()
        .max_idle_connections(1024)
        .max_idle_connections_per_host(512)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
});
static POOL: LazyLock<mpsc::Sender<Job>> = LazyLock::new(|| pool(CALLERS, |job: Job| job()));

/// Threads that take jobs from a queue, each when it is done with its last.
fn pool<T: Send + 'static>(threads: usize, work: impl Fn(T) + Copy + Send + 'static) -> mpsc::Sender<T> {
    let (sender, receiver) = mpsc::channel();
    let receiver = Arc::new(Mutex::new(receiver));
    for _ in 0..threads {
        let receiver = Arc::clone(&receiver);
        thread::spawn(move || {
            loop {
                let job = receiver.lock().map(|queue| queue.recv());
                match job {
                    Ok(Ok(job)) => work(job),
                    _ => return,
                }
            }
        });
    }
    sender
}

fn url(marker: &str, i: usize) -> String {
    BASES[i % 2].clone() + &child(marker, i)
}

fn call(marker: &str, i: usize) -> Done {
    let mut response = AGENT.get(url(marker, i)).call().map_err(|e| e.to_string())?;
    // To its end, so that the connection goes back to the pool.
    response
        .body_mut()
        .read_to_vec()
        .map(drop)
        .map_err(|e| e.to_string())
}

fn pause(marker: &str, digit: usize) {
    let n = u64::from_str_radix(&marker[digit..=digit], 16).unwrap_or(0);
    thread::sleep(Duration::from_millis(n / 2));
}

/// A thread of a pool calls, and does something with the answer; this one does something else meanwhile, and then waits for it.
fn pooled_call(marker: &str, i: usize, after: fn(&str), meanwhile: fn(&str)) -> Done {
    let (sender, receiver) = mpsc::channel();
    let own = marker.to_owned();
    let job: Job = Box::new(move || {
        let done = call(&own, i);
        after(&own);
        _ = sender.send(done);
    });
    POOL.send(job).map_err(|e| e.to_string())?;
    meanwhile(marker);
    receiver.recv().map_err(|e| e.to_string())?
}

/// What all threads wait for.
fn locked_work(marker: &str) {
    static LOCK: Mutex<()> = Mutex::new(());
    let _held = LOCK.lock();
    work(marker);
}

fn run(style: &str, m: &str) -> Done {
    match style {
        "leaf" => pause(m, 0),
        "seq" => return (0..3).try_for_each(|i| call(m, i)),
        "par" => {
            return thread::scope(|scope| {
                let calls: Vec<_> = (0..3).map(|i| scope.spawn(move || call(m, i))).collect();
                calls
                    .into_iter()
                    .try_for_each(|call| call.join().unwrap_or_else(|_| Err("a panic".to_owned())))
            });
        }
        "sleep" => {
            for i in 0..2 {
                pause(m, i + 1);
                call(m, i)?;
            }
        }
        "cpu" => {
            for i in 0..2 {
                work(m);
                call(m, i)?;
            }
        }
        "pool" => return (0..2).try_for_each(|i| pooled_call(m, i, |_| (), |_| ())),
        "locks" => return (0..2).try_for_each(|i| pooled_call(m, i, locked_work, locked_work)),
        _ => return Err(format!("no style {style}")),
    }
    Ok(())
}

/// Answers one request after the other; an error is the end of the connection.
fn converse(stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    let (mut first, mut line) = (String::new(), String::new());
    loop {
        first.clear();
        if reader.read_line(&mut first)? == 0 {
            return Ok(());
        }
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
        }
        line.clear();
        let mut path = first.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
        let (style, marker) = (path.next().unwrap_or_default(), path.next().unwrap_or_default());
        let answer = match run(style, marker) {
            Ok(()) => "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n".to_owned(),
            Err(error) => format!(
                "HTTP/1.1 502 Bad Gateway\r\nContent-Length: {}\r\n\r\n{error}",
                error.len()
            ),
        };
        stream.write_all(answer.as_bytes())?;
    }
}

fn main() {
    let connections = pool(SERVERS, |stream| _ = converse(stream));
    let listener = TcpListener::bind(format!("0.0.0.0:{}", setting("PORT"))).expect("the port");
    for stream in listener.incoming().flatten() {
        if connections.send(stream).is_err() {
            return;
        }
    }
}
