//! Records conversations of real programs as captures: a relay between a client and a server that writes down what each sent.

use std::fmt::Write as _;
use std::fs;
use std::io::{Read, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;

use anyhow::Context;

/// Most bytes of one chunk that are written down; the rest is a number and the chunk's last bytes.
const MOST: usize = 2_048;

/// Bytes of a long chunk's end that are written down.
const TAIL: usize = 32;

/// Options of `cargo xtask record`.
#[derive(clap::Args)]
pub struct Args {
    /// Port to listen on, on loopback
    listen: u16,
    /// Port to relay to, on loopback
    target: u16,
    /// What is recorded: the first comment of the files
    what: String,
    /// Where to write: NAME.cap for the first connection, NAME-2.cap for the second, …
    #[arg(long, default_value = "capture")]
    out: PathBuf,
    /// Stop after this many connections
    #[arg(long, default_value_t = 1)]
    connections: usize,
}

enum Event {
    Bytes(&'static str, Vec<u8>),
    Fin(&'static str),
}

/// Runs the subcommand.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", args.listen)).context("listening")?;
    let mut recordings = Vec::new();
    for number in 1..=args.connections {
        let (client, _) = listener.accept()?;
        let server = TcpStream::connect(("127.0.0.1", args.target)).context("connecting to the target")?;
        let path = match number {
            1 => args.out.with_extension("cap"),
            _ => PathBuf::from(format!("{}-{number}.cap", args.out.display())),
        };
        let header = format!("# {}\nport {}\n\n", args.what, args.target);
        recordings.push(thread::spawn(move || record(client, server, &path, header)));
    }
    for recording in recordings {
        recording
            .join()
            .map_err(|_| anyhow::anyhow!("a recording failed"))??;
    }
    Ok(())
}

fn record(client: TcpStream, server: TcpStream, path: &Path, mut text: String) -> anyhow::Result<()> {
    let (events, recorded) = mpsc::channel();
    for (side, from, to) in [("C", &client, &server), ("S", &server, &client)] {
        let (mut from, mut to, events) = (from.try_clone()?, to.try_clone()?, events.clone());
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            // An error on either side ends the direction as an end of the stream does.
            while let Ok(n @ 1..) = from.read(&mut buffer) {
                let bytes = buffer.get(..n).unwrap_or_default().to_vec();
                if events.send(Event::Bytes(side, bytes.clone())).is_err() || to.write_all(&bytes).is_err() {
                    break;
                }
            }
            _ = events.send(Event::Fin(side));
            _ = to.shutdown(Shutdown::Write);
        });
    }
    drop(events);
    for event in recorded {
        match event {
            Event::Bytes(side, bytes) => write_chunk(&mut text, side, &bytes),
            Event::Fin(side) => writeln!(text, "{side} fin")?,
        }
    }
    text.push_str("\n---\n");
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("{}", path.display());
    Ok(())
}

fn write_chunk(text: &mut String, side: &str, bytes: &[u8]) {
    text.push_str(side);
    text.push('>');
    let (head, tail) = match bytes.len() > MOST + TAIL {
        true => (&bytes[..MOST], &bytes[bytes.len() - TAIL..]),
        false => (bytes, &[][..]),
    };
    write_bytes(text, head);
    if !tail.is_empty() {
        _ = write!(text, "\n   +{}", bytes.len() - head.len() - tail.len());
        write_bytes(text, tail);
    }
    text.push('\n');
}

/// Text line by line, anything else in hexadecimal.
fn write_bytes(text: &mut String, bytes: &[u8]) {
    let printable = bytes
        .iter()
        .all(|b| matches!(b, b' '..=b'~' | b'\r' | b'\n' | b'\t'));
    if printable {
        for (index, line) in bytes.split_inclusive(|b| *b == b'\n').enumerate() {
            text.push_str(if index == 0 { " \"" } else { "\n   \"" });
            text.extend(line.escape_ascii().map(char::from));
            text.push('"');
        }
        return;
    }
    for line in bytes.chunks(32) {
        text.push_str(if line.as_ptr() == bytes.as_ptr() {
            " x\""
        } else {
            "\n   x\""
        });
        for byte in line {
            _ = write!(text, "{byte:02x} ");
        }
        text.truncate(text.trim_end().len());
        text.push('"');
    }
}
