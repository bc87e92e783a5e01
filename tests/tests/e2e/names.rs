//! A collector whose name has another address while the daemon runs: spans go to the new one.

use std::net::SocketAddr;
use std::time::Duration;

use tracer_tests::apps::{self, Setup};
use tracer_tests::client::drive;
use tracer_tests::judge::assert_served;
use tracer_tests::process::TempDir;
use tracer_tests::{Collector, Fault, Host, Selection, Spans, Tracer, Transport};

const NAME: &str = "collector.test";

/// Once the old one ends its connections, once it is gone without a word.
#[test]
fn that_change() {
    let Some(host) = Host::ready() else { return };
    for (transport, is_silent) in [
        (Transport::Grpc, false),
        (Transport::Grpc, true),
        (Transport::Http, false),
        (Transport::Http, true),
    ] {
        let app = apps::nginx(Setup::named("served"));
        let folder = TempDir::new("names");
        // The daemon's own view of /etc/hosts, in a mount namespace of its own.
        let hosts = folder.path().join("hosts");
        let point_to = |address: SocketAddr| {
            std::fs::write(&hosts, format!("{} {NAME}\n", address.ip())).expect("the hosts file");
        };
        let config = folder.path().join("tracer.yaml");
        std::fs::write(&config, "export: {otlp: {timeout: 1s}}\n").expect("a configuration");
        let old = Collector::start_at(([127, 0, 0, 2], 0).into());
        let new = Collector::start_at(([127, 0, 0, 3], old.address().port()).into());
        point_to(old.address());
        let enter = "mount --bind \"$0\" /etc/hosts && exec \"$@\"";
        let selection = Selection::of(&[&app])
            .with(
                "--otlp-endpoint",
                &format!("http://{NAME}:{}", old.address().port()),
            )
            .with("--config", &config.display().to_string())
            .launched_by(&[
                "unshare",
                "--mount",
                "sh",
                "-c",
                enter,
                &hosts.display().to_string(),
            ]);
        let tracer = Tracer::start_with(&selection, new, transport);
        let serve = |range| drive(app.port, 2, range, |client, n| client.get(&format!("/hello/{n}")));
        let mut records = serve(0..50);
        let is_all = |spans: &Spans| spans.len() == 50;
        let before = old.wait_until(Duration::from_secs(20), "spans at the old address", is_all);
        point_to(tracer.collector.address());
        let silent = if is_silent {
            old.set_fault(Fault::Slow(Duration::from_secs(3600)));
            Some(old)
        } else {
            drop(old);
            None
        };
        records.extend(serve(50..100));
        tracer
            .collector
            .wait_until(Duration::from_secs(30), "spans at the new address", is_all);
        drop(silent);
        tracer.collector.absorb(before);
        let finished = tracer.finish();
        assert_served(&finished.spans, &app.service, &records);
    }
    drop(host);
}
