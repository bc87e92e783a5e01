//! What goes wrong between the exporter and its backend. In every case all spans arrive, once, and the ledger balances.

use super::proxy::{Fault, Proxy};
use super::*;
use crate::export::body::Body;
use crate::export::delivery::Transport as _;
use crate::export::otlp::{Client, Signal, resolve};
use crate::export::retry::Answer;

/// The spans of two hand-overs, one before the fault and one while it lasts.
fn arrive_in_spite_of(fault: Fault, protocol: Protocol) {
    let collector = Collector::start(protocol, Tls::No);
    let proxy = Proxy::start(collector.address);
    let mut config = config(protocol, format!("http://{}", proxy.address));
    // A busy machine answers within it: what has no answer is sent again, and would come twice.
    config.otlp.timeout = Duration::from_secs(5);
    let run = Run::new(&config);
    let all = fixtures::spans(&fixtures::service("shop"), 30);
    let send = |from: usize, to: usize| {
        run.ledger.seen((to - from) as u64);
        run.pipeline.send(all[from..to].to_vec());
    };
    send(0, 10);
    run.until("the first", |s| s.exported == 10);
    proxy.set(fault);
    send(10, 20);
    run.until("a try", |_| proxy.struck() > 0);
    // On a connection that is new, too.
    let before = proxy.connections();
    if fault != Fault::Slow {
        run.until("another connection", |_| proxy.connections() > before);
        assert_eq!(run.ledger.snapshot().open(), 10, "{fault:?}, {protocol:?}");
    }
    send(20, 30);
    proxy.set(Fault::None);
    run.until("all", |s| s.exported == 30);
    run.stop_with(30, &[]);
    let mut spans = collector.spans();
    spans.dedup();
    assert_eq!(spans.len(), 30);
    let came: usize = collector.received(|all| all.iter().map(collector::Received::spans).sum());
    assert_eq!(came, 30, "{fault:?}, {protocol:?}: no span comes twice");
}

#[test]
fn peers_that_vanish() {
    ALL.into_iter()
        .for_each(|protocol| arrive_in_spite_of(Fault::Vanished, protocol));
}

#[test]
fn resets() {
    ALL.into_iter()
        .for_each(|protocol| arrive_in_spite_of(Fault::Reset, protocol));
}

#[test]
fn garbage_in_between() {
    ALL.into_iter()
        .for_each(|protocol| arrive_in_spite_of(Fault::Garbage, protocol));
}

#[test]
fn slow_lines() {
    ALL.into_iter()
        .for_each(|protocol| arrive_in_spite_of(Fault::Slow, protocol));
}

/// What one try says.
fn said(config: &Config) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let endpoint = resolve(&config.otlp, Signal::Traces).unwrap();
        let client = Client::new(&config.otlp, &endpoint, None).unwrap();
        match client.send(client.prepare(Body::default())).await {
            Answer::Later { why, .. } => why,
            other => panic!("{other:?}"),
        }
    })
}

#[test]
fn an_expired_certificate_is_named_and_a_new_one_does() {
    let authority = Authority::new();
    let trusted = File::new(&authority.pem);
    for protocol in ALL {
        let collector = Collector::start(protocol, Tls::Expired(&authority));
        let address = collector.address;
        let mut config = config(protocol, format!("https://localhost:{}", address.port()));
        config.otlp.certificate = Some(trusted.0.clone());
        let why = said(&config);
        assert!(why.contains("certificate expired"), "{why}");
        let run = Run::new(&config);
        run.send("shop", 5);
        drop(collector);
        let renewed = Collector::start_at(address, protocol, Tls::Server(&authority));
        run.until("the spans", |s| s.exported == 5);
        run.stop_with(5, &[]);
        assert_eq!(renewed.spans().len(), 5);
    }
}

/// Files of certificates are read again when they change: the authority's, and our own.
#[test]
fn renewed_files_are_picked_up() {
    let (ours, strange) = (Authority::new(), Authority::new());
    for protocol in ALL {
        let collector = Collector::start(protocol, Tls::Mutual(&ours));
        let (certificate, key) = strange.issue();
        let trusted = File::new(&strange.pem);
        let (certificate, key) = (File::new(&certificate), File::new(&key));
        let mut config = config(
            protocol,
            format!("https://localhost:{}", collector.address.port()),
        );
        config.otlp.certificate = Some(trusted.0.clone());
        config.otlp.client_certificate = Some(certificate.0.clone());
        config.otlp.client_key = Some(key.0.clone());
        let why = said(&config);
        assert!(why.contains("invalid peer certificate"), "{why}");
        let run = Run::new(&config);
        run.send("shop", 5);
        trusted.renew(&ours.pem);
        // Something that is no certificate is no reason to give up the old ones.
        certificate.renew("-----BEGIN CERTIFICATE-----\n");
        std::thread::sleep(Duration::from_millis(1100));
        assert_eq!(run.ledger.snapshot().open(), 5);
        let (new, new_key) = ours.issue();
        key.renew(&new_key);
        certificate.renew(&new);
        run.until("the spans", |s| s.exported == 5);
        run.stop_with(5, &[]);
        assert_eq!(collector.spans().len(), 5);
    }
}

/// The real limit of a gRPC server, 4 MiB, in its real words; the requests here are larger.
#[test]
fn a_server_that_takes_4_mib_gets_no_more() {
    let collector = Collector::start(Grpc, Tls::No);
    let mut config = plain(&collector, Grpc);
    config.queue.batch_bytes = 64 << 20;
    config.queue.max_bytes = 128 << 20;
    config.queue.batch_spans = 20_000;
    config.queue.batch_age = LONG;
    let run = Run::new(&config);
    run.send("shop", 20_000);
    run.stop_with(20_000, &[]);
    let sizes: Vec<usize> = collector.received(|all| all.iter().map(collector::Received::spans).collect());
    assert!(
        sizes.len() > 1 && sizes.iter().sum::<usize>() == 20_000,
        "{sizes:?}"
    );
}
