//! Where V8's heap holds what leads from a client's request to who waits for its response.
//!
//! V8 publishes the numbers of its types for debuggers (`v8dbg_...`, exported: what mdb_v8 and llnode use). Where properties of Node's own
//! objects lie depends on its version; the kernel side believes them only where a socket has its handle and that one's id.

use tracer_common::NodeHeap;

use super::super::live::{Live, Module};

/// `napi_get_node_version` (src/js_native_api.h), whose result points to the version: three numbers.
const VERSION: &str = "napi_get_node_version";
/// Most bytes looked at of its body.
const BODY: usize = 96;
/// V8's constants, 32 bits each.
const NAMES: [&str; 14] = [
    "v8dbg_type_JSObject__JS_OBJECT_TYPE",
    "v8dbg_type_JSFunction__JS_FUNCTION_TYPE",
    "v8dbg_type_JSBoundFunction__JS_BOUND_FUNCTION_TYPE",
    "v8dbg_type_JSArray__JS_ARRAY_TYPE",
    "v8dbg_type_FixedArray__FIXED_ARRAY_TYPE",
    "v8dbg_type_JSPromise__JS_PROMISE_TYPE",
    "v8dbg_type_PromiseReaction__PROMISE_REACTION_TYPE",
    "v8dbg_type_PromiseCapability__PROMISE_CAPABILITY_TYPE",
    "v8dbg_type_JSAsyncFunctionObject__JS_ASYNC_FUNCTION_OBJECT_TYPE",
    "v8dbg_FirstContextType",
    "v8dbg_LastContextType",
    // Before V8 12, and from then on.
    "v8dbg_class_JSFunction__context__Context",
    "v8dbg_class_JSFunction__context__Tagged_Context_",
    "v8dbg_class_Map__instance_type__uint16_t",
];
/// `Map::kInstanceTypeOffset`, as the kernel side has it.
const INSTANCE_TYPE: u32 = 12;

/// By the major version: `owner_symbol` in a `TCP`'s properties; `async_id_symbol`, `kHandle`, `_events`, `server` and what comes before
/// `_httpMessage` in a `net.Socket`; `socket` or `kSocket` in an `OutgoingMessage`. Seen on 20.20.2, 22.23.3, 24.21.0 and 26.10.0.
const LAYOUTS: &[(u32, [u32; 7])] = &[
    (20, [0x18, 0x20, 0x30, 0x78, 0xe8, 0x108, 0x100]),
    (22, [0x18, 0x20, 0x30, 0x78, 0xe8, 0x108, 0x110]),
    (24, [0x18, 0x28, 0x38, 0x80, 0xf8, 0x118, 0x110]),
    (26, [0x18, 0x28, 0x38, 0x80, 0xf8, 0x118, 0x110]),
];

/// All of it, or zeros.
pub fn find(live: &Live<'_>, module: &Module) -> NodeHeap {
    offsets(live, module).unwrap_or_default()
}

fn offsets(live: &Live<'_>, module: &Module) -> Option<NodeHeap> {
    let major = major(live, module)?;
    let &(
        _,
        [
            owner,
            socket_id,
            handle,
            socket_events,
            server,
            message,
            message_socket,
        ],
    ) = LAYOUTS.iter().find(|(version, _)| *version == major)?;
    let constants = module
        .elf
        .dynamic_symbols(NAMES)
        .map(|symbol| live.half(module.base.checked_add(symbol?)?));
    let [
        object,
        function,
        bound,
        array,
        fixed_array,
        promise,
        reaction,
        capability,
        async_function,
        first_context,
        last_context,
        context_before,
        context_since,
        instance_type,
    ] = constants;
    if instance_type? != INSTANCE_TYPE {
        return None;
    }
    Some(NodeHeap {
        owner,
        socket_id,
        handle,
        socket_events,
        server,
        message,
        message_socket,
        function_context: context_before.or(context_since)?,
        object: object?,
        function: function?,
        bound: bound?,
        array: array?,
        fixed_array: fixed_array?,
        promise: promise?,
        reaction: reaction?,
        capability: capability?,
        async_function: async_function?,
        contexts: [first_context?, last_context?],
    })
}

fn major(live: &Live<'_>, module: &Module) -> Option<u32> {
    let at = module.base.checked_add(module.elf.dynamic_symbol(VERSION)?)?;
    let version = version_at(&live.read(at, BODY)?, at)?;
    live.half(version)
}

/// What is stored as the result: `mov $address,(%rsi)`, or `lea offset(%rip),register` in code that does not know its place.
fn version_at(code: &[u8], address: u64) -> Option<u64> {
    let operand = |at: usize| Some(i32::from_le_bytes(*code.get(at..)?.first_chunk()?));
    code.windows(3).enumerate().find_map(|(at, bytes)| match *bytes {
        [0x48, 0xc7, 0x06] => u64::try_from(operand(at.checked_add(3)?)?).ok(),
        [0x48 | 0x4c, 0x8d, mode] if mode & 0xc7 == 5 => address
            .checked_add(u64::try_from(at).ok()?.checked_add(7)?)?
            .checked_add_signed(i64::from(operand(at.checked_add(3)?)?)),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_where_the_code_says() {
        // Node 26.10.0.
        let fixed = [0x74, 0x20, 0x48, 0xc7, 0x06, 0x40, 0x9e, 0x0d, 0x04, 0x0f];
        assert_eq!(version_at(&fixed, 0x99_a6f0), Some(0x40d_9e40));
        // lea 0x10(%rip),%rax
        let relative = [0x90, 0x48, 0x8d, 0x05, 0x10, 0, 0, 0, 0x48];
        assert_eq!(version_at(&relative, 0x1000), Some(0x1018));
        for end in 0..9 {
            let _ = version_at(&fixed[..end], u64::MAX);
            let _ = version_at(&relative[..end], u64::MAX);
        }
        assert_eq!(version_at(&[0x90; 64], 0), None);
    }
}
