//! Finds, in a process at work, where tokio keeps the wakers of its sockets and who asked a client's connection; what it is asked for beside
//! is found by [`Lists`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use tracer_common::{MAX_TOKIO_CLIENTS, TokioClient, TokioOffsets};

use super::list::Lists;
use super::shape::{Memory, Task};
use crate::discover::tasks::halves;
use crate::discover::tasks::live::Live;

/// Bytes of `ScheduledIo` that are looked through: it is aligned to 128.
const IO_WORDS: usize = 16;
/// Sockets, and tasks whose futures are looked through, in one sample.
const MAX_SOCKETS: usize = 1_024;
const MAX_TASKS: usize = 24;
/// Largest part of a future that is looked through, and of what it points to, in words.
const FUTURE_WORDS: usize = 1_024;
const CHANNEL_WORDS: usize = 24;
/// Samples after which nothing more is expected.
const MAX_SAMPLES: u32 = 600;
/// Different callers that must have been seen waiting at one place.
const ENOUGH: usize = 3;
/// So many where there is hyper, and it is not expected to have them there: tasks that wait for each other are seen at other places, too.
const ENOUGH_ELSEWHERE: usize = 24;
/// So many times as long as a search for a list took is none made.
const REST: u32 = 8;
/// Places remembered.
const MAX_PLACES: usize = 4_096;

/// A type of future, and where its channel and the waker in there lie.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
struct Place {
    vtable: u64,
    vtable_at: u32,
    channel: u32,
    waker: u32,
}

impl Place {
    /// What the kernel side is told of it; `states`: words of the channel that are its state, as bits.
    fn client(self, states: u32) -> TokioClient {
        TokioClient {
            vtable: halves(self.vtable),
            vtable_at: self.vtable_at,
            channel: self.channel,
            waker: self.waker,
            state: if states.is_power_of_two() {
                states.trailing_zeros().saturating_mul(8)
            } else {
                0
            },
        }
    }
}

/// What was seen at a place.
#[derive(Default)]
struct Seen {
    /// Tasks and the channels that they had.
    channels: HashSet<(u64, u64)>,
    callers: HashSet<u64>,
    /// Words of the channel whose lowest bit was set each time, and which were small numbers.
    states: Option<u32>,
}

impl Seen {
    /// A channel that is made for each request is another one each time; what belongs to the connection stays.
    fn varies(&self) -> bool {
        let tasks: HashSet<u64> = self.channels.iter().map(|(task, _)| *task).collect();
        self.channels.len() > tasks.len()
    }
}

/// What all samples of one process have shown.
#[derive(Default)]
pub struct Samples {
    places: BTreeMap<Place, Seen>,
    /// Where hyper is expected to have them, by the type of its future.
    expected: HashMap<u64, Place>,
    taken: u32,
    /// Where the next sample goes on.
    next: usize,
    lists: Lists,
    /// No list is looked for before: who asks has other things to do.
    rests_until: Option<Instant>,
}

/// A future and the type by which it is known again.
struct Future {
    vtable: u64,
    vtable_at: u32,
    words: Vec<u64>,
}

impl Samples {
    /// Whether a further sample may show more.
    pub fn wants_more(&self) -> bool {
        self.wants_callers() || self.lists.are_wanted()
    }

    fn wants_callers(&self) -> bool {
        self.taken < MAX_SAMPLES
    }

    /// Looks at the process once. Whether `offsets` has become better.
    pub fn look(&mut self, live: &Live, offsets: &mut TokioOffsets) -> bool {
        let Some(memory) = Memory::of(live) else {
            return false;
        };
        let has_more = self.lists.look(&memory, offsets);
        let has_callers = self.wants_callers() && self.look_for_callers(live, &memory, offsets);
        if !self.wants_callers() {
            // The lists may be looked for as long as the process lives.
            self.places.clear();
            self.expected.clear();
        }
        has_more || has_callers
    }

    /// Tasks of that type are awaited by the task with this `Header`. Whether it is known now where that one has them.
    pub fn seek(&mut self, live: &Live, offsets: &mut TokioOffsets, vtable: u64, by: u64) -> bool {
        if !Lists::have_room(offsets) {
            return false;
        }
        self.lists.want(vtable, by);
        let now = Instant::now();
        if self.rests_until.is_some_and(|until| now < until) {
            return false;
        }
        let found = Memory::of(live).is_some_and(|memory| self.lists.look_for(&memory, offsets, vtable, by));
        self.rests_until = now.checked_add(now.elapsed().saturating_mul(REST));
        found
    }

    fn look_for_callers(&mut self, live: &Live, memory: &Memory, offsets: &mut TokioOffsets) -> bool {
        self.taken = self.taken.saturating_add(1);
        let watched = live.watched_sockets(MAX_SOCKETS);
        let before = *offsets;
        let tasks = served(memory, &watched, offsets);
        let count = tasks.len();
        let first = self.next.checked_rem(count).unwrap_or(0);
        self.next = first.saturating_add(MAX_TASKS);
        for task in tasks.iter().cycle().skip(first).take(count.min(MAX_TASKS)) {
            if let Some(future) = future(memory, task) {
                self.note(memory, task, &future);
                if !self.expected.contains_key(&future.vtable)
                    && let Some(place) = likely(memory, &future)
                {
                    self.expected.insert(future.vtable, place);
                    if offsets.clients.iter().all(|client| client.vtable == [0, 0]) {
                        offsets.clients = [place.client(0), TokioClient::default()];
                    }
                }
            }
        }
        let found = self.clients();
        if !found.is_empty() {
            for (slot, client) in offsets.clients.iter_mut().zip(found) {
                *slot = client;
            }
            // What is not written yet may look like a state in some channels.
            if offsets
                .clients
                .iter()
                .all(|client| client.vtable == [0, 0] || client.state != 0)
            {
                self.taken = MAX_SAMPLES;
            }
        }
        *offsets != before
    }

    fn note(&mut self, memory: &Memory, task: &Task, future: &Future) {
        for (at, &channel) in future.words.iter().enumerate() {
            if !memory.is_heap(channel) {
                continue;
            }
            let words = memory.words(channel, CHANNEL_WORDS);
            // An `Arc` that two hold.
            if words.get(..2) != Some(&[2, 1]) {
                continue;
            }
            for (place, pair) in words.windows(2).enumerate().skip(2) {
                let &[vtable, data] = pair else { continue };
                let Some(caller) = memory.woken(vtable, data).filter(|caller| caller.id != task.id) else {
                    continue;
                };
                let place = Place {
                    vtable: future.vtable,
                    vtable_at: future.vtable_at,
                    channel: bytes(at),
                    waker: bytes(place),
                };
                if self.places.len() >= MAX_PLACES {
                    return;
                }
                let seen = self.places.entry(place).or_default();
                seen.channels.insert((task.header, channel));
                seen.callers.insert(caller.id);
                let states = words
                    .iter()
                    .enumerate()
                    .skip(2)
                    .filter(|(_, word)| **word < 16 && **word & 1 == 1)
                    .fold(0, |states, (at, _)| states | 1 << at);
                seen.states = Some(seen.states.map_or(states, |before| before & states));
            }
        }
    }

    /// Whether it is there that callers are found. Where another place is expected, and callers were seen there too, it is not.
    fn is_certain(&self, place: &Place, seen: &Seen) -> bool {
        let expected = self
            .expected
            .get(&place.vtable)
            .filter(|expected| *expected != place);
        let is_expected = self.expected.is_empty() || self.expected.get(&place.vtable) == Some(place);
        let enough = if is_expected { ENOUGH } else { ENOUGH_ELSEWHERE };
        let at_expected = expected.and_then(|expected| self.places.get(expected));
        seen.callers.len() >= enough
            && seen.varies()
            && at_expected.is_none_or(|seen| seen.callers.len() < ENOUGH)
    }

    /// The places that are certain, the most frequented one of each type of future.
    fn clients(&self) -> Vec<TokioClient> {
        let mut best: HashMap<u64, (usize, TokioClient)> = HashMap::new();
        for (place, seen) in &self.places {
            if !self.is_certain(place, seen) {
                continue;
            }
            let found = (seen.channels.len(), place.client(seen.states.unwrap_or(0)));
            best.entry(place.vtable)
                .and_modify(|known| {
                    if known.0 < found.0 {
                        *known = found;
                    }
                })
                .or_insert(found);
        }
        let mut all: Vec<_> = best.into_values().collect();
        all.sort_by_key(|(seen, _)| std::cmp::Reverse(*seen));
        all.into_iter()
            .map(|(_, client)| client)
            .take(MAX_TOKIO_CLIENTS)
            .collect()
    }
}

/// The tasks that wait for sockets; notes where these wakers lie, and tokio's own vtable.
fn served(memory: &Memory, watched: &[u64], offsets: &mut TokioOffsets) -> Vec<Task> {
    let mut seen: BTreeMap<(u64, usize), Vec<Task>> = BTreeMap::new();
    for &io in watched {
        let words = memory.words(io, IO_WORDS);
        for (at, pair) in words.windows(2).enumerate() {
            if let &[vtable, data] = pair
                && let Some(task) = memory.woken(vtable, data)
            {
                seen.entry((vtable, at)).or_default().push(task);
                // The reader's comes first.
                break;
            }
        }
    }
    let Some(((vtable, at), tasks)) = seen.into_iter().max_by_key(|(_, tasks)| tasks.len()) else {
        return Vec::new();
    };
    offsets.waker_vtable = halves(vtable);
    offsets.io_waker = bytes(at);
    tasks
}

/// The task's future, boxed or in the task itself.
fn future(memory: &Memory, task: &Task) -> Option<Future> {
    let stage = usize::try_from(task.stage / 8).ok()?;
    let trailer = usize::try_from(task.trailer / 8).ok()?;
    let mut words = memory.words(task.header, trailer.min(FUTURE_WORDS));
    // Behind the stage's own number.
    for at in stage..stage.checked_add(3)? {
        let (Some(&pointer), Some(&vtable)) = (words.get(at), words.get(at.checked_add(1)?)) else {
            break;
        };
        if let Some(size) = memory.boxed(pointer, vtable) {
            let len = usize::try_from(size / 8).ok()?.min(FUTURE_WORDS);
            return Some(Future {
                vtable,
                vtable_at: bytes(at.checked_add(1)?),
                words: memory.words(pointer, len),
            });
        }
    }
    words.get_mut(..stage)?.fill(0);
    Some(Future {
        vtable: task.vtable,
        vtable_at: TokioClient::OF_TASK,
        words,
    })
}

/// Where hyper 1's `client::dispatch::Client` has its callback: before the channel of requests and the `want::Taker`, two `Arc`s of two
/// holders each, of which the second one holds a number below 4. What is read there is checked at every use, so this does until
/// callers were seen.
fn likely(memory: &Memory, future: &Future) -> Option<Place> {
    let shared = |address: u64| {
        let words = memory.words(address, 6);
        let is_shared = memory.is_heap(address) && words.get(..2) == Some(&[2, 1]);
        is_shared.then_some(words)
    };
    let at = future.words.windows(2).position(|pair| {
        let &[requests, taker] = pair else { return false };
        memory.is_heap(requests)
            && memory.is_heap(taker)
            && shared(requests).is_some()
            && shared(taker).is_some_and(|words| {
                // state, vtable of the waiting sender, its data, lock.
                matches!(words.get(2..), Some(&[state, vtable, _, lock])
                    if state < 4 && lock & 0xff < 2 && (vtable == 0 || memory.is_constant(vtable)))
            })
    })?;
    Some(Place {
        vtable: future.vtable,
        vtable_at: future.vtable_at,
        channel: bytes(at.checked_sub(1)?),
        waker: 0x20,
    })
}

/// So many words in bytes.
pub fn bytes(words: usize) -> u32 {
    u32::try_from(words).unwrap_or(0).saturating_mul(8)
}
