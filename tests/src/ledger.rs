//! The daemon's loss ledger, read from its last words.

use std::collections::BTreeMap;

/// The ledger's totals.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Ledger {
    /// Exchanges that began.
    pub seen: i64,
    /// Exchanges delivered.
    pub exported: i64,
    /// Exchanges neither delivered nor dropped nor spilled.
    pub open: i64,
    /// Exchanges that went to a disk queue.
    pub spilled: i64,
    /// The books of the exporters, by exporter and word (`delivered`, `failed`, `found`, `restored`, …), in spans.
    pub exporters: BTreeMap<String, BTreeMap<String, i64>>,
    /// Exchanges dropped, by reason.
    pub dropped: BTreeMap<String, i64>,
    /// Events lost or counted on the kernel side.
    pub kernel: BTreeMap<String, i64>,
}

impl Ledger {
    /// The last ledger in the daemon's output: `ledger: seen=N exported=N open=N spilled=N dropped.<reason>=N kernel.<name>=N`,
    /// and a line for each exporter: `ledger: exporter="NAME" delivered=N …`.
    #[must_use]
    pub fn last_in(output: &str) -> Option<Self> {
        let mut lines = output.lines().rev();
        let mut ledger = Self::default();
        let line = loop {
            let line = lines.next()?;
            if let Some((_, rest)) = line.split_once("ledger: exporter=\"") {
                let (name, books) = rest.split_once("\" ")?;
                let books = books.split_whitespace().map(|field| {
                    let (word, value) = field.split_once('=')?;
                    Some((word.to_owned(), value.parse().ok()?))
                });
                ledger
                    .exporters
                    .insert(name.to_owned(), books.collect::<Option<_>>()?);
            } else if let Some((_, rest)) = line.split_once("ledger: seen=") {
                break rest;
            }
        };
        for field in format!("seen={line}").split_whitespace() {
            let (key, value) = field.split_once('=')?;
            let value = value.parse().ok()?;
            match key.split_once('.') {
                None if key == "seen" => ledger.seen = value,
                None if key == "exported" => ledger.exported = value,
                None if key == "open" => ledger.open = value,
                None if key == "spilled" => ledger.spilled = value,
                Some(("dropped", reason)) => _ = ledger.dropped.insert(reason.to_owned(), value),
                Some(("kernel", name)) => _ = ledger.kernel.insert(name.to_owned(), value),
                _ => return None,
            }
        }
        Some(ledger)
    }

    /// Exchanges dropped, whatever the reason.
    #[must_use]
    pub fn dropped_total(&self) -> i64 {
        self.dropped.values().sum()
    }

    /// Exchanges dropped for that reason.
    #[must_use]
    pub fn dropped(&self, reason: &str) -> i64 {
        self.dropped.get(reason).copied().unwrap_or(0)
    }

    /// What an exporter's books say under that word, such as `restored`.
    #[must_use]
    pub fn of_exporter(&self, exporter: &str, word: &str) -> i64 {
        let books = self.exporters.get(exporter);
        books.and_then(|books| books.get(word)).copied().unwrap_or(0)
    }

    /// What does not add up, if anything.
    #[must_use]
    pub fn imbalance(&self) -> Option<String> {
        let ring_full = self.kernel.get("ring_full").copied().unwrap_or(0);
        let disk = |word| {
            self.exporters
                .values()
                .map(|books| books.get(word).copied().unwrap_or(0))
                .sum::<i64>()
        };
        if self.seen != self.exported + self.spilled + self.dropped_total() + self.open {
            Some("seen is not exported + spilled + dropped + open".to_owned())
        } else if disk("found") + disk("spilled") != disk("restored") + disk("lost") + disk("stored") {
            Some("found + spilled is not restored + lost + stored".to_owned())
        } else if self.open != 0 {
            Some(format!("{} exchanges are open after the end", self.open))
        } else if ring_full != 0 {
            Some(format!("the rings were full {ring_full} times"))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ledger_counts() {
        let output = "tracer: ready\nledger: seen=1 exported=0 open=1\n2026 INFO ledger: seen=9 exported=6 open=0 \
                      dropped.malformed=2 dropped.shutdown=1 kernel.ring_full=0\nledger: service=\"a\" seen=9 exported=6 dropped=3\n\
                      ledger: exporter=\"otlp\" delivered=8 failed=0 found=2 spilled=0 restored=2 lost=0 stored=0\n";
        let ledger = Ledger::last_in(output).expect("a ledger");
        assert_eq!((ledger.seen, ledger.exported, ledger.open), (9, 6, 0));
        assert_eq!(ledger.dropped("malformed"), 2);
        assert_eq!(ledger.dropped_total(), 3);
        assert_eq!(ledger.imbalance(), None);
        assert_eq!(ledger.of_exporter("otlp", "restored"), 2);
        assert_eq!(Ledger::last_in("no ledger here"), None);
    }

    #[test]
    fn an_imbalance_is_told() {
        let check = |line: &str, word: &str| {
            let told = Ledger::last_in(line)
                .and_then(|l| l.imbalance())
                .unwrap_or_default();
            assert!(told.contains(word), "{line}: {told}");
        };
        check(
            "ledger: seen=3 exported=1 open=0 dropped.malformed=1",
            "exported + spilled + dropped",
        );
        check("ledger: seen=3 exported=1 open=2", "open after the end");
        check(
            "ledger: seen=1 exported=1 open=0 kernel.ring_full=4",
            "full 4 times",
        );
    }
}
