//! What must have come out, by plain single-threaded code that knows nothing of the engine's.
//!
//! Where the data alone say what is late (one split, a watermark every so many records), a model of windows
//! gives the very panes and late records. Elsewhere the order between splits is nobody's promise: there every
//! record must be in exactly one place, in the right one, and in the order of its split.
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use crate::{
    chaos::Chaos,
    job::{Pane, Total},
    plan::{Event, Id, Item, Plan},
};

#[track_caller]
pub fn same<T: Ord + Debug + Clone>(what: &str, found: &[T], expected: impl IntoIterator<Item = T>) {
    let mut balance = BTreeMap::<T, i64>::new();
    for record in expected {
        *balance.entry(record).or_default() -= 1;
    }
    for record in found {
        *balance.entry(record.clone()).or_default() += 1;
    }
    balance.retain(|_, n| *n != 0);
    let wrong: Vec<_> = balance.iter().take(5).collect();
    assert!(balance.is_empty(), "{what}: {} are lost (-) or doubled (+), for example {wrong:?}", balance.len());
}

pub fn dead_letters(plan: &Plan, source: usize, found: &[String]) {
    let expected = plan.sources[source].iter().flatten().filter_map(|item| match item {
        Item::Undecodable(raw) if plan.dead_letters => Some(raw.clone()),
        _ => None,
    });
    same("dead letters", found, expected);
}

/// Each key's totals are those of some order of its records that keeps the order of each split; and they have
/// been published in this order.
pub fn totals(plan: &Plan, found: &[Total]) {
    let events: BTreeMap<Id, &Event> = plan.events().map(|e| (e.id, e)).collect();
    let ids: Vec<Id> = found.iter().map(|t| t.id).collect();
    same("records in totals", &ids, events.keys().copied());
    let mut so_far = BTreeMap::<u8, (u64, i64)>::new();
    let mut last = BTreeMap::<(u8, u8, u8), u32>::new();
    for total in found {
        let event = events[&total.id];
        let (count, sum) = so_far.entry(event.key).or_default();
        (*count, *sum) = (*count + 1, *sum + event.value);
        let expected = Total { key: event.key, count: *count, sum: *sum, id: event.id };
        assert_eq!(*total, expected, "a total is wrong, or out of its key's order");
        let before = last.insert((event.key, event.id.0, event.id.1), event.id.2);
        assert!(before < Some(event.id.2), "{:?} has overtaken number {before:?} of its split", event.id);
    }
    let conserved: i64 = so_far.values().map(|(_, sum)| sum).sum();
    assert_eq!(conserved, plan.events().map(|e| e.value).sum::<i64>(), "the sum is not conserved");
}

pub fn windows(plan: &Plan, panes: &[Pane], late: &[Event], chaos: &Chaos) {
    if plan.is_determined() {
        let model = Model::of(plan);
        same("panes", panes, model.panes);
        same("late records", late, model.late);
    }
    let events: BTreeMap<Id, &Event> = plan.events().map(|e| (e.id, e)).collect();
    let start = |e: &Event| e.at - e.at.rem_euclid(plan.window_ms as i64);
    let mut windows = BTreeMap::<(u8, i64), Vec<&Pane>>::new();
    for pane in panes {
        windows.entry((pane.key, pane.start)).or_default().push(pane);
    }
    let mut seen: Vec<Id> = late.iter().map(|e| e.id).collect();
    for ((key, at), firings) in windows {
        for [before, after] in firings.array_windows() {
            let grown = after.ids.strip_prefix(before.ids.as_slice()).is_some_and(|new| new.len() == 1);
            assert!(plan.lateness_ms > 0 && grown, "{before:?} has fired again as {after:?}");
            chaos.count("a window fired again".into());
        }
        let last = firings[firings.len() - 1];
        for id in &last.ids {
            assert!(events[id].key == key && start(events[id]) == at, "{id:?} is in the wrong window: {last:?}");
        }
        seen.extend(&last.ids);
    }
    same("records in windows and late", &seen, events.keys().copied());
    for _ in late {
        chaos.count("a record was late".into());
    }
}

/// Windows over one split.
struct Model {
    panes: Vec<Pane>,
    late: Vec<Event>,
    open: BTreeMap<(i64, u8), Vec<Id>>,
    watermark: i64,
}

impl Model {
    fn of(plan: &Plan) -> Self {
        let mut model = Self { panes: Vec::new(), late: Vec::new(), open: BTreeMap::new(), watermark: i64::MIN };
        let (length, lateness) = (plan.window_ms as i64, plan.lateness_ms as i64);
        let (mut newest, mut seen) = (i64::MIN, 0);
        for event in plan.events() {
            let start = event.at - event.at.rem_euclid(length);
            let last = start + length - 1;
            if last + lateness <= model.watermark {
                model.late.push(event.clone());
            } else {
                let ids = model.open.entry((start, event.key)).or_default();
                ids.push(event.id);
                if last <= model.watermark {
                    model.panes.push(Pane { key: event.key, start, ids: ids.clone() });
                }
            }
            (newest, seen) = (newest.max(event.at), seen + 1);
            if Some(seen) == plan.every {
                seen = 0;
                model.advance(newest - plan.bound_ms as i64 - 1, length, lateness);
            }
        }
        model.advance(i64::MAX, length, lateness);
        model
    }

    fn advance(&mut self, watermark: i64, length: i64, lateness: i64) {
        let before = self.watermark;
        self.watermark = before.max(watermark);
        for ((start, key), ids) in &self.open {
            let last = start + length - 1;
            if before < last && last <= self.watermark {
                self.panes.push(Pane { key: *key, start: *start, ids: ids.clone() });
            }
        }
        let watermark = self.watermark;
        self.open.retain(|(start, _), _| start + length - 1 + lateness > watermark);
    }
}

/// What the store holds in the end is what is kept, and what that refers to.
pub fn no_orphans(paths: &BTreeSet<String>, referred: &BTreeSet<String>, kept: &BTreeSet<u64>, retained: usize) {
    let of = |folder: &str| paths.iter().filter(|p| p.contains(folder)).cloned().collect::<BTreeSet<_>>();
    assert!(kept.len() <= retained, "{kept:?} are kept, and {retained} are to be");
    assert_eq!(of("/manifests/").len(), kept.len(), "manifests: {:?}", of("/manifests/"));
    assert_eq!(of("/attempts/").len(), 1, "claims: {:?}", of("/attempts/"));
    assert_eq!(&of("/state/"), referred, "state objects: what is there, and what is referred to");
}
