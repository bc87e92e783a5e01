//! Lookups over UDP and TCP: glibc's resolver and dig against a real server, in a network and with a resolv.conf of their own.

use std::process::Command;

use tracer_tests::judge::assert_attribute;
use tracer_tests::process::TempDir;
use tracer_tests::{Host, Kind, Selection, Spans, metrics};

/// Answers for `example.test`, at the ports 53 and 5399, to programs of this network only.
const SERVER: &str = "dnsmasq --keep-in-foreground --no-resolv --no-hosts --listen-address=127.0.0.1 --bind-interfaces \
     --pid-file= --local=/example.test/ --host-record=www.example.test,192.0.2.7,2001:db8::7";

/// Both questions of a lookup leave by one system call (resolv/res_send.c), over a connected socket.
const GETADDRINFO: &str = "
import socket, sys
for name in sys.argv[1:]:
    try:
        print(socket.getaddrinfo(name, 80, proto=socket.IPPROTO_TCP))
    except socket.gaierror as error:
        print(error)
";

fn lookup<'a>(spans: &'a Spans, name: &str) -> &'a tracer_tests::Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(found.len(), 1, "{name}:\n{spans}");
    found[0]
}

#[test]
fn lookups() {
    let Some(host) = Host::ready() else { return };
    let folder = TempDir::new("dns");
    let resolv = folder.write(
        "resolv.conf",
        "nameserver 127.0.0.1\nsearch .\noptions timeout:2\n",
    );
    let getaddrinfo = folder.write("getaddrinfo.py", GETADDRINFO);
    let config = folder.write("tracer.yaml", "export: {metrics: {otlp: true}}\n");
    // Nobody else has these namespaces: they end with the script.
    let script = format!(
        "set -e; ip link set lo up; mount --bind {resolv} /etc/resolv.conf
         PATH=$PATH:/usr/sbin; {SERVER} --port=53 & one=$!; {SERVER} --port=5399 & two=$!
         trap 'kill $one $two' EXIT
         until dig +tries=1 +time=1 @127.0.0.1 ready.example.test >/dev/null; do sleep 0.05; done
         until dig +tries=1 +time=1 @127.0.0.1 -p 5399 ready.example.test >/dev/null; do sleep 0.05; done
         echo ready; read -r go
         OTEL_SERVICE_NAME=asker python3 {getaddrinfo} www.example.test nobody.example.test.
         dig @127.0.0.1 -p 5399 TXT other.example.test >/dev/null
         dig +tcp +keepopen @127.0.0.1 -p 5399 www.example.test A nobody.example.test AAAA >/dev/null",
        resolv = resolv.display(),
        getaddrinfo = getaddrinfo.display(),
    );
    let mut child = Command::new("unshare")
        .args(["--mount", "--net", "sh", "-c", &script])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("unshare");
    let mut lines =
        std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("its output")));
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    let selection = Selection::default().port(53).port(5399);
    let tracer = host.trace(&selection.with("--config", &config.display().to_string()));
    drop(
        child
            .stdin
            .take()
            .map(|mut input| std::io::Write::write_all(&mut input, b"go\n")),
    );
    let answers: Vec<String> = lines.map(|line| line.expect("text")).collect();
    assert!(child.wait().expect("its end").success(), "{answers:?}");
    assert!(
        answers[0].contains("192.0.2.7") && answers[0].contains("2001:db8::7"),
        "{answers:?}"
    );
    let finished = tracer.finish();

    let spans = &finished.spans;
    assert!(
        spans.iter().all(|span| span.kind == Kind::Client),
        "servers' ends give none:\n{spans}"
    );
    let asker = spans.service("asker");
    asker.assert_len(4, "two questions for each name");
    for (kind, name, code, answers) in [
        ("A", "www", "NOERROR", 1),
        ("AAAA", "www", "NOERROR", 1),
        ("A", "nobody", "NXDOMAIN", 0),
        ("AAAA", "nobody", "NXDOMAIN", 0),
    ] {
        let span = lookup(&asker, &format!("{kind} {name}.example.test"));
        assert_attribute(span, "dns.question.name", format!("{name}.example.test").as_str());
        assert_attribute(span, "dns.question.type", kind);
        assert_attribute(span, "dns.response_code", code);
        assert_attribute(span, "dns.answers.count", answers);
        assert_attribute(span, "network.transport", "udp");
        assert_attribute(span, "server.address", "127.0.0.1");
        assert_attribute(span, "server.port", 53);
        assert_eq!(span.error, code != "NOERROR", "{span:?}");
    }
    // Not at the port where servers are looked for.
    let other = spans.service("dig");
    assert_attribute(lookup(&other, "TXT other.example.test"), "server.port", 5399);
    // Both over one connection.
    for (name, code, answers) in [
        ("A www.example.test", "NOERROR", 1),
        ("AAAA nobody.example.test", "NXDOMAIN", 0),
    ] {
        let span = lookup(&other, name);
        assert_attribute(span, "dns.response_code", code);
        assert_attribute(span, "dns.answers.count", answers);
        assert_attribute(span, "network.transport", "tcp");
        assert_attribute(span, "server.port", 5399);
    }
    spans.assert_len(7, "all of them");
    let measured = metrics::totals(&finished.points);
    let (count, _) = measured[&("asker".to_owned(), "dns.lookup.duration".to_owned())];
    assert_eq!(count, 4);
}
