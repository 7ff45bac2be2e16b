//! The open tumbling windows of workload 2, each with a table of its own that is used again.
use super::Map;
use crate::events::WINDOW_MS;

type Table = Map<u64, (u64, u64)>;

#[derive(Default)]
pub struct Windows {
    open: Vec<(i64, Table)>,
    spare: Vec<Table>,
    recent: usize,
}

impl Windows {
    #[inline(always)]
    pub fn table(&mut self, at: i64) -> &mut Table {
        // The window of the last event is nearly always this one's too.
        let hit = self.open.get(self.recent).is_some_and(|(start, _)| at >= *start && at < start + WINDOW_MS);
        if !hit {
            self.find(at - at.rem_euclid(WINDOW_MS));
        }
        &mut self.open[self.recent].1
    }

    #[cold]
    fn find(&mut self, start: i64) {
        self.recent = self.open.iter().position(|(s, _)| *s == start).unwrap_or_else(|| {
            self.open.push((start, self.spare.pop().unwrap_or_default()));
            self.open.len() - 1
        });
    }

    /// Fires every window that the watermark has passed.
    pub fn advance(&mut self, watermark: i64, mut row: impl FnMut(&(u64, u64))) {
        while let Some(due) = self.open.iter().position(|(start, _)| start + WINDOW_MS - 1 <= watermark) {
            let (_, mut table) = self.open.swap_remove(due);
            table.values().for_each(&mut row);
            table.clear();
            self.spare.push(table);
            self.recent = 0;
        }
    }
}
