//! What signals ask for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::Context as _;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::flag;

/// Flags set by signals. They interrupt the reader's wait.
pub struct Requests {
    stop: Arc<AtomicBool>,
    report: Arc<AtomicBool>,
}

impl Requests {
    /// Listens from now on: SIGINT and SIGTERM stop (a second one ends the process at once), SIGUSR1 prints the ledger.
    pub fn listen() -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let report = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM] {
            // The order matters: the first signal finds the flag unset here and sets it below.
            flag::register_conditional_shutdown(signal, 1, Arc::clone(&stop)).context("handling signals")?;
            flag::register(signal, Arc::clone(&stop)).context("handling signals")?;
        }
        flag::register(SIGUSR1, Arc::clone(&report)).context("handling signals")?;
        Ok(Self { stop, report })
    }

    /// Whether to stop.
    pub fn is_requested(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Whether the ledger was asked for since the last call.
    pub fn take_report(&self) -> bool {
        self.report.swap(false, Relaxed)
    }
}
