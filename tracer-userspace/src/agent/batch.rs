//! Events on their way from the reader to a worker: copied once into one arena, recycled when empty.

use tracer_common::EventHeader;

use crate::model::Nanos;

/// The events of one drain that belong to one worker.
#[derive(Default)]
pub struct Batch {
    entries: Vec<(EventHeader, u32, u32)>,
    bytes: Vec<u8>,
    /// All events up to here have been delivered with this batch.
    pub watermark: Nanos,
}

impl Batch {
    /// Copies one event in.
    pub fn push(&mut self, header: &EventHeader, head: &[u8], tail: &[u8]) {
        self.entries.push((*header, head.len() as u32, tail.len() as u32));
        self.bytes.extend_from_slice(head);
        self.bytes.extend_from_slice(tail);
    }

    /// Hands out every event in order, and leaves the batch empty with its memory kept.
    pub fn drain(&mut self, mut f: impl FnMut(&EventHeader, &[u8], &[u8])) {
        let mut bytes = self.bytes.as_slice();
        for (header, head, tail) in self.entries.drain(..) {
            let Some((head, rest)) = bytes.split_at_checked(head as usize) else {
                break;
            };
            let Some((tail, rest)) = rest.split_at_checked(tail as usize) else {
                break;
            };
            bytes = rest;
            f(&header, head, tail);
        }
        self.bytes.clear();
    }

    /// Events.
    #[must_use]
    pub fn events(&self) -> usize {
        self.entries.len()
    }
}
