//! Jobs: what one command puts into a list, a sorted set or a stream, and another takes out.
//!
//! An element that was put and one that was taken are the same job if their bytes are, under the same key of the same server. So each
//! is told by a hash of all of that (SipHash, with a key of this run of the daemon). An entry of a stream has an id that the server gives,
//! which is told in its place. What was not captured to its end has no hash; nor has anything behind a Unix socket, which does not tell
//! what server it leads to. Databases of one server are not told apart: a connection that was there before the tracer does not show its own.

use std::hash::{BuildHasher as _, DefaultHasher, Hash as _, Hasher as _, RandomState};
use std::sync::OnceLock;

use super::resp::{Value, value};
use crate::model::{Address, Conn, ExchangeId, Job};
use crate::protocol::Output;

/// Elements of one command that are told; the others are not.
const MAX_TOLD: usize = 16;
/// Longest element that is hashed.
const MAX_ELEMENT: u64 = 1 << 20;

/// What a command does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// Puts its arguments behind the key, each, or every second counted from the last (`ZADD key score member`).
    Puts { every: u64 },
    /// Puts an entry whose id is the reply.
    Appends,
    /// Takes elements; every value of the reply is one, or every second. The first names the key, or the command has.
    Takes { names_key: bool, every: u64 },
    /// Reads entries of streams.
    Reads,
}

impl Kind {
    fn of(command: &str) -> Option<Self> {
        let takes = |names_key, every| Self::Takes { names_key, every };
        Some(match command {
            "LPUSH" | "RPUSH" | "LPUSHX" | "RPUSHX" => Self::Puts { every: 1 },
            "ZADD" => Self::Puts { every: 2 },
            "XADD" => Self::Appends,
            "BLPOP" | "BRPOP" | "LMPOP" | "BLMPOP" => takes(true, 1),
            "LPOP" | "RPOP" | "LMOVE" | "BLMOVE" | "RPOPLPUSH" | "BRPOPLPUSH" => takes(false, 1),
            "BZPOPMIN" | "BZPOPMAX" | "ZMPOP" | "BZMPOP" => takes(true, 2),
            "ZPOPMIN" | "ZPOPMAX" => takes(false, 2),
            "XREADGROUP" | "XREAD" => Self::Reads,
            _ => return None,
        })
    }
}

/// What a value says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    Nothing,
    Key,
    Element,
}

/// Where the reply of [`Kind::Reads`] stands: for each stream its key and its entries, for each entry its id and its fields.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Entries {
    Key,
    List,
    Entry,
    Id,
    Fields,
    /// So many values of the fields are to come.
    Values(u64),
}

/// What one command does with jobs.
#[derive(Debug)]
pub struct Jobs {
    kind: Kind,
    /// Arguments of the command; values that began, of them or of the reply.
    arguments: u64,
    begun: u64,
    is_reply: bool,
    /// The reply is not understood: the rest of it is left alone.
    is_lost: bool,
    server: DefaultHasher,
    key: Option<DefaultHasher>,
    /// The current value: what it says, its hash so far (if all of it was seen), its bytes to come, and those behind it.
    says: Says,
    hash: Option<DefaultHasher>,
    rest: u64,
    behind: u64,
    entries: Entries,
    entries_left: u64,
    done: Vec<u64>,
}

impl Jobs {
    /// Of a command with that many arguments; `None` if it has to do with no jobs.
    pub fn of(command: &str, arguments: u64, conn: &Conn) -> Option<Box<Self>> {
        let kind = Kind::of(command)?;
        let Address::Ip(address) = conn.remote.address else {
            return None;
        };
        static KEY: OnceLock<RandomState> = OnceLock::new();
        let mut server = KEY.get_or_init(RandomState::new).build_hasher();
        (address, conn.remote.port).hash(&mut server);
        if address.is_loopback() {
            conn.netns.hash(&mut server);
        }
        Some(Box::new(Self {
            kind,
            arguments,
            begun: 0,
            is_reply: false,
            is_lost: false,
            server,
            key: None,
            says: Says::Nothing,
            hash: None,
            rest: 0,
            behind: 0,
            entries: Entries::Key,
            entries_left: 0,
            done: Vec::new(),
        }))
    }

    /// An argument of that many bytes begins.
    pub fn argument(&mut self, len: u64) {
        let index = self.begun;
        let from_last = self.arguments.saturating_sub(index).saturating_sub(1);
        let says = match self.kind {
            Kind::Puts { .. } | Kind::Appends | Kind::Takes { names_key: false, .. } if index == 0 => {
                Says::Key
            }
            Kind::Puts { every } if from_last.is_multiple_of(every) => Says::Element,
            _ => Says::Nothing,
        };
        self.value(says, len, 2);
    }

    /// A value of `len` bytes begins, and `behind` more that end its line.
    fn value(&mut self, says: Says, len: u64, behind: u64) {
        self.begun = self.begun.saturating_add(1);
        (self.says, self.rest, self.behind) = (says, len, behind);
        self.hash = match says {
            Says::Nothing => None,
            Says::Key => Some(self.server.clone()),
            Says::Element => self.key.clone(),
        };
        if len > MAX_ELEMENT || self.done.len() >= MAX_TOLD {
            self.hash = None;
        }
        if let Some(hash) = &mut self.hash {
            hash.write_u64(len);
        }
        if len == 0 {
            self.end_value();
        }
    }

    fn end_value(&mut self) {
        let hash = self.hash.take();
        match self.says {
            Says::Nothing => {}
            Says::Key => self.key = hash,
            Says::Element => self.done.extend(hash.map(|hash| hash.finish())),
        }
        self.says = Says::Nothing;
    }

    /// Bytes of the current value, its line's end included.
    pub fn bytes(&mut self, bytes: &[u8]) {
        let (own, line_end) = match bytes.split_at_checked(usize::try_from(self.rest).unwrap_or(usize::MAX)) {
            Some((own, line_end)) => (own, line_end),
            None => (bytes, &[][..]),
        };
        if !own.is_empty() {
            if let Some(hash) = &mut self.hash {
                hash.write(own);
            }
            self.rest = self.rest.saturating_sub(own.len() as u64);
            if self.rest == 0 {
                self.end_value();
            }
        }
        self.behind = self.behind.saturating_sub(line_end.len() as u64);
    }

    /// Bytes of the current value that were not captured.
    pub fn unseen(&mut self, len: u64) {
        let own = self.rest.min(len);
        if own > 0 {
            self.hash = None;
            self.rest = self.rest.saturating_sub(own);
            if self.rest == 0 {
                self.end_value();
            }
        }
        self.behind = self.behind.saturating_sub(len.saturating_sub(own));
    }

    /// The command was said to its end.
    pub fn asked(&mut self, id: ExchangeId, out: &mut Output<'_>) {
        match self.kind {
            Kind::Puts { .. } => {
                for number in self.done.drain(..) {
                    out.job(id, Job::Puts(number));
                }
            }
            Kind::Appends => {}
            Kind::Takes { .. } | Kind::Reads => out.job(id, Job::Asks),
        }
    }

    /// Bytes of the reply: whole first lines of values, and any part of what follows these.
    pub fn reply(&mut self, bytes: &[u8]) {
        if self.is_lost || matches!(self.kind, Kind::Puts { .. }) {
            return;
        }
        if !self.is_reply {
            self.is_reply = true;
            (self.begun, self.rest, self.behind) = (0, 0, 0);
            self.done.clear();
        }
        let mut at = 0_usize;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let wanted = self.rest.saturating_add(self.behind);
            if wanted > 0 {
                let n = wanted.min(rest.len() as u64) as usize;
                self.bytes(rest.get(..n).unwrap_or_default());
                at = at.saturating_add(n);
                continue;
            }
            let (value, len) = value(rest);
            match value {
                Value::Bulk(n) => {
                    let says = self.says_reply(true);
                    self.value(says, n.saturating_sub(2), 2);
                }
                Value::Line(_) => {
                    self.says_reply(false);
                    self.begun = self.begun.saturating_add(1);
                }
                Value::Aggregate(n) => self.aggregate(n),
                // Nothing that these commands answer with.
                _ => {
                    self.is_lost = true;
                    return;
                }
            }
            at = at.saturating_add(len.max(1));
        }
    }

    /// What the value of the reply says that begins here: bytes, or a line (a number, or nothing).
    fn says_reply(&mut self, has_bytes: bool) -> Says {
        let index = self.begun;
        let says = match self.kind {
            Kind::Appends if index == 0 => Says::Element,
            Kind::Takes { names_key: true, .. } if index == 0 => Says::Key,
            Kind::Takes { names_key, every }
                if index.saturating_sub(u64::from(names_key)).is_multiple_of(every) =>
            {
                Says::Element
            }
            Kind::Reads => self.entry_says(has_bytes),
            _ => Says::Nothing,
        };
        if has_bytes { says } else { Says::Nothing }
    }

    fn entry_says(&mut self, has_bytes: bool) -> Says {
        let (says, next) = match self.entries {
            Entries::Key if has_bytes => (Says::Key, Entries::List),
            Entries::Id if has_bytes => (Says::Element, Entries::Fields),
            // Streams without entries, and entries that were deleted.
            Entries::Fields => (Says::Nothing, self.next_entry()),
            Entries::Values(1) => (Says::Nothing, self.next_entry()),
            Entries::Values(left) => (Says::Nothing, Entries::Values(left.saturating_sub(1))),
            _ => (Says::Nothing, Entries::Key),
        };
        self.entries = next;
        says
    }

    fn next_entry(&mut self) -> Entries {
        self.entries_left = self.entries_left.saturating_sub(1);
        match self.entries_left {
            0 => Entries::Key,
            _ => Entries::Entry,
        }
    }

    fn aggregate(&mut self, values: u64) {
        if self.kind != Kind::Reads {
            return;
        }
        self.entries = match (self.entries, values) {
            (Entries::List, 0) => Entries::Key,
            (Entries::List, n) => {
                self.entries_left = n;
                Entries::Entry
            }
            (Entries::Entry, _) => Entries::Id,
            (Entries::Fields, 0) => self.next_entry(),
            (Entries::Fields, n) => Entries::Values(n),
            (other, _) => other,
        };
    }

    /// The reply is over.
    pub fn answered(self, id: ExchangeId, out: &mut Output<'_>) {
        for number in self.done {
            let job = match self.kind {
                Kind::Puts { .. } | Kind::Appends => Job::Puts(number),
                Kind::Takes { .. } => Job::Takes(number),
                Kind::Reads => Job::Reads(number),
            };
            out.job(id, job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::Side;
    use crate::protocol::redis::Redis;
    use crate::protocol::replay::Replay;

    fn command(words: &[&str]) -> Vec<u8> {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            text.extend(format!("${}\r\n{word}\r\n", word.len()).bytes());
        }
        text
    }

    /// What one exchange tells, with chunks of so many bytes.
    fn told(words: &[&str], reply: &str, chunk: usize) -> Vec<Job> {
        let mut replay = Replay::new(&Redis, Side::Client, 6379, false);
        for bytes in command(words).chunks(chunk) {
            replay.tick();
            replay.bytes(Side::Client, bytes);
        }
        for bytes in reply.as_bytes().chunks(chunk) {
            replay.tick();
            replay.bytes(Side::Server, bytes);
        }
        replay.finish().unwrap().jobs
    }

    fn put(key: &str, element: &str) -> u64 {
        match told(&["LPUSH", key, element], ":1\r\n", 1 << 20)[..] {
            [Job::Puts(number)] => number,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_taken_is_what_was_put() {
        let (a, b) = (put("queue", "job a"), put("queue", "job b"));
        assert!(a != b && a != put("other", "job a") && a != put("queuej", "ob a"));
        assert_eq!(a, put("queue", "job a"));
        let (takes, puts, reads) = (Job::Takes, Job::Puts, Job::Reads);
        let id = |key: &str| match told(&["XADD", key, "*", "f", "v"], "$3\r\n1-1\r\n", 1 << 20)[..] {
            [Job::Puts(number)] => number,
            ref other => panic!("{other:?}"),
        };
        let (s, t) = (id("s"), id("t"));
        let popped = "*2\r\n$5\r\nqueue\r\n$5\r\njob a\r\n";
        let several = "*2\r\n$5\r\nqueue\r\n*2\r\n$5\r\njob a\r\n$5\r\njob b\r\n";
        let entries = "*2\r\n*2\r\n$1\r\ns\r\n*3\r\n*2\r\n$3\r\n0-9\r\n*-1\r\n*2\r\n$3\r\n1-1\r\n*4\r\n$1\r\nf\r\n$1\r\nv\r\n$1\r\ng\r\n$1\r\nw\r\n\
                       *2\r\n$3\r\n1-2\r\n*0\r\n*2\r\n$1\r\nt\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        let map = "%1\r\n$1\r\ns\r\n*1\r\n*2\r\n$3\r\n1-1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n";
        let table: &[(&[&str], &str, &[Job])] = &[
            (
                &["rpush", "queue", "job a", "job b"],
                ":2\r\n",
                &[puts(a), puts(b)],
            ),
            (&["RPUSHX", "queue", "job a"], ":1\r\n", &[puts(a)]),
            (&["ZADD", "queue", "1", "job a"], ":1\r\n", &[puts(a)]),
            (
                &["ZADD", "queue", "NX", "CH", "1.5", "job a", "2", "job b"],
                ":1\r\n",
                &[put("queue", "CH"), a, b].map(puts),
            ),
            (&["BRPOP", "first", "queue", "1"], popped, &[Job::Asks, takes(a)]),
            (&["BLPOP", "queue", "1"], "*-1\r\n", &[Job::Asks]),
            (&["BLPOP", "queue", "1"], "_\r\n", &[Job::Asks]),
            (&["BLPOP", "queue", "1"], "-WRONGTYPE no\r\n", &[Job::Asks]),
            (&["LPOP", "queue"], "$5\r\njob a\r\n", &[Job::Asks, takes(a)]),
            (&["LPOP", "queue"], "$-1\r\n", &[Job::Asks]),
            (
                &["RPOP", "queue", "2"],
                "*2\r\n$5\r\njob a\r\n$5\r\njob b\r\n",
                &[Job::Asks, takes(a), takes(b)],
            ),
            (
                &["BLMOVE", "queue", "doing", "LEFT", "RIGHT", "1"],
                "$5\r\njob a\r\n",
                &[Job::Asks, takes(a)],
            ),
            (
                &["RPOPLPUSH", "queue", "doing"],
                "$5\r\njob b\r\n",
                &[Job::Asks, takes(b)],
            ),
            (
                &["BLMPOP", "1", "2", "first", "queue", "LEFT", "COUNT", "2"],
                several,
                &[Job::Asks, takes(a), takes(b)],
            ),
            (
                &["ZPOPMIN", "queue", "2"],
                "*4\r\n$5\r\njob a\r\n$1\r\n1\r\n$5\r\njob b\r\n$1\r\n2\r\n",
                &[Job::Asks, takes(a), takes(b)],
            ),
            (
                &["ZPOPMIN", "queue", "1"],
                "*1\r\n*2\r\n$5\r\njob a\r\n,1\r\n",
                &[Job::Asks, takes(a)],
            ),
            (
                &["BZPOPMIN", "queue", "1"],
                "*3\r\n$5\r\nqueue\r\n$5\r\njob a\r\n,1\r\n",
                &[Job::Asks, takes(a)],
            ),
            (
                &["XREADGROUP", "GROUP", "g", "me", "STREAMS", "s", "t", ">", ">"],
                entries,
                &[
                    Job::Asks,
                    reads(other_id("s", "0-9")),
                    reads(s),
                    reads(other_id("s", "1-2")),
                    reads(t),
                ],
            ),
            (&["XREAD", "STREAMS", "s", "0"], map, &[Job::Asks, reads(s)]),
            (&["XREAD", "STREAMS", "s", "0"], "*-1\r\n", &[Job::Asks]),
            (&["XADD", "s", "1-1", "f", "v"], "-ERR no\r\n", &[]),
            (&["LRANGE", "queue", "0", "1"], "*1\r\n$5\r\njob a\r\n", &[]),
            (&["LPUSH", "queue"], "-ERR wrong number\r\n", &[]),
            (&["LPOP"], "-ERR wrong number\r\n", &[Job::Asks]),
            (&["LPUSH", "queue", ""], ":1\r\n", &[puts(put("queue", ""))]),
        ];
        for (words, reply, expected) in table {
            for chunk in [1, 2, 7, 1 << 20] {
                assert_eq!(
                    told(words, reply, chunk),
                    *expected,
                    "{words:?} in chunks of {chunk}"
                );
            }
        }
    }

    fn other_id(key: &str, id: &str) -> u64 {
        match told(&["XADD", key, "*", "f", "v"], &format!("$3\r\n{id}\r\n"), 1 << 20)[..] {
            [Job::Puts(number)] => number,
            ref other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_not_seen_whole_is_not_told() {
        let long = "x".repeat(5_000);
        for (cut, expected) in [(0, 2), (100, 1)] {
            let mut replay = Replay::new(&Redis, Side::Client, 6379, false);
            let bytes = command(&["LPUSH", "queue", &long, "short"]);
            let (before, after) = bytes.split_at(3_000);
            replay.tick();
            replay.bytes(Side::Client, before);
            let (unseen, after) = after.split_at(cut);
            replay.skip(Side::Client, unseen.len() as u64);
            replay.bytes(Side::Client, after);
            replay.tick();
            replay.bytes(Side::Server, b":2\r\n");
            let jobs = replay.finish().unwrap().jobs;
            assert_eq!(jobs.len(), expected, "{jobs:?}");
            assert_eq!(jobs.last(), Some(&Job::Puts(put("queue", "short"))));
        }
    }

    #[test]
    fn there_is_a_bound_and_the_server_tells_nothing() {
        let elements: Vec<String> = (0..40).map(|n| format!("job {n}")).collect();
        let mut words = vec!["LPUSH", "queue"];
        words.extend(elements.iter().map(String::as_str));
        assert_eq!(told(&words, ":40\r\n", 1 << 20).len(), MAX_TOLD);
        let mut replay = Replay::new(&Redis, Side::Server, 6379, false);
        replay.bytes(Side::Client, &command(&["LPUSH", "queue", "a"]));
        replay.tick();
        replay.bytes(Side::Server, b":1\r\n");
        assert_eq!(replay.finish().unwrap().jobs, []);
    }
}
