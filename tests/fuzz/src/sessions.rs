//! One conversation through the detection and the session of a protocol: nothing may panic, detection may not change its
//! mind, and every exchange that begins must end or be dropped, and be counted.
//!
//! `FUZZ_PROTOCOL` names the protocol; all are tried if it is absent. With `FUZZ_CAPTURES` and `FUZZ_CORPUS` the captures of
//! one folder become seeds first.
#![no_main]

mod seeds;

use std::path::PathBuf;
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use tracer_userspace::protocol::replay::{Part, Replay, Step, script};
use tracer_userspace::protocol::{Detect, Prefix, Protocol, REGISTRY, Side};

static CHOSEN: LazyLock<Vec<&'static dyn Protocol>> = LazyLock::new(|| {
    let wanted = std::env::var("FUZZ_PROTOCOL").ok();
    let chosen: Vec<_> = REGISTRY
        .iter()
        .copied()
        .filter(|protocol| wanted.as_deref().is_none_or(|name| name == protocol.name()))
        .collect();
    assert!(!chosen.is_empty(), "no such protocol: {wanted:?}");
    chosen
});

fuzz_target!(init: write_seeds(), |data: &[u8]| {
    let Some((&how, rest)) = data.split_first() else {
        return;
    };
    let local = if how & 1 == 0 { Side::Client } else { Side::Server };
    let steps = script::decode(rest);
    for protocol in CHOSEN.iter() {
        detect(*protocol, &steps);
        let mut replay = Replay::new(*protocol, local, 80, how & 2 != 0);
        for step in &steps {
            replay.step(step);
        }
        if let Err(what) = replay.finish() {
            panic!("{}: {what}", protocol.name());
        }
    }
});

fn write_seeds() {
    let folder = |name| std::env::var_os(name).map(PathBuf::from);
    if let (Some(captures), Some(corpus)) = (folder("FUZZ_CAPTURES"), folder("FUZZ_CORPUS")) {
        seeds::write_all(&captures, &corpus);
    }
}

fn detect(protocol: &dyn Protocol, steps: &[Step]) {
    let Some(Step::Data { parts, .. }) = steps.first() else {
        return;
    };
    let Some(Part::Bytes(bytes)) = parts.first() else {
        return;
    };
    let mut decided = None;
    for len in (1..=bytes.len()).take(300).chain([bytes.len()]) {
        let prefix = Prefix {
            bytes: &bytes[..len],
            from_start: true,
        };
        let answer = protocol.detect(prefix);
        match decided {
            Some(before) => assert_eq!(before, answer, "the answer changes at {len}"),
            None if answer != Detect::NeedMore => decided = Some(answer),
            None => {}
        }
    }
}
