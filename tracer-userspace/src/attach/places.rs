//! The table `CONNS`, which the kernel and the daemon have in memory together.

use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicU32, AtomicU64};

use anyhow::Context as _;
use aya::maps::Map;
use tracer_common::{ConnState, MAX_CONNS};

use crate::mapping::Mapping;

/// The table, mapped.
pub struct Places(Mapping);

const BYTES: usize = MAX_CONNS as usize * size_of::<ConnState>();

/// What user space writes of a [`ConnState`].
pub struct Place<'a> {
    /// See [`ConnState::owner`].
    pub owner: &'a AtomicU64,
    /// See [`ConnState::run_bytes`].
    pub run_bytes: &'a AtomicU32,
}

impl Places {
    /// Maps the array.
    pub fn new(map: &Map) -> anyhow::Result<Self> {
        let Map::Array(data) = map else {
            anyhow::bail!("it is no array")
        };
        Mapping::new(data.fd().as_fd(), BYTES, 0, libc::PROT_READ | libc::PROT_WRITE)
            .map(Self)
            .context("mapping it")
    }

    /// The place of that connection, whosever it is at present.
    pub fn of(&self, conn: u64) -> Place<'_> {
        let place = tracer_common::place(conn) as usize;
        // SAFETY: places are below the number of elements.
        let state = unsafe { self.0.start().cast::<ConnState>().add(place) }.as_ptr();
        // SAFETY: a field of an element, mapped as long as `self` lives.
        let owner = unsafe { &raw mut (*state).owner };
        // SAFETY: as above.
        let run_bytes = unsafe { &raw mut (*state).run_bytes };
        // SAFETY: as above, aligned; others change it in one step as well.
        let owner = unsafe { AtomicU64::from_ptr(owner) };
        // SAFETY: as above.
        let run_bytes = unsafe { AtomicU32::from_ptr(run_bytes) };
        Place { owner, run_bytes }
    }
}
