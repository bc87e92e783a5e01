//! Groups of work that belong to one request: which one may be known later, or never.

use std::collections::VecDeque;

use crate::correlate::arena::Key;

/// Most groups remembered, and those that are kept although nothing points to them any more.
const MAX_GROUPS: usize = 65_536;
const YOUNG: usize = 1_024;

/// Names a group. Numbers are not reused; what is forgotten is found no more.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(in crate::correlate) struct Group(u64);

impl Group {
    /// No group.
    pub const NONE: Self = Self(0);
}

#[derive(Default)]
struct State {
    /// The group into which it was merged.
    up: Group,
    /// The request that it is known to belong to.
    label: Key,
    /// This request was answered: what is made on behalf of the group from now on is no part of it.
    is_over: bool,
    calls: Vec<Key>,
}

/// All groups of one loop, the oldest first.
#[derive(Default)]
pub(super) struct Groups {
    /// Groups forgotten.
    forgotten: u64,
    states: VecDeque<State>,
}

impl Groups {
    fn at(&self, group: Group) -> Option<usize> {
        let index = group.0.checked_sub(self.forgotten)?.checked_sub(1)?;
        usize::try_from(index).ok()
    }

    fn get(&self, group: Group) -> Option<&State> {
        self.states.get(self.at(group)?)
    }

    fn get_mut(&mut self, group: Group) -> Option<&mut State> {
        let at = self.at(group)?;
        self.states.get_mut(at)
    }

    /// A new one, of that request or ([`Key::NONE`]) of one that is not known yet.
    pub fn add(&mut self, label: Key, is_alive: impl Fn(Key) -> bool) -> Group {
        self.forget(is_alive);
        let mut state = State::default();
        if self.states.len() >= MAX_GROUPS
            && let Some(oldest) = self.states.pop_front()
        {
            self.forgotten += 1;
            state.calls = oldest.calls;
            state.calls.clear();
        }
        state.label = label;
        state.is_over = false;
        self.states.push_back(state);
        Group(self.forgotten + self.states.len() as u64)
    }

    /// Forgets the oldest while nobody needs them.
    fn forget(&mut self, is_alive: impl Fn(Key) -> bool) {
        while self.states.len() > YOUNG {
            let oldest = Group(self.forgotten + 1);
            let label = self.label(oldest);
            let needed = match self.get(oldest) {
                Some(_) if label != Key::NONE => is_alive(label),
                Some(state) => state.calls.iter().any(|&call| is_alive(call)),
                None => false,
            };
            if needed {
                return;
            }
            self.states.pop_front();
            self.forgotten += 1;
        }
    }

    /// The group that it has become part of; [`Group::NONE`] if it was forgotten.
    pub fn root(&mut self, mut group: Group) -> Group {
        while let Some(state) = self.get(group) {
            let up = state.up;
            if up == Group::NONE {
                return group;
            }
            // Shortens the way for the next time.
            let above = self.get(up).map_or(Group::NONE, |state| state.up);
            if above != Group::NONE
                && let Some(state) = self.get_mut(group)
            {
                state.up = above;
            }
            group = up;
        }
        Group::NONE
    }

    /// The request that it belongs to, as far as known.
    pub fn label(&mut self, group: Group) -> Key {
        let root = self.root(group);
        self.get(root).map(|state| state.label).unwrap_or_default()
    }

    /// Its request was answered.
    pub fn end(&mut self, group: Group) {
        let root = self.root(group);
        if let Some(state) = self.get_mut(root) {
            state.is_over = true;
        }
    }

    /// Whether it is remembered, and its request not answered.
    pub fn is_live(&mut self, group: Group) -> bool {
        let root = self.root(group);
        self.get(root).is_some_and(|state| !state.is_over)
    }

    /// From now on one is part of the other.
    pub fn merge(&mut self, part: Group, whole: Group) {
        let (part, whole) = (self.root(part), self.root(whole));
        if part == whole || whole == Group::NONE {
            return;
        }
        let Some(state) = self.get_mut(part) else { return };
        state.up = whole;
        let mut calls = std::mem::take(&mut state.calls);
        if let Some(state) = self.get_mut(whole) {
            state.calls.append(&mut calls);
        }
    }

    /// A call that belongs to the group.
    pub fn add_call(&mut self, group: Group, call: Key) {
        let root = self.root(group);
        if let Some(state) = self.get_mut(root) {
            state.calls.push(call);
        }
    }

    /// Hands out its calls; those that are kept are to be given back.
    pub fn take_calls(&mut self, group: Group) -> Vec<Key> {
        let root = self.root(group);
        self.get_mut(root)
            .map(|state| std::mem::take(&mut state.calls))
            .unwrap_or_default()
    }

    /// Gives back what was taken.
    pub fn put_calls(&mut self, group: Group, calls: Vec<Key>) {
        let root = self.root(group);
        if let Some(state) = self.get_mut(root) {
            state.calls = calls;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::correlate::arena::Arena;

    #[test]
    fn parts_share_the_request_of_the_whole() {
        let mut arena = Arena::default();
        let (request, one, two) = (arena.insert(0), arena.insert(1), arena.insert(2));
        let mut groups = Groups::default();
        let whole = groups.add(request, |_| true);
        let (a, b) = (groups.add(Key::NONE, |_| true), groups.add(Key::NONE, |_| true));
        groups.add_call(a, one);
        groups.add_call(b, two);
        assert_eq!(groups.label(a), Key::NONE);
        groups.merge(a, b);
        groups.merge(b, whole);
        groups.merge(whole, a);
        assert_eq!((groups.label(a), groups.label(b)), (request, request));
        assert_eq!(groups.root(a), whole);
        assert_eq!(groups.take_calls(a), [two, one]);
        assert_eq!(groups.root(Group::NONE), Group::NONE);
        assert!(groups.is_live(a));
        groups.end(b);
        assert!(!groups.is_live(a));
    }

    #[test]
    fn memory_is_bounded_and_names_are_not_reused() {
        let mut arena = Arena::default();
        let request = arena.insert(());
        let mut groups = Groups::default();
        let first = groups.add(request, |_| true);
        for _ in 0..3 * MAX_GROUPS {
            groups.add(request, |_| true);
            assert!(groups.states.len() <= MAX_GROUPS);
        }
        assert_eq!(groups.root(first), Group::NONE);
        groups.merge(first, first);
        groups.add_call(first, request);
        for _ in 0..3 * YOUNG {
            groups.add(Key::NONE, |_| false);
        }
        assert!(groups.states.len() <= YOUNG + 1, "{}", groups.states.len());
    }
}
