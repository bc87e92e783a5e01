//! Who still has to report on which spans, so that each counts once in the ledger.
//!
//! A span may go to several exporters. It is `exported` once the last of them has delivered it, and dropped as soon as all
//! have reported and one of them failed; where none failed and one spilled it to its disk queue, it is spilled. Reports are made by hand-over and service, not by span: where exporters fail on a part only, the
//! failures are added up (never beyond the number of spans), so what is called exported certainly was.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use crate::model::{Service, Span};
use crate::telemetry::{Delivered, Disk, Ledger, Reason};

/// One call of [`super::Pipeline::send`].
pub(super) type TicketId = u64;

/// Spans of one service out of one hand-over.
#[derive(Clone)]
pub(super) struct Share {
    pub ticket: TicketId,
    pub service: Arc<Service>,
    pub spans: u32,
}

struct Tally {
    service: Arc<Service>,
    spans: u32,
    /// Reports still to come: spans times exporters.
    awaited: u64,
    failed: u32,
    spilled: u32,
    reason: Option<Reason>,
}

/// What became of spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fate {
    /// The backend took them.
    Delivered,
    /// They are in the exporter's disk queue, which has them in its own books from here on.
    Spilled,
    /// They were given up.
    Lost(Reason),
}

impl From<Result<(), Reason>> for Fate {
    fn from(verdict: Result<(), Reason>) -> Self {
        verdict.map_or_else(Self::Lost, |()| Self::Delivered)
    }
}

#[derive(Default)]
struct State {
    next: TicketId,
    open: HashMap<TicketId, Vec<Tally>>,
    closed: bool,
}

/// The books of all exporters that decide whether a span counts as exported.
pub(super) struct Accounts {
    ledger: Arc<Ledger>,
    exporters: u32,
    state: Mutex<State>,
}

/// One exporter's access to the books.
#[derive(Clone)]
pub(super) struct Account {
    books: Arc<Accounts>,
    exporter: &'static str,
}

impl Account {
    /// The account of the exporter of that name.
    pub fn new(books: &Arc<Accounts>, exporter: &'static str) -> Self {
        Self {
            books: Arc::clone(books),
            exporter,
        }
    }

    /// What became of these spans.
    pub fn report(&self, share: &Share, fate: Fate) {
        let n = u64::from(share.spans);
        self.note(|books| match fate {
            Fate::Delivered => books.delivered += n,
            Fate::Spilled => {}
            Fate::Lost(_) => books.failed += n,
        });
        self.books.report(share, fate);
    }

    /// Changes the exporter's own books.
    pub fn note(&self, change: impl FnOnce(&mut Delivered)) {
        self.books.ledger.of_exporter(self.exporter, change);
    }

    /// Changes the books of the exporter's disk queue.
    pub fn note_disk(&self, change: impl FnOnce(&mut Disk)) {
        self.note(|books| change(books.disk.get_or_insert_default()));
    }

    /// Reports on single spans (of a hand-over that an exporter takes apart).
    pub fn report_spans<'a>(&self, ticket: TicketId, spans: impl IntoIterator<Item = &'a Span>, fate: Fate) {
        let mut run: Option<Share> = None;
        for span in spans {
            match &mut run {
                Some(share) if Arc::ptr_eq(&share.service, &span.service) => share.spans += 1,
                _ => {
                    let next = Share {
                        ticket,
                        service: Arc::clone(&span.service),
                        spans: 1,
                    };
                    if let Some(done) = run.replace(next) {
                        self.report(&done, fate);
                    }
                }
            }
        }
        if let Some(done) = run {
            self.report(&done, fate);
        }
    }
}

impl Accounts {
    /// Books for `exporters` exporters, each of which reports on every span once.
    pub fn new(ledger: Arc<Ledger>, exporters: u32) -> Self {
        Self {
            ledger,
            exporters,
            state: Mutex::default(),
        }
    }

    /// Enters spans that are about to be handed to every exporter.
    pub fn open(&self, spans: &[Span]) -> TicketId {
        let mut tallies: Vec<Tally> = Vec::new();
        let mut at = 0;
        for span in spans {
            if !tallies
                .get(at)
                .is_some_and(|tally| Arc::ptr_eq(&tally.service, &span.service))
            {
                at = tallies
                    .iter()
                    .position(|tally| Arc::ptr_eq(&tally.service, &span.service))
                    .unwrap_or_else(|| {
                        tallies.push(Tally {
                            service: Arc::clone(&span.service),
                            spans: 0,
                            awaited: 0,
                            failed: 0,
                            spilled: 0,
                            reason: None,
                        });
                        tallies.len() - 1
                    });
            }
            if let Some(tally) = tallies.get_mut(at) {
                tally.spans += 1;
                tally.awaited += u64::from(self.exporters);
            }
        }
        let mut state = self.lock();
        let id = state.next;
        state.next += 1;
        if state.closed {
            drop(state);
            tallies
                .iter()
                .for_each(|tally| self.settle(tally, tally.spans, Reason::Shutdown));
        } else {
            state.open.insert(id, tallies);
        }
        id
    }

    fn report(&self, share: &Share, fate: Fate) {
        let mut state = self.lock();
        let Some(tallies) = state.open.get_mut(&share.ticket) else {
            return;
        };
        let Some(at) = tallies
            .iter()
            .position(|tally| Arc::ptr_eq(&tally.service, &share.service))
        else {
            return;
        };
        let Some(tally) = tallies.get_mut(at) else { return };
        match fate {
            Fate::Delivered => {}
            Fate::Spilled => tally.spilled = tally.spilled.saturating_add(share.spans).min(tally.spans),
            Fate::Lost(reason) => {
                tally.failed = tally.failed.saturating_add(share.spans).min(tally.spans);
                tally.reason.get_or_insert(reason);
            }
        }
        tally.awaited = tally.awaited.saturating_sub(share.spans.into());
        if tally.awaited > 0 {
            return;
        }
        let tally = tallies.swap_remove(at);
        if tallies.is_empty() {
            state.open.remove(&share.ticket);
        }
        drop(state);
        self.settle(&tally, tally.failed, tally.reason.unwrap_or(Reason::ExportFailed));
    }

    /// The daemon stops: whatever is still open counts as dropped, and later reports are ignored.
    pub fn close(&self) -> u64 {
        let open = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.open)
        };
        let mut left = 0;
        for tally in open.into_values().flatten() {
            // Every report that is missing may stand for a span of its own.
            let silent = tally.awaited.min((tally.spans - tally.failed).into()) as u32;
            left += u64::from(silent);
            if silent > 0 {
                self.ledger
                    .dropped(Some(&tally.service.name), Reason::Shutdown, silent.into());
            }
            let told = Tally {
                spans: tally.spans - silent,
                ..tally
            };
            self.settle(&told, told.failed, told.reason.unwrap_or(Reason::ExportFailed));
        }
        left
    }

    fn settle(&self, tally: &Tally, failed: u32, reason: Reason) {
        let rest = tally.spans.saturating_sub(failed);
        let spilled = tally.spilled.min(rest);
        let delivered = rest - spilled;
        if spilled > 0 {
            self.ledger.spilled(&tally.service.name, spilled.into());
        }
        if delivered > 0 {
            self.ledger.exported(&tally.service.name, delivered.into());
        }
        if failed > 0 {
            self.ledger
                .dropped(Some(&tally.service.name), reason, failed.into());
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
