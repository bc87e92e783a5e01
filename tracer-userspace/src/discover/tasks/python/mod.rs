//! asyncio Tasks of CPython: where the interpreter keeps them.
//!
//! Structures differ between minor releases, not within one, so that a table has their offsets ([`table`]). Everything else is
//! found in the live process through what Python itself knows: the module `_asyncio` among the loaded ones, its types by name.
//! What the table says is believed only if what it leads to is what it should be: types of the right name and size, every
//! thread's state in that thread's own storage.

use tracer_common::{Address, PythonOffsets, RuntimeEntry, RuntimeKind};

mod table;

use self::table::{Row, TABLE};
use super::Subject;
use super::live::{Live, Mapping, Module};
use crate::model::Language;

/// What `_asyncio` publishes of itself for debuggers (from 3.14 on, `Py_AsyncioModuleDebugOffsets` in Modules/_asynciomodule.c): words, of
/// which these are `TaskObj`'s size, its name, and [`Row::running_task`].
const PUBLISHED: &str = ".AsyncioDebug";
const PUBLISHED_WORDS: [usize; 3] = [0, 1, 11];

/// `PyObject.ob_type`; `PyTypeObject`: tp_name, tp_basicsize; `PyDictObject.ma_keys`; `PyModuleObject.md_dict`; `PyThreadState.next`.
const TYPE: u64 = 8;
const TYPE_NAME: u64 = 24;
const TYPE_SIZE: u64 = 32;
const KEYS: u64 = 32;
const MODULE_DICT: u64 = 16;
const NEXT_THREAD: u64 = 8;

/// Thread-specific data in glibc's `struct pthread` (nptl/descr.h: specific_1stblock), of 16 bytes for each key, of which the second
/// word is the value. Keys beyond the first 32 lie elsewhere.
const SPECIFIC: u64 = 784;
const KEYS_OF_BLOCK: u64 = 32;

/// Most entries of a dictionary, and most threads, that are looked at.
const MAX_ENTRIES: u64 = 1 << 16;
const MAX_THREADS: usize = 64;

/// Objects of the module `_asyncio`.
struct Asyncio {
    current_tasks: u64,
    task_type: u64,
    future_type: u64,
}

/// Nothing lies there, so no object is of such a type.
const NOWHERE: u64 = 1;
const NO_ASYNCIO: Asyncio = Asyncio {
    current_tasks: NOWHERE,
    task_type: NOWHERE,
    future_type: NOWHERE,
};

/// The module of executors whose threads are followed, and that of their queues.
const EXECUTORS: &str = "concurrent.futures.thread";
const QUEUES: &str = "_queue";

/// `PyTypeObject.tp_dict`; `PyMethodDescrObject.d_method`; `PyMethodDef`: ml_name, ml_meth, ml_flags (`METH_FASTCALL | METH_KEYWORDS`).
const TYPE_DICT: u64 = 264;
const METHOD: u64 = 40;
const FUNCTION: u64 = 8;
const CONVENTION: u64 = 16;
const FASTCALL_KEYWORDS: u32 = 0x82;

/// Whether there is something that the process had not loaded when this was found, and may yet.
pub fn is_incomplete(entry: &RuntimeEntry) -> bool {
    let python = &entry.python;
    let lacks_executors = python.data_stack != 0 && python.queue_put.get() == 0;
    entry.kind == RuntimeKind::PYTHON.0 && (python.task_type.get() == NOWHERE || lacks_executors)
}

/// The recipe. `None` while the process has loaded neither asyncio nor executors.
pub fn find(subject: &Subject) -> Option<Result<RuntimeEntry, String>> {
    if subject.language != Language::Python {
        return None;
    }
    let live = Live::open(subject.process)?;
    let module = live
        .module(|name| name.starts_with("libpython3."))
        .or_else(|| live.executable())?;
    if module.elf.machine() != object::elf::EM_X86_64.0 {
        return Some(Err("asyncio Tasks are read on x86_64 only".to_owned()));
    }
    let symbols = Symbols::find(&module)?;
    let Some(minor) = minor(&live, &module, &symbols) else {
        return Some(Err("the version of this CPython is not known".to_owned()));
    };
    let Some(row) = TABLE.iter().find(|row| row.minor == minor) else {
        return Some(Err(format!("the layout of CPython 3.{minor} is not known")));
    };
    let python = Python { live, symbols, row };
    python.find().transpose()
}

/// Addresses in the process of what CPython exports.
struct Symbols {
    runtime: u64,
    version: Option<u64>,
    dictionary: u64,
    function: u64,
    method: u64,
    builtin: u64,
    tuple: u64,
    int: u64,
    context: u64,
    coroutine: u64,
    list: u64,
    list_iterator: u64,
}

impl Symbols {
    /// `None` if this is another implementation.
    fn find(module: &Module) -> Option<Self> {
        let found = module.elf.dynamic_symbols([
            "_PyRuntime",
            "Py_Version",
            "PyDict_Type",
            "PyFunction_Type",
            "PyMethod_Type",
            "PyCFunction_Type",
            "PyTuple_Type",
            "PyLong_Type",
            "PyContext_Type",
            "PyCoro_Type",
            "PyList_Type",
            "PyListIter_Type",
        ]);
        let [runtime, version, rest @ ..] = found.map(|value| module.base.checked_add(value?));
        let [
            dictionary,
            function,
            method,
            builtin,
            tuple,
            int,
            context,
            coroutine,
            list,
            list_iterator,
        ] = rest;
        Some(Self {
            runtime: runtime?,
            version,
            dictionary: dictionary?,
            function: function?,
            method: method?,
            builtin: builtin?,
            tuple: tuple?,
            int: int?,
            context: context?,
            coroutine: coroutine?,
            list: list?,
            list_iterator: list_iterator?,
        })
    }
}

/// `Py_Version` (since 3.11) as `PY_VERSION_HEX`; else by the name of the library or the executable.
fn minor(live: &Live, module: &Module, symbols: &Symbols) -> Option<u32> {
    if let Some(version) = symbols.version {
        let version = live.word(version)?;
        return (version >> 24 == 3).then_some((version >> 16 & 0xff) as u32);
    }
    let name = module.path.file_name()?.to_str()?;
    let (_, rest) = name.split_once("python3.")?;
    let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..end)?.parse().ok()
}

struct Python<'a> {
    live: Live<'a>,
    symbols: Symbols,
    row: &'static Row,
}

impl Python<'_> {
    /// `Ok(None)`: nothing of that is loaded.
    fn find(&self) -> Result<Option<RuntimeEntry>, String> {
        let layout = |what: &str| format!("{what} of CPython 3.{} is not where it should be", self.row.minor);
        let interpreter = self
            .follow(self.symbols.runtime, self.row.interpreters)
            .ok_or_else(|| layout("the interpreter"))?;
        let modules = self
            .follow(interpreter, self.row.modules)
            .and_then(|modules| self.dictionary(modules))
            .ok_or_else(|| layout("the table of modules"))?;
        let queue_put = self.queue_put(&modules);
        let asyncio = match self.get(&modules, "_asyncio") {
            Some(module) => self.asyncio(module)?,
            None if queue_put.is_some() => NO_ASYNCIO,
            None => return Ok(None),
        };
        let thread_state = self
            .thread_state(interpreter)
            .ok_or_else(|| layout("a thread's state"))?;
        let row = self.row;
        let coroutine_frame = self.coroutine_frame().unwrap_or_default();
        let (keys_indices, keys_entries, has_logarithm) = row.keys;
        let python = PythonOffsets {
            current_tasks: Address::new(asyncio.current_tasks),
            task_type: Address::new(asyncio.task_type),
            future_type: Address::new(asyncio.future_type),
            // 3.9 has a type of its own for it, which it does not export.
            wakeup_type: Address::new(if row.minor < 10 { 0 } else { self.symbols.builtin }),
            function_type: Address::new(self.symbols.function),
            method_type: Address::new(self.symbols.method),
            tuple_type: Address::new(self.symbols.tuple),
            int_type: Address::new(self.symbols.int),
            coroutine_type: Address::new(if row.data_stack == 0 {
                0
            } else {
                self.symbols.coroutine
            }),
            list_type: Address::new(self.symbols.list),
            list_iterator_type: Address::new(self.symbols.list_iterator),
            dictionary_type: Address::new(self.symbols.dictionary),
            queue_put: Address::new(queue_put.unwrap_or_default()),
            thread_state,
            context: row.context,
            keys_indices,
            keys_logarithm: u32::from(has_logarithm),
            keys_entries,
            wakeup_task: row.wakeup_task,
            task_name: row.task_name,
            task_context: row.task_context,
            text: row.text,
            closure: row.closure,
            attributes: row.attributes,
            data_stack: row.data_stack,
            frame_code: row.frame_code,
            code_locals: row.code_locals,
            code_stack: row.code_stack,
            coroutine_frame,
            tuple_items: row.tuple_items,
            done_callbacks: row.done_callbacks,
            frame_locals: row.frame_locals,
            frame_pointer: u32::from(row.minor >= 14),
            running_task: row.running_task,
        };
        Ok(Some(RuntimeEntry {
            kind: RuntimeKind::PYTHON.0,
            python,
            ..RuntimeEntry::default()
        }))
    }

    /// What the module `_asyncio` has.
    fn asyncio(&self, module: u64) -> Result<Asyncio, String> {
        let layout = |what: &str| format!("{what} of CPython 3.{} is not where it should be", self.row.minor);
        let names = self.names(module).ok_or_else(|| layout("the module _asyncio"))?;
        let task_type = self
            .get(&names, "Task")
            .filter(|&of| self.is_type(of, b"_asyncio.Task\0") && self.size(of) == Some(self.row.task_size))
            .ok_or_else(|| layout("the type of Tasks"))?;
        let future_type = self
            .get(&names, "Future")
            .filter(|&of| self.is_type(of, b"_asyncio.Future\0"))
            .ok_or_else(|| layout("the type of Futures"))?;
        let current_tasks = if self.row.running_task == 0 {
            self.get(&names, "_current_tasks")
                .filter(|&tasks| self.live.word(tasks + TYPE) == Some(self.symbols.dictionary))
                .ok_or_else(|| layout("the table of running Tasks"))?
        } else if self.is_as_published() {
            NOWHERE
        } else {
            return Err(layout("what a Task has"));
        };
        Ok(Asyncio {
            current_tasks,
            task_type,
            future_type,
        })
    }

    /// Whether what the process says of itself agrees with the table.
    fn is_as_published(&self) -> bool {
        let row = self.row;
        let expected = [row.task_size, row.task_name.into(), row.running_task.into()];
        let told = |module: Module| {
            let bytes = module.elf.section(PUBLISHED, 4096)?;
            Some(PUBLISHED_WORDS.map(|word| {
                let word = bytes.get(word * 8..)?.first_chunk()?;
                Some(u64::from_le_bytes(*word))
            }))
        };
        // A module of its own, or a part of the interpreter.
        [
            self.live.module(|name| name.starts_with("_asyncio.")),
            self.live.module(|name| name.starts_with("libpython3.")),
            self.live.executable(),
        ]
        .into_iter()
        .flatten()
        .find_map(told)
        .is_some_and(|told| told == expected.map(Some))
    }

    /// Where a coroutine has its frame: at its end, but for variables and stack. `None` if it has a pointer to it (before 3.11).
    fn coroutine_frame(&self) -> Option<u32> {
        if self.row.data_stack == 0 {
            return None;
        }
        let size = self.size(self.symbols.coroutine)?;
        let offset = size.checked_sub(self.row.frame_locals.into())?;
        (48..128).contains(&offset).then_some(offset as u32)
    }

    /// The function behind `_queue.SimpleQueue.put`, by which executors get their work, if the process has loaded those and their threads'
    /// frames are read. `None` as well if it is not called in the way that is expected.
    fn queue_put(&self, modules: &[(u64, u64)]) -> Option<u64> {
        if self.row.data_stack == 0 {
            return None;
        }
        self.get(modules, EXECUTORS)?;
        let queue = self.get(&self.names(self.get(modules, QUEUES)?)?, "SimpleQueue")?;
        let methods = self.dictionary(self.follow(queue, TYPE_DICT)?)?;
        let definition = self.follow(self.get(&methods, "put")?, METHOD)?;
        let name = self.live.read(self.live.word(definition)?, 4)?;
        let convention = self.live.half(definition.checked_add(CONVENTION)?)?;
        if name != b"put\0" || convention != FASTCALL_KEYWORDS {
            return None;
        }
        let function = self.live.word(definition.checked_add(FUNCTION)?)?;
        let is_code = |mapping: &Mapping| {
            mapping.permissions.contains('x') && mapping.start <= function && function < mapping.end
        };
        self.live.mappings().iter().any(is_code).then_some(function)
    }

    /// What a module has, by name.
    fn names(&self, module: u64) -> Option<Vec<(u64, u64)>> {
        self.dictionary(self.follow(module, MODULE_DICT)?)
    }

    /// The pointer at an offset, if it is one.
    fn follow(&self, address: u64, offset: u64) -> Option<u64> {
        let value = self.live.word(address.checked_add(offset)?)?;
        (value >= 4096 && value >> 47 == 0 && value % 8 == 0).then_some(value)
    }

    fn is_type(&self, of: u64, name: &[u8]) -> bool {
        self.follow(of, TYPE).is_some()
            && self
                .live
                .word(of + TYPE_NAME)
                .and_then(|text| self.live.read(text, name.len()))
                .is_some_and(|text| text == name)
    }

    fn size(&self, of: u64) -> Option<u64> {
        self.live.word(of.checked_add(TYPE_SIZE)?)
    }

    /// Where every thread keeps its state, relative to its thread pointer, which is also its `pthread_t`: the key that all threads
    /// agree on. A state is made by the thread's creator, under whose `pthread_t` it stands at first, and the thread keeps it once it
    /// holds the interpreter; until then that thread's place is empty.
    fn thread_state(&self, interpreter: u64) -> Option<u32> {
        let mut states = Vec::new();
        let mut state = self.follow(interpreter, self.row.threads)?;
        for _ in 0..MAX_THREADS {
            let context = self.live.word(state.checked_add(self.row.context.into())?)?;
            if context != 0 && self.live.word(context.checked_add(TYPE)?) != Some(self.symbols.context) {
                return None;
            }
            if let Some(pointer) = self.follow(state, self.row.thread_id) {
                states.push((pointer, state));
            }
            match self.follow(state, NEXT_THREAD) {
                Some(next) => state = next,
                None => break,
            }
        }
        let kept =
            |&(pointer, _): &(u64, u64), place: u64| match self.live.word(pointer.checked_add(place)?)? {
                0 => Some(false),
                word => states.contains(&(pointer, word)).then_some(true),
            };
        let agrees = |place: &u64| {
            let found: Option<Vec<bool>> = states.iter().map(|thread| kept(thread, *place)).collect();
            found.is_some_and(|kept| kept.contains(&true))
        };
        let mut places = (0..KEYS_OF_BLOCK)
            .map(|key| SPECIFIC + 16 * key + 8)
            .filter(agrees);
        match (places.next(), places.next()) {
            (Some(place), None) => u32::try_from(place).ok(),
            _ => None,
        }
    }

    /// A dictionary whose keys are texts: key and value of each entry.
    fn dictionary(&self, address: u64) -> Option<Vec<(u64, u64)>> {
        if self.live.word(address.checked_add(TYPE)?)? != self.symbols.dictionary {
            return None;
        }
        let keys = self.follow(address, KEYS)?;
        let (indices, entries, has_logarithm) = self.row.keys;
        let count = self.live.word(keys.checked_add(entries.into())?)?;
        let size = self.live.word(keys.checked_add(8)?)?;
        let (index_bytes, entry) = if has_logarithm {
            // dk_log2_index_bytes; dk_kind: entries of a table for any keys have a hash too.
            let any = size >> 16 & 0xff == 0;
            (
                1_u64.checked_shl((size >> 8 & 0xff) as u32)?,
                if any { 24 } else { 16 },
            )
        } else {
            let bytes = match size {
                0..=0xff => 1,
                0x100..=0xffff => 2,
                _ => 4,
            };
            (size.checked_mul(bytes)?, 24)
        };
        if count > MAX_ENTRIES || index_bytes > MAX_ENTRIES * 8 {
            return None;
        }
        let first = keys.checked_add(indices.into())?.checked_add(index_bytes)?;
        let bytes = self.live.read(first, usize::try_from(count * entry).ok()?)?;
        let word = |bytes: &[u8]| bytes.first_chunk().map(|word| u64::from_ne_bytes(*word));
        bytes
            .chunks_exact(entry as usize)
            .map(|entry| {
                let pair = entry.get(entry.len().checked_sub(16)?..)?;
                Some((word(pair)?, word(pair.get(8..)?)?))
            })
            .collect()
    }

    /// The value of a key.
    fn get(&self, entries: &[(u64, u64)], name: &str) -> Option<u64> {
        /// `PyASCIIObject.length`.
        const LENGTH: u64 = 16;
        let is_it = |key: u64| {
            let text = key.checked_add(self.row.text.into())?;
            (self.live.word(key.checked_add(LENGTH)?)? == name.len() as u64
                && self.live.read(text, name.len())? == name.as_bytes())
            .then_some(())
        };
        entries
            .iter()
            .find(|&&(key, value)| key != 0 && value != 0 && is_it(key).is_some())
            .map(|&(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::path::Path;
    use std::process::{Child, Command, Stdio};

    use super::*;
    use crate::discover::procfs::Snapshot;

    /// Tells where its Task, that Task's context and the thread's state are, by what Python itself knows; then waits for its input
    /// to end. The C API wants the state of a thread that holds the interpreter, so this one has it.
    const PROGRAM: &str = "\
import asyncio, contextvars, ctypes, sys, threading
async def main():
    state = ctypes.pythonapi.PyThreadState_Get
    state.restype = ctypes.c_void_p
    task = asyncio.current_task()
    loop = asyncio.get_running_loop()
    other = threading.Thread(target=threading.Event().wait, daemon=True)
    other.start()
    print(sys.version_info[1], id(task), state(), threading.get_ident(), flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
asyncio.run(main())
";

    struct Interpreter {
        child: Child,
        line: String,
    }

    impl Drop for Interpreter {
        fn drop(&mut self) {
            _ = self.child.kill();
            _ = self.child.wait();
        }
    }

    /// `None` if there is no such program, or none of that version behind it.
    fn start(program: &str, text: &str) -> Option<Interpreter> {
        let mut child = Command::new(program)
            .args(["-c", text])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
        let interpreter = Interpreter { child, line };
        (!interpreter.line.is_empty()).then_some(interpreter)
    }

    fn look(interpreter: &Interpreter) -> Option<Result<RuntimeEntry, String>> {
        let process = Snapshot::read(Path::new("/proc"), interpreter.child.id()).unwrap();
        find(&Subject {
            process: &process,
            language: Language::Python,
            go: None,
            tokio: None,
        })
    }

    /// Against every CPython on the PATH: what is found is what the interpreter says.
    #[test]
    fn finds_the_tasks_of_a_live_process() {
        let names = [
            "python3",
            "python3.9",
            "python3.10",
            "python3.11",
            "python3.12",
            "python3.13",
            "python3.14",
        ];
        let mut found = 0;
        for name in names {
            let Some(interpreter) = start(name, PROGRAM) else {
                eprintln!("skipped: no {name} here");
                continue;
            };
            let numbers: Vec<u64> = interpreter
                .line
                .split_ascii_whitespace()
                .map(|n| n.parse().unwrap())
                .collect();
            let [minor, task, state, thread] = *numbers.as_slice() else {
                panic!("{name} says {:?}", interpreter.line)
            };
            let entry = match look(&interpreter) {
                Some(Ok(entry)) => entry,
                other => panic!("{name} (3.{minor}): {other:?}"),
            };
            let python = entry.python;
            let process = Snapshot::read(Path::new("/proc"), interpreter.child.id()).unwrap();
            let live = Live::open(&process).unwrap();
            let row = TABLE.iter().find(|row| u64::from(row.minor) == minor).unwrap();
            assert_eq!(
                live.word(thread + u64::from(python.thread_state)),
                Some(state),
                "{name}"
            );
            assert_eq!(live.word(task + TYPE), Some(python.task_type.get()), "{name}");
            let name_of_task = live.word(task + u64::from(row.task_name)).unwrap();
            if live.word(name_of_task + TYPE) == Some(python.int_type.get()) {
                assert_eq!(live.half(name_of_task + 24), Some(1), "{name}");
            } else {
                let text = live.read(name_of_task + u64::from(row.text), 7).unwrap();
                assert_eq!(text, b"Task-1\0", "{name}");
            }
            let context = live.word(task + u64::from(row.task_context)).unwrap();
            let of_context = live.word(context + TYPE).unwrap();
            let text = live.read(live.word(of_context + TYPE_NAME).unwrap(), 24).unwrap();
            let text = text.split(|&byte| byte == 0).next().unwrap();
            assert!(text.ends_with(b"Context"), "{name}: {}", text.escape_ascii());
            found += 1;
        }
        assert!(found > 0, "no CPython was found");
    }

    /// The address of the function behind `SimpleQueue.put`, by the interpreter's own words for it.
    const EXECUTOR: &str = "\
import ctypes, queue, sys
from concurrent.futures import ThreadPoolExecutor
ThreadPoolExecutor(1).submit(int).result()
method = queue.SimpleQueue.put
definition = ctypes.cast(id(method) + 40, ctypes.POINTER(ctypes.POINTER(ctypes.c_void_p)))[0]
print(sys.version_info[1], definition[1], 'asyncio' in sys.modules, flush=True)
sys.stdin.read()
";

    /// Executors suffice: asyncio may come later.
    #[test]
    fn finds_the_executors_of_a_live_process() {
        let interpreter = start("python3", EXECUTOR).unwrap();
        let mut words = interpreter.line.split_ascii_whitespace();
        let minor: u32 = words.next().unwrap().parse().unwrap();
        let put: u64 = words.next().unwrap().parse().unwrap();
        assert_eq!(words.next(), Some("False"));
        if minor < 11 {
            eprintln!("skipped: executors are not followed in 3.{minor}");
            return;
        }
        let entry = look(&interpreter).unwrap().unwrap();
        assert_eq!(entry.python.queue_put.get(), put);
        assert!(is_incomplete(&entry), "asyncio is not loaded");
    }

    #[test]
    fn a_process_without_asyncio_has_no_tasks() {
        let interpreter = start("python3", "print(1, flush=True); input()").unwrap();
        assert_eq!(look(&interpreter), None);
        _ = interpreter
            .child
            .stdin
            .as_ref()
            .map(|mut input| input.write_all(b"\n"));
    }
}
