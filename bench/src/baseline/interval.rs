//! Interval join by hand: what of persons and auctions may still be matched, in slices of event time, each a hash table
//! of lists in one arena.
use super::Map;
use crate::events::{INTERVAL_MS, Item};

#[derive(Default)]
struct Slice {
    number: i64,
    heads: Map<u64, [u32; 2]>,
    /// Value, time, and the index of the next cell plus one.
    cells: Vec<(u64, i64, u32)>,
}

#[derive(Default)]
pub struct Intervals {
    open: Vec<Slice>,
    spare: Vec<Slice>,
}

impl Intervals {
    /// Each auction with its persons of the five seconds before it, whichever comes first.
    #[inline(always)]
    pub fn insert(&mut self, item: Item, mut row: impl FnMut(u64)) {
        let from = if item.is_auction { item.at_ms - INTERVAL_MS } else { item.at_ms };
        let to = from + INTERVAL_MS;
        let first = from.div_euclid(INTERVAL_MS);
        for slice in self.open.iter().filter(|slice| slice.number == first || slice.number == first + 1) {
            let heads = slice.heads.get(&item.key).copied().unwrap_or_default();
            let mut other = heads[usize::from(!item.is_auction)];
            while other != 0 {
                let (value, at, next) = slice.cells[other as usize - 1];
                if (from..=to).contains(&at) {
                    row(if item.is_auction { item.value } else { value });
                }
                other = next;
            }
        }
        let number = item.at_ms.div_euclid(INTERVAL_MS);
        let index = match self.open.iter().position(|slice| slice.number == number) {
            Some(index) => index,
            None => self.begin(number),
        };
        let slice = &mut self.open[index];
        let head = &mut slice.heads.entry(item.key).or_default()[usize::from(item.is_auction)];
        slice.cells.push((item.value, item.at_ms, *head));
        *head = slice.cells.len() as u32;
    }

    #[cold]
    fn begin(&mut self, number: i64) -> usize {
        let slice = self.spare.pop().unwrap_or_default();
        self.open.push(Slice { number, ..slice });
        self.open.len() - 1
    }

    /// Drops every slice of which nothing can be matched any more.
    pub fn advance(&mut self, watermark: i64) {
        while let Some(over) = self.open.iter().position(|s| (s.number + 2) * INTERVAL_MS - 1 <= watermark) {
            let mut slice = self.open.swap_remove(over);
            slice.heads.clear();
            slice.cells.clear();
            self.spare.push(slice);
        }
    }
}
