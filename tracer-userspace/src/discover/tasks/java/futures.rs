//! Where a pool's thread keeps what it works on, and where that says who waits for it (java.util.concurrent): the classes, found by
//! their names among those of the class loaders, and their fields, as libjvm describes them (oops/instanceKlass.hpp).
//!
//! Not looked for with collectors that move objects while threads run (ZGC, Shenandoah): what is read then may be a copy that nobody
//! uses any more.

use std::collections::{HashMap, HashSet};

use tracer_common::{Address, JAVA_LISTS, JAVA_SERVERS, JavaFutures};

use super::table::{Table, text};
use super::{MIN_THREADS, Thread};
use crate::discover::tasks::live::Live;

/// Class loaders, classes and fields that are looked at, at most.
const MAX_LOADERS: usize = 65_536;
const MAX_CLASSES: usize = 200_000;
const MAX_FIELDS: usize = 256;
const MAX_FLAGS: u64 = 8_192;
/// How often classes are gone through if that does not come to the end.
const TRIES: u32 = 4;
/// Bytes of a description of fields that is believed.
const MAX_STREAM: u32 = 16_384;
/// `Array<T>`: its length, then its elements.
const ELEMENTS: u64 = 4;
/// `Symbol` is never longer than this for what is looked for.
const MAX_NAME: u16 = 64;

const PACKAGE: &str = "java/util/concurrent/";
const THREAD: &str = "java/lang/Thread";
const CHUNK: &str = "jdk/internal/vm/StackChunk";
const CLASSES: &[&str] = &[
    THREAD,
    "java/lang/VirtualThread",
    "java/lang/Thread$FieldHolder",
    "jdk/internal/vm/Continuation",
    CHUNK,
    "java/util/concurrent/CompletableFuture",
    "java/util/concurrent/CompletableFuture$AsyncRun",
    "java/util/concurrent/CompletableFuture$AsyncSupply",
    "java/util/concurrent/CompletableFuture$Completion",
    "java/util/concurrent/CompletableFuture$UniCompletion",
    "java/util/concurrent/CompletableFuture$CoCompletion",
    "java/util/concurrent/CompletableFuture$Signaller",
    "java/util/concurrent/FutureTask",
    "java/util/concurrent/FutureTask$WaitNode",
    "java/util/concurrent/SynchronousQueue$TransferStack$SNode",
];

/// Completions that call a function: all have it as their only field, and so at the same place.
const FUNCTIONS: [&str; 4] = [
    "java/util/concurrent/CompletableFuture$UniWhenComplete",
    "java/util/concurrent/CompletableFuture$UniHandle",
    "java/util/concurrent/CompletableFuture$UniAccept",
    "java/util/concurrent/CompletableFuture$UniApply",
];

/// Lists, and what iterates over them: the class, and its field that leads to the array of the elements.
const LISTS: [(&str, &str); JAVA_LISTS] = [
    ("java/util/ArrayList", "elementData"),
    ("java/util/ArrayList$Itr", "this$0"),
    ("java/util/Arrays$ArrayList", "a"),
    ("java/util/Arrays$ArrayItr", "a"),
    // What `List.of` and `Stream.toList` make.
    ("java/util/ImmutableCollections$ListN", "elements"),
    ("java/util/ImmutableCollections$ListItr", "list"),
];

/// How servers' objects lead to the connection on which they answer: the class, the one that declares the field, and the field.
const SERVERS: [(&str, &str, &str); JAVA_SERVERS] = [
    // Netty 4, with channels of java.nio.
    (
        "io/netty/channel/DefaultChannelHandlerContext",
        "io/netty/channel/AbstractChannelHandlerContext",
        "pipeline",
    ),
    (
        "io/netty/channel/DefaultChannelPipeline",
        "io/netty/channel/DefaultChannelPipeline",
        "channel",
    ),
    (
        "io/netty/channel/socket/nio/NioSocketChannel",
        "io/netty/channel/nio/AbstractNioChannel",
        "ch",
    ),
    // Tomcat's asynchronous servlets.
    (
        "org/apache/catalina/core/AsyncContextImpl",
        "org/apache/catalina/core/AsyncContextImpl",
        "request",
    ),
    (
        "org/apache/catalina/connector/Request",
        "org/apache/catalina/connector/Request",
        "coyoteRequest",
    ),
    ("org/apache/coyote/Request", "org/apache/coyote/Request", "hook"),
    (
        "org/apache/coyote/http11/Http11Processor",
        "org/apache/coyote/AbstractProcessor",
        "socketWrapper",
    ),
    (
        "org/apache/tomcat/util/net/NioEndpoint$NioSocketWrapper",
        "org/apache/tomcat/util/net/SocketWrapperBase",
        "socket",
    ),
    (
        "org/apache/tomcat/util/net/NioChannel",
        "org/apache/tomcat/util/net/NioChannel",
        "sc",
    ),
];
/// Where they lead to in the end, and what has its descriptor there.
const CHANNEL: (&str, &str) = ("sun/nio/ch/SocketChannelImpl", "fdVal");

/// Every class that is looked for.
fn wanted() -> impl Iterator<Item = &'static str> {
    let servers = SERVERS
        .iter()
        .flat_map(|&(class, declared_by, _)| [class, declared_by]);
    let lists = LISTS.iter().map(|&(list, _)| list);
    CLASSES
        .iter()
        .copied()
        .chain(FUNCTIONS)
        .chain(lists)
        .chain(servers)
        .chain([CHANNEL.0])
}

/// What is known of it now; `None` if this virtual machine is not understood.
pub fn find(live: &Live, table: &Table, threads: &[Thread]) -> Option<JavaFutures> {
    if moves_while_threads_run(live, table)? {
        return None;
    }
    let classes = classes(live, table);
    let class = |name: &str| Address::new(classes.get(name).copied().unwrap_or(0));
    let concurrent = |name: &str| classes.get(&*format!("{PACKAGE}{name}")).copied();
    let address = |name: &str| Address::new(concurrent(name).unwrap_or(0));
    let of = |name: &str| classes.get(name).and_then(|&class| fields(live, table, class));
    let fields = |name: &str| of(&format!("{PACKAGE}{name}"));
    let offset = |fields: &Option<HashMap<String, u32>>, name: &str| {
        let fields = fields.as_ref();
        fields.and_then(|fields| fields.get(name).copied()).unwrap_or(0)
    };
    let of_thread = Some(of(THREAD)?);
    let of_holder = of("java/lang/Thread$FieldHolder");
    let target = match offset(&of_thread, "target") {
        0 => offset(&of_holder, "task"),
        target => target,
    };
    let future = fields("CompletableFuture");
    let (result, stack) = (offset(&future, "result"), offset(&future, "stack"));
    let dependent = fields("CompletableFuture$UniCompletion");
    let task = fields("FutureTask");
    let node = fields("FutureTask$WaitNode");
    let static_of = |structure, names: [&str; 2]| {
        let row = names.iter().find_map(|name| table.row(structure, name))?;
        Some(row.address)
    };
    let heap = live.word(table.row("Universe", "_collectedHeap")?.address)?;
    let reserved = heap.checked_add(table.row("CollectedHeap", "_reserved")?.offset)?;
    let start = live.word(reserved)?;
    let words = live.word(reserved.checked_add(8)?)?;
    let moving = ["_is_gc_active", "_is_stw_gc_active"];
    let moving = moving
        .iter()
        .find_map(|name| table.row("CollectedHeap", name))
        .and_then(|row| heap.checked_add(row.offset));
    let mut found = JavaFutures {
        heap: [
            Address::new(start),
            Address::new(start.checked_add(words.checked_mul(8)?)?),
        ],
        moving: Address::new(moving?),
        collections: Address::new(
            heap.checked_add(table.row("CollectedHeap", "_total_collections")?.offset)?,
        ),
        reference_base: Address::new(
            live.word(static_of("CompressedOops", ["_narrow_oop._base", "_base"])?)?,
        ),
        class_base: Address::new(live.word(static_of(
            "CompressedKlassPointers",
            ["_narrow_klass._base", "_base"],
        )?)?),
        future: address("CompletableFuture"),
        runs: [
            address("CompletableFuture$AsyncRun"),
            address("CompletableFuture$AsyncSupply"),
        ],
        completion: address("CompletableFuture$Completion"),
        dependent: address("CompletableFuture$UniCompletion"),
        second: address("CompletableFuture$CoCompletion"),
        signaller: address("CompletableFuture$Signaller"),
        task: address("FutureTask"),
        thread: class(THREAD),
        virtual_thread: class("java/lang/VirtualThread"),
        lists: LISTS.map(|(list, _)| class(list)),
        reference_shift: live.half(static_of("CompressedOops", ["_narrow_oop._shift", "_shift"])?)?,
        class_shift: live.half(static_of(
            "CompressedKlassPointers",
            ["_narrow_klass._shift", "_shift"],
        )?)?,
        supers: table.offset("Klass", "_primary_supers[0]")?,
        result,
        stack,
        run_dependent: [
            offset(&fields("CompletableFuture$AsyncRun"), "dep"),
            offset(&fields("CompletableFuture$AsyncSupply"), "dep"),
        ],
        next: offset(&fields("CompletableFuture$Completion"), "next"),
        dependent_at: offset(&dependent, "dep"),
        source: offset(&dependent, "src"),
        function: FUNCTIONS
            .iter()
            .map(|name| offset(&of(name), "fn"))
            .find(|&offset| offset != 0)
            .unwrap_or(0),
        base: offset(&fields("CompletableFuture$CoCompletion"), "base"),
        signalled: offset(&fields("CompletableFuture$Signaller"), "thread"),
        state: offset(&task, "state"),
        runner: offset(&task, "runner"),
        waiters: offset(&task, "waiters"),
        waiting: offset(&node, "thread"),
        waiting_next: offset(&node, "next"),
        native: offset(&of_thread, "eetop"),
        thread_id: offset(&of_thread, "tid"),
        carrier: offset(&of("java/lang/VirtualThread"), "carrierThread"),
        continuation: offset(&of("java/lang/VirtualThread"), "cont"),
        chunk: offset(&of("jdk/internal/vm/Continuation"), "tail"),
        chunk_top: offset(&of(CHUNK), "sp"),
        target,
        holder: offset(&of_thread, "holder"),
        object: table.offset("JavaThread", "_threadObj")?,
        system: table
            .offset("JavaThread", "_osthread")
            .or_else(|| table.offset("Thread", "_osthread"))?,
        control: table.offset("OSThread", "_pthread_id")?,
        last_frame: table
            .offset("JavaThread", "_anchor")?
            .checked_add(table.offset("JavaFrameAnchor", "_last_Java_sp")?)?,
        layout: table.offset("Klass", "_layout_helper")?,
        elements: LISTS.map(|(list, field)| offset(&of(list), field)),
        servers: SERVERS.map(|(server, _, _)| class(server)),
        server_fields: SERVERS.map(|(_, declared_by, field)| offset(&of(declared_by), field)),
        channel_descriptor: offset(&of(CHANNEL.0), CHANNEL.1),
        ..JavaFutures::default()
    };
    if let Some(buffer) = table.offset("Thread", "_tlab") {
        let within = |field| table.offset("ThreadLocalAllocBuffer", field)?.checked_add(buffer);
        found.made = within("_top").unwrap_or(0);
        found.buffer = ["_start", "_end"].map(|field| within(field).unwrap_or(0));
    }
    if let Some(offer) = concurrent("SynchronousQueue$TransferStack$SNode") {
        let of_offer = self::fields(live, table, offer);
        found.offer = Address::new(offer);
        found.offer_next = offset(&of_offer, "next");
        found.offer_match = offset(&of_offer, "match");
        found.offer_waiter = offset(&of_offer, "waiter");
        found.offer_size = size_of_objects(live, offer, found.layout)?;
    }
    if let Some(&chunk) = classes
        .get(CHUNK)
        .filter(|_| found.chunk_top != 0 && found.carrier != 0)
    {
        found.chunk_stack = size_of_objects(live, chunk, found.layout)?;
    }
    if found.channel_descriptor != 0 && found.servers != [Address::default(); JAVA_SERVERS] {
        found.channel = class(CHANNEL.0);
    }
    // Fields of one size lie side by side. The names are of what the class declares, so that these are references.
    let size = |a: u32, b: u32| a.abs_diff(b);
    found.compressed =
        u32::from(size(offset(&of_thread, "name"), offset(&of_thread, "threadLocals")) % 8 == 4);
    if stack != 0 {
        found.compressed = u32::from(size(result, stack) == 4);
    }
    find_class_numbers(&mut found, live, threads)?;
    Some(found)
}

/// Bytes of an object of the class (`Klass::layout_helper_size_in_bytes`); the lowest bits say something else.
fn size_of_objects(live: &Live, class: u64, layout: u32) -> Option<u32> {
    Some(live.half(class.checked_add(u64::from(layout))?)? & !7)
}

/// Finds out where objects have the number of their class. Verified by the objects of the process's threads: they lie in the heap, are of
/// the class `Thread` or of one made from it, and lead back to their threads.
fn find_class_numbers(found: &mut JavaFutures, live: &Live, threads: &[Thread]) -> Option<()> {
    if found.native == 0 || found.reference_shift > 8 || found.class_shift > 16 {
        return None;
    }
    // A word of its own, or the highest 22 bits of the first (JEP 450).
    for (at, low) in [(8, 0), (4, 10)] {
        (found.class_at, found.class_low) = (at, low);
        // Behind the header.
        found.length = at + 4;
        let agree = threads
            .iter()
            .filter(|thread| leads_back(found, live, thread) == Some(true));
        if agree.count() >= MIN_THREADS.max(threads.len() / 2) {
            return Some(());
        }
    }
    None
}

fn leads_back(found: &JavaFutures, live: &Live, thread: &Thread) -> Option<bool> {
    let object = super::object(live, thread, found.object)?;
    let [start, end] = found.heap.map(Address::get);
    let native = live.word(object.checked_add(u64::from(found.native))?)?;
    let number = live.half(object.checked_add(u64::from(found.class_at))?)? >> found.class_low;
    let class = u64::from(number) << found.class_shift;
    let class = found.class_base.get().checked_add(class)?;
    // Behind `Object`.
    let parent = live.word(class.checked_add(u64::from(found.supers))?.checked_add(8)?)?;
    Some((start..end).contains(&object) && native == thread.address && parent == found.thread.get())
}

/// Whether a collector does (of those that are switched on by a flag).
fn moves_while_threads_run(live: &Live, table: &Table) -> Option<bool> {
    let count = live.word(table.row("JVMFlag", "numFlags")?.address)?;
    let first = live.word(table.row("JVMFlag", "flags")?.address)?;
    let (name, value) = (table.row("JVMFlag", "_name")?, table.row("JVMFlag", "_addr")?);
    for n in 0..count.min(MAX_FLAGS) {
        let flag = first.checked_add(n.checked_mul(table.flag)?)?;
        let called = live.word(flag.checked_add(name.offset)?)?;
        if called == 0 {
            break;
        }
        if matches!(text(live, called).as_deref(), Some("UseZGC" | "UseShenandoahGC"))
            && live.read(live.word(flag.checked_add(value.offset)?)?, 1)? != [0]
        {
            return Some(true);
        }
    }
    Some(false)
}

/// The classes that are looked for, as far as they are loaded.
fn classes(live: &Live, table: &Table) -> HashMap<&'static str, u64> {
    let mut found = HashMap::new();
    let mut looked_at = 0;
    let wanted: HashSet<&'static str> = wanted().collect();
    let mut look = || {
        let offset = |structure, field| table.row(structure, field).map(|row| row.offset);
        let next_loader = offset("ClassLoaderData", "_next")?;
        let first_class = offset("ClassLoaderData", "_klasses")?;
        let next_class = offset("Klass", "_next_link")?;
        let name = offset("Klass", "_name")?;
        let mut loader = live.word(table.row("ClassLoaderDataGraph", "_head")?.address)?;
        for _ in 0..MAX_LOADERS {
            if loader == 0 {
                break;
            }
            let mut class = live.word(loader.checked_add(first_class)?)?;
            while class != 0 && looked_at < MAX_CLASSES && found.len() < wanted.len() {
                looked_at += 1;
                let symbol = live.word(class.checked_add(name)?)?;
                if let Some(name) = symbol_text(live, table, symbol)
                    && let Some(name) = wanted.get(&*name)
                {
                    found.insert(*name, class);
                }
                class = live.word(class.checked_add(next_class)?)?;
            }
            loader = live.word(loader.checked_add(next_loader)?)?;
        }
        Some(())
    };
    // Classes that are unloaded meanwhile end the way through them.
    let _ = (0..TRIES).find_map(|_| look());
    found
}

fn symbol_text(live: &Live, table: &Table, symbol: u64) -> Option<String> {
    let offset = |field| table.row("Symbol", field).map(|row| row.offset);
    let length = short(live, symbol.checked_add(offset("_length")?)?)?;
    if length > MAX_NAME {
        return None;
    }
    let body = offset("_body").or_else(|| offset("_body[0]"))?;
    let bytes = live.read(symbol.checked_add(body)?, usize::from(length))?;
    String::from_utf8(bytes).ok()
}

fn short(live: &Live, address: u64) -> Option<u16> {
    let bytes = live.read(address, 2)?;
    Some(u16::from_ne_bytes(*bytes.first_chunk()?))
}

/// `JVM_ACC_STATIC`.
const STATIC: u32 = 8;

/// The offsets of the fields that objects of the class have and that it declares itself.
fn fields(live: &Live, table: &Table, class: u64) -> Option<HashMap<String, u32>> {
    let offset = |field| table.row("InstanceKlass", field).map(|row| row.offset);
    let pool = live.word(class.checked_add(offset("_constants")?)?)?;
    let first = pool.checked_add(table.constant_pool)?;
    let name = |index: u32| {
        let symbol = live.word(first.checked_add(u64::from(index).checked_mul(8)?)?)?;
        symbol_text(live, table, symbol)
    };
    let mut found = HashMap::new();
    let mut keep = |index: u32, flags: u32, offset: u32| {
        if flags & STATIC == 0
            && let Some(name) = name(index)
        {
            found.insert(name, offset);
        }
    };
    if let Some(at) = offset("_fields") {
        let array = live.word(class.checked_add(at)?)?;
        let count = short(live, class.checked_add(offset("_java_fields_count")?)?)?;
        for n in 0..usize::from(count).min(MAX_FIELDS) {
            // Flags, name, signature, initial value, and the offset (oops/fieldInfo.hpp): 14 and 16 bits above two of a tag.
            let at = array.checked_add(ELEMENTS)?.checked_add(12 * n as u64)?;
            let words = live.read(at, 12)?;
            let (words, _) = words.as_chunks::<2>();
            let word = |at: usize| words.get(at).map(|word| u32::from(u16::from_ne_bytes(*word)));
            let offset = (word(5)? << 16 | word(4)?) >> 2;
            keep(word(1)?, word(0)?, offset);
        }
        return Some(found);
    }
    let stream = live.word(class.checked_add(offset("_fieldinfo_stream")?)?)?;
    let length = live.half(stream).filter(|&length| length <= MAX_STREAM)?;
    let bytes = live.read(stream.checked_add(ELEMENTS)?, length as usize)?;
    let mut numbers = Numbers(bytes.iter());
    let count = numbers.next()?;
    let _injected = numbers.next()?;
    for _ in 0..count.min(MAX_FIELDS as u32) {
        let (name, _signature, offset) = (numbers.next()?, numbers.next()?, numbers.next()?);
        let (flags, more) = (numbers.next()?, numbers.next()?);
        keep(name, flags, offset);
        // An initial value, a generic signature, a group (FieldInfo::FieldFlags).
        for bit in [0, 2, 4] {
            if more & 1 << bit != 0 {
                numbers.next()?;
            }
        }
    }
    Some(found)
}

/// Numbers as HotSpot packs them (utilities/unsigned5.hpp): digits to the base 64, the lowest first, each a byte that is never 0; one
/// below 192 ends the number.
struct Numbers<'a>(std::slice::Iter<'a, u8>);

impl Iterator for Numbers<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let mut number = 0_u32;
        for place in 0..5 {
            let digit = u32::from(*self.0.next()?).checked_sub(1)?;
            number = number.wrapping_add(digit << (6 * place));
            if digit < 191 {
                break;
            }
        }
        Some(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_unpacked() {
        for (packed, numbers) in [
            (&[1, 2, 191][..], &[0, 1, 190][..]),
            (&[192, 1, 5], &[191, 4]),
            (&[255, 3], &[254 + 2 * 64]),
            (
                &[192, 192, 192, 192, 192],
                &[191 * (1 + 64 + 4096 + 262_144 + 16_777_216)],
            ),
            // Cut off, and a byte that never occurs.
            (&[1, 192], &[0]),
            (&[0], &[]),
        ] {
            let read: Vec<u32> = Numbers(packed.iter()).collect();
            let expected: Vec<u32> = numbers.iter().map(|&number: &u64| number as u32).collect();
            assert_eq!(read, expected, "{packed:?}");
        }
    }
}
