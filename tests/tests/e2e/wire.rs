//! What comes over the wire: address families, slow senders, pipelines, nonsense.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use tracer_tests::apps::{self, Setup};
use tracer_tests::judge::{assert_attribute, assert_served};
use tracer_tests::{Client, Host, Kind, Selection};

#[test]
fn ipv6() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::to(app.ipv6());
    let records: Vec<_> = (0..20).map(|n| client.get(&format!("/hello/{n}"))).collect();
    let finished = tracer.finish();
    assert_served(&finished.spans, &app.service, &records);
    for span in &finished.spans {
        assert_attribute(span, "network.peer.address", "::1");
        assert_attribute(span, "network.type", "ipv6");
    }
}

#[test]
fn unix_socket() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    // A port rule names TCP connections only.
    let tracer = host.trace(&Selection::default().pid(app.program.pid()));
    let mut client = Client::unix(&app.program.dir.path().join("nginx.sock"));
    let records: Vec<_> = (0..20).map(|n| client.get(&format!("/hello/{n}"))).collect();
    let finished = tracer.finish();
    assert_served(&finished.spans, &app.service, &records);
    for span in &finished.spans {
        assert_attribute(span, "network.transport", "unix");
        assert_eq!(span.get("network.peer.port"), None, "{:?}", span.attributes);
    }
}

/// A request that arrives byte by byte is one request, as long as it took to send.
#[test]
fn byte_by_byte() {
    let Some(host) = Host::ready() else { return };
    let app = apps::go(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::connect(app.port);
    let request = b"POST /echo HTTP/1.1\r\nHost: localhost\r\nX-Filler: abcdefghijklmnopqrstuvwxyz\r\nContent-Length: 5\r\n\r\n12345";
    for byte in request {
        client.send(&[*byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(client.response("POST").expect("a response").0, 200);
    client.get("/hello/1");
    let finished = tracer.finish();
    finished.spans.assert_len(2, "two requests");
    let slow = finished.spans.with("url.path", "/echo");
    let slow = slow.only("the slow request");
    assert_attribute(slow, "http.request.body.size", 5);
    // The server's first read may come late, its last can't come before the last byte; most of the time shows.
    assert!(
        slow.duration() >= (request.len() as u64 / 2) * 1_000_000,
        "{slow}"
    );
}

/// Fifty requests in one write are fifty exchanges.
#[test]
fn pipelined() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::connect(app.port);
    let mut requests = String::new();
    for n in 0..50 {
        requests += &format!("GET /hello/{n} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    }
    client.send(requests.as_bytes());
    for _ in 0..50 {
        assert_eq!(client.response("GET").expect("a response").0, 200);
    }
    let finished = tracer.finish();
    finished.spans.assert_len(50, "fifty requests");
    for n in 0..50 {
        finished.spans.marked(n).assert_len(1, "each once");
    }
}

/// Nonsense on a traced port harms nobody: the daemon goes on, and proper requests beside it are told.
#[test]
fn malformed() {
    let Some(host) = Host::ready() else { return };
    let app = apps::nginx(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let noise: Vec<u8> = (0..20_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let long_head = format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n",
        "x".repeat(100_000)
    );
    let nonsense: Vec<Vec<u8>> = vec![
        b"\r\n\r\n\r\n".to_vec(),
        b"GARBAGE\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"GET /unfinished HTTP/1.1\r\nHost: loc".to_vec(),
        b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n".to_vec(),
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n".to_vec(),
        b"POST /x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999999999999\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"*1\r\n$4\r\nPING\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        long_head.into_bytes(),
        noise,
    ];
    let mut proper = Client::connect(app.port);
    let mut records = Vec::new();
    for (n, bytes) in nonsense.iter().enumerate() {
        let mut stream = TcpStream::connect(("127.0.0.1", app.port)).expect("connect");
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .expect("a read time-out");
        // nginx may have closed already, or answer with 400, or wait for more: all the same here.
        _ = stream.write_all(bytes);
        _ = stream.read(&mut [0; 4096]);
        drop(stream);
        records.push(proper.get(&format!("/hello/{n}")));
    }
    let finished = tracer.finish_with_drops(&["malformed", "abandoned", "bytes_lost", "joined_late"]);
    let spans = finished
        .spans
        .kind(Kind::Server)
        .filter(|span| span.path().starts_with("/hello/"));
    assert_served(&spans, &app.service, &records);
}

/// The server resets the connection instead of answering; the client gives up before the answer.
#[test]
fn no_response() {
    let Some(host) = Host::ready() else { return };
    let app = apps::go(Setup::named("served"));
    let tracer = host.trace(&Selection::of(&[&app]));
    let mut client = Client::connect(app.port);
    client.send(b"GET /slow/1500 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    std::thread::sleep(Duration::from_millis(200));
    drop(client);
    std::thread::sleep(Duration::from_millis(1800));
    let record = Client::connect(app.port).get("/hello/1");
    let finished = tracer.finish_with_drops(&["abandoned"]);
    let told = finished.spans.with("url.path", "/hello/1");
    assert_eq!(told.len(), 1, "{record:?}");
    for span in &finished.spans.with("url.path", "/slow/1500") {
        assert!(span.duration() >= 150_000_000, "as long as it was open: {span}");
    }
    assert!(finished.spans.len() <= 2, "{}", finished.spans);
}
