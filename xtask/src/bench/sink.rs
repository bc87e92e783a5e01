//! An OTLP/HTTP endpoint that counts spans by service and kind, and keeps nothing: `GET /count` gives the counts as JSON.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};

/// Options of the endpoint.
#[derive(clap::Args)]
pub struct Args {
    /// Loopback port to listen on
    #[arg(long)]
    port: u16,
}

/// Largest request that is taken.
const MAX_BODY: usize = 64 << 20;

/// Spans by `service kind`, and requests.
type Counts = BTreeMap<String, u64>;

/// Serves until it is killed.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", args.port))?;
    let counts = Arc::new(Mutex::new(Counts::new()));
    for stream in listener.incoming() {
        let (stream, counts) = (stream?, Arc::clone(&counts));
        std::thread::spawn(move || {
            if let Err(error) = serve(&stream, &counts) {
                eprintln!("sink: {error:#}");
            }
        });
    }
    Ok(())
}

fn serve(mut stream: &TcpStream, counts: &Mutex<Counts>) -> anyhow::Result<()> {
    let mut reader = BufReader::with_capacity(64 << 10, stream);
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let is_count = line.starts_with("GET /count");
        let mut length = 0;
        loop {
            line.clear();
            ensure!(
                reader.read_line(&mut line)? > 0,
                "the connection ended within a request"
            );
            let header = line.trim_end();
            if header.is_empty() {
                break;
            }
            let (name, value) = header.split_once(':').context("not a header")?;
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse()?;
            }
            ensure!(
                !name.eq_ignore_ascii_case("transfer-encoding"),
                "chunked requests are not taken"
            );
            ensure!(
                !name.eq_ignore_ascii_case("content-encoding"),
                "compressed requests are not taken"
            );
        }
        ensure!(length <= MAX_BODY, "a request of {length} bytes");
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if is_count {
            let text = serde_json::to_string(&*counts)?;
            write!(
                stream,
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{text}",
                text.len()
            )?;
            return Ok(());
        }
        count(&body, &mut counts).context("not an ExportTraceServiceRequest")?;
        *counts.entry("requests".into()).or_default() += 1;
        stream.write_all(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n",
        )?;
    }
}

/// Counts the spans of an `ExportTraceServiceRequest` (opentelemetry/proto/trace/v1/trace.proto); `None` if it is malformed.
fn count(request: &[u8], counts: &mut Counts) -> Option<()> {
    each(request, |field, resource_spans, _| {
        if field != 1 {
            return Some(());
        }
        let mut kinds = [0u64; 6];
        let mut service = None;
        each(resource_spans, |field, part, _| match field {
            1 => each(part, |field, attribute, _| {
                if field == 1 {
                    service = service_name(attribute).or(service.take());
                }
                Some(())
            }),
            2 => each(part, |field, span, _| {
                if field == 2 {
                    let kind = kind(span)?;
                    *kinds.get_mut(kind)? += 1;
                }
                Some(())
            }),
            _ => Some(()),
        })?;
        let service = service.unwrap_or_default();
        for (name, count) in [
            "unspecified",
            "internal",
            "server",
            "client",
            "producer",
            "consumer",
        ]
        .iter()
        .zip(kinds)
        {
            if count > 0 {
                *counts.entry(format!("{service} {name}")).or_default() += count;
            }
        }
        Some(())
    })
}

/// `Span.kind`, field 6: the walk ends there, most of the span lies behind it.
fn kind(span: &[u8]) -> Option<usize> {
    let mut rest = span;
    while !rest.is_empty() {
        let (field, _, value) = next(&mut rest)?;
        if field == 6 {
            return usize::try_from(value).ok();
        }
    }
    Some(0)
}

/// The value of a `KeyValue` whose key is `service.name`.
fn service_name(attribute: &[u8]) -> Option<String> {
    let mut name = None;
    let mut is_name = false;
    each(attribute, |field, part, _| {
        match field {
            1 => is_name = part == b"service.name",
            2 => each(part, |field, text, _| {
                if field == 1 {
                    name = Some(String::from_utf8_lossy(text).into_owned());
                }
                Some(())
            })?,
            _ => {}
        }
        Some(())
    })?;
    name.filter(|_| is_name)
}

/// Calls `f` with number, bytes and integer of every field.
fn each<'a>(message: &'a [u8], mut f: impl FnMut(u64, &'a [u8], u64) -> Option<()>) -> Option<()> {
    let mut rest = message;
    while !rest.is_empty() {
        let (field, bytes, value) = next(&mut rest)?;
        f(field, bytes, value)?;
    }
    Some(())
}

/// The next field of a protobuf message: its number, and its bytes or its integer.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8], u64)> {
    let tag = varint(rest)?;
    let length = match tag & 7 {
        0 => return Some((tag >> 3, &[], varint(rest)?)),
        1 => 8,
        2 => usize::try_from(varint(rest)?).ok()?,
        5 => 4,
        _ => return None,
    };
    let (bytes, behind) = rest.split_at_checked(length)?;
    *rest = behind;
    Some((tag >> 3, bytes, 0))
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, behind) = rest.split_first()?;
        *rest = behind;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let length = u16::try_from(bytes.len()).expect("short");
        let mut out = vec![number << 3 | 2, (length & 0x7f) as u8 | 0x80, (length >> 7) as u8];
        out.extend_from_slice(bytes);
        out
    }

    #[test]
    fn spans_are_counted_by_service_and_kind() {
        let value = field(1, b"nginx");
        let attribute = [field(1, b"service.name"), field(2, &value)].concat();
        let other = [field(1, b"host.name"), field(2, &field(1, b"h"))].concat();
        let resource = [field(1, &attribute), field(1, &other)].concat();
        let span = |kind: u8| [field(1, &[7; 16]), vec![6 << 3, kind], field(5, b"GET")].concat();
        let scope = [
            field(1, b""),
            field(2, &span(2)),
            field(2, &span(3)),
            field(2, &span(2)),
        ]
        .concat();
        let request = field(1, &[field(1, &resource), field(2, &scope)].concat());
        let mut counts = Counts::new();
        assert_eq!(count(&request, &mut counts), Some(()));
        assert_eq!(
            counts,
            Counts::from([("nginx client".into(), 1), ("nginx server".into(), 2)])
        );
        for end in 1..request.len() {
            assert_eq!(count(&request[..end], &mut Counts::new()), None, "cut at {end}");
        }
    }
}
