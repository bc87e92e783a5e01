//! On whose connection a thread's job will be answered: servers whose event loops read and write have what takes long done by a pool's
//! threads (Netty's handlers), or leave it to others altogether (a servlet's `startAsync`).
//!
//! What such a thread works off leads to the connection: it is a server's object or has one in a field (what a lambda has captured), and
//! from there one field after the other leads to the channel and its descriptor ([`JavaFutures::servers`]). It lies on the stack, in the frame of the
//! pool's own loop. Others may lie there that are left over: frames keep what they had in places that they do not use now, and threads get
//! the stacks of others that have ended. So each that is found is weighed ([`reads`]): one that was made for what was read last on its
//! connection is certain. Where none is, and none was made before that, the outermost one is told as unsure, if all lead to one connection, and only at the
//! place where the thread has had its jobs so far, or after several jobs in a row at another one. Since when the thread was seen to work it off is told, too: what it does after the
//! answer is not for the next request on that connection.
//!
//! What is called when a future is complete may have a server's object likewise ([`stages`](super::stages)).

use aya_ebpf::{macros::map, maps::LruHashMap};
use tracer_common::{CONNECTION_UNIT, JAVA_SERVERS, JavaFutures, PLACE_UNIT, STALE, UNSURE};

use super::{
    held::java_place_of,
    objects::{bounded, class, in_heap, is_moving, layout, reference, references_behind},
    reads::{self, CERTAIN, EARLIER, UNCERTAIN},
    waits::{FORM, Known, NOTHING, SCAN, is_vain, java_look, missed, remembered, scan_used, since},
    walk::{FUNCTIONS, JOB, JOBS, Walk, walk},
};
use crate::{buffers::read_user, descriptor::Files, layout::HAS_TASK_REGISTERS, registers::Registers};

/// Fields between a server's object and its connection, at most.
const STEPS: u64 = 8;
/// References among an object's fields that are looked at.
const FIELDS: u32 = 4;
/// Of [`JAVA_CAPTURES`]: vain looks at objects of that class, which is looked at no more after so many.
const VAIN: u32 = 1 << 16;
/// Likewise: it is a server's object itself.
const ITSELF: u32 = 0;
const MAX_VAIN: u32 = 16;
/// Jobs that have to be at another place than the last ones before that is believed.
const VOTES: u32 = 3;

/// Where objects of a class have what leads to a connection, by process and class; or how often none of them had ([`VAIN`] and more).
#[map]
static JAVA_CAPTURES: LruHashMap<[u64; 2], u32> = LruHashMap::with_max_entries(8_192, 0);

/// Where the outcome of the current thread's work will be taken, and since when it works on that (0: not known): the connection if that is
/// certain, else the future that it completes, else the connection.
#[inline(always)]
pub fn place_of_current(thread: u64, slot: u64) -> (u64, u64) {
    let connection = of_current(thread, slot);
    let since = since(slot);
    if connection == 0 || since == STALE || since & UNSURE != 0 {
        let future = java_place_of(thread, slot);
        if future != 0 {
            return (future, 0);
        }
    }
    (connection, since)
}

/// [`java_answers`], for the thread that is in a system call now.
#[inline(always)]
pub fn of_current(thread: u64, slot: u64) -> u64 {
    if HAS_TASK_REGISTERS.load() == 0 {
        return 0;
    }
    java_answers(thread, slot, Registers::current().stack_pointer())
}

/// The place where the current thread's job will be answered: the connection ([`CONNECTION_UNIT`]); 0 if that is not known. Since when it
/// works that off is in `Walk::since` then ([`reads`]). A walk of the slot has begun.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_answers(thread: u64, slot: u64, stack_pointer: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.thread == thread && walk.futures.channel.get() != 0)
    else {
        return 0;
    };
    (walk.looks_for, walk.used_from) = (JOB, stack_pointer);
    walk.forget_jobs();
    if java_at_place(slot) == SCAN {
        walk.forget_jobs();
        scan_used(slot, walk);
        java_weigh_all(slot);
    }
    java_job(slot)
}

/// Whether any job lies on the part of the stack that is in use that was made, or may have been, for what was read last on a connection other than
/// `own`, and none that was for `own`; so it is taken to be where the server is not known. Of what may have been left over, what was for a connection
/// for whose sake the loop has called since does not count. A walk of the slot has begun.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_made_for_others(slot: u64, stack_pointer: u64, own: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.futures.channel.get() != 0) else {
        return 1;
    };
    (walk.looks_for, walk.used_from) = (JOB, stack_pointer);
    walk.forget_jobs();
    walk.only_made = 1;
    scan_used(slot, walk);
    java_weigh_all(slot);
    u64::from(walk.weight >= UNCERTAIN && (walk.several != 0 || walk.connection != own))
}

/// Looks where the thread has had its jobs. [`SCAN`]: that says nothing.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_at_place(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else {
        return NOTHING;
    };
    let Some(known) = remembered(walk) else {
        return NOTHING;
    };
    if known.job_place != 0 {
        java_look(slot, u64::from(known.job_place));
        java_weigh(slot, 0);
    }
    let is_known = walk.weight == CERTAIN || walk.weight != 0 && is_same_job(walk, known);
    if is_known || is_vain(known.misses[JOB as usize]) {
        NOTHING
    } else {
        SCAN
    }
}

/// The connection of the job, if what was found is believed.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_job(slot: u64) -> u64 {
    let Some(walk) = walk(slot) else { return 0 };
    let Some(known) = remembered(walk) else {
        return 0;
    };
    if missed(known, JOB, walk.jobs_found == 0) || is_moving(walk) || walk.several != 0 {
        return 0;
    }
    if walk.weight == UNCERTAIN && (walk.earlier != 0 || !is_believed(walk, known)) {
        return 0;
    }
    if walk.weight == CERTAIN {
        known.job_place = walk.place as u32;
    }
    if !is_same_job(walk, known) {
        known.since = walk.since;
    }
    (known.job, known.connection, known.collections) = (walk.job, walk.connection, walk.collections);
    walk.since = match walk.weight {
        CERTAIN => known.since,
        UNCERTAIN => known.since | UNSURE,
        _ => STALE,
    };
    walk.connection
}

/// Whether that is the job which the thread was seen with last. An object that was moved may be the same one.
#[inline(always)]
fn is_same_job(walk: &Walk, known: &Known) -> bool {
    let may_be_moved = known.collections != walk.collections;
    known.connection == walk.connection && (known.job == walk.job || may_be_moved)
}

/// Whether the job, which was not where the last ones were, is where the thread has its jobs.
#[inline(always)]
fn is_believed(walk: &Walk, known: &mut Known) -> bool {
    let place = walk.place as u32;
    if known.job_place == 0 || known.job_place == place {
        known.job_place = place;
        return true;
    }
    if known.next_place != place {
        (known.next_place, known.votes) = (place, 0);
    }
    if known.next_job != walk.job {
        (known.next_job, known.votes) = (walk.job, known.votes + 1);
    }
    let is_believed = known.votes >= VOTES;
    if is_believed {
        (known.job_place, known.votes) = (place, 0);
    }
    is_believed
}

/// The connection to which the functions lead that will be called, if that is only one and no thread waits; likewise.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_called(slot: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| walk.futures.channel.get() != 0 && !walk.waiter_is_told())
    else {
        return 0;
    };
    walk.forget_jobs();
    for at in 0..FUNCTIONS {
        let function = walk.functions[at];
        if function != 0 {
            java_job_of(slot, function, 0);
        }
    }
    java_weigh_all(slot);
    if walk.several != 0 || is_moving(walk) {
        return 0;
    }
    match walk.weight {
        CERTAIN => {}
        UNCERTAIN if walk.earlier == 0 => walk.since |= UNSURE,
        _ => return 0,
    }
    walk.connection
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_weigh_all(slot: u64) -> u64 {
    for at in 0..JOBS {
        if java_weigh(slot, at as u64) == 0 {
            break;
        }
    }
    1
}

/// Weighs one of those that were found: the first of those that weigh most is the walk's job. 0: there are no more.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_weigh(slot: u64, at: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| at < walk.jobs_found) else {
        return 0;
    };
    let found = bounded::<JOBS>(at);
    let channel = walk.jobs[found].channel;
    let cookie = java_cookie(slot, channel);
    if cookie == 0 {
        return 1;
    }
    let job = &walk.jobs[found];
    let mut weight = reads::weigh(walk, cookie, job.made);
    if weight == UNCERTAIN && walk.only_made != 0 && reads::is_served(cookie) {
        weight = EARLIER; // it has called already
    }
    let connection = connection(cookie);
    if weight == EARLIER {
        walk.earlier = 1;
    }
    if weight > walk.weight {
        (walk.weight, walk.several) = (weight, 0);
        (walk.job, walk.place, walk.connection) = (job.object, job.place, connection);
    } else if weight == walk.weight && connection != walk.connection {
        walk.several = 1;
    }
    1
}

/// The place where what is done for that socket's sake will be answered.
#[inline(always)]
pub fn connection(cookie: u64) -> u64 {
    PLACE_UNIT | CONNECTION_UNIT | cookie & (CONNECTION_UNIT - 1)
}

/// The cookie of the channel's socket, 0 if that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_cookie(slot: u64, channel: u64) -> u64 {
    let Some(walk) = walk(slot) else { return 0 };
    let at = channel.wrapping_add(u64::from(walk.futures.channel_descriptor));
    let Some(descriptor) = read_user::<u32>(at) else {
        return 0;
    };
    match Files::of_current().get(u64::from(descriptor)) {
        Some(file) => file.socket().map_or(0, |socket| socket.known_cookie()),
        None => 0,
    }
}

/// Looks at an object that lies at that place of the stack: if it leads to a connection, it is noted.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn java_job_of(slot: u64, object: u64, place: u64) -> u64 {
    let Some(walk) = walk(slot) else { return 0 };
    if walk.control.wrapping_sub(place & !FORM) < walk.used_from || walk.jobs_found >= JOBS as u64 {
        return 0;
    }
    let server = captured(slot, walk, object);
    if server == 0 || walk.only_made != 0 && server == object {
        return 0;
    }
    let channel = java_channel(slot, server);
    if channel == 0 {
        return 0;
    }
    let job = &mut walk.jobs[bounded::<JOBS>(walk.jobs_found)];
    (job.object, job.channel, job.place) = (object, channel, place);
    // A server's own objects live as long as the connection.
    job.made = if server == object { 0 } else { object };
    walk.jobs_found += 1;
    1
}

/// The server's object that this one is, or has in a field; 0 if there is none.
#[inline(always)]
fn captured(slot: u64, walk: &mut Walk, object: u64) -> u64 {
    walk.key = [walk.thread >> 32, class(&walk.futures, object)];
    // SAFETY: a word is not torn.
    let known = unsafe { JAVA_CAPTURES.get(&walk.key) }.copied().unwrap_or(VAIN);
    if known < VAIN {
        return match known {
            ITSELF => object,
            field => reference(&walk.futures, object, field),
        };
    }
    if known > MAX_VAIN * VAIN {
        return 0;
    }
    let found = java_search(slot, object) as u32;
    let learned = if found == VAIN { known + VAIN } else { found };
    let _ = JAVA_CAPTURES.insert(&walk.key, learned, 0);
    match found {
        VAIN => 0,
        ITSELF => object,
        field => reference(&walk.futures, object, field),
    }
}

/// Looks for it: the field, [`ITSELF`] or [`VAIN`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_search(slot: u64, object: u64) -> u64 {
    let Some(walk) = walk(slot) else { return 0 };
    let o = &walk.futures;
    let class = class(o, object);
    if class == 0 {
        return u64::from(VAIN);
    }
    if next(o, class) != NOT_A_SERVER {
        return u64::from(ITSELF);
    }
    // Fields begin behind the header, as the length of an array does; of an array, the highest bit is set.
    let size = layout(o, class) & !7;
    let (first, width) = references_behind(o, o.length);
    if size >> 31 != 0 {
        return u64::from(VAIN);
    }
    for field in 0..FIELDS {
        let field = first + field * width;
        if field < size && java_is_server(slot, reference(o, object, field)) != 0 {
            return u64::from(field);
        }
    }
    u64::from(VAIN)
}

#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_is_server(slot: u64, object: u64) -> u64 {
    let Some(walk) = walk(slot).filter(|walk| in_heap(&walk.futures, object)) else {
        return 0;
    };
    let o = &walk.futures;
    u64::from(next(o, class(o, object)) != NOT_A_SERVER)
}

/// The channel to which a server's object leads, 0 if it leads to none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn java_channel(slot: u64, server: u64) -> u64 {
    let Some(walk) = walk(slot) else { return 0 };
    let o = &walk.futures;
    let mut object = server;
    for _ in 0..STEPS {
        if !in_heap(o, object) {
            return 0;
        }
        let class = class(o, object);
        if class == o.channel.get() {
            return object;
        }
        object = match next(o, class) {
            NOT_A_SERVER => 0,
            field => reference(o, object, field),
        };
    }
    0
}

/// What [`next`] says of other classes.
const NOT_A_SERVER: u32 = 0;

/// Where objects of the class have what leads to the connection.
#[inline(always)]
fn next(o: &JavaFutures, class: u64) -> u32 {
    for server in 0..JAVA_SERVERS {
        if class != 0 && class == o.servers[server].get() {
            return o.server_fields[server];
        }
    }
    NOT_A_SERVER
}
