//! What an event loop does, cut into segments: all work from one read (or look for events) to the next that nothing else
//! interrupts. Ids that are given out in a segment belong to its owner, and so does what their callbacks do later.

use std::collections::{HashSet, VecDeque};

use hashbrown::HashMap;

use super::groups::{Group, Groups};
use crate::correlate::arena::Key;
use crate::model::{ConnId, Turn};

/// Ranges of ids remembered, connections, and ids of accepted connections.
const MAX_RANGES: usize = 16_384;
const MAX_CONNS: usize = 16_384;
const MAX_LISTENED: usize = 65_536;

/// The ids of a [`Turn`], counted on beyond 2^32; 0 = none.
#[derive(Clone, Copy, Debug, Default)]
struct Ids {
    execution: u64,
    trigger: u64,
    counter: u64,
    socket: u64,
    socket_trigger: u64,
    request: u64,
}

/// Ids from `first` to `last` that were given out on behalf of a group.
#[derive(Clone, Copy, Debug)]
struct Range {
    first: u64,
    last: u64,
    group: Group,
}

/// A connection of the loop.
#[derive(Clone, Copy, Default)]
struct Link {
    /// The exchange that began last on it.
    last: Key,
    /// The id of its socket.
    socket: u64,
    /// On whose behalf it was opened, until the first write: that waits for the connection, and comes in whatever turn finds it open.
    opener: Group,
}

/// What ends a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Cut {
    /// The loop looks for events.
    Waits,
    /// It runs what other threads have finished: of several requests.
    Woken,
    /// It reads from a connection; the work that follows belongs to that group, as far as known.
    Reads(ConnId, Group),
}

/// The requests that were answered in a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Answers {
    /// None.
    #[default]
    Nobody,
    /// This one alone.
    One(Key),
    /// Several.
    Many,
}

/// The open segment, and what earlier ones left.
#[derive(Default)]
pub(super) struct Segments {
    /// Who owns the work that is done now; [`Group::NONE`] = not known.
    owner: Group,
    /// It began with a read, and nothing has shown since that somebody else's work runs.
    is_read: bool,
    /// Its work may be of several: other threads' results.
    is_woken: bool,
    /// It began with the responses to calls of several groups: what is called back for one waits until all have begun their next steps.
    is_shared: bool,
    /// The id given out last when it began.
    begun_at: u64,
    /// The last resource whose callback was seen in it.
    last_execution: u64,
    /// The id of the socket that was read.
    socket: u64,
    /// Where the loop stood: the dispatch, the id given out last, when the first timer was due.
    dispatch: u32,
    sampled: u64,
    timer: u32,
    /// The dispatch in which the segment began.
    begun_in: u32,
    /// The call whose response was read, whether a signal (and not only the connection) says so, and who was answered.
    read: Key,
    is_told: bool,
    answers: Answers,
    /// The ids counted on.
    counter: u64,
    ranges: VecDeque<Range>,
    conns: HashMap<ConnId, Link>,
    /// The ids of accepted sockets and of what parses their requests: many requests', so nobody's.
    listened: HashSet<u64>,
    /// The request read last from the accepted socket with that id; [`Key::NONE`] if the one before it was open still.
    served: HashMap<u64, Key>,
}

impl Segments {
    fn ids(&mut self, turn: &Turn) -> Ids {
        let last = self.counter;
        let counter = match last {
            // So that the ids before the first that we see are numbers too.
            0 => (1 << 32) + u64::from(turn.counter),
            _ => last.wrapping_add(u64::from(turn.counter.wrapping_sub(last as u32))),
        };
        self.counter = counter;
        let extend = |id: u32| match id {
            0 => 0,
            id => counter.saturating_sub(u64::from(turn.counter.wrapping_sub(id))),
        };
        Ids {
            execution: extend(turn.execution),
            trigger: extend(turn.trigger),
            counter,
            socket: extend(turn.socket[0]),
            socket_trigger: extend(turn.socket[1]),
            request: extend(turn.request),
        }
    }

    /// Whether timers, which may be anybody's, can have run since the loop was seen last.
    fn timers_may_have_run(&self, turn: &Turn) -> bool {
        self.dispatch != turn.dispatch && turn.time.wrapping_sub(self.timer).cast_signed() >= 0
    }

    /// The ids from the last one told up to `last` were given out for that group.
    fn assign(&mut self, first: u64, last: u64, group: Group) {
        let first = first.max(self.ranges.back().map_or(0, |range| range.last + 1));
        if last < first || group == Group::NONE {
            return;
        }
        if let Some(range) = self.ranges.back_mut()
            && range.group == group
            && range.last + 1 == first
        {
            range.last = last;
            return;
        }
        if self.ranges.len() >= MAX_RANGES {
            self.ranges.pop_front();
        }
        self.ranges.push_back(Range { first, last, group });
    }

    /// On whose behalf that id was given out.
    fn owner_of(&self, id: u64) -> Option<Group> {
        if id == 0 || self.listened.contains(&id) {
            return None;
        }
        let after = self.ranges.partition_point(|range| range.first <= id);
        let range = self.ranges.get(after.checked_sub(1)?)?;
        (id <= range.last).then_some(range.group)
    }

    /// The open segment ends, another begins.
    pub fn cut(&mut self, turn: &Turn, cut: Cut) {
        let ids = self.ids(turn);
        let owner = match self.is_woken || self.timers_may_have_run(turn) {
            true => Group::NONE,
            false => self.owner,
        };
        self.assign(self.sampled + 1, ids.counter, owner);
        (self.owner, self.is_read, self.socket) = (Group::NONE, false, 0);
        if let Cut::Reads(conn, group) = cut {
            (self.owner, self.is_read, self.socket) = (group, true, ids.socket);
            if let Some(link) = self.conns.get_mut(&conn)
                && ids.socket != 0
            {
                link.socket = ids.socket;
            }
        }
        self.is_woken = cut == Cut::Woken;
        (self.is_shared, self.begun_at) = (false, ids.counter);
        self.last_execution = 0;
        (self.read, self.is_told, self.answers) = (Key::NONE, false, Answers::Nobody);
        self.sampled = ids.counter;
        (self.dispatch, self.begun_in) = (turn.dispatch, turn.dispatch);
        self.timer = turn.timer;
    }

    /// On whose behalf the loop writes (or connects) now. `anonymous` makes a group for a request that is not known.
    pub fn write(
        &mut self,
        turn: &Turn,
        conn: ConnId,
        groups: &mut Groups,
        anonymous: impl FnOnce(&mut Groups) -> Group,
    ) -> Group {
        let ids = self.ids(turn);
        let timers = self.timers_may_have_run(turn);
        let known = self
            .conns
            .get(&conn)
            .is_some_and(|link| link.socket == ids.socket);
        let fresh = if known { 0 } else { ids.socket };
        let is_old = ids.execution <= self.sampled;
        let in_segment = self.is_read && self.dispatch == turn.dispatch && self.owner != Group::NONE;
        let opener = self
            .conns
            .get_mut(&conn)
            .map(|link| std::mem::take(&mut link.opener));
        let opener = groups.root(opener.unwrap_or_default());
        let group = if opener != Group::NONE {
            opener
        } else if in_segment {
            self.write_in_segment(&ids, is_old, groups, anonymous)
        } else {
            let (first, second) = match is_old {
                true => (ids.execution, ids.trigger),
                false => (ids.trigger, ids.execution),
            };
            let of_socket = if known {
                [0; 2]
            } else {
                [ids.socket_trigger, ids.socket]
            };
            let found = [first, second]
                .into_iter()
                .chain(of_socket)
                .find_map(|id| self.owner_of(id).filter(|&group| groups.is_live(group)));
            match found {
                Some(group) => group,
                None if ids.execution > 0 || ids.trigger > 0 => anonymous(groups),
                None => Group::NONE,
            }
        };
        if group == Group::NONE || (in_segment && group == self.owner) {
            return group;
        }
        // Somebody else's work: his from the first id on that it has to do with.
        let fresh_ids = [ids.execution, ids.trigger, fresh];
        if self.is_shared {
            // What lies between may be of others that wait for their turn.
            let new = || fresh_ids.into_iter().filter(|&id| id > self.begun_at);
            if let (Some(first), Some(last)) = (new().min(), new().max()) {
                self.assign(first, last, group);
            }
            self.sampled = ids.counter;
            self.dispatch = turn.dispatch;
            return group;
        }
        let new = fresh_ids.into_iter().filter(|&id| id > self.sampled).min();
        let first = new.unwrap_or(ids.counter + 1);
        let before = if self.is_woken {
            let is_same = self.last_execution == ids.execution || (self.last_execution == 0 && new.is_none());
            if is_same { group } else { Group::NONE }
        } else if timers {
            Group::NONE
        } else {
            self.owner
        };
        self.assign(self.sampled + 1, first - 1, before);
        self.assign(first, ids.counter, group);
        self.last_execution = ids.execution;
        self.sampled = ids.counter;
        self.owner = group;
        self.is_read = false;
        self.dispatch = turn.dispatch;
        self.timer = turn.timer;
        group
    }

    fn write_in_segment(
        &self,
        ids: &Ids,
        is_old: bool,
        groups: &mut Groups,
        anonymous: impl FnOnce(&mut Groups) -> Group,
    ) -> Group {
        let of_socket = self.socket != 0 && (ids.execution == self.socket || ids.trigger == self.socket);
        if ids.execution == 0 || of_socket {
            return self.owner;
        }
        let mut live = |id| self.owner_of(id).filter(|&group| groups.is_live(group));
        let found = if is_old {
            live(ids.execution).or_else(|| live(ids.trigger))
        } else if ids.trigger <= self.sampled {
            live(ids.trigger)
        } else {
            None
        };
        match found {
            Some(group) if groups.root(group) != groups.root(self.owner) => group,
            None if self.socket != 0 && is_old => anonymous(groups),
            _ => self.owner,
        }
    }

    /// The connection is opened on behalf of that group.
    pub fn opened(&mut self, conn: ConnId, opener: Group) {
        if self.conns.len() >= MAX_CONNS {
            self.conns.clear();
        }
        let link = Link {
            opener,
            ..Link::default()
        };
        self.conns.insert(conn, link);
    }

    /// An exchange begins on the connection. `accepted`: the loop got the request.
    pub fn began(&mut self, conn: ConnId, exchange: Key, turn: &Turn, accepted: bool) {
        let socket = self.ids(turn).socket;
        if self.conns.len() >= MAX_CONNS {
            self.conns.clear();
        }
        self.conns.insert(
            conn,
            Link {
                last: exchange,
                socket,
                opener: Group::NONE,
            },
        );
        if accepted && socket != 0 {
            if self.listened.len() >= MAX_LISTENED {
                self.listened.clear();
            }
            // The parser of a connection is made right after its socket (lib/_http_server.js: connectionListenerInternal).
            self.listened.extend([socket, socket + 1]);
        }
    }

    /// That request was read from its socket.
    pub fn serves(&mut self, request: Key, turn: &Turn, is_open: impl Fn(Key) -> bool) {
        let socket = self.ids(turn).socket;
        if socket == 0 {
            return;
        }
        if self.served.len() >= MAX_CONNS {
            self.served.clear();
        }
        let served = self.served.entry(socket).or_default();
        // Of two that wait for their answers on one connection, the socket does not tell which is meant.
        *served = if is_open(*served) { Key::NONE } else { request };
    }

    /// The request to whose response the work leads that is done now, if that was told.
    pub fn told(&mut self, turn: &Turn) -> Key {
        let request = self.ids(turn).request;
        self.served.get(&request).copied().unwrap_or_default()
    }

    /// The exchange that began last on the connection.
    pub fn last_on(&self, conn: ConnId) -> Key {
        self.conns.get(&conn).map(|link| link.last).unwrap_or_default()
    }

    /// The segment is known to belong to that group: its request was read.
    pub fn own(&mut self, group: Group) {
        self.owner = group;
        (self.read, self.is_told) = (Key::NONE, false);
    }

    /// The segment began with that call's response, as its connection says.
    pub fn guess_read(&mut self, call: Key) {
        self.read = call;
    }

    /// It did, as a signal says; of several nothing follows, unless they are one group's.
    pub fn tell_read(&mut self, call: Key, group: Group, groups: &mut Groups) {
        if self.is_told && self.read != call {
            self.read = Key::NONE;
            if self.is_read && groups.root(self.owner) != groups.root(group) {
                (self.owner, self.is_shared) = (Group::NONE, true);
            }
            return;
        }
        (self.read, self.is_told) = (call, true);
        if self.is_read {
            self.owner = group;
        }
    }

    /// A request is answered.
    pub fn answer(&mut self, request: Key, turn: &Turn) {
        if self.begun_in == turn.dispatch {
            self.answers = match self.answers {
                Answers::Nobody => Answers::One(request),
                Answers::One(other) if other == request => self.answers,
                Answers::One(_) | Answers::Many => Answers::Many,
            };
        }
    }

    /// The call whose response began the segment, and the only request that was answered in it. Once.
    pub fn take_backward(&mut self) -> Option<(Key, Key)> {
        match std::mem::take(&mut self.answers) {
            Answers::One(request) if self.read != Key::NONE => Some((self.read, request)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_count_on_beyond_32_bits() {
        let mut segments = Segments::default();
        let turn = |counter: u32, execution: u32| Turn {
            counter,
            execution,
            ..Turn::default()
        };
        let before = segments.ids(&turn(u32::MAX - 1, u32::MAX - 5));
        assert_eq!(before.counter - before.execution, 4);
        let after = segments.ids(&turn(3, u32::MAX));
        assert_eq!(
            (after.counter - before.counter, after.counter - after.execution),
            (5, 4)
        );
        assert_eq!(segments.ids(&turn(3, 0)).execution, 0);
    }

    #[test]
    fn ranges_are_found_and_bounded() {
        let mut groups = Groups::default();
        let group = groups.add(Key::NONE, |_| true);
        let other = groups.add(Key::NONE, |_| true);
        let mut segments = Segments::default();
        segments.assign(5, 9, group);
        segments.assign(7, 12, other);
        segments.assign(13, 12, group);
        segments.assign(20, 29, Group::NONE);
        segments.assign(30, 30, group);
        for (id, expected) in [
            (4, None),
            (5, Some(group)),
            (9, Some(group)),
            (10, Some(other)),
            (12, Some(other)),
            (13, None),
            (25, None),
            (30, Some(group)),
            (31, None),
            (0, None),
        ] {
            assert_eq!(segments.owner_of(id), expected, "{id}");
        }
        for id in 31..100_000 {
            segments.assign(id, id, if id % 2 == 0 { group } else { other });
        }
        assert_eq!(segments.ranges.len(), MAX_RANGES);
        assert_eq!(segments.owner_of(5), None);
    }
}
