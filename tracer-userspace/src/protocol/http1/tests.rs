//! Tables for heads, framing and detection; whole conversations are in `captures/http1/`.

use super::body::{Body, Chunked};
use super::framing::{Framing, request_framing, response_framing};
use super::head::{Parsed, read_cut, read_on};
use super::lengths::{ContentLength, TransferEncoding};
use super::line::{RequestLine, StartLine, StatusLine};
use super::looks::{looks_like_request, looks_like_response};
use super::*;
use crate::model::{Exchange, Outcome};
use crate::protocol::replay::{Outcomes, Replay};

/// Lines of requests: method, target and minor version; empty if it is none.
const REQUEST_LINES: &[(&str, &str)] = &[
    ("GET / HTTP/1.1", "GET / 1"),
    ("GET / HTTP/1.0", "GET / 0"),
    ("GET / HTTP/1.2", "GET / 1"),
    ("GET /a?b=c HTTP/1.1", "GET /a?b=c 1"),
    ("get / HTTP/1.1", "get / 1"),
    ("M-SEARCH * HTTP/1.1", "M-SEARCH * 1"),
    ("X!#$%&'*+-.^_`|~9 / HTTP/1.1", "X!#$%&'*+-.^_`|~9 / 1"),
    ("UPDATEREDIRECTREF /a HTTP/1.1", "UPDATEREDIRECTREF /a 1"),
    ("CONNECT a:443 HTTP/1.1", "CONNECT a:443 1"),
    ("OPTIONS * HTTP/1.1", "OPTIONS * 1"),
    ("GET http://a/b HTTP/1.1", "GET http://a/b 1"),
    ("GET /caf\u{e9} HTTP/1.1", "GET /caf\u{e9} 1"),
    // RFC 9112 section 3: recipients may be lenient about white space
    ("GET  / HTTP/1.1", "GET / 1"),
    ("GET /  HTTP/1.1", "GET / 1"),
    ("GET / HTTP/1.1 ", "GET / 1"),
    ("GET /a b HTTP/1.1", "GET /a b 1"),
    ("", ""),
    ("GET", ""),
    ("GET /", ""),
    ("GET / ", ""),
    ("GET  HTTP/1.1", ""),
    ("GET HTTP/1.1", ""),
    (" GET / HTTP/1.1", ""),
    (" / HTTP/1.1", ""),
    ("GET / HTTP/2.0", ""),
    ("GET / HTTP/1.", ""),
    ("GET / HTTP/1.x", ""),
    ("GET / HTTP/1.11", ""),
    ("GET / http/1.1", ""),
    ("GET / HTTP/1.1x", ""),
    ("GET / RTSP/1.0", ""),
    ("G(T / HTTP/1.1", ""),
    ("G\tT / HTTP/1.1", ""),
    ("G\u{e9}T / HTTP/1.1", ""),
    ("THISMETHODISTOOLONGTOBETAKENFORONE / HTTP/1.1", ""),
    ("HTTP/1.1 200 OK", ""),
];

#[test]
fn request_lines() {
    for (line, wanted) in REQUEST_LINES {
        let seen = RequestLine::parse(line.as_bytes()).map_or(String::new(), |line| {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            format!("{} {} {}", text(line.method), text(line.target), line.minor)
        });
        assert_eq!(&seen, wanted, "{line}");
    }
}

#[test]
fn status_lines() {
    let rows = [
        ("HTTP/1.1 200 OK", Some((200, 1))),
        ("HTTP/1.0 404 Not Found", Some((404, 0))),
        ("HTTP/1.1 200 ", Some((200, 1))),
        ("HTTP/1.1 200", Some((200, 1))),
        ("HTTP/1.1 200\tOK", Some((200, 1))),
        ("HTTP/1.9 999 \u{e9}", Some((999, 1))),
        ("HTTP/1.1 100 Continue", Some((100, 1))),
        ("HTTP/1.1 099 No", None),
        ("HTTP/1.1 20 OK", None),
        ("HTTP/1.1 2000 OK", None),
        ("HTTP/1.1 2x0 OK", None),
        ("HTTP/1.1  200 OK", None),
        ("HTTP/1.1\t200 OK", None),
        ("HTTP/2 200", None),
        ("HTTP/1.x 200 OK", None),
        ("http/1.1 200 OK", None),
        ("ICY 200 OK", None),
        ("", None),
    ];
    for (line, wanted) in rows {
        let seen = StatusLine::parse(line.as_bytes()).map(|line| (line.status, line.minor));
        assert_eq!(seen, wanted, "{line}");
    }
}

/// The beginning of a client's run, and what it looks like.
const BEGINNINGS: &[(&str, Looks)] = &[
    ("G", Looks::Maybe),
    ("GET", Looks::Maybe),
    ("GET ", Looks::Maybe),
    ("GET /", Looks::Maybe),
    ("GET / ", Looks::Maybe),
    ("GET / HTTP", Looks::Maybe),
    ("GET / HTTP/1.", Looks::Maybe),
    ("GET / HTTP/1.1", Looks::Maybe),
    ("GET / HTTP/1.1\r", Looks::Maybe),
    ("GET / HTTP/1.1\r\n", Looks::Yes),
    ("GET / HTTP/1.1\n", Looks::Yes),
    ("GET / HTTP/1.0\r\nHost: a", Looks::Yes),
    ("BREW /pot HTTP/1.1\r\n", Looks::Yes),
    ("* * HTTP/1.1\r\n", Looks::Yes),
    ("POST /caf\u{e9} HTTP/1.1\r\n", Looks::Yes),
    ("*3\r\n$3\r\nSET\r\n", Looks::No),
    ("GET key\r\n", Looks::No),
    ("PING\r\n", Looks::No),
    ("get a b c\r\n", Looks::No),
    ("GET /\r\n", Looks::No),
    ("GET / HTTP/2.0\r\n", Looks::No),
    ("GET / HTTP/1.1x", Looks::No),
    ("GET / HTTP/1.x", Looks::No),
    ("GET / HTTPS", Looks::No),
    ("GET / RTSP/1.0\r\n", Looks::No),
    ("PRI * HTTP/2.0\r\n", Looks::No),
    ("GET  / HTTP/1.1\r\n", Looks::No),
    (" GET / HTTP/1.1\r\n", Looks::No),
    ("\u{16}\u{3}\u{1}", Looks::No),
    ("{\"a\":1}", Looks::No),
    ("<html>", Looks::No),
    ("THISMETHODISTOOLONGTOBETAKENFORONE", Looks::No),
    ("THISMETHODISTOOLONGTOBETAKENFORONE / HTTP/1.1\r\n", Looks::No),
    ("USER anonymous\r\n", Looks::No),
    ("EHLO example.org\r\n", Looks::No),
];

#[test]
fn beginnings_of_requests() {
    for (text, wanted) in BEGINNINGS {
        assert_eq!(looks_like_request(text.as_bytes()), *wanted, "{text:?}");
    }
}

#[test]
fn beginnings_of_responses() {
    let rows = [
        ("H", Looks::Maybe),
        ("HTTP/1.", Looks::Maybe),
        ("HTTP/1.1 20", Looks::Maybe),
        ("HTTP/1.1 200", Looks::Maybe),
        ("HTTP/1.1 200 ", Looks::Yes),
        ("HTTP/1.1 200\r", Looks::Yes),
        ("HTTP/1.0 404 Not Found\r\n", Looks::Yes),
        ("HTTP/1.1 2000", Looks::No),
        ("HTTP/1.1 020 ", Looks::No),
        ("HTTP/1.1  200", Looks::No),
        ("HTTP/2 200", Looks::No),
        ("HTTP/1.x 200 OK", Looks::No),
        ("HTTPS", Looks::No),
        ("http/1.1 200 OK", Looks::No),
        ("+OK\r\n", Looks::No),
    ];
    for (text, wanted) in rows {
        assert_eq!(looks_like_response(text.as_bytes()), wanted, "{text:?}");
    }
}

/// Field lines of a request and what they make of its body.
const FRAMINGS: &[(&str, &str)] = &[
    ("", "none"),
    ("Content-Length: 0", "none"),
    ("Content-Length: 5", "5"),
    ("content-length:5", "5"),
    ("CONTENT-LENGTH:\t5 \t", "5"),
    ("Content-Length: 005", "5"),
    ("Content-Length: 18446744073709551615", "18446744073709551615"),
    ("Content-Length: 18446744073709551616", "broken"),
    ("Content-Length: -1", "broken"),
    ("Content-Length: +1", "broken"),
    ("Content-Length: 1.0", "broken"),
    ("Content-Length: 0x10", "broken"),
    ("Content-Length: 5 5", "broken"),
    ("Content-Length:", "broken"),
    ("Content-Length: ,", "broken"),
    ("Content-Length: 5, 5", "5"),
    ("Content-Length: 5, 6", "broken"),
    ("Content-Length: 5,", "broken"),
    ("Content-Length: 5\r\nContent-Length: 5", "5"),
    ("Content-Length: 5\r\nContent-Length: 6", "broken"),
    ("Content-Length: x\r\nContent-Length: 5", "broken"),
    ("Content-Length : 5", "broken"),
    ("Content-Length\t: 5", "broken"),
    ("Content-Lengths: 5", "none"),
    ("X-Content-Length: 5", "none"),
    ("Content-Length: 5\r\nX: y", "5"),
    ("X: y\r\n\tContent-Length: 5", "none"),
    ("Content-Length:\r\n 5", "5"),
    ("Transfer-Encoding: chunked", "chunked"),
    ("transfer-encoding:CHUNKED", "chunked"),
    ("Transfer-Encoding: gzip, chunked", "chunked"),
    ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", "chunked"),
    ("Transfer-Encoding: gzip,\r\n\tchunked", "chunked"),
    ("Transfer-Encoding: chunked,", "chunked"),
    ("Transfer-Encoding: chunked, gzip", "broken"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip", "broken"),
    ("Transfer-Encoding: gzip", "broken"),
    ("Transfer-Encoding: xchunked", "broken"),
    ("Transfer-Encoding: identity", "none"),
    ("Transfer-Encoding:", "none"),
    ("Transfer-Encoding : chunked", "broken"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 5", "chunked"),
    ("Content-Length: 5\r\nTransfer-Encoding: chunked", "chunked"),
    ("Content-Length: x\r\nTransfer-Encoding: chunked", "chunked"),
    ("Transfer-Encoding: identity\r\nContent-Length: 5", "5"),
    ("TE: chunked", "none"),
    ("Connection: close", "none"),
];

fn tell(framing: &Framing) -> String {
    match framing {
        Framing::None => "none".into(),
        Framing::Broken => "broken".into(),
        Framing::Body(Body::Length(length)) => length.to_string(),
        Framing::Body(Body::Chunked(_)) => "chunked".into(),
        Framing::Body(Body::UntilClose) => "close".into(),
        Framing::Body(Body::Blind(_)) => "blind".into(),
    }
}

#[test]
fn framing_of_requests() {
    for (fields, wanted) in FRAMINGS {
        for end in ["\r\n", "\n"] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n")
                .replace("\r\n", end)
                .replace("\n\n\n", "\n\n");
            let text = if fields.is_empty() {
                format!("POST / HTTP/1.1{end}{end}")
            } else {
                text
            };
            let Parsed::Whole((_, fields), len) = read_on::<RequestLine<'_>>(text.as_bytes(), 0) else {
                panic!("{text:?} is whole");
            };
            assert_eq!(len, text.len(), "{text:?}");
            assert_eq!(tell(&request_framing(&fields)), *wanted, "{text:?}");
        }
    }
}

#[test]
fn framing_of_responses() {
    // status, response to HEAD, fields, framing
    let rows = [
        (200, false, "", "close"),
        (200, false, "Content-Length: 5", "5"),
        (200, false, "Content-Length: 0", "none"),
        (200, false, "Content-Length: x", "broken"),
        (200, false, "Content-Length: 5\r\nContent-Length: 6", "broken"),
        (200, false, "Content-Length: 5, 5", "5"),
        (200, false, "Transfer-Encoding: chunked", "chunked"),
        (
            200,
            false,
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            "chunked",
        ),
        (200, false, "Transfer-Encoding: gzip", "close"),
        (
            200,
            false,
            "Transfer-Encoding: gzip\r\nContent-Length: 5",
            "close",
        ),
        (200, false, "Transfer-Encoding: identity", "close"),
        (
            200,
            false,
            "Transfer-Encoding: identity\r\nContent-Length: 5",
            "5",
        ),
        (200, true, "Content-Length: 5", "none"),
        (200, true, "Transfer-Encoding: chunked", "none"),
        (200, true, "", "none"),
        (204, false, "", "none"),
        (204, false, "Content-Length: 5", "none"),
        (304, false, "Content-Length: 5", "none"),
        (304, false, "Transfer-Encoding: chunked", "none"),
        (404, false, "", "close"),
        (500, false, "Content-Length: 1", "1"),
        (200, false, "Content-Length : 1", "broken"),
    ];
    for (status, is_head, fields, wanted) in rows {
        let text = match fields {
            "" => format!("HTTP/1.1 {status} X\r\n\r\n"),
            _ => format!("HTTP/1.1 {status} X\r\n{fields}\r\n\r\n"),
        };
        let Parsed::Whole((line, fields), _) = read_on::<StatusLine>(text.as_bytes(), 0) else {
            panic!("{text:?} is whole");
        };
        assert_eq!(
            tell(&response_framing(line.status, is_head, &fields)),
            wanted,
            "{text:?}, HEAD: {is_head}"
        );
    }
}

#[test]
fn a_head_is_found_however_it_is_cut() {
    let text = b"POST /a HTTP/1.1\r\nHost: h\nContent-Length: 3\r\nTransfer-Encoding:\r\n chunked\r\nUser-Agent: u\r\n\r\nabc";
    let end = text.len() - 3;
    for cut in 0..end {
        assert!(
            matches!(read_on::<RequestLine<'_>>(&text[..cut], 0), Parsed::Incomplete),
            "{cut}"
        );
        // As when `cut` bytes came first, and then the rest.
        let Parsed::Whole((line, fields), len) = read_on::<RequestLine<'_>>(text, cut) else {
            panic!("whole after {cut}");
        };
        assert_eq!(
            (line.method, line.target, len),
            (&b"POST"[..], &b"/a"[..], end),
            "{cut}"
        );
        assert_eq!(fields.host, Some(&b"h"[..]));
        assert_eq!(fields.user_agent, Some(&b"u"[..]));
        assert_eq!(fields.content_length, ContentLength::Is(3));
        assert_eq!(fields.transfer_encoding, TransferEncoding::Chunked);
    }
    let (line, fields) = read_cut::<RequestLine<'_>>(&text[..50]).expect("the line is whole");
    assert_eq!((line.target, fields.host), (&b"/a"[..], Some(&b"h"[..])));
    assert_eq!(fields.transfer_encoding, TransferEncoding::Absent);
}

/// Chunked bodies with `.` behind the last byte that belongs to them; `!` where they are malformed; and their content's size.
const CHUNKED: &[(&str, u64)] = &[
    ("0\r\n\r\n.", 0),
    ("0\n\n.", 0),
    ("000\r\n\r\n.next", 0),
    ("3\r\nabc\r\n0\r\n\r\n.", 3),
    ("3\nabc\n0\n\n.", 3),
    ("a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n.", 21),
    ("3;a\r\nabc\r\n0;b=c\r\n\r\n.", 3),
    ("3 ;a=\"b;c\"\r\nabc\r\n0\r\n\r\n.", 3),
    ("3 \r\nabc\r\n0\r\n\r\n.", 3),
    ("3\t\r\nabc\r\n0\r\n\r\n.", 3),
    ("0\r\nA: b\r\n\r\n.", 0),
    ("0\r\nA: b\r\nC: d\r\n\r\n.GET", 0),
    ("0\r\nA:\r\n\tb\r\n\r\n.", 0),
    ("2\r\n\r\n\r\n0\r\n\r\n.", 2),
    ("3\r\nabc\r\n", 3),
    ("3\r\nab", 2),
    ("0\r\n", 0),
    ("0\r\nA", 0),
    ("x!", 0),
    ("\r!", 0),
    ("\n!", 0),
    (";!", 0),
    ("-!1", 0),
    ("3g!", 0),
    ("3\r\nabcd!", 3),
    ("3\r\nabc\r\n\r!", 3),
    ("ffffffffffffffff0!", 0),
    ("10000000000000000!", 0),
    ("ffffffffffffffff\r\nabc", 3),
];

#[test]
fn chunked_bodies() {
    for (text, content) in CHUNKED {
        let (body, rest) = text.split_once(['.', '!']).unwrap_or((text, ""));
        let bytes = [body.as_bytes(), rest.as_bytes()].concat();
        for step in [1, 2, 3, bytes.len()] {
            let mut state = Body::Chunked(Chunked::START);
            let (mut taken, mut size, mut done, mut malformed) = (0, 0, false, false);
            while taken < bytes.len() && !done && !malformed {
                let end = (taken + step).min(bytes.len());
                let progress = state.take(&bytes[taken..end]);
                taken += progress.taken;
                size += progress.content;
                (done, malformed) = (progress.done, progress.malformed);
            }
            let wanted = (body.len(), *content, text.contains('.'), text.contains('!'));
            assert_eq!(
                (taken, size, done, malformed),
                wanted,
                "{text:?} in steps of {step}"
            );
        }
    }
}

/// What is seen of a chunked body behind bytes that were not captured, and whether it is its end.
#[test]
fn ends_of_chunked_bodies_whose_bytes_were_not_captured() {
    let rows = [
        ("abc\r\n0\r\n\r\n", true),
        ("\r\n0\r\n\r\n", true),
        ("\n0\r\n\r\n", true),
        ("abc\r\n0\r\nA: b\r\n\r\n", true),
        ("0\r\n\r\n", false),
        ("10\r\n\r\n", false),
        ("abc\r\n10\r\n\r\n", false),
        ("abc\r\n0\r\nnot a field\r\n\r\n", false),
        ("abc\r\n\r\n", false),
        ("abc\r\n0\r\n", false),
        ("", false),
        ("a line of forty bytes, more than a window\r\n0\r\n\r\n", true),
    ];
    for (text, wanted) in rows {
        for step in [1, 5, text.len().max(1)] {
            let mut body = Body::Chunked(Chunked::Data(5));
            assert_eq!(body.skip(1_000).content, None);
            let ended = text
                .as_bytes()
                .chunks(step)
                .map(|piece| body.take(piece).done)
                .last();
            assert_eq!(ended.unwrap_or(false), wanted, "{text:?} in steps of {step}");
        }
    }
}

fn replay(local: Side) -> Replay {
    Replay::new(&Http1, local, 80, false)
}

fn request(path: usize) -> Vec<u8> {
    format!("GET /r{path} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes()
}

fn response(status: usize, size: usize) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status} X\r\nContent-Length: {size}\r\n\r\n").into_bytes();
    bytes.resize(bytes.len() + size, b'x');
    bytes
}

/// Each request `/rN` is answered by status 200 + N: with bytes missing anywhere, no exchange may claim another's response.
#[test]
fn no_response_is_given_to_another_request() {
    for pipelined in [false, true] {
        let mut chunks: Vec<(Side, Vec<u8>)> = Vec::new();
        for round in 0..4 {
            let numbers: Vec<usize> = (0..3).map(|n| 10 + 3 * round + n).collect();
            if pipelined {
                chunks.push((Side::Client, numbers.iter().flat_map(|n| request(*n)).collect()));
                chunks.push((
                    Side::Server,
                    numbers.iter().flat_map(|n| response(200 + n, 10)).collect(),
                ));
            } else {
                for n in numbers {
                    chunks.push((Side::Client, request(n)));
                    chunks.push((Side::Server, response(200 + n, 10)));
                }
            }
        }
        let mut kept = 0;
        for (index, (_, bytes)) in chunks.iter().enumerate() {
            for from in 0..=bytes.len() {
                for (len, known) in [
                    (1, true),
                    (1, false),
                    (40, true),
                    (40, false),
                    (1_000, true),
                    (1_000, false),
                ] {
                    let outcomes = with_hole(&chunks, index, from, len, known);
                    kept += outcomes.exchanges.len();
                    for exchange in &outcomes.exchanges {
                        let path = exchange.attributes.get_str("url.path").unwrap();
                        let status = exchange.attributes.get_int("http.response.status_code");
                        // A path whose end was not captured is shorter.
                        let wanted = path
                            .strip_prefix("/r")
                            .filter(|n| n.len() == 2)
                            .and_then(|n| n.parse::<i64>().ok());
                        let told = status.is_none() || wanted.is_none() || status == wanted.map(|n| 200 + n);
                        assert!(
                            told,
                            "{path} is said to have got {status:?}: pipelined {pipelined}, {len} bytes ({known}) missing from byte {from} of chunk {index}"
                        );
                    }
                }
            }
        }
        assert!(kept > 1_000, "few exchanges survive: {kept}");
    }
}

fn with_hole(chunks: &[(Side, Vec<u8>)], hole: usize, from: usize, len: usize, known: bool) -> Outcomes {
    let mut replay = replay(Side::Server);
    for (index, (side, bytes)) in chunks.iter().enumerate() {
        replay.tick();
        if index != hole {
            replay.bytes(*side, bytes);
            continue;
        }
        let (before, after) = bytes.split_at(from);
        let gone = len.min(after.len());
        if !before.is_empty() {
            replay.bytes(*side, before);
        }
        match known {
            true if gone > 0 => replay.skip(*side, gone as u64),
            true => {}
            false => replay.lost(*side),
        }
        if gone < after.len() {
            replay.bytes(*side, &after[gone..]);
        }
    }
    replay.finish().unwrap()
}

#[test]
fn a_head_of_64_kib_may_come_byte_by_byte() {
    let mut head = b"GET /big HTTP/1.1\r\n".to_vec();
    while head.len() < 65_000 {
        head.extend_from_slice(b"Cookie: 0123456789012345678901234567890123456789\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let mut replay = replay(Side::Server);
    replay.tick();
    head.iter().for_each(|byte| replay.bytes(Side::Client, &[*byte]));
    replay.tick();
    replay.bytes(Side::Server, &response(200, 0));
    let outcomes = replay.finish().unwrap();
    let [exchange] = &outcomes.exchanges[..] else {
        panic!("one exchange")
    };
    assert_eq!(
        (&*exchange.name, exchange.request_bytes),
        ("GET /big", head.len() as u64)
    );
}

#[test]
fn a_head_without_end_is_told_from_its_beginning() {
    let mut replay = replay(Side::Server);
    replay.tick();
    replay.bytes(Side::Client, b"GET /endless HTTP/1.1\r\n");
    for _ in 0..100 {
        replay.bytes(Side::Client, &[b'x'; 2_000]);
    }
    replay.tick();
    replay.bytes(Side::Server, &response(431, 0));
    let outcomes = replay.finish().unwrap();
    let [exchange] = &outcomes.exchanges[..] else {
        panic!("one exchange")
    };
    assert_eq!(
        (&*exchange.name, exchange.outcome.clone()),
        ("GET /endless", Outcome::Unset)
    );
}

#[test]
fn requests_beyond_the_bound_are_counted() {
    let mut replay = replay(Side::Server);
    replay.tick();
    for n in 0..2_000 {
        replay.bytes(Side::Client, &request(n));
    }
    let outcomes = replay.finish().unwrap();
    assert_eq!((outcomes.exchanges.len(), outcomes.dropped.len()), (0, 2_000));
}

#[test]
fn a_body_of_200_mb_is_counted_and_not_asked_for() {
    let size = 200_000_000usize;
    let mut replay = replay(Side::Server);
    replay.tick();
    replay.bytes(Side::Client, &request(1));
    replay.bytes(
        Side::Server,
        format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").as_bytes(),
    );
    for _ in 0..200 {
        replay.tick();
        replay.skip(Side::Server, 1_000_000);
    }
    let outcomes = replay.finish().unwrap();
    let [exchange] = &outcomes.exchanges[..] else {
        panic!("one exchange")
    };
    assert_eq!(
        exchange.attributes.get_int("http.response.body.size"),
        Some(size as i64)
    );
    assert_eq!(
        exchange.end.ts - exchange.start.ts,
        200 * crate::protocol::replay::STEP
    );
    let Some(crate::protocol::CapturePolicy::Limit { send, recv }) = outcomes.policy else {
        panic!("a policy")
    };
    assert!(send.0 <= 256 && recv.0 <= 256, "{send:?} {recv:?}");
}

/// What is remembered of earlier heads on a connection must not change what later ones tell.
#[test]
fn a_repeated_head_tells_what_it_would_tell_alone() {
    let get = |target: &str, more: &str| format!("GET {target} HTTP/1.1\r\nHost: a:81\r\n{more}\r\n");
    let ok = |date: &str, len: usize| {
        let body = "x".repeat(len);
        format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: {len}\r\n\r\n{body}")
    };
    let moved = "HTTP/1.1 302 Found\r\nDate: 2\r\nContent-Length: 0\r\n\r\n".to_string();
    let head = get("/a", "").replace("GET", "HEAD");
    let bodiless = ok("1", 5).replace("xxxxx", "");
    let rows = [
        (get("/a", ""), ok("1", 5)),
        (get("/a", ""), ok("1", 5)),
        (get("/a", ""), ok("2", 5)),
        (head.clone(), bodiless.clone()),
        (head, bodiless),
        (get("/a", ""), ok("2", 6)),
        (get("/b", ""), ok("2", 6)),
        (get("/b", "User-Agent: u\r\n"), moved.clone()),
        (get("/b", "User-Agent: u\r\n"), moved),
        (get("/b", "User-Agent: v\r\n"), ok("3", 6)),
    ];
    let play = |rows: &[(String, String)], unseen: usize| {
        let mut replay = replay(Side::Client);
        for (request, response) in rows {
            replay.tick();
            replay.bytes(Side::Client, request.as_bytes());
            replay.tick();
            let body = response.len() - response.find("\r\n\r\n").map_or(0, |end| end + 4);
            let unseen = unseen.min(body);
            let seen = response.len() - unseen;
            replay.cut(Side::Server, &response.as_bytes()[..seen], unseen as u32);
        }
        replay.finish().unwrap().exchanges
    };
    // The same bytes, with as many of each response's last ones not captured.
    for unseen in [0, 1, 4, 1_000] {
        let together = play(&rows, unseen);
        assert_eq!(together.len(), rows.len());
        for (row, exchange) in rows.iter().zip(&together) {
            let [alone] = &play(std::slice::from_ref(row), 0)[..] else {
                panic!("one exchange of {row:?}")
            };
            assert_eq!((&alone.name, &alone.outcome), (&exchange.name, &exchange.outcome));
            assert_eq!(alone.attributes, exchange.attributes, "{unseen} {row:?}");
            let lasted = |exchange: &Exchange| {
                let first_byte = exchange.first_byte.map(|first| first.ts - exchange.start.ts);
                (first_byte, exchange.end.ts - exchange.start.ts)
            };
            assert_eq!(lasted(alone), lasted(exchange), "{unseen} {row:?}");
            let sizes = (exchange.request_bytes, exchange.response_bytes);
            assert_eq!(
                (alone.request_bytes, alone.response_bytes),
                sizes,
                "{unseen} {row:?}"
            );
        }
    }
}
