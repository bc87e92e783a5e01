//! Tells the programs that the reader sleeps.

use std::io;

use anyhow::Context as _;
use aya::maps::{Array, Map, MapData};

use crate::source::Alarm;

/// The programs' `READER_ASLEEP`.
pub struct ReaderAsleep(Array<MapData, u32>);

impl ReaderAsleep {
    pub(super) fn new(map: Map) -> anyhow::Result<Self> {
        Ok(Self(Array::try_from(map).context("READER_ASLEEP")?))
    }
}

impl Alarm for ReaderAsleep {
    fn set(&mut self) -> io::Result<()> {
        self.0.set(0, 1, 0).map_err(io::Error::other)
    }
}
