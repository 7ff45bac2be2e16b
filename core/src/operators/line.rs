//! Records that wait for their answers, and what came between them: the order of an asynchronous operator. Pure.
//!
//! Records are numbered as they come. Ordered, nothing leaves before what came before it. Unordered, the records up to
//! the next control leave as they are answered; the control follows the last of them, and opens the way for those behind
//! it. So no result ever crosses a watermark, in either direction.
//!
//! The hard case is a first record that is not answered for long, behind which a quiet source goes on to say what time it
//! is: of the controls between two records only what still counts is kept, so that the line is no longer than four times
//! its records.
use std::{collections::VecDeque, mem};

use crate::{record::Control, time::Timestamp};

/// A record in line.
pub(super) struct Entry<T> {
    pub record: T,
    pub at: Timestamp,
    /// The watermark that stood in the stream before it.
    pub watermark: Timestamp,
}

enum Slot<T, R> {
    Record(Entry<T>, Option<R>),
    /// It has left before its turn.
    Gone,
    Control(Control),
}

/// What leaves.
#[cfg_attr(test, derive(Clone, Debug, PartialEq))]
pub(super) enum Leaving<T, R> {
    Answered(T, Timestamp, R),
    Control(Control),
}

/// See the module.
pub(super) struct Line<T, R> {
    is_ordered: bool,
    slots: VecDeque<Slot<T, R>>,
    /// The number of the first slot, and of the first that has not been looked at by `ask`.
    first: u64,
    unasked: u64,
    /// Numbers of the controls.
    controls: VecDeque<u64>,
    /// Unordered: the answered records before the first control.
    free: VecDeque<u64>,
    records: usize,
    barriers: usize,
}

impl<T, R> Line<T, R> {
    pub(super) fn new(is_ordered: bool) -> Self {
        let (slots, controls, free) = Default::default();
        Self { is_ordered, slots, first: 0, unasked: 0, controls, free, records: 0, barriers: 0 }
    }

    /// Records that have not left.
    pub(super) fn records(&self) -> usize {
        self.records
    }
    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
    /// Whether a barrier waits.
    pub(super) fn has_barrier(&self) -> bool {
        self.barriers > 0
    }
    /// The records that have not left, in the order in which they came.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Entry<T>> {
        self.slots.iter().filter_map(|slot| match slot {
            Slot::Record(entry, _) => Some(entry),
            _ => None,
        })
    }

    fn end(&self) -> u64 {
        self.first + self.slots.len() as u64
    }
    fn is_open(&self, number: u64) -> bool {
        self.controls.front().is_none_or(|control| number < *control)
    }

    /// Puts a record in line; perhaps with its answer.
    pub(super) fn push(&mut self, entry: Entry<T>, answer: Option<R>) {
        let number = self.end();
        if answer.is_some() && !self.is_ordered && self.is_open(number) {
            self.free.push_back(number);
        }
        self.slots.push_back(Slot::Record(entry, answer));
        self.records += 1;
    }

    /// Puts a control in line.
    pub(super) fn control(&mut self, control: Control) {
        let (mut watermark, mut idle, mut marker) = (None, None, None);
        while let Some(Slot::Control(before)) = self.slots.back() {
            match before {
                Control::Watermark(_) => watermark = watermark.or(Some(*before)),
                Control::Idle => idle = Some(*before),
                Control::Marker(_) => marker = Some(*before),
                Control::Barrier(_) => break,
                Control::Flush => {}
            }
            self.slots.pop_back();
            self.controls.pop_back();
        }
        let mut behind = None;
        match control {
            Control::Watermark(_) => (watermark, idle) = (Some(control), None),
            Control::Idle => idle = Some(control),
            // The first one has waited the longest.
            Control::Marker(_) => marker = marker.or(Some(control)),
            Control::Barrier(_) => {
                self.barriers += 1;
                behind = Some(control);
            }
            // Who empties the line says when nothing more comes.
            Control::Flush => {}
        }
        for control in [watermark, idle, marker, behind].into_iter().flatten() {
            self.controls.push_back(self.end());
            self.slots.push_back(Slot::Control(control));
        }
        self.unasked = self.unasked.min(self.end());
    }

    /// The next record that is to be asked for, and its number.
    pub(super) fn ask(&mut self) -> Option<(u64, &T)> {
        while self.unasked < self.end() {
            let number = self.unasked;
            self.unasked += 1;
            let index = (number - self.first) as usize;
            if matches!(self.slots.get(index), Some(Slot::Record(_, None))) {
                let Some(Slot::Record(entry, _)) = self.slots.get(index) else { return None };
                return Some((number, &entry.record));
            }
        }
        None
    }

    /// The record of a number.
    pub(super) fn record(&self, number: u64) -> Option<&T> {
        match self.slots.get(number.checked_sub(self.first)? as usize)? {
            Slot::Record(entry, _) => Some(&entry.record),
            _ => None,
        }
    }

    /// A record's answer has come.
    pub(super) fn answer(&mut self, number: u64, answer: R) {
        let index = number.checked_sub(self.first).map(|index| index as usize);
        let slot = index.and_then(|index| self.slots.get_mut(index));
        if let Some(Slot::Record(_, answered)) = slot {
            *answered = Some(answer);
            if !self.is_ordered && self.is_open(number) {
                self.free.push_back(number);
            }
        }
    }

    /// The next that may leave.
    pub(super) fn leave(&mut self) -> Option<Leaving<T, R>> {
        if let Some(number) = self.free.pop_front() {
            let slot = mem::replace(self.slots.get_mut((number - self.first) as usize)?, Slot::Gone);
            while let Some(Slot::Gone) = self.slots.front() {
                self.pop();
            }
            return self.left(slot);
        }
        match self.slots.front()? {
            Slot::Record(_, Some(_)) if self.is_ordered => {}
            Slot::Control(_) => {}
            _ => return None,
        }
        let slot = self.pop()?;
        self.left(slot)
    }

    fn pop(&mut self) -> Option<Slot<T, R>> {
        self.first += 1;
        self.unasked = self.unasked.max(self.first);
        self.slots.pop_front()
    }

    fn left(&mut self, slot: Slot<T, R>) -> Option<Leaving<T, R>> {
        match slot {
            Slot::Record(Entry { record, at, .. }, Some(answer)) => {
                self.records -= 1;
                Some(Leaving::Answered(record, at, answer))
            }
            Slot::Control(control) => {
                self.controls.pop_front();
                self.barriers -= usize::from(matches!(control, Control::Barrier(_)));
                self.open();
                Some(Leaving::Control(control))
            }
            Slot::Record(_, None) | Slot::Gone => None,
        }
    }

    /// What has been answered behind a control that has left is free now.
    fn open(&mut self) {
        if self.is_ordered {
            return;
        }
        let open = self.controls.front().copied().unwrap_or(self.end()) - self.first;
        let answered = self.slots.iter().take(open as usize).enumerate();
        let answered = answered.filter(|(_, slot)| matches!(slot, Slot::Record(_, Some(_))));
        self.free.extend(answered.map(|(index, _)| self.first + index as u64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{env::random, record::Barrier};
    use tidegate_checkpoint::ids::Epoch;

    fn entry(record: u32) -> Entry<u32> {
        Entry { record, at: i64::from(record), watermark: 0 }
    }
    fn drained(line: &mut Line<u32, u32>) -> Vec<Leaving<u32, u32>> {
        std::iter::from_fn(|| line.leave()).collect()
    }

    /// Whatever the order of the answers: by a model that knows only what came.
    #[test]
    fn ordered_is_the_order_of_arrival_and_unordered_stays_between_its_watermarks() {
        for seed in 0..400 {
            for is_ordered in [true, false] {
                let (mut seed, mut line) = (seed, Line::new(is_ordered));
                let (mut came, mut left, mut asked, mut next) = (Vec::new(), Vec::new(), Vec::new(), 0);
                while next < 40 || !line.is_empty() {
                    match random(&mut seed) % 6 {
                        0 if next < 40 => {
                            next += 1;
                            line.push(entry(next), None);
                            came.push(Some(next));
                        }
                        1 if next < 40 => {
                            next += 1;
                            line.push(entry(next), Some(next));
                            came.push(Some(next));
                        }
                        2 if next < 40 && came.last().is_some_and(Option::is_some) => {
                            line.control(Control::Watermark(next.into()));
                            came.push(None);
                        }
                        3 => asked.extend(line.ask().map(|(number, record)| (number, *record))),
                        4 if !asked.is_empty() => {
                            let (number, record) = asked.swap_remove(random(&mut seed) as usize % asked.len());
                            assert_eq!(line.record(number), Some(&record));
                            line.answer(number, record);
                        }
                        _ => left.extend(drained(&mut line)),
                    }
                }
                let left = left.into_iter().map(|leaving| match leaving {
                    Leaving::Answered(record, at, answer) => {
                        assert!(answer == record && at == i64::from(record));
                        Some(record)
                    }
                    Leaving::Control(_) => None,
                });
                let left: Vec<Option<u32>> = left.collect();
                if is_ordered {
                    assert_eq!(left, came);
                } else {
                    let sorted = |records: &[Option<u32>]| {
                        let mut parts: Vec<Vec<_>> = records.split(Option::is_none).map(<[_]>::to_vec).collect();
                        for part in &mut parts {
                            part.sort_unstable();
                        }
                        parts.join(&None)
                    };
                    assert_eq!(sorted(&left), sorted(&came), "a result has crossed a watermark");
                }
                assert_eq!((line.records(), asked.len()), (0, 0));
            }
        }
    }

    #[test]
    fn unordered_is_the_order_of_the_answers() {
        let mut line = Line::new(false);
        for n in 1..=3 {
            line.push(entry(n), None);
        }
        let numbers: Vec<_> = std::iter::from_fn(|| line.ask().map(|(number, _)| number)).collect();
        line.answer(numbers[2], 3);
        line.answer(numbers[0], 1);
        assert_eq!(drained(&mut line), [Leaving::Answered(3, 3, 3), Leaving::Answered(1, 1, 1)]);
        assert_eq!(line.entries().map(|e| e.record).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn of_the_controls_between_two_records_only_what_counts_is_kept() {
        let mut line = Line::<u32, u32>::new(true);
        line.push(entry(1), None);
        let marked = crate::env::now();
        for time in 0..1_000 {
            line.control(Control::Watermark(time));
            line.control(Control::Marker(marked));
            line.control(Control::Idle);
            line.control(Control::Flush);
        }
        let barrier = Control::Barrier(Barrier { epoch: Epoch(1), last: true });
        line.control(barrier);
        assert!(line.has_barrier() && drained(&mut line).is_empty());
        let number = line.ask().unwrap().0;
        line.answer(number, 1);
        let controls = [Control::Watermark(999), Control::Idle, Control::Marker(marked), barrier].map(Leaving::Control);
        assert_eq!(drained(&mut line), [vec![Leaving::Answered(1, 1, 1)], controls.into()].concat());
        assert!(line.is_empty() && !line.has_barrier());
    }
}
