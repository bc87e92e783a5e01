//! What wakers, tasks and boxed futures look like in memory.

use crate::discover::tasks::live::Live;

const WORD: u64 = 8;

/// A process's memory with the ranges that tell its pointers apart.
pub struct Memory<'a> {
    live: &'a Live<'a>,
    /// Code and constants of the executable.
    code: Vec<(u64, u64)>,
    image: Vec<(u64, u64)>,
    /// What no file lies behind, and the process may write.
    heap: Vec<(u64, u64)>,
}

/// A task (tokio/src/runtime/task/core.rs: Header, Vtable).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Task {
    /// Address of its `Header`.
    pub header: u64,
    /// Address of its `Vtable`, which names the types of its future and its scheduler.
    pub vtable: u64,
    pub id: u64,
    /// Bytes before its future, or the pointer to it; and before its trailer.
    pub stage: u64,
    pub trailer: u64,
}

fn holds(ranges: &[(u64, u64)], address: u64) -> bool {
    // Sorted by address, as the kernel lists them.
    let after = ranges.partition_point(|(start, _)| *start <= address);
    after
        .checked_sub(1)
        .and_then(|at| ranges.get(at))
        .is_some_and(|(_, end)| address < *end)
}

impl<'a> Memory<'a> {
    /// `None` if it has no executable.
    pub fn of(live: &'a Live<'a>) -> Option<Self> {
        let executable = live.executable_path()?;
        let (mut code, mut image, mut heap) = (Vec::new(), Vec::new(), Vec::new());
        for mapping in live.mappings() {
            let range = (mapping.start, mapping.end);
            if mapping.path == executable {
                let of = if mapping.permissions.contains('x') {
                    &mut code
                } else {
                    &mut image
                };
                of.push(range);
            } else if mapping.permissions.starts_with("rw") && !mapping.path.starts_with('/') {
                heap.push(range);
            }
        }
        Some(Self {
            live,
            code,
            image,
            heap,
        })
    }

    /// Words from there on, as many as are there.
    pub fn words(&self, address: u64, count: usize) -> Vec<u64> {
        let Some(len) = count.checked_mul(8) else {
            return Vec::new();
        };
        let bytes = self.live.read(address, len).unwrap_or_default();
        let (words, _) = bytes.as_chunks::<8>();
        words.iter().map(|word| u64::from_ne_bytes(*word)).collect()
    }

    fn is_code(&self, address: u64) -> bool {
        holds(&self.code, address)
    }

    /// Whether this points to a constant of the program.
    pub fn is_constant(&self, address: u64) -> bool {
        holds(&self.image, address)
    }

    /// Whether this may point to something on the heap.
    pub fn is_heap(&self, address: u64) -> bool {
        address.is_multiple_of(WORD) && holds(&self.heap, address)
    }

    /// The task whose `Header` lies there.
    pub fn task(&self, header: u64) -> Option<Task> {
        if !self.is_heap(header) {
            return None;
        }
        let &[_, _, vtable] = self.words(header, 3).first_chunk()?;
        if !holds(&self.image, vtable) || !vtable.is_multiple_of(WORD) {
            return None;
        }
        // poll, schedule, dealloc, try_read_output, drop_join_handle_slow, drop_abort_handle, shutdown; offsets.
        let &[a, b, c, d, e, f, g, trailer, scheduler, at] = self.words(vtable, 10).first_chunk()?;
        let is_one = [a, b, c, d, e, f, g].iter().all(|&word| self.is_code(word))
            && scheduler < at
            && at < trailer
            && trailer < 1 << 24
            && trailer.is_multiple_of(WORD);
        if !is_one {
            return None;
        }
        let id = self.live.word(header.checked_add(at)?).filter(|&id| id != 0)?;
        Some(Task {
            header,
            vtable,
            id,
            stage: at.checked_add(WORD)?,
            trailer,
        })
    }

    /// The task that a waker of tokio wakes, if one lies there: a vtable of four functions and a `Header`.
    pub fn woken(&self, vtable: u64, data: u64) -> Option<Task> {
        if !holds(&self.image, vtable) || !self.is_heap(data) {
            return None;
        }
        let functions = self.words(vtable, 4);
        if functions.len() != 4 || !functions.iter().all(|&word| self.is_code(word)) {
            return None;
        }
        self.task(data)
    }

    /// The waker of who waits for the task to end (`Trailer.waker`), vtable and data; `None` if nobody does.
    pub fn joiner(&self, task: &Task) -> Option<[u64; 2]> {
        /// `JOIN_WAKER` in `Header.state` (tokio/src/runtime/task/state.rs).
        const JOIN_WAKER: u64 = 1 << 4;
        /// Behind the links of the list of all tasks.
        const WAKER: u64 = 16;
        let state = self.live.word(task.header)?;
        let place = task.header.checked_add(task.trailer)?.checked_add(WAKER)?;
        let waker = *self.words(place, 2).first_chunk()?;
        (state & JOIN_WAKER != 0).then_some(waker)
    }

    /// Size of the value behind a `Box<dyn …>` with this vtable: a function or none, size, alignment.
    pub fn boxed(&self, pointer: u64, vtable: u64) -> Option<u64> {
        if !self.is_heap(pointer) || !holds(&self.image, vtable) {
            return None;
        }
        let &[drop, size, align] = self.words(vtable, 3).first_chunk()?;
        let is_one =
            (drop == 0 || self.is_code(drop)) && size < 1 << 20 && align.is_power_of_two() && align <= 128;
        is_one.then_some(size)
    }
}
