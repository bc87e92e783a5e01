//! Node.js: the ids of the asynchronous resources whose callback runs, and where the thread's event loop stands.
//!
//! From the thread's isolate to its environment (as `node::Environment::GetCurrent` does), to the ids that JavaScript's
//! `executionAsyncId()` reads, and to the loop (`uv_loop_t`) behind the environment's timer. Nothing here moves while the
//! environment lives; where a step finds nothing plausible the event tells no turn.

mod command;
mod heap;
mod waiting;

use tracer_common::{NodeOffsets, Turn};

pub use self::waiting::node_waiting;

use super::{pointer, thread_pointer};
use crate::{buffers::read_user, layout, registers::Registers};

/// V8's tagged pointers are odd.
const TAG: u64 = 1;
/// In a tagged context: its map. In a tagged map of a context: the native context (`constructor_or_back_pointer_or_native_context`).
const MAP: u64 = 0u64.wrapping_sub(TAG);
const NATIVE_CONTEXT: u64 = 0x20 - TAG;

/// `uv_handle_t.loop`; `uv_loop_t.{internal_fields, watchers, nwatchers, time}`; `uv__loop_internal_fields_t.loop_metrics`;
/// `uv_handle_t.flags`; `uv_timer_t.timeout`; `uv_stream_t.io_watcher` (deps/uv/include/uv.h and unix.h, which may not change within libuv 1.x).
const HANDLE_LOOP: u64 = 8;
const LOOP_INTERNAL: u64 = 0x28;
const LOOP_WATCHERS: u64 = 0x68;
const LOOP_TIME: u64 = 0x220;
const METRICS: u64 = 8;
const TIMER_TIMEOUT: u64 = 0x80;
const HANDLE_FLAGS: u64 = 0x58;
/// `UV_HANDLE_ACTIVE` (deps/uv/src/uv-common.h).
const ACTIVE: u32 = 4;
/// Milliseconds after which a timer is due that is not set: never, for what compares modulo 2^32.
const NEVER: u32 = 1 << 30;
const STREAM_WATCHER: u64 = 0x88;

/// Where [`waiting`] begins: the socket's wrap (0: not known), its id as a double, and the native context (tagged).
pub struct Origin {
    pub wrap: u64,
    pub id: u64,
    pub native: u64,
}

/// Where the thread's loop stands; `None` if it has none. `with_socket`: the thread is in a system call whose first argument
/// is the socket's descriptor.
#[inline(always)]
pub fn read(offsets: &NodeOffsets, with_socket: bool) -> Option<(Turn, Origin)> {
    let isolate = pointer(thread_pointer().wrapping_add_signed(i64::from(offsets.isolate_tls)))?;
    let (native, environment) = environment(isolate, offsets)?;
    let ids = pointer(environment.wrapping_add(u64::from(offsets.ids)))?;
    let [execution, trigger, counter, _default_trigger] = read_user::<[u64; 4]>(ids)?;
    let timer = environment.wrapping_add(u64::from(offsets.timer));
    let event_loop = pointer(timer.wrapping_add(HANDLE_LOOP))?;
    let due: u64 = read_user(timer.wrapping_add(TIMER_TIMEOUT))?;
    let flags: u32 = read_user(timer.wrapping_add(HANDLE_FLAGS))?;
    let time: u64 = read_user(event_loop.wrapping_add(LOOP_TIME))?;
    let internal = pointer(event_loop.wrapping_add(LOOP_INTERNAL))?;
    let [turns, events] = read_user::<[u64; 2]>(internal.wrapping_add(METRICS))?;
    let socket = match with_socket && offsets.wrap_id != 0 {
        true => socket(event_loop, offsets).unwrap_or_default(),
        false => (0, [0; 2]),
    };
    let (wrap, socket) = socket;
    let origin = Origin {
        wrap,
        id: socket[0],
        native,
    };
    let turn = Turn {
        execution: integer(execution),
        trigger: integer(trigger),
        counter: integer(counter),
        socket: [integer(socket[0]), integer(socket[1])],
        dispatch: (turns as u32) << 16 | (events as u32 & 0xffff),
        time: time as u32,
        timer: match flags & ACTIVE {
            0 => (time as u32).wrapping_add(NEVER),
            _ => due as u32,
        },
        request: 0,
    };
    Some((turn, origin))
}

/// `node::Environment::GetCurrent(isolate)`, behind the native context.
#[inline(always)]
fn environment(isolate: u64, offsets: &NodeOffsets) -> Option<(u64, u64)> {
    let context: u64 = read_user(isolate.wrapping_add(u64::from(offsets.context)))?;
    if context & TAG == 0 {
        return None;
    }
    let map: u64 = read_user(context.wrapping_add(MAP))?;
    let native: u64 = read_user(map.wrapping_add(NATIVE_CONTEXT))?;
    let data: u64 = read_user(native.wrapping_add(u64::from(offsets.embedder_data)))?;
    let environment = pointer(data.wrapping_add(u64::from(offsets.environment)))?;
    Some((native, environment))
}

/// The wrap behind the stream whose descriptor is the first argument of the running call, and its ids.
#[inline(always)]
fn socket(event_loop: u64, offsets: &NodeOffsets) -> Option<(u64, [u64; 2])> {
    if layout::HAS_TASK_BTF.load() == 0 || layout::HAS_TASK_REGISTERS.load() == 0 {
        return None;
    }
    let descriptor = Registers::current().argument::<0>();
    // uv_loop_t.watchers, then nwatchers.
    let [watchers, count] = read_user::<[u64; 2]>(event_loop.wrapping_add(LOOP_WATCHERS))?;
    if descriptor >= count & 0xffff_ffff {
        return None;
    }
    let watcher = pointer(watchers.wrapping_add(descriptor.wrapping_mul(8)))?;
    // uv_handle_t.data, then loop.
    let [wrap, owner] = read_user::<[u64; 2]>(watcher.wrapping_sub(STREAM_WATCHER))?;
    if owner != event_loop {
        return None;
    }
    let ids = read_user(wrap.wrapping_add(u64::from(offsets.wrap_id)))?;
    Some((wrap, ids))
}

/// An integer that is stored as a double, modulo 2^32; 0 for what is none (negative, below 1, beyond 2^53).
#[inline(always)]
fn integer(double: u64) -> u32 {
    let exponent = double >> 52;
    if !(1023..=1075).contains(&exponent) {
        return 0;
    }
    let fraction = double & ((1 << 52) - 1) | 1 << 52;
    (fraction >> ((1075 - exponent) & 63)) as u32
}
