//! The loss ledger: `seen = exported + dropped(reason…) + spilled + open`, for exchanges; and losses of the kernel side in events.
//!
//! Whoever ends an exchange's life counts it, exactly once: the exporter when the last configured exporter has
//! delivered, dropped or spilled it, anyone else with the reason for which it goes no further.
//!
//! A span that is spilled lies in an exporter's disk queue, perhaps until another run of the daemon sends it. From there on it is in
//! the books of that exporter: `found + spilled = restored + lost + stored`, see [`Delivered`].

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::health::Health;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $text:literal),* $(,)?) => {
        /// Why an exchange was not exported.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Reason { $($(#[$doc])* $variant),* }

        impl Reason {
            /// Every reason, in the order of the enum.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// The name used in reports and metrics.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }
    };
}

reasons! {
    /// Bytes were lost in the kernel and the exchange cannot be told truthfully.
    BytesLost = "bytes_lost",
    /// The daemon joined in the middle of it.
    JoinedLate = "joined_late",
    /// The bytes broke the protocol's grammar.
    Malformed = "malformed",
    /// More exchanges were open on one connection than are tracked.
    TooManyOpen = "too_many_open",
    /// A bounded queue between two stages was full.
    QueueFull = "queue_full",
    /// The export queue was full (back end slow or down).
    ExportQueueFull = "export_queue_full",
    /// The back end refused it, or every retry failed.
    ExportFailed = "export_failed",
    /// The daemon stopped before the back end took it.
    Shutdown = "shutdown",
    /// Left open by the application when the daemon stopped or the connection was forgotten.
    Abandoned = "abandoned",
    /// The correlation stage's bound on open exchanges was reached.
    CorrelationFull = "correlation_full",
    /// The process is not selected.
    NotSelected = "not_selected",
    /// Sampling left its trace out.
    NotSampled = "not_sampled",
    /// Left out because the tracer was above its budget of processor time.
    Shed = "shed",
}

#[derive(Default)]
struct PerService {
    seen: u64,
    exported: u64,
    spilled: u64,
    dropped: BTreeMap<Reason, u64>,
}

/// What became of the spans that one exporter was given.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Delivered {
    /// Spans that its backend took, from memory or from the disk.
    pub delivered: u64,
    /// Spans that it gave up: those `lost` on the disk are among them.
    pub failed: u64,
    /// Its disk queue; `None` where it has none.
    pub disk: Option<Disk>,
}

/// The books of a disk queue, in spans: `found + spilled = restored + lost + stored`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Disk {
    /// Left by an earlier run of the daemon.
    pub found: u64,
    /// Written in this run.
    pub spilled: u64,
    /// Delivered from the disk.
    pub restored: u64,
    /// Refused by the backend, or damaged on the disk.
    pub lost: u64,
}

impl Disk {
    /// Spans that are on the disk.
    #[must_use]
    pub fn stored(&self) -> u64 {
        (self.found + self.spilled).saturating_sub(self.restored + self.lost)
    }
}

/// The ledger. Shared by all stages.
#[derive(Default)]
pub struct Ledger {
    seen: AtomicU64,
    exported: AtomicU64,
    dropped: [AtomicU64; Reason::ALL.len()],
    spilled: AtomicU64,
    services: Mutex<BTreeMap<Box<str>, PerService>>,
    gaps: AtomicU64,
    kernel: Mutex<BTreeMap<&'static str, u64>>,
    exporters: Mutex<BTreeMap<&'static str, Delivered>>,
    health: Health,
}

/// What became of the exchanges of one service.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// `service.name`; `unknown` where it was not known yet.
    pub service: Box<str>,
    /// Exchanges delivered.
    pub exported: u64,
    /// Exchanges in the disk queue of an exporter, or sent from there since.
    pub spilled: u64,
    /// Exchanges dropped, by reason.
    pub dropped: BTreeMap<Reason, u64>,
}

impl Ledger {
    /// How the stages are: whoever counts here can say that there.
    #[must_use]
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The accounts of all services, in the order of their names.
    #[must_use]
    pub fn accounts(&self) -> Vec<Account> {
        let services = self
            .services
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let accounts = services.iter().map(|(name, s)| Account {
            service: name.clone(),
            exported: s.exported,
            spilled: s.spilled,
            dropped: s.dropped.clone(),
        });
        accounts.collect()
    }

    /// `n` exchanges began.
    pub fn seen(&self, n: u64) {
        self.seen.fetch_add(n, Relaxed);
    }

    /// `n` exchanges of `service` were delivered to every exporter.
    pub fn exported(&self, service: &str, n: u64) {
        self.exported.fetch_add(n, Relaxed);
        self.service(service, |s| {
            s.seen += n;
            s.exported += n;
        });
    }

    /// `n` exchanges of `service` are in the disk queue of one exporter at least, and delivered to the others.
    pub fn spilled(&self, service: &str, n: u64) {
        self.spilled.fetch_add(n, Relaxed);
        self.service(service, |s| {
            s.seen += n;
            s.spilled += n;
        });
    }

    /// `n` exchanges go no further. `service` is `None` where it is not known yet.
    pub fn dropped(&self, service: Option<&str>, reason: Reason, n: u64) {
        self.dropped[reason as usize].fetch_add(n, Relaxed);
        self.service(service.unwrap_or("unknown"), |s| {
            s.seen += n;
            *s.dropped.entry(reason).or_default() += n;
        });
    }

    /// A place in a stream where bytes passed that no program told of: an event was lost, or something moved them that the back end
    /// does not see. Counted as `kernel.gaps`.
    pub fn gap(&self) {
        self.gaps.fetch_add(1, Relaxed);
    }

    /// Sets a total of the kernel side (events, not exchanges).
    pub fn kernel(&self, name: &'static str, total: u64) {
        let mut kernel = self
            .kernel
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        kernel.insert(name, total);
    }

    /// Changes the books of one exporter. They tell which of several fails; what counts for the balance is [`Self::exported`],
    /// [`Self::spilled`] and [`Self::dropped`].
    pub fn of_exporter(&self, exporter: &'static str, change: impl FnOnce(&mut Delivered)) {
        let mut exporters = self
            .exporters
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(exporters.entry(exporter).or_default());
    }

    fn service(&self, name: &str, f: impl FnOnce(&mut PerService)) {
        let mut services = self
            .services
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(s) = services.get_mut(name) {
            return f(s);
        }
        f(services.entry(name.into()).or_default());
    }

    /// A consistent enough copy: exact once the stages are idle.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let dropped: BTreeMap<_, _> = Reason::ALL
            .iter()
            .map(|&r| (r, self.dropped[r as usize].load(Relaxed)))
            .filter(|&(_, n)| n > 0)
            .collect();
        let exported = self.exported.load(Relaxed);
        let mut kernel = self
            .kernel
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .clone();
        let gaps = self.gaps.load(Relaxed);
        if gaps > 0 {
            kernel.insert("gaps", gaps);
        }
        let services = self
            .services
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        Snapshot {
            seen: self.seen.load(Relaxed),
            exported,
            spilled: self.spilled.load(Relaxed),
            dropped,
            services: services
                .iter()
                .map(|(name, s)| (name.clone(), (s.seen, s.exported, s.dropped.values().sum())))
                .collect(),
            kernel,
            exporters: self
                .exporters
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone(),
        }
    }
}

/// The ledger at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// Exchanges that began.
    pub seen: u64,
    /// Exchanges delivered.
    pub exported: u64,
    /// Exchanges in the disk queue of an exporter, or sent from there since.
    pub spilled: u64,
    /// Exchanges dropped, by reason; reasons with none are absent.
    pub dropped: BTreeMap<Reason, u64>,
    /// Finished exchanges by service: seen, exported, dropped. What is in neither of the last two was spilled.
    pub services: BTreeMap<Box<str>, (u64, u64, u64)>,
    /// Counters of the kernel side, in events.
    pub kernel: BTreeMap<&'static str, u64>,
    /// Spans by exporter. A span that goes to three exporters is in three of them.
    pub exporters: BTreeMap<&'static str, Delivered>,
}

impl Snapshot {
    /// Exchanges neither exported nor spilled nor dropped yet. Negative only if somebody counted twice.
    #[must_use]
    pub fn open(&self) -> i64 {
        let ended = self.exported + self.spilled + self.dropped.values().sum::<u64>();
        self.seen as i64 - ended as i64
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ledger: seen={} exported={} open={}",
            self.seen,
            self.exported,
            self.open()
        )?;
        if self.spilled > 0 {
            write!(f, " spilled={}", self.spilled)?;
        }
        for (reason, n) in &self.dropped {
            write!(f, " dropped.{}={n}", reason.as_str())?;
        }
        for (name, n) in &self.kernel {
            write!(f, " kernel.{name}={n}")?;
        }
        for (name, (seen, exported, dropped)) in &self.services {
            write!(
                f,
                "\nledger: service={name:?} seen={seen} exported={exported} dropped={dropped}"
            )?;
            let spilled = seen - exported - dropped;
            if spilled > 0 {
                write!(f, " spilled={spilled}")?;
            }
        }
        for (name, books) in &self.exporters {
            let (delivered, failed) = (books.delivered, books.failed);
            write!(
                f,
                "\nledger: exporter={name:?} delivered={delivered} failed={failed}"
            )?;
            let Some(disk) = books.disk else { continue };
            let (found, spilled, restored, lost) = (disk.found, disk.spilled, disk.restored, disk.lost);
            let stored = disk.stored();
            write!(
                f,
                " found={found} spilled={spilled} restored={restored} lost={lost} stored={stored}"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ledger_balances() {
        let ledger = Ledger::default();
        ledger.seen(10);
        ledger.exported("a", 6);
        ledger.dropped(Some("a"), Reason::Malformed, 1);
        ledger.dropped(None, Reason::QueueFull, 1);
        ledger.spilled("c", 1);
        ledger.of_exporter("otlp", |books| {
            books.disk = Some(Disk {
                found: 5,
                spilled: 1,
                restored: 2,
                lost: 1,
            });
        });
        let s = ledger.snapshot();
        assert_eq!(s.open(), 1);
        assert_eq!(s.exporters["otlp"].disk.unwrap().stored(), 3);
        assert_eq!(s.services["c"], (1, 0, 0));
        assert!(s.to_string().contains("open=1 spilled=1 "), "{s}");
        assert!(s.to_string().ends_with("lost=1 stored=3"), "{s}");
        assert_eq!(s.services["a"], (7, 6, 1));
        assert_eq!(s.services["unknown"], (1, 0, 1));
        assert!(!s.to_string().contains("kernel.gaps"), "{s}");
        ledger.gap();
        ledger.gap();
        let s = ledger.snapshot().to_string();
        assert!(s.contains(" kernel.gaps=2"), "{s}");
    }
}
