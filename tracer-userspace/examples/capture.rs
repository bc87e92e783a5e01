//! Prints captured events: `cargo run --example capture [seconds]`. For looking at what the programs see.
use std::time::{Duration, Instant};
use tracer_userspace::{
    attach::{Capture, Options},
    kernel,
};
fn main() -> anyhow::Result<()> {
    let begun = Instant::now();
    let plan = kernel::plan_for_this_host()?;
    eprintln!("planned {:?}", begun.elapsed());
    let mut capture = Capture::start(&plan, Options::default())?;
    eprintln!("attached {:?}", begun.elapsed());
    let seconds = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(5);
    let mut source = capture.take_source().expect("first");
    let end = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < end {
        let drained = source.drain(|h, head, tail| {
            println!("{} k{} d{} {}/{} fam {} {}->{} st {}>{} len {} cap {} tail {} pos {} {} arr {} fl {} {:?} {:?}", h.ts, h.kind, h.dir, h.tgid, h.tid, h.family, h.lport, h.rport, h.old_state, h.state, h.len, h.captured, h.tail, h.pos, h.peer_pos, if h.arrival == 0 { 0 } else { h.ts.wrapping_sub(h.arrival) }, h.flags, String::from_utf8_lossy(&head[..head.len().min(40)]), String::from_utf8_lossy(tail));
        });
        source.wait(drained.pause)?;
    }
    eprintln!("{:?}", capture.counters()?);
    eprintln!("{:?}", capture.program_stats()?);
    Ok(())
}
