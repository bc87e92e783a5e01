//! Node.js: where the ids of asynchronous resources lie (`async_hooks.executionAsyncId()` and its like), and the event loop.
//!
//! No table by version: the offsets are operands of exported functions that do what the kernel side does
//! (`v8::Isolate::TryGetCurrent`, `v8::Isolate::InContext`, `node::AsyncHooksGetExecutionAsyncId`), read from the process's own code. The
//! main thread's ids are then read as the kernel side will read them, and must look like ids. Tried on Node 20, 22, 24 and 26.

mod heap;

use tracer_common::{NodeHeap, NodeOffsets, RuntimeEntry, RuntimeKind};

use super::Subject;
use super::live::{Live, Mapping, Module};
use crate::model::Language;

const GET_ISOLATE: &str = "_ZN2v87Isolate13TryGetCurrentEv";
const IN_CONTEXT: &str = "_ZN2v87Isolate9InContextEv";
const GET_ID: &str = "_ZN4node29AsyncHooksGetExecutionAsyncIdEPN2v87IsolateE";
const GET_ENVIRONMENT: &str = "_ZN4node11Environment10GetCurrentEPN2v87IsolateE";
const DEFAULT_LOOP: &str = "uv_default_loop";
const ISOLATE: &str = "_ZN2v88internal18g_current_isolate_E";

/// Most bytes looked at of a function's body.
const BODY: usize = 256;
/// Offsets are smaller than this.
const MAX_OFFSET: u32 = 0x8000;
/// Bytes of an environment searched for its timer.
const ENVIRONMENT: usize = 0x400;
/// Mappings that may hold the main thread's control block: each of them, and all together.
const MAX_BLOCK: u64 = 1 << 20;
const MAX_BLOCKS: u64 = 32 << 20;
/// Descriptors searched for a socket.
const MAX_WATCHERS: u64 = 4_096;

// deps/uv/include/uv.h, uv/unix.h, src/uv-common.h: the layout of `uv_handle_t` and `uv_loop_t`, fixed within libuv 1.x.
const HANDLE_LOOP: u64 = 8;
const HANDLE_TYPE: usize = 16;
const UV_TCP: u32 = 12;
const UV_TIMER: u32 = 13;
const LOOP_WATCHERS: u64 = 0x68;
const LOOP_WATCHER_COUNT: u64 = 0x70;
const STREAM_WATCHER: u64 = 0x88;
/// `AsyncWrap::async_id_` behind the fields of `BaseObject` and `provider_type_` (src/async_wrap.h): up to Node 20, and from 22 on.
const WRAP_IDS: [u32; 2] = [0x28, 0x38];
/// Looks at sockets, which may go while they are looked at.
const LOOKS: usize = 4;
/// From a tagged context over its map to the native context.
const TAG: u64 = 1;
const NATIVE_CONTEXT: u64 = 0x20;

/// The recipe.
pub fn find(subject: &Subject) -> Option<Result<RuntimeEntry, String>> {
    if subject.language != Language::NodeJs {
        return None;
    }
    Some(offsets(subject).map(|node| RuntimeEntry {
        kind: RuntimeKind::NODE.0,
        node,
        ..RuntimeEntry::default()
    }))
}

fn offsets(subject: &Subject) -> Result<NodeOffsets, String> {
    let live = Live::open(subject.process).ok_or("the process can't be read")?;
    let module = module(&live).ok_or("the executable does not export libuv: it is not Node")?;
    if module.elf.machine() != object::elf::EM_X86_64.0 {
        return Err("they are read on x86_64 only".to_owned());
    }
    let code = Code::read(&live, &module);
    let mut node = code.offsets(&module)?;
    let event_loop = code
        .default_loop
        .as_ref()
        .and_then(|body| pointer_in(body.bytes(), body.address))
        .and_then(|at| live.word(at))
        .filter(|&address| address != 0)
        .ok_or("it has no event loop (yet)")?;
    let environment = blocks(&live)
        .find_map(|block| environment(&live, &node, block))
        .ok_or("the main thread's ids are not where they should be")?;
    node.timer = timer(&live, environment, event_loop).ok_or("the loop's timer was not found")?;
    let has_ids = |at: &u32| (0..LOOKS).any(|_| has_wrap(&live, event_loop, &node, environment, *at));
    if let Some(at) = WRAP_IDS.into_iter().find(has_ids) {
        node.wrap_id = at;
        node.heap = heap::find(&live, &module);
    }
    Ok(node)
}

/// Whatever has libuv in it: the executable, or Debian's shared library.
fn module(live: &Live<'_>) -> Option<Module> {
    let exports = |module: &Module| module.elf.dynamic_symbol(DEFAULT_LOOP).is_some();
    live.executable()
        .filter(exports)
        .or_else(|| live.module(|name| name.starts_with("libnode.so")).filter(exports))
}

/// The first bytes of a function.
struct Body {
    address: u64,
    code: Vec<u8>,
}

impl Body {
    fn bytes(&self) -> &[u8] {
        &self.code
    }
}

/// What the offsets are read from.
struct Code {
    isolate_symbol: Option<u64>,
    get_isolate: Option<Body>,
    in_context: Option<Body>,
    get_id: Option<Body>,
    get_environment: Option<Body>,
    default_loop: Option<Body>,
}

impl Code {
    fn read(live: &Live<'_>, module: &Module) -> Self {
        let [isolate_symbol, functions @ ..] = module.elf.dynamic_symbols([
            ISOLATE,
            GET_ISOLATE,
            IN_CONTEXT,
            GET_ID,
            GET_ENVIRONMENT,
            DEFAULT_LOOP,
        ]);
        let [get_isolate, in_context, get_id, get_environment, default_loop] = functions.map(|symbol| {
            let address = module.base.checked_add(symbol?)?;
            let code = live.read(address, BODY)?;
            Some(Body { address, code })
        });
        Self {
            isolate_symbol,
            get_isolate,
            in_context,
            get_id,
            get_environment,
            default_loop,
        }
    }

    /// All but those that only the live process tells.
    fn offsets(&self, module: &Module) -> Result<NodeOffsets, String> {
        let get_id = self.get_id.as_ref().ok_or("it exports no way to its ids")?;
        let in_context = self
            .in_context
            .as_ref()
            .ok_or("it exports no way to the context")?;
        let walk = |body: &Body| Some((embedder_data(body.bytes())?, environment_slot(body.bytes())?));
        let (embedder_data, environment) = walk(get_id)
            .or_else(|| walk(self.get_environment.as_ref()?))
            .ok_or("the way to the environment is another one")?;
        Ok(NodeOffsets {
            isolate_tls: self
                .isolate_tls(module)
                .ok_or_else(|| format!("{} hides the isolate's place", module.path.display()))?,
            context: context(in_context.bytes()).ok_or("the context's place is not known")?,
            embedder_data,
            environment,
            ids: ids(get_id.bytes()).ok_or("the ids' place is not known")?,
            timer: 0,
            wrap_id: 0,
            heap: NodeHeap::default(),
        })
    }

    /// From the symbol (Node 20, 22), or from the code where it is hidden.
    fn isolate_tls(&self, module: &Module) -> Option<i32> {
        if let Some(symbol) = self.isolate_symbol {
            let (size, align) = module.elf.tls()?;
            let end = size.checked_next_multiple_of(align.max(1))?;
            return i32::try_from(
                i64::try_from(symbol)
                    .ok()?
                    .checked_sub(i64::try_from(end).ok()?)?,
            )
            .ok();
        }
        // mov %fs:offset,%rax
        let offset = i32::from_le_bytes(after(
            self.get_isolate.as_ref()?.bytes(),
            &[0x64, 0x48, 0x8b, 0x04, 0x25],
        )?);
        (offset < 0).then_some(offset)
    }
}

/// The four bytes behind the first occurrence.
fn after(code: &[u8], pattern: &[u8]) -> Option<[u8; 4]> {
    let at = code.windows(pattern.len()).position(|bytes| bytes == pattern)?;
    code.get(at.checked_add(pattern.len())?..)?.first_chunk().copied()
}

fn plausible(offset: u32) -> Option<u32> {
    (offset != 0 && offset < MAX_OFFSET).then_some(offset)
}

/// `cmpq $0x0,offset(%rdi)`.
fn context(code: &[u8]) -> Option<u32> {
    plausible(u32::from_le_bytes(after(code, &[0x48, 0x83, 0xbf])?)).filter(|offset| offset % 8 == 0)
}

/// `mov offset(register),%rax`, and then `movsd (%rax),%xmm0`.
fn ids(code: &[u8]) -> Option<u32> {
    let load = code
        .windows(4)
        .position(|bytes| bytes == [0xf2, 0x0f, 0x10, 0x00])?;
    let before = code.get(..load)?;
    let last = loads(before).filter(|load| load.into_rax && load.wide).last()?;
    plausible(last.offset).filter(|offset| offset % 8 == 0)
}

/// Fields of tagged objects have odd offsets. The first load with a short one is of the embedder data's array...
fn embedder_data(code: &[u8]) -> Option<u32> {
    let load = loads(code).find(|load| !load.wide && load.offset % 8 == 7)?;
    plausible(load.offset)
}

/// ... and the last with a long one is of the environment (the one before is compared with Node's own mark).
fn environment_slot(code: &[u8]) -> Option<u32> {
    let load = loads(code)
        .filter(|load| load.wide && load.offset % 8 == 7)
        .last()?;
    plausible(load.offset)
}

/// `mov offset(register),register` of 64 bits.
struct Load {
    offset: u32,
    /// Its offset has 32 bits and not 8.
    wide: bool,
    into_rax: bool,
}

/// All that look like one, in order: `REX.W 8B /r` (Intel SDM volume 2, MOV) up to the end of the code.
fn loads(code: &[u8]) -> impl Iterator<Item = Load> {
    (0..code.len()).filter_map(|at| {
        let [rex, opcode, mode] = *code.get(at..)?.first_chunk::<3>()?;
        if !(0x48..0x50).contains(&rex) || opcode != 0x8b {
            return None;
        }
        // A base of rsp or r12 has a byte more.
        let skip = if mode & 7 == 4 { 4 } else { 3 };
        let rest = code.get(at.checked_add(skip)?..)?;
        let (offset, wide) = match mode >> 6 {
            1 => (u32::from(*rest.first()?), false),
            2 => (u32::from_le_bytes(*rest.first_chunk()?), true),
            _ => return None,
        };
        Some(Load {
            offset,
            wide,
            into_rax: rex & 4 == 0 && mode >> 3 & 7 == 0,
        })
    })
}

/// The address that the first `mov offset(%rip),register` reads.
fn pointer_in(code: &[u8], address: u64) -> Option<u64> {
    let at = code.windows(3).position(|bytes| {
        let [rex, opcode, mode] = *bytes else { return false };
        matches!(rex, 0x48 | 0x4c) && opcode == 0x8b && mode & 0xc7 == 5
    })?;
    let offset = i32::from_le_bytes(*code.get(at.checked_add(3)?..)?.first_chunk()?);
    address
        .checked_add(u64::try_from(at).ok()?.checked_add(7)?)?
        .checked_add_signed(i64::from(offset))
}

/// Thread control blocks in mappings without a file, the highest first: the loader puts the main thread's among the libraries. What is
/// mapped later lies below, and the kernel makes one mapping of neighbours: so the end of each is looked at.
/// Their first and third words are their own address (glibc's `tcbhead_t`).
fn blocks<'a>(live: &'a Live<'_>) -> impl Iterator<Item = u64> + 'a {
    let is_anonymous = |mapping: &&Mapping| mapping.path.is_empty() && mapping.permissions.starts_with("rw");
    let mut left = MAX_BLOCKS;
    live.mappings()
        .iter()
        .rev()
        .filter(is_anonymous)
        .map(|mapping| {
            let size = mapping.end.saturating_sub(mapping.start).min(MAX_BLOCK);
            (mapping.end.saturating_sub(size), size)
        })
        .take_while(move |&(_, size)| {
            left = left.saturating_sub(size);
            left > 0
        })
        .flat_map(|(start, size)| own_addresses(live, start, size))
}

fn own_addresses(live: &Live<'_>, start: u64, size: u64) -> Vec<u64> {
    let bytes = usize::try_from(size).ok().and_then(|size| live.read(start, size));
    let bytes = bytes.unwrap_or_default();
    let words: Vec<u64> = bytes
        .chunks_exact(8)
        .filter_map(|word| Some(u64::from_ne_bytes(*word.first_chunk()?)))
        .collect();
    let places = words.iter().zip(words.iter().skip(2)).zip((start..).step_by(8));
    places
        .filter(|&((&first, &third), place)| first == place && third == place)
        .map(|(_, place)| place)
        .collect()
}

/// The environment of the thread with that control block, if its ids look like ids.
fn environment(live: &Live<'_>, node: &NodeOffsets, block: u64) -> Option<u64> {
    let field = |object: u64, offset: u32| live.word(object.checked_add(u64::from(offset))?);
    let isolate = live.word(block.checked_add_signed(i64::from(node.isolate_tls))?)?;
    let context = field(isolate, node.context)?;
    let map = live.word(context.checked_sub(TAG)?)?;
    let native = live.word(map.checked_add(NATIVE_CONTEXT)?.checked_sub(TAG)?)?;
    let data = field(native, node.embedder_data)?;
    let environment = field(data, node.environment)?;
    counter(live, node, environment).map(|_| environment)
}

/// The id that was given last, if the four numbers are those of `AsyncHooks` (src/env.h: `UidFields`): integers, none of the first
/// two above the third, and no default trigger while JavaScript waits, or one that was given.
fn counter(live: &Live<'_>, node: &NodeOffsets, environment: u64) -> Option<f64> {
    let ids = live.word(environment.checked_add(u64::from(node.ids))?)?;
    let [execution, trigger, counter, default_trigger] = doubles::<4>(live, ids)?;
    let is_id = |id: f64| id.fract() == 0.0 && (0.0..=counter).contains(&id);
    let fits = counter >= 1.0 && is_id(execution) && is_id(trigger);
    (fits && (default_trigger == -1.0 || is_id(default_trigger))).then_some(counter)
}

fn doubles<const N: usize>(live: &Live<'_>, address: u64) -> Option<[f64; N]> {
    let bytes = live.read(address, N.checked_mul(8)?)?;
    let mut values = [0.0; N];
    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(8)) {
        *value = f64::from_ne_bytes(*bytes.first_chunk()?);
    }
    Some(values)
}

/// Where in the environment the `uv_timer_t` of that loop lies.
fn timer(live: &Live<'_>, environment: u64, event_loop: u64) -> Option<u32> {
    let bytes = live.read(environment, ENVIRONMENT)?;
    let at = |offset: usize| bytes.get(offset..);
    (0..ENVIRONMENT)
        .step_by(8)
        .find(|&offset| {
            let owner = at(offset.saturating_add(8)).and_then(<[u8]>::first_chunk);
            let kind = at(offset.saturating_add(HANDLE_TYPE)).and_then(<[u8]>::first_chunk);
            owner.map(|bytes| u64::from_ne_bytes(*bytes)) == Some(event_loop)
                && kind.map(|bytes| u32::from_ne_bytes(*bytes)) == Some(UV_TIMER)
        })
        .and_then(|offset| u32::try_from(offset).ok())
}

/// Whether the ids of sockets lie where they should, as far as the process has sockets.
fn has_wrap(live: &Live<'_>, event_loop: u64, node: &NodeOffsets, environment: u64, at: u32) -> bool {
    let field = |object: u64, offset: u64| live.word(object.checked_add(offset)?);
    let watchers = field(event_loop, LOOP_WATCHERS).unwrap_or_default();
    let count = field(event_loop, LOOP_WATCHER_COUNT).unwrap_or_default() & 0xffff_ffff;
    let sockets = (0..count.min(MAX_WATCHERS)).filter_map(|descriptor| {
        let watcher = field(watchers, descriptor.checked_mul(8)?)?;
        let stream = watcher.checked_sub(STREAM_WATCHER)?;
        let kind = live.half(stream.checked_add(HANDLE_TYPE as u64)?)?;
        let is_socket = kind == UV_TCP && field(stream, HANDLE_LOOP)? == event_loop;
        is_socket.then(|| live.word(stream))?
    });
    let ids = sockets.map(|wrap| doubles::<2>(live, wrap.checked_add(u64::from(at))?));
    let Some(ids) = ids.collect::<Option<Vec<_>>>() else {
        return false;
    };
    // Ids are given out meanwhile, also to sockets that are used again.
    let Some(last) = counter(live, node, environment) else {
        return false;
    };
    let fits = |[id, trigger]: &[f64; 2]| {
        id.fract() == 0.0
            && trigger.fract() == 0.0
            && *id >= 1.0
            && *trigger >= 0.0
            && trigger < id
            && *id <= last
    };
    !ids.is_empty() && ids.iter().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Node 20.20.2 (`/usr/bin/node` of NodeSource) and 26.10.0.
    const GET_ID_20: &[u8] = &[
        0x49, 0x8b, 0x04, 0x24, // mov (%r12),%rax
        0x48, 0x8b, 0x40, 0x2f, // mov 0x2f(%rax),%rax
        0x48, 0x8b, 0x90, 0x47, 0x01, 0, 0, // mov 0x147(%rax),%rdx
        0x48, 0x3b, 0x15, 0x23, 0x6d, 0xa5, 0x01, // cmp kNodeContextTagPtr(%rip),%rdx
        0x75, 0x29, // jne
        0x4c, 0x8b, 0xa0, 0x0f, 0x01, 0, 0, // mov 0x10f(%rax),%r12
        0x4d, 0x85, 0xe4, // test %r12,%r12
        0x49, 0x8b, 0x84, 0x24, 0x80, 0x04, 0, 0, // mov 0x480(%r12),%rax
        0x4c, 0x8b, 0x65, 0xf8, // mov -0x8(%rbp),%r12
        0xf2, 0x0f, 0x10, 0x00, // movsd (%rax),%xmm0
        0xc9, 0xc3,
    ];
    const GET_ID_26: &[u8] = &[
        0x48, 0x85, 0xc0, 0x74, 0x0d, // test %rax,%rax; je
        0x48, 0x8b, 0x80, 0x80, 0x04, 0, 0, // mov 0x480(%rax),%rax
        0xf2, 0x0f, 0x10, 0x00, 0x5d, 0xc3,
    ];
    const GET_ENVIRONMENT_26: &[u8] = &[
        0x49, 0x8b, 0x06, // mov (%r14),%rax
        0x4c, 0x8b, 0x68, 0x2f, // mov 0x2f(%rax),%r13
        0xbf, 0x02, 0, 0, 0, // mov $0x2,%edi
        0x49, 0x3b, 0x85, 0x47, 0x01, 0, 0, // cmp 0x147(%r13),%rax
        0x75, 0x48, // jne
        0x49, 0x8b, 0x06, 0x4c, 0x8b, 0x70, 0x2f, // mov (%r14),%rax; mov 0x2f(%rax),%r14
        0x49, 0x8b, 0x86, 0x0f, 0x01, 0, 0, // mov 0x10f(%r14),%rax
        0x48, 0x8b, 0x8b, 0x30, 0x02, 0, 0, // mov 0x230(%rbx),%rcx
        0xc3,
    ];

    #[test]
    fn offsets_are_read_from_code() {
        assert_eq!(ids(GET_ID_20), Some(0x480));
        assert_eq!(ids(GET_ID_26), Some(0x480));
        for (code, expected) in [
            (GET_ID_20, (Some(0x2f), Some(0x10f))),
            (GET_ENVIRONMENT_26, (Some(0x2f), Some(0x10f))),
            (GET_ID_26, (None, None)),
        ] {
            assert_eq!((embedder_data(code), environment_slot(code)), expected);
        }
        assert_eq!(
            context(&[0x55, 0x48, 0x83, 0xbf, 0x58, 0x01, 0, 0, 0]),
            Some(0x158)
        );
        assert_eq!(context(&[0x48, 0x83, 0xbf, 0x58, 0x01]), None);
        // mov 0x3dc4487(%rip),%r12 at 0x18ab55a
        let code = [0x41, 0x54, 0x4c, 0x8b, 0x25, 0x87, 0x44, 0xdc, 0x03];
        assert_eq!(pointer_in(&code, 0x18a_b558), Some(0x566_f9e8));
    }

    #[test]
    fn code_that_is_cut_or_other_gives_nothing_and_never_panics() {
        for code in [GET_ID_20, GET_ID_26, GET_ENVIRONMENT_26] {
            for end in 0..code.len() {
                let code = &code[..end];
                let _ = (
                    ids(code),
                    embedder_data(code),
                    environment_slot(code),
                    context(code),
                );
                let _ = pointer_in(code, u64::MAX);
            }
        }
        assert_eq!(ids(&[0x90; 256]), None);
    }
}
