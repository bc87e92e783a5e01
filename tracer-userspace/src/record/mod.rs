//! Recorded runs: what the correlation stage was told, in order, so that it can be told again (`tracer --record FILE`, `tracer replay FILE`).
//!
//! One JSON object a line ([`line::Line`]). Nothing of what the traffic says is in it but the names of spans: no attributes, no
//! headers, no payload.

mod line;
mod names;

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use serde_json::Value;

use crate::model::{Nanos, Service, Signal};
use line::{Line, VERSION, Who};
use names::Names;

/// A signal, ready to be written: the stage takes the signal itself.
pub struct Told(Line);

impl Told {
    /// The signal as it will be written.
    #[must_use]
    pub fn of(signal: &Signal) -> Self {
        Self(Line::of(signal))
    }
}

/// Writes what happens until the file is as large as it may be.
pub struct Recorder<W = BufWriter<File>> {
    out: W,
    /// Bytes that may still be written; `None` once it is over.
    left: Option<u64>,
    line: Vec<u8>,
    /// Who was told last behind a process id.
    told: HashMap<u32, Who>,
}

impl Recorder {
    /// Makes the file anew, for its owner alone. `correlate`: the settings of the correlation stage.
    ///
    /// # Errors
    /// It can't be written.
    pub fn create(path: &Path, max_bytes: u64, correlate: Value) -> anyhow::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .with_context(|| format!("cannot write `{}`", path.display()))?;
        Ok(Self::new(BufWriter::new(file), max_bytes, correlate))
    }
}

impl<W: Write> Recorder<W> {
    fn new(out: W, max_bytes: u64, correlate: Value) -> Self {
        let mut recorder = Self {
            out,
            left: Some(max_bytes),
            line: Vec::new(),
            told: HashMap::new(),
        };
        recorder.write(&Line::Start {
            version: VERSION,
            correlate,
        });
        recorder
    }

    /// The stage was told this. What it asked for meanwhile must have been told before, by [`Self::service`].
    pub fn tell(&mut self, told: &Told) {
        if self.left.is_some() {
            self.write(&told.0);
        }
    }

    /// That service is behind the process id.
    pub fn service(&mut self, tgid: u32, service: &Service) {
        let who = Who::of(tgid, service);
        if self.left.is_some() && self.told.get(&tgid) != Some(&who) {
            self.told.insert(tgid, who.clone());
            self.write(&Line::Service(who));
        }
    }

    /// Time has come that far.
    pub fn advance(&mut self, to: Nanos) {
        if self.left.is_some() {
            self.write(&Line::Advance(to));
        }
    }

    /// Writes a line, whole or not at all.
    fn write(&mut self, line: &Line) {
        self.line.clear();
        let written = serde_json::to_writer(&mut self.line, line).map_err(io::Error::from);
        self.line.push(b'\n');
        self.left = self
            .left
            .and_then(|left| left.checked_sub(self.line.len() as u64));
        if self.left.is_none() {
            tracing::warn!("the recording is as large as it may be: what follows is left out");
            return;
        }
        if let Err(why) = written.and_then(|()| self.out.write_all(&self.line)) {
            tracing::warn!("the recording ends here: {why}");
            self.left = None;
        }
    }

    /// Writes what is left to write.
    pub fn flush(&mut self) {
        if let Err(why) = self.out.flush() {
            tracing::warn!("the recording lacks its end: {why}");
        }
    }
}

/// What was recorded.
pub enum Event {
    /// Who is behind a process id from now on.
    Service(u32, Arc<Service>),
    /// The stage was told this.
    Signal(Signal),
    /// Time has come that far.
    Advance(Nanos),
}

/// A recorded run.
pub struct Recording<R> {
    lines: R,
    /// The settings of the correlation stage.
    pub correlate: Value,
    line: Vec<u8>,
    names: Names,
}

impl<R: BufRead> Recording<R> {
    /// Begins to read.
    ///
    /// # Errors
    /// It is none, or of another version.
    pub fn open(lines: R) -> anyhow::Result<Self> {
        let mut recording = Self {
            lines,
            correlate: Value::Null,
            line: Vec::new(),
            names: Names::default(),
        };
        match recording.next_line()? {
            Some(Line::Start { version, correlate }) => {
                anyhow::ensure!(
                    version == VERSION,
                    "it has version {version}, this program reads {VERSION}"
                );
                recording.correlate = correlate;
                Ok(recording)
            }
            _ => anyhow::bail!("it is no recorded run"),
        }
    }

    /// What happened next; `None` at the end.
    ///
    /// # Errors
    /// It can't be read. A last line that was cut is the end.
    pub fn next_event(&mut self) -> anyhow::Result<Option<Event>> {
        Ok(match self.next_line()? {
            None => None,
            Some(Line::Start { .. }) => anyhow::bail!("it begins twice"),
            Some(Line::Service(who)) => Some(Event::Service(who.tgid, Arc::new(who.service()))),
            Some(Line::Advance(to)) => Some(Event::Advance(to)),
            Some(Line::Signal { ts, kind }) => Some(Event::Signal(Signal {
                ts,
                kind: kind.signal(&mut self.names),
            })),
        })
    }

    fn next_line(&mut self) -> anyhow::Result<Option<Line>> {
        self.line.clear();
        self.lines.read_until(b'\n', &mut self.line)?;
        if self.line.last() != Some(&b'\n') {
            return Ok(None);
        }
        serde_json::from_slice(&self.line)
            .map(Some)
            .context("a line that is not understood")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Language, Runs, SignalKind, Stamp, Submitters, Turn, Unit, Wake};

    fn wake(ts: u64, runs: Runs) -> Signal {
        let unit = Unit {
            tgid: 7,
            tid: 8,
            runs,
        };
        Signal {
            ts,
            kind: SignalKind::Wake(Wake {
                waker: Stamp { ts, unit },
                woken: 9,
                before: None,
                asleep_since: 3,
            }),
        }
    }

    fn recorded(max_bytes: u64, signals: &[Signal]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut recorder = Recorder::new(&mut out, max_bytes, Value::Null);
        let service = Service {
            name: "shop".into(),
            tgid: 7,
            language: Language::Go,
            selected: true,
            ..Service::default()
        };
        for signal in signals {
            recorder.service(7, &service);
            recorder.tell(&Told::of(signal));
        }
        recorder.advance(100);
        recorder.flush();
        out
    }

    fn read(bytes: &[u8]) -> Vec<String> {
        let mut recording = Recording::open(bytes).unwrap();
        let mut events = Vec::new();
        while let Some(event) = recording.next_event().unwrap() {
            events.push(match event {
                Event::Service(tgid, service) => format!("{tgid} {service:?}"),
                Event::Signal(signal) => format!("{signal:?}"),
                Event::Advance(to) => to.to_string(),
            });
        }
        events
    }

    #[test]
    fn what_was_told_is_told_again() {
        let turn = Turn {
            execution: 1,
            socket: [2, 3],
            ..Turn::default()
        };
        let work = Submitters {
            by: 1 << 62 | 5,
            at: 17,
            ..Submitters::default()
        };
        let signals = [
            wake(1, Runs::Thread),
            wake(2, Runs::Turn(turn)),
            wake(3, Runs::Work(work)),
        ];
        let events = read(&recorded(1 << 20, &signals));
        assert_eq!(events.len(), 5, "a service is told once");
        for (event, signal) in events[1..].iter().zip(&signals) {
            assert_eq!(*event, format!("{signal:?}"));
        }
        assert_eq!(events[4], "100");
    }

    #[test]
    fn a_recording_is_bounded_and_may_be_cut() {
        let signals = [wake(1, Runs::Thread), wake(2, Runs::Thread)];
        let whole = recorded(1 << 20, &signals);
        let bounded = recorded(whole.len() as u64 - 1, &signals);
        assert!(bounded.len() < whole.len() - 15 && whole.starts_with(&bounded));
        assert_eq!(read(&bounded).len(), 3);
        assert_eq!(read(whole.split_at(whole.len() - 5).0).len(), 3);
        assert!(Recording::open(&b"{}\n"[..]).is_err() && Recording::open(&b""[..]).is_err());
    }
}
