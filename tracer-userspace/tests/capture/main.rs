//! Captures real sockets of a child process on this kernel. Needs root, BTF and python3.

mod cases;
mod harness;

use harness::{AMPLE, Event, Running, attach_with, backend, by_connection, capture, pattern, skip};
use tracer_common::{Direction, EventFlags, EventKind};
use tracer_userspace::{attach::Limit, kernel};

const DATA: u8 = EventKind::DATA.0;
const EOF: u8 = EventKind::EOF.0;
const STATE: u8 = EventKind::STATE.0;
const RESET: u8 = EventKind::RESET.0;

fn of(events: &[Event], kind: u8, direction: Direction) -> Vec<&Event> {
    events
        .iter()
        .filter(|e| e.header.kind == kind && e.header.dir == direction as u8)
        .collect()
}

/// What both ends know of one message must agree.
fn check_both_ends(name: &str, sent: &Event, received: &Event) {
    let (a, b) = (&sent.header, &received.header);
    assert_eq!(a.len, b.len, "{name}");
    assert!(a.flags & EventFlags::HAS_POSITION != 0, "{name}");
    assert_eq!(
        (a.pos, a.peer_pos),
        (b.pos, b.peer_pos),
        "{name}: message identity"
    );
    assert_eq!((a.lport, a.laddr), (b.rport, b.raddr), "{name}: addresses");
    assert_eq!((a.rport, a.raddr), (b.lport, b.laddr), "{name}: addresses");
    assert_eq!((a.family, a.netns), (b.family, b.netns), "{name}");
    assert_ne!(a.cookie, b.cookie, "{name}");
    assert_ne!(a.netns, 0, "{name}");
    assert_eq!(a.arrival, 0, "{name}");
    assert!(
        b.arrival != 0 && b.arrival <= b.ts,
        "{name}: arrived {} read {}",
        b.arrival,
        b.ts
    );
    assert!(a.ts <= b.ts, "{name}");
}

#[test]
fn every_system_call_on_every_family() {
    if skip() {
        return;
    }
    for family in ["v4", "v6", "unix"] {
        let events = capture(&["every_call", family]);
        let (sent, received) = (
            of(&events, DATA, Direction::Send),
            of(&events, DATA, Direction::Recv),
        );
        assert_eq!((sent.len(), received.len()), (12, 12), "{family}");
        let pairs = [
            "write read",
            "sendto recvfrom",
            "writev readv",
            "pwritev2 preadv2",
            "sendmsg recvmsg",
            "sendmmsg recvmmsg",
        ];
        let mut at = [None::<u32>; 2];
        for (index, calls) in pairs.into_iter().enumerate() {
            let mut message = format!("{family} {calls} ").into_bytes();
            message.extend(pattern(200 + index, 0));
            for back in [false, true] {
                let name = format!("{family} {calls} {}", if back { "back" } else { "there" });
                let (a, b) = (
                    sent[2 * index + usize::from(back)],
                    received[2 * index + usize::from(back)],
                );
                assert_eq!(a.head, message, "{name}: sent");
                assert_eq!(b.head, message, "{name}: received");
                assert_eq!((a.tail.len(), b.tail.len()), (0, 0), "{name}");
                check_both_ends(&name, a, b);
                // Nothing lies between two messages of one direction.
                let expected = at[usize::from(back)].replace(a.header.pos.wrapping_add(a.header.len));
                assert_eq!(expected.unwrap_or(a.header.pos), a.header.pos, "{name}: position");
                message.reverse();
            }
        }
    }
}

#[test]
fn without_a_buffer_bytes_are_counted() {
    if skip() {
        return;
    }
    let events = capture(&["no_buffer"]);
    let sent = of(&events, DATA, Direction::Send);
    // The two messages of one call have theirs; sendfile and splice have none.
    let (messages, others): (Vec<&Event>, Vec<&Event>) =
        sent.iter().copied().partition(|e| e.header.len == 70);
    assert!(messages.iter().all(|e| e.head == pattern(70, 0)));
    assert!(
        others
            .iter()
            .all(|e| e.head.is_empty() && e.header.flags & EventFlags::PAYLOAD_MISSING != 0)
    );
    assert_eq!(sent.iter().map(|e| e.header.len).sum::<u32>(), 1000 + 500 + 140);
    assert_eq!(messages.len(), 2);
    let received = of(&events, DATA, Direction::Recv);
    let bytes: Vec<u8> = received.iter().flat_map(|e| e.head.clone()).collect();
    let expected = [pattern(1000, 0), pattern(500, 0), pattern(70, 0), pattern(70, 0)].concat();
    assert_eq!(bytes, expected);
    assert_eq!(sent[0].header.pos, received[0].header.pos);
}

#[test]
fn long_runs_are_captured_up_to_the_limits_and_counted_to_the_end() {
    if skip() {
        return;
    }
    let events = capture(&["large"]);
    let stream = pattern(400_000, 0);
    for direction in [Direction::Send, Direction::Recv] {
        let of_direction = of(&events, DATA, direction);
        let side: Vec<_> = of_direction.iter().filter(|e| e.header.len > 2).collect();
        let start = side[0].header.pos;
        let mut at = 0u32;
        let mut captured = [0u64; 2];
        for event in side {
            let header = &event.header;
            // The short answer goes the other way: positions here have no gap.
            assert_eq!(header.pos.wrapping_sub(start), at, "{direction:?}");
            at += header.len;
            let run = usize::from(at > 400_000);
            let from = (header.pos.wrapping_sub(start) as usize) % 400_000;
            let chunk = &stream[from..from + header.len as usize];
            assert_eq!(
                chunk.get(..event.head.len()),
                Some(&event.head[..]),
                "{direction:?} {at}"
            );
            assert_eq!(event.head.len() as u32, header.captured);
            assert!(
                header.captured <= tracer_common::UNDECIDED_CHUNK,
                "{direction:?} {at}"
            );
            captured[run] += u64::from(header.captured);
            if header.captured < header.len {
                assert_eq!(event.tail.len(), tracer_common::TAIL_BYTES, "{direction:?} {at}");
            }
            assert!(chunk.ends_with(&event.tail), "{direction:?} {at}");
        }
        assert_eq!(at, 800_000, "{direction:?}");
        // A chunk counts for its run with its whole length, captured or not.
        let whole_chunks = u64::from(tracer_common::UNDECIDED_CHUNK);
        for run in captured {
            assert!(
                run >= whole_chunks && run <= u64::from(tracer_common::UNDECIDED_RUN),
                "{direction:?} {run}"
            );
        }
    }
}

#[test]
fn vectors_are_followed() {
    if skip() {
        return;
    }
    let events = capture(&["many_vectors"]);
    let data = pattern(400, 0);
    let sent = of(&events, DATA, Direction::Send);
    // 40 vectors of 10 bytes: the first 32 are followed, so the end is not known.
    assert_eq!(sent[0].head, data[..320]);
    assert_eq!((sent[0].header.len, sent[0].tail.len()), (400, 0));
    assert_eq!(sent[1].head, data[..200]);
    assert_eq!(of(&events, DATA, Direction::Recv)[0].head, data);
}

#[test]
fn endings() {
    if skip() {
        return;
    }
    let events = capture(&["endings"]);
    let connections = by_connection(&events);
    let sent = of(&events, DATA, Direction::Send);
    let received = of(&events, DATA, Direction::Recv);
    // One event for each message: none for a read that would block, a peek, or a read of nothing.
    for (index, message) in [&b"hello"[..], b"last words", b"answer"].into_iter().enumerate() {
        assert_eq!(sent[index].head, message);
        check_both_ends(&String::from_utf8_lossy(message), sent[index], received[index]);
    }
    assert_eq!((sent.len(), received.len()), (3, 3));
    // The FIN does not count as a byte.
    assert_eq!(received[1].header.pos, received[0].header.pos.wrapping_add(5));
    let ends = of(&events, EOF, Direction::Recv);
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[0].header.pos, received[1].header.pos.wrapping_add(10));
    assert_eq!(ends[1].header.pos, received[2].header.pos.wrapping_add(6));
    assert_eq!(connections.len(), 2);
    let client = sent[0].header.cookie;
    for (cookie, events) in connections {
        let states: Vec<_> = events
            .iter()
            .filter(|e| e.header.kind == STATE)
            .map(|e| e.header.state)
            .collect();
        // include/net/tcp_states.h: ESTABLISHED 1, SYN_SENT 2, FIN_WAIT1 4, CLOSE 7, CLOSE_WAIT 8, LAST_ACK 9
        let expected: &[u8] = if cookie == client {
            &[2, 1, 4, 7]
        } else {
            &[1, 8, 9, 7]
        };
        assert_eq!(states, expected, "connection {cookie}");
        let connect = events
            .iter()
            .find(|e| e.header.kind == STATE && e.header.state == 2);
        assert_eq!(
            connect.is_some_and(|e| e.header.tgid == sent[0].header.tgid),
            cookie == client
        );
    }
}

#[test]
fn resets() {
    if skip() {
        return;
    }
    let events = capture(&["reset"]);
    let client = of(&events, DATA, Direction::Send)[0].header.cookie;
    let server = of(&events, DATA, Direction::Recv)[0].header.cookie;
    for cookie in [client, server] {
        assert!(
            events
                .iter()
                .any(|e| e.header.kind == RESET && e.header.cookie == cookie),
            "{cookie}"
        );
    }
    let closed = events
        .iter()
        .find(|e| e.header.cookie == server && e.header.kind == STATE && e.header.state == 7)
        .expect("the server's socket closes");
    assert_eq!(closed.header.error, libc::ECONNRESET as u32);
}

#[test]
fn the_time_in_the_socket_buffer_is_seen() {
    if skip() {
        return;
    }
    let events = capture(&["waits"]);
    let received = of(&events, DATA, Direction::Recv);
    let sent = of(&events, DATA, Direction::Send);
    for index in [0, 2] {
        let (sent, received) = (&sent[index].header, &received[index].header);
        assert!(
            received.ts - received.arrival >= 25_000_000,
            "{} ns",
            received.ts - received.arrival
        );
        // It arrives while it is sent, or after.
        assert!(
            received.arrival + 20_000_000 >= sent.ts,
            "arrived {} sent {}",
            received.arrival,
            sent.ts
        );
    }
}

#[test]
fn policies_are_honoured() {
    if skip() {
        return;
    }
    let mut running = Running::start(&["steps", "v4", "5"]);
    let step = |running: &mut Running| -> Vec<Event> {
        running.tell();
        running.expect("done");
        running.settle()
    };
    running.expect("ready");
    let first = step(&mut running);
    let (a, b) = (
        of(&first, DATA, Direction::Send)[0].conn(),
        of(&first, DATA, Direction::Recv)[0].conn(),
    );
    assert_eq!(of(&first, DATA, Direction::Send)[0].head.len(), 1000);

    let policy = running.capture.policy();
    let limit = |run, chunk| Limit { run, chunk };
    policy.set_policy(a, limit(1 << 20, 300), limit(0, 0)).unwrap();
    policy.set_policy(b, limit(0, 0), limit(1_100, 1 << 20)).unwrap();
    let second = step(&mut running);
    let sent = of(&second, DATA, Direction::Send)[0];
    let message = pattern(1000, 1);
    assert_eq!(
        (&sent.head[..], &sent.tail[..]),
        (&message[..300], &message[968..])
    );
    // A policy begins to count anew, because a count that was read before it is set could be stale.
    assert_eq!(of(&second, DATA, Direction::Recv)[0].head, message);
    // Still the same run: 1,000 of its 1,100 bytes have passed.
    let third = step(&mut running);
    let received = of(&third, DATA, Direction::Recv)[0];
    let message = pattern(1000, 2);
    assert_eq!(
        (&received.head[..], &received.tail[..]),
        (&message[..100], &message[968..])
    );

    policy.set_policy(a, limit(1 << 20, 0), limit(0, 0)).unwrap();
    policy.ignore(b).unwrap();
    let fourth = step(&mut running);
    let sent = of(&fourth, DATA, Direction::Send)[0];
    assert_eq!((sent.header.len, sent.head.len(), sent.tail.len()), (1000, 0, 0));
    assert_eq!(
        sent.header.flags & EventFlags::PAYLOAD_MISSING,
        0,
        "nothing was asked for"
    );
    assert!(of(&fourth, DATA, Direction::Recv).is_empty());
    assert!(running.counter("ignored") > 0);

    policy.forget(b).unwrap();
    let fifth = step(&mut running);
    assert_eq!(of(&fifth, DATA, Direction::Recv)[0].head, pattern(1000, 4));
    running.tell();
    let rest = running.finish();
    assert!(rest.iter().any(|e| e.header.kind == STATE));
}

#[test]
fn a_connection_whose_place_is_taken_has_a_policy_of_its_own() {
    if skip() {
        return;
    }
    let mut running = Running::start(&["crowded"]);
    running.expect("ready");
    let step = |running: &mut Running| {
        running.tell();
        running.expect("done");
        let events = running.settle();
        of(&events, DATA, Direction::Send)
            .into_iter()
            .map(|event| (event.conn(), event.head.len()))
            .collect::<Vec<_>>()
    };
    let first = step(&mut running);
    let [(a, 1000), (b, 1000)] = *first else {
        panic!("two messages, whole: {first:?}")
    };
    assert_eq!(tracer_common::place(a.0), tracer_common::place(b.0));
    let policy = running.capture.policy();
    let limit = |chunk| Limit { run: u32::MAX, chunk };
    policy.set_policy(a, limit(100), limit(0)).unwrap();
    policy.set_policy(b, limit(200), limit(0)).unwrap();
    assert_eq!(step(&mut running), [(a, 100), (b, 200)]);
    policy.ignore(b).unwrap();
    assert_eq!(step(&mut running), [(a, 100)]);
    policy.ignore(a).unwrap();
    policy.forget(b).unwrap();
    assert_eq!(step(&mut running), [(b, 1000)]);
    running.tell();
    running.finish();
}

#[test]
fn connections_opened_before_are_captured() {
    if skip() {
        return;
    }
    for family in ["v4", "unix"] {
        let mut running = Running::start_late(&["steps", family, "2"]);
        for index in 0..2 {
            running.tell();
            running.expect("done");
            let events = running.settle();
            let (sent, received) = (
                of(&events, DATA, Direction::Send),
                of(&events, DATA, Direction::Recv),
            );
            assert_eq!((sent.len(), received.len()), (1, 1), "{family}");
            assert_eq!(received[0].head, pattern(1000, index), "{family}");
            assert_eq!(
                (sent[0].header.pos, sent[0].header.peer_pos),
                (received[0].header.pos, received[0].header.peer_pos),
                "{family}"
            );
        }
        running.tell();
        running.finish();
    }
}

#[test]
fn nothing_is_lost_and_order_is_true() {
    if skip() {
        return;
    }
    let mut running = Running::start(&["load"]);
    let events = running.finish();
    for name in ["ring_full", "map_full", "payload_fault"] {
        assert_eq!(running.counter(name), 0, "{name}");
    }
    assert_eq!(of(&events, DATA, Direction::Send).len(), 20_000);
    assert_eq!(of(&events, DATA, Direction::Recv).len(), 20_000);
    assert!(events.is_sorted_by_key(|e| e.header.ts));
    // Along one connection, what is received was sent before.
    let mut balance = std::collections::HashMap::new();
    for event in events.iter().filter(|e| e.header.kind == DATA) {
        let key = (event.header.pos, event.header.peer_pos);
        let sent = balance.entry(key).or_insert(0i32);
        *sent += if event.header.dir == Direction::Send as u8 {
            1
        } else {
            -1
        };
        assert!(*sent >= 0, "received before it was sent: {:?}", event.header);
    }
}

#[test]
fn calls_of_io_uring_are_counted_where_their_messages_are_not_seen() {
    if skip() {
        return;
    }
    let others = [kernel::Backend::Tracepoint, kernel::Backend::Fentry];
    if backend().is_some_and(|backend| others.contains(&backend)) {
        return;
    }
    // `struct io_uring_params` (include/uapi/linux/io_uring.h).
    let mut parameters = [0u64; 15];
    // SAFETY: the call writes 120 bytes there.
    let ring = unsafe { libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_mut_ptr()) };
    if ring < 0 {
        eprintln!("this host has no io_uring: {}", std::io::Error::last_os_error());
        return;
    }
    let capture = attach_with(Some(kernel::Backend::Syscall), AMPLE);
    let counted = || {
        let counters = capture.counters().expect("the counters");
        let found = counters.iter().find(|(name, _)| *name == "ring_calls");
        found.expect("the counter").1
    };
    let before = counted();
    for _ in 0..3 {
        // SAFETY: nothing is submitted, nothing waited for.
        let result = unsafe { libc::syscall(libc::SYS_io_uring_enter, ring, 0, 0, 0, 0, 0) };
        assert_eq!(result, 0);
    }
    // Others may use io_uring meanwhile.
    assert!(counted() >= before + 3, "{before} before, {} after", counted());
    // SAFETY: the descriptor of above.
    unsafe { libc::close(ring as i32) };
}

#[test]
fn what_a_full_ring_loses_is_counted() {
    if skip() {
        return;
    }
    let mut running = Running::start_with_rings(&["load"], 256 << 10);
    running.let_it_end();
    assert!(
        running.counter("ring_full") > 0,
        "40,000 events fit into a small ring"
    );
    // Other processes go on making events: in a quiet moment the sum is exact.
    let mut read = 0;
    let balanced = (0..1_000).any(|_| {
        let made = running.counter("events");
        read += running.read_all() as u64;
        read + running.counter("ring_full") == made
    });
    assert!(balanced, "read {read}, counters {:?}", running.capture.counters());
    assert!(read + running.counter("ring_full") >= 40_000);
}

#[test]
fn a_sleeping_reader_is_woken_by_the_next_event() {
    if skip() {
        return;
    }
    let mut running = Running::start(&["steps", "v4", "1"]);
    running.expect("ready");
    running.settle();
    running.tell();
    // Far longer than the child takes: without the wake-up the events are found only after it.
    let long = std::time::Duration::from_secs(60);
    let begun = std::time::Instant::now();
    while of(&running.sleep(long), DATA, Direction::Recv).is_empty() {}
    assert!(begun.elapsed() < long, "nobody woke the reader");
    running.tell();
    running.finish();
}
