//! Whose command a database's client writes, where it keeps the one that the server is to answer: `pg`.
//!
//! A listener of the socket belongs to who has the socket (pg's `Connection`), a listener of that one to who has it (its `Client`): what a
//! listener is bound to, or what is among its variables. One of the client's own emitters is the command, and the command's functions
//! are called back with the answer.

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::NodeHeap;

use super::{
    heap::{LENGTH, PROPERTIES, follow, kind, object, read_words, small, walk},
    integer,
    waiting::EVENTS,
};
use crate::buffers::read_user;

/// The first property in an object. `EventEmitter.init` sets first the listeners, then their count.
const FIRST: usize = 3;
const EVENTS_COUNT: u64 = EVENTS + 8;
/// Words of an object among which another one is looked for.
const WIDE: usize = 48;
/// Listeners, and what these belong to, that are looked at; names in a dictionary of listeners.
const LOOKS: u64 = 64;
const NAMES: u64 = 64;
/// What a bound function is bound to; an array's elements, and the first of these.
const BOUND_THIS: u64 = 0x20;
const ELEMENTS: u64 = 0x10;
const ELEMENT: usize = 2;
/// The first variable in a context.
const VARIABLE: usize = 4;
/// Names of a socket's listeners, listeners of one name and variables that are looked at.
const LISTED: usize = 10;
/// Properties that are looked at beyond those in an object.
const BEYOND: usize = 4;

/// Sockets remembered, of all processes; so often nothing is found on one before it is looked at no more.
const MAX_SOCKETS: u32 = 4_096;
const TRIES: u32 = 4;

/// More than one word may name the command, or one beyond the object.
const SEVERAL: u32 = u32::MAX;

/// Who has a socket.
#[derive(Clone, Copy, Default)]
pub(super) struct Place {
    connection: u64,
    client: u64,
    /// Number of the word in the connection that names the socket, and of that in the client that names the connection.
    words: [u32; 2],
    /// Number of the word in the client that names the command; 0 = not known, [`SEVERAL`].
    command: u32,
    /// How often nobody was found.
    failures: u32,
}

/// By process and the socket's id, which is given once. The collector may move what it names: it is verified each time.
#[map]
static NODE_SOCKETS: LruHashMap<[u32; 2], Place> = LruHashMap::with_max_entries(MAX_SOCKETS, 0);

/// Puts what will be called back with the answer to what is written on that socket where a walk begins: 0 if nothing was found.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn node_commands(tgid: u64, scratch: u64, socket: u64) -> u64 {
    match node_place(tgid, scratch, socket) {
        GIVEN_UP => return 0,
        KNOWN => {
            if node_command(scratch) != 0 {
                return 1;
            }
        }
        _ => {
            if node_holder(scratch, socket, CONNECTION) == 0 || node_holder(scratch, 0, CLIENT) == 0 {
                return node_remember(tgid, scratch);
            }
        }
    }
    let found = node_emitters(scratch);
    node_remember(tgid, scratch);
    found
}

/// What [`node_place`] says.
const UNKNOWN: u64 = 0;
const KNOWN: u64 = 1;
const GIVEN_UP: u64 = 2;

/// Who had the socket when it was written to last, if they have it still.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_place(tgid: u64, scratch: u64, socket: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return GIVEN_UP;
    };
    let key = [tgid as u32, integer(walk.tasks.stack[1])];
    // SAFETY: read as a whole; torn, it is not verified.
    let place = unsafe { NODE_SOCKETS.get(key) }.copied().unwrap_or_default();
    walk.work.place = place;
    if place.failures >= TRIES {
        return GIVEN_UP;
    }
    let [of_socket, of_connection] = place.words.map(|word| 8 * u64::from(word));
    let is_known = place.client != 0
        && follow(place.client.wrapping_add(of_connection)) == place.connection
        && follow(place.connection.wrapping_add(of_socket)) == socket;
    if is_known { KNOWN } else { UNKNOWN }
}

/// Remembers what was found, or that nothing was: 0.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_remember(tgid: u64, scratch: u64) -> u64 {
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    let place = &mut walk.work.place;
    place.failures = if place.client == 0 { place.failures + 1 } else { 0 };
    let key = [tgid as u32, integer(walk.tasks.stack[1])];
    let _ = NODE_SOCKETS.insert(key, place, 0);
    0
}

/// Which of the two is looked for: who has the socket, or who has that one.
const CONNECTION: u64 = 0;
const CLIENT: u64 = 1;

/// Who listens to the socket and has it, or who listens to that one and has it; 0 if nobody is found.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_holder(scratch: u64, socket: u64, which: u64) -> u64 {
    if node_events(scratch, socket, which) == 0 {
        return 0;
    }
    let mut at = 0;
    while at < LOOKS {
        if node_listener(scratch, at, socket, which) != 0 {
            return 1;
        }
        at += 1;
    }
    0
}

/// Puts the listeners of the socket, or of who has it, where they are to be looked at: how many there are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_events(scratch: u64, socket: u64, which: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    walk.clear();
    let events = follow(match which {
        CONNECTION => {
            walk.work.place.client = 0;
            socket.wrapping_add(u64::from(walk.work.heap.socket_events))
        }
        _ => walk.work.place.connection.wrapping_add(EVENTS),
    });
    let [type_, size] = kind(events);
    if events == 0 || type_ != walk.work.heap.object {
        return 0;
    }
    if size as usize <= FIRST {
        walk.push_dictionary(events, NAMES, 0);
    } else {
        read_words(&mut walk.tasks.frame, events, u64::from(size));
        walk.push_frame(FIRST, LISTED);
    }
    walk.tasks.members
}

/// 1 if the object with that number is an emitter that has the socket, or who has that one. If it is a listener: puts what it belongs to behind
/// what is to be looked at.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_listener(scratch: u64, number: u64, socket: u64, which: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    let at = walk.at(number);
    let [type_, size] = kind(at);
    let o = &walk.work.heap;
    if type_ == o.object {
        if !is_emitter(o, at) {
            return 0;
        }
        read_words(&mut walk.tasks.held, at, u64::from(size));
        let other = match which {
            CONNECTION => socket,
            _ => walk.work.place.connection,
        };
        let mut word = FIRST;
        while word < WIDE {
            if object(walk.tasks.held[word]) == other {
                let place = &mut walk.work.place;
                match which {
                    CONNECTION => (place.connection, place.words[0]) = (at, word as u32),
                    _ => (place.client, place.words[1], place.command) = (at, word as u32, 0),
                }
                return 1;
            }
            word += 1;
        }
    } else if type_ == o.bound {
        walk.push(read_user(at.wrapping_add(BOUND_THIS)).unwrap_or(0), 0);
    } else if type_ == o.array {
        let elements = follow(at.wrapping_add(ELEMENTS));
        let many = small(read_user(elements.wrapping_add(LENGTH)).unwrap_or(0));
        read_words(&mut walk.tasks.frame, elements, many.wrapping_add(ELEMENT as u64));
        walk.push_frame(ELEMENT, LISTED);
    } else if type_ == o.function {
        let context = follow(at.wrapping_add(u64::from(o.function_context)));
        let [first, last] = o.contexts;
        let [type_, _] = kind(context);
        if type_ >= first && type_ <= last {
            let words = small(read_user(context.wrapping_add(LENGTH)).unwrap_or(0)).wrapping_add(2);
            read_words(&mut walk.tasks.frame, context, words);
            walk.push_frame(VARIABLE, LISTED);
        }
    }
    0
}

/// Puts the functions of the client's command where a walk begins, if it is known which word names it: how many there are.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_command(scratch: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    walk.clear();
    let place = &walk.work.place;
    match place.command {
        0 | SEVERAL => 0,
        word => {
            let at = place.client.wrapping_add(8 * u64::from(word));
            node_functions(scratch, follow(at))
        }
    }
}

/// Likewise those of all emitters that the client has, but for its connection.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_emitters(scratch: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    walk.clear();
    let Place { client, connection, .. } = walk.work.place;
    read_words(&mut walk.tasks.held, client, u64::from(kind(client)[1]));
    walk.work.place.command = 0;
    let mut word = FIRST;
    while word < WIDE {
        let emitter = object(walk.tasks.held[word]);
        if emitter != 0 && emitter != connection && node_functions(scratch, emitter) != 0 {
            // Of two, each is to be looked at the next time.
            let known = &mut walk.work.place.command;
            *known = if *known == 0 { word as u32 } else { SEVERAL };
        }
        word += 1;
    }
    let beyond = follow(client.wrapping_add(PROPERTIES));
    let mut word = ELEMENT;
    while word < ELEMENT + BEYOND {
        if node_functions(scratch, follow(beyond.wrapping_add(8 * word as u64))) != 0 {
            walk.work.place.command = SEVERAL;
        }
        word += 1;
    }
    walk.tasks.members
}

/// Puts the functions of that emitter, if it is one, behind those that are to be looked at: how many there are then.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_functions(scratch: u64, at: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    let o = &walk.work.heap;
    let [type_, size] = kind(at);
    if type_ != o.object || !is_emitter(o, at) {
        return 0;
    }
    let before = walk.tasks.members;
    read_words(&mut walk.tasks.frame, at, u64::from(size));
    let mut word = FIRST;
    while word < walk.tasks.frame.len() {
        let property = walk.tasks.frame[word];
        if kind(object(property))[0] == walk.work.heap.function {
            walk.push(property, 0);
        }
        word += 1;
    }
    walk.tasks.members - before
}

/// Whether that object begins as an emitter does.
#[inline(always)]
fn is_emitter(o: &NodeHeap, at: u64) -> bool {
    // A small integer's lower half is 0.
    read_user::<u64>(at.wrapping_add(EVENTS_COUNT)).is_some_and(|count| count & 0xffff_ffff == 0)
        && kind(follow(at.wrapping_add(EVENTS)))[0] == o.object
}
