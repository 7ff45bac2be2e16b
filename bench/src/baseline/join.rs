//! The open windows of workload 4: for each key two lists, of persons and of auctions, in one arena.
use super::Map;
use crate::events::{Item, WINDOW_MS};

#[derive(Default)]
struct Window {
    start: i64,
    heads: Map<u64, [u32; 2]>,
    /// Value, and the index of the next cell plus one.
    cells: Vec<(u64, u32)>,
}

#[derive(Default)]
pub struct JoinWindows {
    open: Vec<Window>,
    spare: Vec<Window>,
    recent: usize,
}

impl JoinWindows {
    #[inline(always)]
    pub fn insert(&mut self, item: Item) {
        let hit = self.open.get(self.recent).is_some_and(|w| item.at_ms >= w.start && item.at_ms < w.start + WINDOW_MS);
        if !hit {
            self.find(item.at_ms - item.at_ms.rem_euclid(WINDOW_MS));
        }
        let window = &mut self.open[self.recent];
        let head = &mut window.heads.entry(item.key).or_default()[usize::from(item.is_auction)];
        window.cells.push((item.value, *head));
        *head = window.cells.len() as u32;
    }

    #[cold]
    fn find(&mut self, start: i64) {
        self.recent = self.open.iter().position(|w| w.start == start).unwrap_or_else(|| {
            let window = self.spare.pop().unwrap_or_default();
            self.open.push(Window { start, ..window });
            self.open.len() - 1
        });
    }

    /// Fires every window that the watermark has passed: a row for each pair.
    pub fn advance(&mut self, watermark: i64, mut row: impl FnMut(u64)) {
        while let Some(due) = self.open.iter().position(|w| w.start + WINDOW_MS - 1 <= watermark) {
            let mut window = self.open.swap_remove(due);
            for heads in window.heads.values() {
                let mut person = heads[0];
                while person != 0 {
                    let mut auction = heads[1];
                    while auction != 0 {
                        let (value, next) = window.cells[auction as usize - 1];
                        row(value);
                        auction = next;
                    }
                    person = window.cells[person as usize - 1].1;
                }
            }
            window.heads.clear();
            window.cells.clear();
            self.spare.push(window);
            self.recent = 0;
        }
    }
}
