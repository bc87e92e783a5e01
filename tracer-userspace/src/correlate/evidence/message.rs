//! E2: the request that left one end of a connection is the one that arrived at the other.
//!
//! Both ends know where the request's first byte stands in the stream. With the same two addresses in the same network
//! namespace that names the message exactly (also when requests are pipelined and the ends disagree on how far the
//! other direction had come). Through NAT and across namespaces the addresses differ; there both positions together
//! are the name, which is unique for TCP (initial sequence numbers are random), never for Unix sockets (they count
//! from zero), and believed only if no second candidate has the same.

use crate::correlate::Correlator;
use crate::correlate::arena::Key;
use crate::correlate::record::Parent;
use crate::model::{Address, Begin, Confidence, Evidence, Nanos, Role};

/// Two ends that only the positions join began within this time of each other: a server under load reads late.
const APART: Nanos = 10_000_000_000;

enum Kinship {
    Exact,
    Positions,
    None,
}

/// Equal for both ends of a message, whatever lies between them.
fn name(begin: &Begin) -> Option<u64> {
    let pos = u64::from(begin.identity?.pos);
    Some(match (&begin.conn.local.address, &begin.conn.remote.address) {
        (Address::Unix(a), Address::Unix(b)) => pos ^ a.wrapping_add(*b).rotate_left(32),
        _ => pos,
    })
}

fn kinship(a: &Begin, b: &Begin) -> Kinship {
    let (Some(at), Some(bt)) = (a.identity, b.identity) else {
        return Kinship::None;
    };
    let opposite = matches!(
        (a.role, b.role),
        (Role::Client, Role::Server)
            | (Role::Server, Role::Client)
            | (Role::Producer, Role::Consumer)
            | (Role::Consumer, Role::Producer)
    );
    if !opposite || at.pos != bt.pos || a.conn.id == b.conn.id {
        return Kinship::None;
    }
    let mirrored = a.conn.local == b.conn.remote && a.conn.remote == b.conn.local;
    let is_unix = matches!(a.conn.local.address, Address::Unix(_));
    if mirrored && (is_unix || a.conn.netns == b.conn.netns) {
        Kinship::Exact
    } else if !is_unix && at.peer_pos == bt.peer_pos && a.start.ts.abs_diff(b.start.ts) < APART {
        Kinship::Positions
    } else {
        Kinship::None
    }
}

impl Correlator {
    /// Looks for the other end of the message that began this exchange; keeps it for the other end if that was not
    /// seen. Returns whether an end that arrives may still find its sender.
    pub(in crate::correlate) fn match_message(&mut self, key: Key) -> bool {
        let Some(record) = self.records.get(key) else {
            return false;
        };
        let Some(name) = name(&record.begin) else {
            return false;
        };
        let (mut exact, mut similar, mut similars) = (Key::NONE, Key::NONE, 0);
        for candidate in self.messages.all(name) {
            let Some(other) = self.records.get(candidate) else {
                continue;
            };
            match kinship(&record.begin, &other.begin) {
                Kinship::Exact => exact = candidate,
                Kinship::Positions => (similar, similars) = (candidate, similars + 1),
                Kinship::None => {}
            }
        }
        let peer = match (exact, similars) {
            (Key::NONE, 1) => similar,
            (exact, _) => exact,
        };
        if peer == Key::NONE {
            self.messages.insert(name, key);
            if let Some(record) = self.records.get_mut(key) {
                record.message = Some(name);
            }
            return true;
        }
        let (sender, receiver) = if record.is_outbound() {
            (key, peer)
        } else {
            (peer, key)
        };
        self.leave_messages(peer);
        let read = self.records.get(receiver).map_or(Nanos::MAX, |r| r.start());
        if let Some(record) = self.records.get_mut(sender) {
            record.seen_by_peer = read;
        }
        if self.records.get(receiver).is_some_and(|r| r.is_decided()) {
            // The sender came too late: its receiver was declared a root, and perhaps handed on.
            self.counters.late_senders += 1;
            self.link(sender, receiver, "late_sender");
        } else {
            let certain = Some((Evidence::Message, Confidence::Certain));
            self.decide(receiver, Parent::Local(sender), certain);
        }
        false
    }

    /// The record waits for no other end any more.
    pub(in crate::correlate) fn leave_messages(&mut self, key: Key) {
        let Some(name) = self.records.get_mut(key).and_then(|r| r.message.take()) else {
            return;
        };
        self.messages.remove(name, key);
    }
}
