//! Hopping windows as one would write them by hand: of each key a ring of slices, merged when a window fires.
use super::Map;
use crate::events::{HOP_MS, WINDOW_MS};

/// Slices of a ring: those of a window, and those that come before the watermark lets it fire.
const RING: usize = 16;

#[derive(Clone, Copy, Default)]
struct Slice {
    number: i64,
    count: u64,
    max: u64,
}

#[derive(Default)]
pub struct Hops {
    rings: Map<u64, [Slice; RING]>,
    /// The first window that has not fired, by the number of its first slice.
    next: Option<i64>,
    last: i64,
}

impl Hops {
    #[inline(always)]
    pub fn add(&mut self, key: u64, at: i64, price: u64) {
        let number = at.div_euclid(HOP_MS);
        self.next.get_or_insert(number - WINDOW_MS / HOP_MS + 1);
        self.last = self.last.max(number);
        let slice = &mut self.rings.entry(key).or_default()[number as usize % RING];
        if slice.number != number {
            *slice = Slice { number, count: 0, max: 0 };
        }
        slice.count += 1;
        slice.max = slice.max.max(price);
    }

    /// Fires every window that the watermark has passed.
    pub fn advance(&mut self, watermark: i64, mut row: impl FnMut(u64, u64)) {
        let Some(mut first) = self.next else { return };
        while first * HOP_MS + WINDOW_MS - 1 <= watermark && first <= self.last {
            let window = first..first + WINDOW_MS / HOP_MS;
            for ring in self.rings.values() {
                let (mut count, mut max) = (0, 0);
                for slice in ring.iter().filter(|slice| window.contains(&slice.number)) {
                    count += slice.count;
                    max = max.max(slice.max);
                }
                if count > 0 {
                    row(count, max);
                }
            }
            first += 1;
        }
        self.next = Some(first);
    }
}
