//! How much of a connection a session lets the kernel capture: little, until that was too little.

use super::{CapturePolicy, Output, Side};

/// Run and chunk limits in bytes, of requests and of responses.
pub type Limits = [(u32, u32); 2];

/// What was told of one connection; nothing is told twice, and once deep it stays so.
#[derive(Clone, Copy, Debug)]
pub struct Depth {
    local: Side,
    shallow: Limits,
    deep: Limits,
    told: Option<Limits>,
}

impl Depth {
    /// Of a connection whose local end plays that part; nothing is told yet.
    pub const fn new(local: Side, shallow: Limits, deep: Limits) -> Self {
        Self {
            local,
            shallow,
            deep,
            told: None,
        }
    }

    /// Exchanges are there: from now on captures what is usually enough.
    pub fn shallow(&mut self, out: &mut Output<'_>) {
        if self.told.is_none() {
            self.tell(self.shallow, out);
        }
    }

    /// That was too little.
    pub fn deep(&mut self, out: &mut Output<'_>) {
        if self.told != Some(self.deep) {
            self.tell(self.deep, out);
        }
    }

    fn tell(&mut self, limits: Limits, out: &mut Output<'_>) {
        self.told = Some(limits);
        let [requests, responses] = limits;
        out.capture(CapturePolicy::by_side(self.local, requests, responses));
    }
}
