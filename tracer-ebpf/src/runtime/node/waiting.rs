//! Who waits for the response to what a client writes.
//!
//! The socket's `TCP` has its `net.Socket`, that has the `ClientRequest`, and the listeners of that are closures; or it is a database's
//! client whose command has a closure ([`super::command`]). Where these lead to one `ServerResponse` ([`super::heap`]), its socket's id is told. Where
//! two are found, or there is more to look at than there is room for, nothing is told.

use super::{
    command::node_commands,
    heap::{
        OPEN, PROPERTIES, QUEUE, SEVERAL, STEPS, begin, follow, kind, node_step, object, small, walk,
    },
    integer,
};
use crate::{buffers::read_user, runtime::pointer};

/// Where a wrap (`node::BaseObject`) has the handle of its object.
const WRAP_OBJECT: u64 = 8;
/// `EventEmitter._events`, which most emitters have first.
pub(super) const EVENTS: u64 = 0x18;
/// Listeners looked at.
const ENTRIES: u64 = 16;

/// The id of the socket on whose response the client's request waits that is written now; 0 if that is not known.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn node_waiting(tgid: u64, scratch: u64) -> u64 {
    let socket = node_client(tgid, scratch);
    if socket == 0 || (node_listeners(scratch, socket) == 0 && node_commands(tgid, scratch, socket) == 0) {
        return 0;
    }
    let mut at = 0;
    while at < STEPS {
        if node_step(scratch, at) == 0 {
            break;
        }
        at += 1;
    }
    let Some(walk) = walk(scratch) else {
        return 0;
    };
    let tasks = walk.tasks;
    if at >= STEPS || tasks.members > QUEUE as u64 || tasks.size == SEVERAL {
        return 0;
    }
    tasks.size
}

/// The `net.Socket` that is written to; 0 if it is not a client's.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_client(tgid: u64, scratch: u64) -> u64 {
    let Some(walk) = begin(tgid, scratch) else {
        return 0;
    };
    let o = &walk.work.heap;
    let [wrap, id] = [walk.tasks.stack[0], walk.tasks.stack[1]];
    let Some(handle) = pointer(wrap.wrapping_add(WRAP_OBJECT)).map(follow) else {
        return 0;
    };
    let properties = follow(handle.wrapping_add(PROPERTIES));
    if handle == 0 || properties == 0 {
        return 0;
    }
    let socket = follow(properties.wrapping_add(u64::from(o.owner)));
    if socket == 0
        || follow(socket.wrapping_add(u64::from(o.handle))) != handle
        || small(read_user(socket.wrapping_add(u64::from(o.socket_id))).unwrap_or(0))
            != u64::from(integer(id))
    {
        return 0;
    }
    let server = follow(socket.wrapping_add(u64::from(o.server)));
    if server == 0 || kind(server)[0] == o.object {
        return 0;
    }
    socket
}

/// The listeners of the `ClientRequest` on the socket: 0 if it has none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn node_listeners(scratch: u64, socket: u64) -> u64 {
    let Some(mut walk) = walk(scratch) else {
        return 0;
    };
    let o = &walk.work.heap;
    // Which of them `_httpMessage` is depends on what was set before.
    const PLACES: usize = 8;
    let Some(words) = read_user::<[u64; PLACES]>(socket.wrapping_add(u64::from(o.message))) else {
        return 0;
    };
    let mut request = 0;
    for word in words {
        let message = object(word);
        if request == 0 && message != 0 && follow(message.wrapping_add(u64::from(o.message_socket))) == socket
        {
            request = message;
        }
    }
    if request == 0 {
        return 0;
    }
    walk.push_dictionary(follow(request.wrapping_add(EVENTS)), ENTRIES, OPEN);
    walk.tasks.members
}
