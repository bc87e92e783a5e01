//! Finds where tasks that await others one after the other have those whose turn is still to come: `for task in tasks { task.await }`.
//!
//! The kernel side names a task that awaits another one, by their addresses and types. From the one that waits, pointers are followed
//! to the handle of the one that is awaited; one of the blocks of memory on the way has two pointers between which there are handles
//! of others of the same type. Where that was the same for several awaited tasks, it is believed.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use tracer_common::{MAX_TOKIO_LISTS, MAX_TOKIO_STEPS, TokioList, TokioOffsets};

use super::sample::bytes;
use super::shape::{Memory, Task};
use crate::discover::tasks::{halves, whole};

/// Blocks of memory that are looked through in one search, and bytes of one whose size is not known.
const MAX_BLOCKS: usize = 1_500;
const BLOCK: u64 = 1_024;
/// Largest part of a task, or of a boxed future, in words.
const FUTURE_WORDS: usize = 4_096;
/// Most bytes of handles that are awaited one after the other, and most words looked at among them in one search.
const MAX_LIST: u64 = 2_048;
const MAX_LOOKS: u32 = 20_000;
/// Different tasks that must have been seen awaited at one place.
const ENOUGH: usize = 3;
/// Searches for one type of task without the kernel side asking again.
const TRIES: u32 = 30;
/// Types, and places, that are remembered.
const MAX_WANTED: usize = 64;
const MAX_PLACES: usize = 256;

/// What is looked for, and what was seen.
#[derive(Default)]
pub struct Lists {
    /// By type of the awaited task: who awaited one last, and how often it is still looked at for that.
    wanted: HashMap<u64, (u64, u32)>,
    /// Awaited tasks by place.
    seen: HashMap<TokioList, HashSet<u64>>,
}

/// A block of memory that can be reached from a task.
struct Block {
    words: Vec<u64>,
    /// Offsets of the pointers that lead there, and the block that has the last of these.
    steps: Vec<u32>,
    from: Option<usize>,
}

impl Lists {
    /// Whether something is looked for.
    pub fn are_wanted(&self) -> bool {
        self.wanted.values().any(|(_, tries)| *tries > 0)
    }

    /// Tasks of the type with that `Vtable` are awaited by the task with this `Header`, and it is not known where it has them.
    pub fn want(&mut self, vtable: u64, by: u64) {
        if self.wanted.len() < MAX_WANTED || self.wanted.contains_key(&vtable) {
            self.wanted.insert(vtable, (by, TRIES));
        }
    }

    /// Looks for all that is wanted. Whether `offsets` has become better.
    pub fn look(&mut self, memory: &Memory, offsets: &mut TokioOffsets) -> bool {
        let wanted: Vec<(u64, u64)> = self
            .wanted
            .iter_mut()
            .filter(|(_, (_, tries))| *tries > 0)
            .map(|(&vtable, (by, tries))| {
                *tries = tries.saturating_sub(1);
                (vtable, *by)
            })
            .collect();
        let mut is_better = false;
        for (vtable, by) in wanted {
            is_better |= self.look_for(memory, offsets, vtable, by);
        }
        is_better
    }

    /// The same for one type and one task.
    pub fn look_for(&mut self, memory: &Memory, offsets: &mut TokioOffsets, vtable: u64, by: u64) -> bool {
        if offsets.lists.iter().any(|list| whole(list.vtable) == vtable) {
            self.wanted.remove(&vtable);
            return false;
        }
        let Some(by) = memory.task(by) else {
            return false;
        };
        let search = Search {
            memory,
            waker_vtable: whole(offsets.waker_vtable),
            by,
            vtable,
        };
        for (list, awaited) in search.lists() {
            if self.seen.len() >= MAX_PLACES && !self.seen.contains_key(&list) {
                self.seen.clear();
            }
            self.seen.entry(list).or_default().insert(awaited);
        }
        let certain = self
            .seen
            .iter()
            .filter(|(list, awaited)| whole(list.vtable) == vtable && awaited.len() >= ENOUGH)
            .max_by_key(|(list, awaited)| (awaited.len(), Reverse((list.depth, list.first, list.last))))
            .map(|(list, _)| *list);
        let free = offsets.lists.iter_mut().find(|list| list.vtable == [0, 0]);
        let (Some(list), Some(slot)) = (certain, free) else {
            return false;
        };
        *slot = list;
        self.wanted.remove(&vtable);
        self.seen.retain(|list, _| whole(list.vtable) != vtable);
        true
    }

    /// Whether there is room for more.
    pub fn have_room(offsets: &TokioOffsets) -> bool {
        offsets.lists.iter().filter(|list| list.vtable != [0, 0]).count() < MAX_TOKIO_LISTS
    }
}

/// One search from a task that waits.
struct Search<'a> {
    memory: &'a Memory<'a>,
    waker_vtable: u64,
    /// Who waits.
    by: Task,
    /// The type of what it awaits.
    vtable: u64,
}

impl Search<'_> {
    /// Every place that would do, with the id of the task that is awaited there.
    fn lists(&self) -> Vec<(TokioList, u64)> {
        let Some(first) = self.whole_task() else {
            return Vec::new();
        };
        let mut blocks = vec![first];
        let mut known = HashSet::from([self.by.header]);
        let mut open = BinaryHeap::from([Reverse((0, 0))]);
        let mut found = Vec::new();
        let mut looks = MAX_LOOKS;
        while let Some(Reverse((cost, at))) = open.pop() {
            let Some(words) = blocks.get(at).map(|block| block.words.clone()) else {
                continue;
            };
            for (offset, &word) in words.iter().enumerate() {
                if !self.memory.is_heap(word) {
                    continue;
                }
                let before = offset.checked_sub(1).and_then(|before| words.get(before));
                let after = words.get(offset.saturating_add(1)).copied().unwrap_or(0);
                // A waker has its vtable before it.
                if before == Some(&self.waker_vtable) || blocks.len() >= MAX_BLOCKS || !known.insert(word) {
                    continue;
                }
                let Some((block, more)) = self.next(&blocks, at, offset, [word, after]) else {
                    continue;
                };
                if block.words.get(2) == Some(&self.vtable) {
                    if let Some(task) = self.awaited(word) {
                        let before = found.len();
                        self.iterators(&blocks, at, bytes(offset), &task, &mut looks, &mut found);
                        // Else the one that waits has gone on meanwhile.
                        if self.awaited(word).is_none_or(|still| still.id != task.id) {
                            found.truncate(before);
                        }
                    }
                    continue;
                }
                if block.steps.len() <= MAX_TOKIO_STEPS {
                    open.push(Reverse((cost + more, blocks.len())));
                    blocks.push(block);
                }
            }
        }
        found
    }

    /// The future in the task itself; what tokio keeps around it leads to other tasks.
    fn whole_task(&self) -> Option<Block> {
        let stage = usize::try_from(self.by.stage / 8).ok()?;
        let trailer = usize::try_from(self.by.trailer / 8).ok()?;
        let mut words = self.memory.words(self.by.header, trailer.min(FUTURE_WORDS));
        words.get_mut(..stage)?.fill(0);
        Some(Block {
            words,
            steps: Vec::new(),
            from: None,
        })
    }

    /// The block behind a pointer and what follows that, and how far it takes the search from what is likely: futures are boxed.
    fn next(
        &self,
        blocks: &[Block],
        from: usize,
        offset: usize,
        [pointer, after]: [u64; 2],
    ) -> Option<(Block, u32)> {
        let steps = &blocks.get(from)?.steps;
        let (size, more) = match self.memory.boxed(pointer, after) {
            Some(size) => (size, 1),
            None => (self.allocated(pointer), 2),
        };
        let len = usize::try_from(size / 8).ok()?.clamp(3, FUTURE_WORDS);
        let words = self.memory.words(pointer, len);
        // An `Arc` is a part of the runtime, or of what all requests share.
        if matches!(words.first_chunk(), Some([1..=0xffff, 1..=0xffff])) {
            return None;
        }
        let block = Block {
            words,
            steps: steps.iter().copied().chain([bytes(offset)]).collect(),
            from: Some(from),
        };
        Some((block, more))
    }

    /// Bytes that were allocated there: what glibc keeps before them (malloc/malloc.c: `struct malloc_chunk`), if it keeps anything before
    /// the task.
    fn allocated(&self, address: u64) -> u64 {
        let chunk = |address: u64| {
            let size = self.memory.words(address.wrapping_sub(8), 1).first()? & !7;
            size.checked_sub(8).filter(|size| size % 16 == 8)
        };
        let of_task = chunk(self.by.header).unwrap_or(0);
        if (self.by.trailer..self.by.trailer.saturating_add(512)).contains(&of_task) {
            // What points into the middle of something may be an iterator over it.
            chunk(address).filter(|size| *size < 1 << 16).unwrap_or(64)
        } else {
            BLOCK
        }
    }

    /// The task with this `Header`, if it is one of the type that the other one awaits.
    fn awaited(&self, header: u64) -> Option<Task> {
        let task = self.of_type(header)?;
        let [vtable, data] = self.memory.joiner(&task)?;
        (vtable == self.waker_vtable && data == self.by.header).then_some(task)
    }

    fn of_type(&self, header: u64) -> Option<Task> {
        let words = self.memory.words(header, 3);
        if words.get(2) != Some(&self.vtable) {
            return None;
        }
        self.memory.task(header)
    }

    /// Iterators over handles in the blocks on the way to that of the awaited task.
    fn iterators(
        &self,
        blocks: &[Block],
        last: usize,
        handle: u32,
        awaited: &Task,
        looks: &mut u32,
        found: &mut Vec<(TokioList, u64)>,
    ) {
        let Some(path) = blocks.get(last) else { return };
        let mut steps = [0; MAX_TOKIO_STEPS];
        for (slot, step) in steps.iter_mut().zip(&path.steps) {
            *slot = *step;
        }
        let mut at = Some(last);
        while let Some(block) = at.and_then(|at| blocks.get(at)) {
            let pointers: Vec<(usize, u64)> = block
                .words
                .iter()
                .copied()
                .enumerate()
                .filter(|(_, word)| self.memory.is_heap(*word))
                .collect();
            for &(first, from) in &pointers {
                for &(end, to) in &pointers {
                    let size = to.checked_sub(from).filter(|size| (8..=MAX_LIST).contains(size));
                    let Some(size) = size.filter(|size| size.is_multiple_of(8)) else {
                        continue;
                    };
                    let Some([stride, element]) = self.handles(from, size, awaited, looks) else {
                        continue;
                    };
                    let list = TokioList {
                        vtable: halves(self.vtable),
                        steps,
                        count: u32::try_from(path.steps.len()).unwrap_or(0),
                        handle,
                        depth: u32::try_from(block.steps.len()).unwrap_or(u32::MAX),
                        first: bytes(first),
                        last: bytes(end),
                        stride,
                        element,
                    };
                    found.push((list, awaited.id));
                }
            }
            at = block.from;
        }
    }

    /// Bytes from one handle to the next in that memory, and from its beginning to the first, if there is nothing but handles of other tasks of
    /// the type, and what belongs to each.
    fn handles(&self, from: u64, size: u64, awaited: &Task, looks: &mut u32) -> Option<[u32; 2]> {
        let words = self.memory.words(from, usize::try_from(size / 8).ok()?);
        let mut places = Vec::new();
        for (at, &word) in words.iter().enumerate() {
            if word == awaited.header {
                return None;
            }
            if !self.memory.is_heap(word) {
                continue;
            }
            *looks = looks.checked_sub(1)?;
            if let Some(task) = self.of_type(word) {
                // Who made it is older.
                if task.id <= self.by.id {
                    return None;
                }
                places.push(at);
            }
        }
        let first = *places.first()?;
        let stride = words.len().checked_div(places.len())?;
        let is_even = places
            .iter()
            .enumerate()
            .all(|(nth, &place)| Some(place) == nth.checked_mul(stride).and_then(|at| at.checked_add(first)));
        let is_whole = first < stride && stride.checked_mul(places.len()) == Some(words.len());
        let is_plain = stride == 1 || places.len() > 1;
        (is_even && is_whole && is_plain).then(|| [bytes(stride), bytes(first)])
    }
}
