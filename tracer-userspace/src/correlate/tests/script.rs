//! The language of the scenarios: one signal a line.
//!
//! ```text
//! == name of the scenario
//! process 10 go                            language, or `hidden` for one that is not selected
//! config max_hold_ms=100
//! 1    10.1  recv A  c1 ctx=7:9            ms, unit, what, exchange, connection, options
//! 2    10.1  call B  c2
//! 4    10.1  done B                        first and last byte of the response; or `first`, `last` one by one
//! 5    10.1  done A
//! expect B < A thread certain              parent, evidence, confidence
//! expect A root
//! ```
//!
//! Units: `process.thread!execution.trigger.counter.dispatch.socket.time.timer.request` for a turn of an event loop (from the right, what is 0
//! may be left out; a timer of 0 is none), with the verbs `waits`, `woken` and `connect` of their own (and `held`: of a task, it is told later who holds it), `process.thread`, `process.thread/task<creator`, and with the caller of a pooled connection
//! `process.thread/task<creator@caller<creator`, with `~2` behind it if the callers rather had the task since then (ms); `@^5` is a place where the next one waits, or somebody will. `process.thread+7:2.5` works off what thread 7 (`t7`: task 7) submitted at that moment
//! (ms), `+7:2.5+8:1` what that one did when it worked off what 8 had submitted, `+^5:0` what will be taken from place 5, `+7:2.5+^5:^6` 7 takes
//! what is at 5 and 6, too; `+c1:2` what will be answered on the server's connection c1, since then (`2?`: unsure, `-`: made for an earlier request). Other verbs: `body` (last byte of the request), `eof c3` (it finds the end there), `drop`, `advance`, `stop` (the daemon does); and checks in
//! the middle: `out A`, `held A`. Jobs: `asks A`, `puts A 7`, `takes A 7`, `reads A 7`. Options: `ctx=trace:span` (`-` for none), `unix`, `nat`, `nopos`, `peer=n`.
//! Who took the connection of a call: `took=unit` or `took=unit:ms`, `client` if it is a thread of the client's own; `handed=unit:ms`
//! who handed it its work, `before=unit` who had before,
//! `waiter=7` (`t7`) who waits for that work (`c1`: it will be answered there; `c1~`: the event loop that handed it over had read from there). `woke UNIT` instead of an exchange: a thread wakes another (`woke UNIT UNIT MS`: who had woken it before, `-` for nobody, and since when the other one sleeps).
//! `ends UNIT MS`: the thread has ended, which that one had made then.
//! More expectations: `expect A < ctx`, `expect A dropped`, `expect B link A reason`, `expect B nolink`, `expect A same B` (one trace),
//! `expect A other B`, `expect A from 1 to 4.5` (ms).

use std::collections::HashMap;

use super::play::{Player, Variant, begin, conn_id};
use crate::correlate::Config;
use crate::model::{
    BY_LOOP, CONNECTION_UNIT, Confidence, Deed, Job, Language, PLACE_UNIT, Role, Runs, STALE, SpanId, Stamp,
    Submitters, THREAD_UNIT, Taken, Task, ThreadEnd, TraceContext, TraceId, Turn, UNSURE, Unit, Wake,
};

pub struct Scenario<'a> {
    pub name: &'a str,
    lines: Vec<&'a str>,
}

pub fn scenarios(text: &str) -> Vec<Scenario<'_>> {
    let mut all: Vec<Scenario<'_>> = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(name) = line.strip_prefix("==") {
            all.push(Scenario {
                name: name.trim(),
                lines: Vec::new(),
            });
        } else if !line.is_empty() {
            all.last_mut()
                .expect("a line before the first scenario")
                .lines
                .push(line);
        }
    }
    all
}

type Fallible<T = ()> = Result<T, String>;

fn number<T: std::str::FromStr>(text: &str) -> Fallible<T> {
    text.parse().map_err(|_| format!("not a number: {text}"))
}

fn unit(text: &str) -> Fallible<Unit> {
    let pair = |text: &str| -> Fallible<(u64, u64)> {
        if let Some(place) = text.strip_prefix('^') {
            return Ok((PLACE_UNIT | number::<u64>(place)?, 0));
        }
        match text.split_once('<') {
            Some((task, creator)) => Ok((number(task)?, number(creator)?)),
            None => Ok((number(text)?, 0)),
        }
    };
    if let Some((thread, turn)) = text.split_once('!') {
        return Ok(Unit {
            runs: Runs::Turn(turn_of(turn)?),
            ..unit(thread)?
        });
    }
    if let Some((thread, submitters)) = text.split_once('+') {
        return Ok(Unit {
            runs: Runs::Work(submitters_of(submitters)?),
            ..unit(thread)?
        });
    }
    let (text, tasks) = text.split_once('/').unwrap_or((text, ""));
    let (tgid, tid) = text.split_once('.').ok_or("a unit is process.thread")?;
    let mut told = Task::default();
    let (tasks, held) = tasks.split_once('~').unwrap_or((tasks, "0"));
    told.held_since = (number::<f64>(held)? * 1e6) as u64;
    for (at, text) in tasks.split('@').filter(|text| !text.is_empty()).enumerate() {
        let (task, creator) = pair(text)?;
        match at.checked_sub(1) {
            None => told.id = task,
            Some(at) => *told.awaiters.get_mut(at).ok_or("too many tasks wait")? = task,
        }
        told.creator = creator;
    }
    Ok(Unit {
        tgid: number(tgid)?,
        tid: number(tid)?,
        runs: match told == Task::default() {
            true => Runs::Thread,
            false => Runs::Task(told),
        },
    })
}

fn by(text: &str) -> Fallible<u64> {
    if let Some(conn) = text.strip_prefix('c') {
        return Ok(PLACE_UNIT | CONNECTION_UNIT | conn_id(number(conn)?, true).0);
    }
    match (text.strip_prefix('t'), text.strip_prefix('^')) {
        (Some(task), _) => number(task),
        (_, Some(place)) => Ok(PLACE_UNIT | number::<u64>(place)?),
        (None, None) => Ok(THREAD_UNIT | number::<u64>(text)?),
    }
}

/// Since when, in milliseconds.
fn since(text: &str) -> Fallible<u64> {
    let nanos = |ms: &str| Ok((number::<f64>(ms)? * 1e6) as u64);
    match text.strip_suffix('?') {
        _ if text == "-" => Ok(STALE),
        Some(ms) => Ok(nanos(ms)? | UNSURE),
        None => nanos(text),
    }
}

fn submitters_of(text: &str) -> Fallible<Submitters> {
    let mut told = [(0, 0); 2];
    for (place, text) in told.iter_mut().zip(text.split('+')) {
        let (by, ms) = text.split_once(':').ok_or("who submitted it, and when")?;
        let at = match ms.starts_with('^') {
            true => self::by(ms)?,
            false => since(ms)?,
        };
        *place = (self::by(by)?, at);
    }
    let [(by, at), (before, before_at)] = told;
    Ok(Submitters {
        by,
        at,
        before,
        before_at,
    })
}

fn turn_of(text: &str) -> Fallible<Turn> {
    let mut numbers = [0; 8];
    for (number, text) in numbers.iter_mut().zip(text.split('.')) {
        *number = text.parse().map_err(|_| format!("not a number: {text}"))?;
    }
    let [
        execution,
        trigger,
        counter,
        dispatch,
        socket,
        time,
        timer,
        request,
    ] = numbers;
    Ok(Turn {
        execution,
        trigger,
        counter,
        dispatch,
        socket: [socket, 0],
        time,
        timer: if timer == 0 { 1 << 30 } else { timer },
        request,
    })
}

/// `unit`, or `unit:ms`.
fn moment(text: &str, now: u64) -> Fallible<Stamp> {
    let (who, ts) = match text.split_once(':') {
        Some((who, ms)) => (who, (number::<f64>(ms)? * 1e6) as u64),
        None => (text, now),
    };
    Ok(Stamp { ts, unit: unit(who)? })
}

fn context(text: &str) -> Fallible<TraceContext> {
    let (trace, span) = text.split_once(':').ok_or("ctx=trace:span")?;
    let span_id = match span {
        "-" => None,
        n => Some(SpanId(number::<u64>(n)?.to_be_bytes())),
    };
    Ok(TraceContext {
        trace_id: TraceId(number::<u128>(trace)?.to_be_bytes()),
        span_id,
        sampled: None,
        trace_state: Box::default(),
        format: "traceparent",
    })
}

struct Run {
    player: Player,
    ids: HashMap<String, u64>,
    conns: HashMap<String, u32>,
    nth: HashMap<(u32, bool), u32>,
}

impl Run {
    fn id(&self, name: &str) -> Fallible<u64> {
        self.ids.get(name).copied().ok_or(format!("no exchange {name}"))
    }

    fn start(&mut self, inbound: bool, name: &str, stamp: Stamp, options: &[&str]) -> Fallible {
        let id = self.ids.len() as u64 + 1;
        if self.ids.insert(name.to_owned(), id).is_some() {
            return Err(format!("{name} begins twice"));
        }
        let (conn, options) = options.split_first().ok_or("a connection is missing")?;
        let count = self.conns.len() as u32 + 1;
        let conn = *self.conns.entry((*conn).to_owned()).or_insert(count);
        let nth = self.nth.entry((conn, inbound)).or_default();
        *nth += 1;
        let nth = *nth;
        let (mut variant, mut trace_context) = (Variant::default(), None);
        let mut taken = None;
        for option in options {
            match option.split_once('=') {
                Some(("ctx", value)) => trace_context = Some(context(value)?),
                Some(("peer", value)) => variant.peer_pos = number(value)?,
                Some(("took", value)) => {
                    taken = Some(Taken {
                        stamp: moment(value, stamp.ts)?,
                        by_client_thread: options.contains(&"client"),
                        handed: None,
                        before: None,
                        waiter: None,
                    });
                }
                Some(("handed", value)) => {
                    let taken = taken.as_mut().ok_or("handed= comes after took=")?;
                    taken.handed = Some(moment(value, stamp.ts)?);
                }
                Some(("before", value)) => {
                    taken.as_mut().ok_or("before= comes after took=")?.before = Some(unit(value)?);
                }
                Some(("waiter", value)) => {
                    let taken = taken.as_mut().ok_or("waiter= comes after took=")?;
                    let (waiter, how) = match value.strip_suffix('~') {
                        Some(conn) => (conn, BY_LOOP),
                        None => (value, 0),
                    };
                    taken.waiter = Some((by(waiter)?, taken.stamp.ts | how));
                }
                None if *option == "client" => {}
                None if *option == "unix" => variant.unix = true,
                None if *option == "nat" => variant.nat = true,
                None if *option == "nopos" => variant.no_position = true,
                _ => return Err(format!("unknown option {option}")),
            }
        }
        let role = if inbound { Role::Server } else { Role::Client };
        let mut begin = begin(id, role, conn, nth, stamp, trace_context, variant);
        begin.taken = taken.map(Box::new);
        self.player.begin(begin);
        Ok(())
    }

    fn line(&mut self, words: &[&str]) -> Fallible {
        let [time, who, rest @ ..] = words else {
            return Err("a line is time, unit, what".into());
        };
        let ts = (number::<f64>(time)? * 1e6) as u64;
        if let ["stop"] = [*who] {
            self.player.advance(ts);
            self.player.finish();
            return Ok(());
        }
        if let ["advance"] = [*who] {
            self.player.advance(ts);
            return Ok(());
        }
        if *who == "out" || *who == "held" {
            let [name] = rest else {
                return Err("which exchange?".into());
            };
            self.player.advance(ts);
            let out = self.player.spans.contains_key(&self.id(name)?);
            return match out == (*who == "out") {
                true => Ok(()),
                false => Err(format!("at {time}: {name} must be {who}")),
            };
        }
        let stamp = Stamp { ts, unit: unit(who)? };
        if let ["waits" | "woken" | "held"] = *rest {
            let deed = match rest {
                ["waits"] => Deed::Waits,
                ["held"] => Deed::Held,
                _ => Deed::Woken,
            };
            self.player.act(stamp, deed);
            self.player.advance(ts);
            return Ok(());
        }
        if let ["ends", creator, born] = *rest {
            self.player.end_thread(ThreadEnd {
                stamp,
                creator: unit(creator)?.tid,
                born: (number::<f64>(born)? * 1e6) as u64,
            });
            self.player.advance(ts);
            return Ok(());
        }
        if let ["connect", conn] = *rest {
            let count = self.conns.len() as u32 + 1;
            let conn = *self.conns.entry(conn.to_owned()).or_insert(count);
            self.player.act(stamp, Deed::Connects(conn_id(conn, false)));
            return Ok(());
        }
        if let ["eof", conn] = *rest {
            let conn = self.conns.get(conn).ok_or("the end of which connection?")?;
            self.player.act(stamp, Deed::ReadsEnd(conn_id(*conn, false)));
            return Ok(());
        }
        let [verb, name, options @ ..] = rest else {
            return Err("what happens?".into());
        };
        match *verb {
            "recv" => self.start(true, name, stamp, options)?,
            "call" => self.start(false, name, stamp, options)?,
            "body" => self.player.request_end(self.id(name)?, stamp),
            "first" => self.player.respond(self.id(name)?, stamp),
            "last" => self.player.end(self.id(name)?, stamp),
            "done" => self.player.done(self.id(name)?, stamp),
            "woke" => self.player.wake(Wake {
                waker: stamp,
                woken: unit(name)?.tid,
                before: match options.first() {
                    None | Some(&"-") => None,
                    Some(before) => Some(unit(before)?.tid),
                },
                asleep_since: match options.get(1) {
                    None => 0,
                    Some(ms) => (number::<f64>(ms)? * 1e6) as u64,
                },
            }),
            "asks" => self.player.job(self.id(name)?, ts, Job::Asks),
            "puts" | "takes" | "reads" => {
                let number = number(options.first().ok_or("which job?")?)?;
                let job = match *verb {
                    "puts" => Job::Puts(number),
                    "takes" => Job::Takes(number),
                    _ => Job::Reads(number),
                };
                self.player.job(self.id(name)?, ts, job);
            }
            "drop" => self.player.lose(self.id(name)?, ts),
            _ => return Err(format!("unknown verb {verb}")),
        }
        self.player.advance(ts);
        Ok(())
    }

    fn expect(&self, words: &[&str]) -> Fallible {
        let [name, rest @ ..] = words else {
            return Err("expect what?".into());
        };
        let span = self.player.spans.get(&self.id(name)?);
        if *rest == ["dropped"] {
            return span.map_or(Ok(()), |_| Err(format!("{name} became a span")));
        }
        let span = span.ok_or(format!("{name} did not become a span"))?;
        let told = self.tell(name)?;
        let other = |name: &&str| self.player.spans.get(&self.id(name).ok()?);
        let holds = match rest {
            ["root"] => span.parent.is_none(),
            ["<", "ctx", how @ ..] => {
                let context = span.exchange.context.as_ref().ok_or("no context")?;
                span.parent == context.span_id
                    && span.trace_id == context.trace_id
                    && told.ends_with(&how.join(" "))
            }
            ["<", ..] => told == words.join(" "),
            ["same", b] => other(b).is_some_and(|b| b.trace_id == span.trace_id),
            ["other", b] => other(b).is_some_and(|b| b.trace_id != span.trace_id),
            ["from", start, "to", end] => {
                let ms = |text: &str| number::<f64>(text).map(|ms| (ms * 1e6) as u64);
                let exchange = &span.exchange;
                (exchange.start.ts, exchange.end.ts) == (ms(start)?, ms(end)?)
                    && exchange
                        .first_byte
                        .is_none_or(|first| first.ts <= exchange.end.ts)
            }
            ["nolink"] => span.links.is_empty(),
            ["link", to, reason] => other(to).is_some_and(|to| {
                let found = span.links.iter().find(|l| l.span_id == to.span_id);
                found.is_some_and(|l| l.reason == *reason && l.trace_id == to.trace_id)
            }),
            _ => return Err(format!("unknown expectation {}", words.join(" "))),
        };
        if holds {
            Ok(())
        } else {
            Err(format!(
                "expected {}; is: {told} {:?}",
                words.join(" "),
                span.links
            ))
        }
    }

    /// `B < A thread certain`, or `B root`.
    fn tell(&self, name: &str) -> Fallible<String> {
        let span = &self.player.spans[&self.id(name)?];
        let (Some(parent), Some((evidence, confidence))) = (span.parent, span.evidence) else {
            return Ok(format!("{name} root"));
        };
        let of = |id: &u64| self.player.spans.get(id).is_some_and(|s| s.span_id == parent);
        let above = self
            .ids
            .iter()
            .find(|(_, id)| of(id))
            .map_or("?", |(name, _)| name);
        let sure = match confidence {
            Confidence::Certain => "certain",
            Confidence::Likely => "likely",
            Confidence::Inferred => "inferred",
        };
        Ok(format!("{name} < {above} {} {sure}", evidence.as_str()))
    }
}

/// Plays a scenario and compares.
pub fn check(scenario: &Scenario<'_>) -> Fallible {
    let mut config = Config::default();
    let (mut processes, mut play, mut expectations) = (Vec::new(), Vec::new(), Vec::new());
    for line in &scenario.lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["process", tgid, what] => processes.push((number::<u32>(tgid)?, (*what).to_owned())),
            ["config", pairs @ ..] => {
                for pair in pairs {
                    match pair.split_once('=').ok_or("config key=value")? {
                        ("max_open", n) => config.max_open = number(n)?,
                        ("max_hold_ms", n) => config.max_hold_ms = number(n)?,
                        ("max_trace_spans", n) => config.max_trace_spans = number(n)?,
                        ("max_trace_age_ms", n) => config.max_trace_age_ms = number(n)?,
                        ("max_units", n) => config.max_units = number(n)?,
                        (key, _) => return Err(format!("unknown key {key}")),
                    }
                }
            }
            ["expect", words @ ..] => expectations.push(words.to_vec()),
            words => play.push(words.to_vec()),
        }
    }
    let mut run = Run {
        player: Player::new(config),
        ids: HashMap::new(),
        conns: HashMap::new(),
        nth: HashMap::new(),
    };
    for (tgid, what) in processes {
        let (language, selected) = match what.as_str() {
            "go" => (Language::Go, true),
            "java" => (Language::Java, true),
            "node" => (Language::NodeJs, true),
            "python" => (Language::Python, true),
            "other" => (Language::Unknown, true),
            "hidden" => (Language::Unknown, false),
            other => return Err(format!("unknown kind of process {other}")),
        };
        run.player.service(tgid, language, selected);
    }
    let mut last = 0.0;
    for words in play {
        last = number::<f64>(words[0])?;
        run.line(&words)?;
    }
    // Long enough for every decision but the hold.
    run.player.advance(((last + 400.0) * 1e6) as u64);
    run.player.finish();
    run.player.check()?;
    let wrong: Vec<String> = expectations
        .iter()
        .filter_map(|words| run.expect(words).err())
        .collect();
    if wrong.is_empty() {
        Ok(())
    } else {
        Err(wrong.join("; "))
    }
}
