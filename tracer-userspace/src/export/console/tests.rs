//! What the console prints, whole.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry_semantic_conventions::attribute as semconv;

use super::style::Palette;
use super::traces::{Limits, Traces};
use super::*;
use crate::export::config::{Colour, Console, Queue};
use crate::export::fixtures::{self, EPOCH, MS, span};
use crate::export::{Left, Pipeline};
use crate::model::{Confidence, Evidence, Link, Outcome, Role, SpanId, TraceId};
use crate::telemetry::{Ledger, Snapshot};

const PLAIN: Palette = Palette { is_coloured: false };

fn limits() -> Limits {
    Limits {
        settle: Duration::from_millis(300),
        patience: Duration::from_secs(3),
        max_spans: 1000,
        lines_per_second: None,
    }
}

/// A request through three services, with a failure and an uncertain parent.
fn shop() -> Vec<Span> {
    let (shop, cart, db) = (
        fixtures::service("shop"),
        fixtures::service("cart"),
        fixtures::service("postgresql"),
    );
    let mut spans = vec![
        span(&shop, 1, 1, None, Role::Server, (318, 352)),
        span(&shop, 1, 2, Some(1), Role::Client, (321, 341)),
        span(&cart, 1, 3, Some(2), Role::Server, (323, 340)),
        span(&cart, 1, 4, Some(3), Role::Client, (325, 326)),
        span(&db, 1, 5, Some(4), Role::Server, (325, 326)),
        span(&cart, 1, 6, Some(3), Role::Client, (330, 339)),
        span(&shop, 1, 7, Some(1), Role::Client, (345, 350)),
    ];
    for (index, name) in [
        (3, "SELECT carts"),
        (4, "SELECT carts"),
        (5, "UPDATE carts"),
        (6, "connect"),
    ] {
        let exchange = &mut spans[index].exchange;
        exchange.name = name.into();
        exchange.attributes.clear();
    }
    spans[5].evidence = Some((Evidence::Loop, Confidence::Likely));
    spans[6].evidence = Some((Evidence::Thread, Confidence::Inferred));
    spans[5].exchange.outcome = Outcome::Error {
        kind: "40P01".into(),
        message: "deadlock detected".into(),
    };
    spans[6].exchange.outcome = Outcome::Error {
        kind: "ECONNREFUSED".into(),
        message: "".into(),
    };
    spans
}

fn draw(spans: &[Span], palette: Palette, width: usize) -> String {
    let mut traces = Traces::new(limits());
    let now = Instant::now();
    spans.iter().for_each(|span| traces.add(0, span, now));
    let mut out = Vec::new();
    for (trace, is_shown) in traces.ready(now, true) {
        assert!(is_shown);
        waterfall::render(&mut out, &trace, &Clock::with_offset(EPOCH), palette, width);
    }
    String::from_utf8(out).unwrap()
}

#[track_caller]
fn check(name: &str, got: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/export/console/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, got).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        got == expected,
        "{name} differs (UPDATE_GOLDEN=1 writes it anew):\n{got}\ninstead of\n{expected}"
    );
}

#[test]
fn a_trace_at_several_widths() {
    for width in [60, 80, 110, 160] {
        let got = draw(&shop(), PLAIN, width);
        let widest = got.lines().skip(1).map(|line| line.chars().count()).max();
        assert!(widest <= Some(width), "{widest:?} > {width}\n{got}");
        check(&format!("waterfall-{width}.txt"), &got);
    }
}

#[test]
fn a_trace_in_colour() {
    let got = draw(&shop(), Palette { is_coloured: true }, 110);
    check("waterfall-colour.txt", &got);
    // Colour adds escapes and takes nothing away.
    let mut plain = String::new();
    let mut rest = got.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain += before;
        rest = after.split_once('m').unwrap().1;
    }
    assert_eq!(plain + rest, draw(&shop(), PLAIN, 110));
}

#[test]
fn odd_traces() {
    let service = fixtures::service("shop");
    let server = |trace, id, parent, at| span(&service, trace, id, parent, Role::Server, at);
    let mut spans = vec![
        // One span, one line; and one that failed.
        server(1, 1, None, (1, 3)),
        server(2, 1, None, (2, 2)),
        // Its parent was never seen.
        server(3, 2, Some(99), (3, 1503)),
        server(3, 3, Some(99), (4, 5)),
        // A circle, and a span that is its own parent.
        server(4, 1, Some(2), (6, 9)),
        server(4, 2, Some(1), (7, 8)),
        server(4, 3, Some(3), (6, 7)),
        // Names that try to steer the terminal.
        server(5, 1, None, (10, 70_010)),
        server(5, 2, Some(1), (11, 12)),
    ];
    spans[1].exchange.outcome = Outcome::Error {
        kind: "500".into(),
        message: "".into(),
    };
    spans[7].exchange.name = "GET /\x1b[2J\r\nnew\u{202e}line".into();
    spans[8].exchange.name = "y".repeat(300).into();
    check("odd.txt", &draw(&spans, PLAIN, 90));
}

#[test]
fn deep_and_broad_traces_are_bounded() {
    let service = fixtures::service("shop");
    let chain: Vec<_> = (0..250_u8)
        .map(|i| {
            span(
                &service,
                1,
                i,
                i.checked_sub(1),
                Role::Server,
                (u64::from(i), 500 - u64::from(i)),
            )
        })
        .collect();
    let got = draw(&chain, PLAIN, 100);
    assert_eq!(got.lines().count(), waterfall::lines(chain.len()));
    assert!(got.lines().all(|line| line.chars().count() <= 100), "{got}");
    assert!(got.ends_with("… 151 more spans\n\n"), "{got}");
    assert_eq!(
        draw(&chain[..100], PLAIN, 100).lines().count(),
        waterfall::lines(100)
    );
}

#[test]
fn traces_are_printed_when_whole_or_when_patience_ends() {
    let service = fixtures::service("shop");
    let server = |trace, id, parent| span(&service, trace, id, parent, Role::Server, (1, 2));
    let start = Instant::now();
    let mut traces = Traces::new(limits());
    let mut at = |millis, new: &[Span]| {
        let now = start + Duration::from_millis(millis);
        new.iter().for_each(|span| traces.add(0, span, now));
        traces
            .ready(now, false)
            .iter()
            .map(|(trace, _)| (trace.id.0[0], trace.nodes.len()))
            .collect::<Vec<_>>()
    };
    assert_eq!(at(0, &[server(1, 1, None), server(2, 2, Some(1))]), []);
    assert_eq!(at(299, &[]), []);
    assert_eq!(at(300, &[]), [(1, 1)], "whole and quiet");
    assert_eq!(at(2_999, &[server(3, 2, Some(1))]), [], "trace 2 misses its root");
    assert_eq!(at(3_000, &[]), [(2, 1)]);
    assert_eq!(at(3_100, &[server(3, 1, None)]), []);
    assert_eq!(at(3_400, &[]), [(3, 2)], "the root came");
    // A trace that never falls quiet.
    for millis in (4_000..34_000).step_by(250) {
        assert_eq!(at(millis, &[server(4, 1, None)]), [], "{millis}");
    }
    assert_eq!(at(34_000, &[]), [(4, 120)]);
    // Too many spans: nothing waits.
    let many: Vec<_> = (0..=250).map(|i| server(i, 9, Some(8))).collect();
    assert_eq!(at(35_000, &many), []);
    assert_eq!(at(35_000, &many), []);
    assert_eq!(at(35_000, &many), []);
    assert_eq!(at(35_000, &many).len(), 251);
}

#[test]
fn a_screen_takes_so_many_lines_and_traces_are_left_out_whole() {
    let service = fixtures::service("shop");
    let mut traces = Traces::new(Limits {
        lines_per_second: Some(10),
        ..limits()
    });
    let start = Instant::now();
    let mut second = |second| {
        let now = start + Duration::from_secs(second);
        for trace in 0..6 {
            traces.add(
                0,
                &span(&service, trace, 1, None, Role::Server, (u64::from(trace), 9)),
                now,
            );
            traces.add(
                0,
                &span(&service, trace, 2, Some(1), Role::Client, (u64::from(trace), 9)),
                now,
            );
        }
        let shown = traces
            .ready(now, true)
            .iter()
            .filter(|(_, is_shown)| *is_shown)
            .count();
        (shown, traces.take_left_out(now, false))
    };
    // Four lines a trace, ten lines a second.
    assert_eq!(second(0), (2, Some((4, 8))));
    assert_eq!(second(0), (0, None), "a notice a second");
    assert_eq!(second(1), (2, Some((10, 20))));
    let mut out = Vec::new();
    waterfall::notice(&mut out, 9, 18, PLAIN);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        "  … 9 traces, 18 spans not shown: more than a screen can take\n"
    );
}

#[test]
fn colour_follows_the_terminal_and_the_environment() {
    // (setting, terminal, NO_COLOR, TERM) -> colour
    for (colour, is_terminal, no_color, term, expected) in [
        (Colour::Auto, true, None, Some("xterm"), true),
        (Colour::Auto, true, Some(""), None, true),
        (Colour::Auto, true, Some("1"), None, false),
        (Colour::Auto, true, None, Some("dumb"), false),
        (Colour::Auto, false, None, Some("xterm"), false),
        (Colour::Always, false, Some("1"), None, true),
        (Colour::Never, true, None, None, false),
    ] {
        let config = Console {
            colour,
            ..Console::default()
        };
        let env = |name: &str| match name {
            "NO_COLOR" => no_color,
            "TERM" => term,
            _ => None,
        };
        let screen = Screen::detect(&config, is_terminal, &|name| env(name).map(Into::into));
        assert_eq!(
            screen.palette.is_coloured, expected,
            "{colour:?} {is_terminal} {no_color:?} {term:?}"
        );
    }
    for (columns, width) in [
        (None, 110),
        (Some("80"), 80),
        (Some("7"), 60),
        (Some("x"), 110),
        (Some("9999"), 220),
    ] {
        let screen = Screen::detect(&Console::default(), false, &|name| {
            columns.filter(|_| name == "COLUMNS").map(Into::into)
        });
        assert_eq!(screen.width(), width);
    }
}

#[test]
fn a_line_of_json_has_every_field() {
    let service = fixtures::service("sh\"op");
    let mut full = span(&service, 0xab, 1, Some(2), Role::Server, (318, 352));
    full.trace_state = "vendor=x".into();
    full.evidence = Some((Evidence::Header, Confidence::Certain));
    full.links = vec![
        Link {
            trace_id: TraceId([3; 16]),
            span_id: SpanId([4; 8]),
            reason: "late",
        },
        Link {
            trace_id: TraceId([5; 16]),
            span_id: SpanId([6; 8]),
            reason: "message",
        },
    ];
    full.exchange.outcome = Outcome::Error {
        kind: "500".into(),
        message: "a \"bad\" day\n".into(),
    };
    full.exchange
        .attributes
        .push_str(semconv::DB_QUERY_TEXT, "select \"x\"\tfrom é");
    full.exchange.attributes.push_bool("b", true);
    full.exchange.attributes.push_double("d", 2.5);
    full.exchange.attributes.push_double("not a number", f64::NAN);
    let least = span(&service, 1, 1, None, Role::Client, (318, 352));
    let mut out = Buffer::default();
    for with_resource in [true, false] {
        let mut writer = json::Writer::new(Clock::with_offset(EPOCH), with_resource);
        writer.span(&mut out, &full);
        writer.span(&mut out, &least);
    }
    let got = String::from_utf8(out.as_slice().to_vec()).unwrap();
    check("spans.jsonl", &got);
    let lines: Vec<serde_json::Value> = got
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 4);
    let line = &lines[0];
    assert_eq!(line["trace_id"], "ab".repeat(16));
    assert_eq!(line["parent_span_id"], "02".repeat(8));
    assert_eq!(line["status_message"], "a \"bad\" day\n");
    assert_eq!(line["start_unix_nano"], EPOCH as u64 + 318 * MS);
    assert_eq!(line["attributes"]["db.query.text"], "select \"x\"\tfrom é");
    assert_eq!(line["attributes"]["tracer.time_to_first_byte"], 17);
    assert_eq!(line["resource"]["process.command_args"][1], "--listen=:8080");
    assert_eq!(line["links"][1]["reason"], "message");
    assert_eq!(lines[3].get("parent_span_id"), None);
}

/// Standard output that a test can read; it breaks after so many writes.
#[derive(Clone)]
struct Shared {
    text: Arc<Mutex<Vec<u8>>>,
    writes: usize,
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes = self.writes.checked_sub(1).ok_or(io::ErrorKind::BrokenPipe)?;
        self.text.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints hand-overs, each after the one before was accounted for.
fn print(config: Console, batches: &[Vec<Span>], writes: usize) -> (String, Snapshot, bool) {
    let queue = Queue {
        batch_age: Duration::ZERO,
        ..Queue::default()
    };
    let config = Config {
        console: config,
        queue,
        ..Config::default()
    };
    let output = Shared {
        text: Arc::default(),
        writes,
    };
    let ledger = Arc::new(Ledger::default());
    let screen = Screen::detect(&config.console, false, &|_| None);
    let clock = Clock::with_offset(EPOCH);
    let pipeline = Pipeline::start_with(
        &config,
        clock,
        Arc::clone(&ledger),
        Box::new(output.clone()),
        screen,
    )
    .unwrap();
    for batch in batches {
        ledger.seen(batch.len() as u64);
        pipeline.send(batch.clone());
        let deadline = Instant::now() + Duration::from_secs(60);
        while config.console.format == Format::Json && ledger.snapshot().open() > 0 {
            assert!(Instant::now() < deadline);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let gone = pipeline.is_gone();
    assert_eq!(pipeline.shutdown(Duration::from_secs(60)), Left { spans: 0 });
    let snapshot = ledger.snapshot();
    assert_eq!(snapshot.open(), 0, "{snapshot}");
    let text = String::from_utf8(output.text.lock().unwrap().clone()).unwrap();
    (text, snapshot, gone)
}

#[test]
fn alone_the_console_decides() {
    let waterfall = Console::default();
    let json = Console {
        format: Format::Json,
        ..Console::default()
    };
    let (text, snapshot, _) = print(waterfall, &[shop()], 1);
    assert_eq!(text, draw(&shop(), PLAIN, 110));
    assert_eq!((snapshot.exported, snapshot.dropped.len()), (7, 0));
    assert_eq!(snapshot.services["cart"], (3, 3, 0));
    let (text, snapshot, gone) = print(json, &[shop(), shop()], 2);
    assert_eq!(
        (text.lines().count(), snapshot.exported, gone),
        (14, 14, false),
        "one write a batch"
    );
}

#[test]
fn a_closed_standard_output_ends_the_console() {
    let json = Console {
        format: Format::Json,
        ..Console::default()
    };
    let (text, snapshot, gone) = print(json, &[shop(), shop(), shop()], 1);
    assert_eq!((text.lines().count(), gone), (7, true));
    assert_eq!(
        (snapshot.exported, snapshot.dropped),
        (7, [(Reason::ExportFailed, 14)].into())
    );
    let (text, snapshot, _) = print(Console::default(), &[shop()], 0);
    assert_eq!((text.as_str(), snapshot.exported), ("", 0));
    assert_eq!(snapshot.dropped, [(Reason::ExportFailed, 7)].into());
}

#[test]
fn what_is_remembered_of_a_connection_changes_no_line() {
    let service = fixtures::service("shop");
    let mut spans: Vec<_> = (0..4)
        .map(|_| span(&service, 1, 1, None, Role::Server, (1, 2)))
        .collect();
    for (index, span) in spans.iter_mut().enumerate() {
        span.exchange.conn = fixtures::conn(Role::Server);
        if index > 0 {
            span.exchange.attributes.clear();
        }
        if index > 1 {
            span.exchange
                .attributes
                .push_int(semconv::SERVER_PORT, index as i64);
        }
    }
    let conn = Arc::clone(&spans[0].exchange.conn);
    spans
        .iter_mut()
        .for_each(|span| span.exchange.conn = Arc::clone(&conn));
    let lines = |spans: &[&Span]| {
        let mut writer = json::Writer::new(Clock::with_offset(EPOCH), false);
        let mut out = Buffer::default();
        spans.iter().for_each(|span| writer.span(&mut out, span));
        String::from_utf8(out.as_slice().to_vec()).unwrap()
    };
    for first in &spans {
        for second in &spans {
            let got = lines(&[first, second, second]);
            assert_eq!(got, lines(&[first]) + &lines(&[second]) + &lines(&[second]));
            assert!(
                got.lines()
                    .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
                "{got}"
            );
        }
    }
}
