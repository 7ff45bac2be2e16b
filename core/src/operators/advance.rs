//! Time goes on, and what it makes due is gone through in the state: windows fire, timers fire, what is over goes.
//! Or an epoch ends, and what has changed in it is told.
//!
//! An operator names what is due as a list of [`Visit`]s. Each is gone through key group by key group: first what the
//! tables have, then page by page what only the backend has. Behind each key group the operator may change state, of
//! keys that it says it wants ([`KeyedOperator::due`]): those are read before. So whatever fires, no more of the state is
//! held than one key group's share of it.
//!
//! The hard case is a state that changes while it is gone through: an entry that has been seen in a table must not be
//! met again in a page. Within a key group nothing is changed before all of it has been seen, and between two of them
//! whatever is written, or has to go, is of a key group that is done with or has not begun.
use bytes::Bytes;
use std::{collections::VecDeque, sync::atomic::Ordering::Relaxed};

use tidegate_checkpoint::error::Result;

use super::{
    keyed::KeyedOperator,
    node::{Done, KeyedNode, Work},
};
use crate::{
    record::{Barrier, Control, Output},
    state::hash::Key,
    time::{MAX, Timestamp},
};

/// What becomes of namespaces when time goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Visit {
    /// The entries of these namespaces fire, as one, under a name that means something to the operator.
    Fire(i64, Vec<i64>),
    /// A namespace goes, with all that is in it.
    Discard(i64),
}

/// How far what is due has been gone through.
#[derive(Default)]
pub(super) struct Advance {
    /// What is passed on behind it.
    then: Option<Control>,
    visits: VecDeque<Visit>,
    /// Of the first visit: the key group, which of its namespaces, and what of that has been seen.
    key_group: Option<u16>,
    namespace: usize,
    seen: Seen,
    /// The operator may want to change something; and what it wants has been read, as far as there is such.
    is_due: bool,
    is_read: bool,
    /// All visits have been made, and the operator asked once more.
    is_last: bool,
}

/// What has been seen of a namespace in a key group.
#[derive(Default)]
enum Seen {
    #[default]
    Nothing,
    /// What the tables have, and of the backend what is before this.
    Until(Option<Bytes>),
    All,
}

impl<K: Key, T: Send + 'static, Op: KeyedOperator<K, T>, O: Output<Op::Out>> KeyedNode<K, T, Op, O> {
    /// The watermark has come to this.
    pub(super) fn advance_to(&mut self, watermark: Timestamp) -> Result<()> {
        self.stats.watermark.store(watermark, Relaxed);
        let Some(state) = &mut self.state else { return Ok(()) };
        let visits = self.operator.advance(state, watermark).into();
        // At the end of the input there is nothing to be held back for.
        let held = if watermark < MAX { watermark.saturating_sub(self.operator.hold_back()) } else { MAX };
        self.advance = Some(Advance { then: Some(Control::Watermark(held)), visits, ..Advance::default() });
        self.go_through()
    }

    /// The clock has come to this.
    pub(super) fn tick(&mut self, now: Timestamp) -> Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let visits = self.operator.tick(state, now).into();
        self.advance = Some(Advance { then: Some(Control::Flush), visits, ..Advance::default() });
        self.go_through()
    }

    /// An epoch ends: what the operator has to say of it comes before the barrier, and the state is frozen behind that.
    pub(super) fn end_epoch(&mut self, barrier: Barrier) -> Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let visits = self.operator.epoch_ends(state);
        if visits.is_empty() {
            self.barrier(barrier);
            self.pass_on(Control::Barrier(barrier));
            return Ok(());
        }
        let then = Some(Control::Barrier(barrier));
        self.advance = Some(Advance { then, visits: visits.into(), ..Advance::default() });
        self.go_through()
    }

    /// Goes through what is due, as far as nothing has to be waited for; in the end passes on what came behind it.
    pub(super) fn go_through(&mut self) -> Result<()> {
        while let (Some(advance), Some(state)) = (&mut self.advance, &mut self.state) {
            if advance.is_due {
                let has_read = std::mem::replace(&mut advance.is_read, true);
                if !has_read {
                    let mut missing = Vec::new();
                    state.missing_of(&mut missing, |want| self.operator.wants(want))?;
                    if !missing.is_empty() {
                        self.read(missing);
                        return Ok(());
                    }
                }
                advance.is_read = false;
                advance.is_due = self.operator.due(state, &mut self.out)?;
                // Where nothing has come into the tables there is nothing more to make room for.
                if (has_read || advance.is_due) && state.needs_tending() {
                    self.tend();
                    return Ok(());
                }
                continue;
            }
            match advance.visits.front() {
                Some(Visit::Discard(namespace)) => {
                    state.discard(*namespace);
                    advance.visits.pop_front();
                }
                Some(Visit::Fire(name, namespaces)) => {
                    let key_group = *advance.key_group.get_or_insert(state.key_groups().start);
                    let Some(namespace) = namespaces.get(advance.namespace).copied() else {
                        advance.next_key_group(state.key_groups().end);
                        continue;
                    };
                    if matches!(advance.seen, Seen::Nothing) {
                        let tables = state.tables().iter().filter(|table| table.namespace() == namespace);
                        for entry in tables.flat_map(|table| table.of_key_group(key_group)) {
                            self.operator.fire(state, *name, entry, &mut self.out);
                        }
                        let more = state.has_more(namespace, key_group);
                        advance.seen = if more { Seen::Until(None) } else { Seen::All };
                    }
                    match std::mem::take(&mut advance.seen) {
                        Seen::Until(from) => {
                            self.next_page(namespace, key_group, from);
                            return Ok(());
                        }
                        Seen::All | Seen::Nothing => advance.namespace += 1,
                    }
                }
                None if !advance.is_last => (advance.is_last, advance.is_due) = (true, true),
                None => {
                    let then = advance.then;
                    self.operator.settle(state)?;
                    let more = self.operator.advanced();
                    if !more.is_empty() {
                        *advance = Advance { then, visits: more.into(), ..Advance::default() };
                        continue;
                    }
                    self.advance = None;
                    if let Some(Control::Barrier(barrier)) = then {
                        self.barrier(barrier);
                        // It may have waited: then nobody is about to call sweep, of what is behind it either.
                        self.sweeps_behind = true;
                    }
                    if let Some(then) = then {
                        self.pass_on(then);
                    }
                }
            }
        }
        Ok(())
    }

    fn next_page(&mut self, namespace: i64, key_group: u16, from: Option<Bytes>) {
        self.work = self.state.take().map(|mut state| -> Work<_, _> {
            Box::pin(async move {
                let page = state.next_page(namespace, key_group, from).await;
                (state, page.map(|(entries, more)| Done::Page(entries, more)))
            })
        });
    }

    /// A page of the namespace that is gone through is there.
    pub(super) fn page(&mut self, entries: &[(K, Op::Value)], more: Option<Bytes>) {
        if let (Some(advance), Some(state)) = (&mut self.advance, &self.state)
            && let Some(Visit::Fire(name, _)) = advance.visits.front()
        {
            for (key, value) in entries {
                self.operator.fire(state, *name, (key, value), &mut self.out);
            }
            advance.seen = more.map_or(Seen::All, |from| Seen::Until(Some(from)));
        }
    }
}

impl Advance {
    /// All namespaces of the first visit have been gone through in its key group.
    fn next_key_group(&mut self, end: u16) {
        (self.namespace, self.is_due) = (0, true);
        self.key_group = self.key_group.map(|key_group| key_group + 1).filter(|next| *next < end);
        if self.key_group.is_none() {
            self.visits.pop_front();
        }
    }
}
