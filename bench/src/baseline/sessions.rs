//! Sessions as one would write them by hand: a table of open ones, and a list of keys for each second in which one may end.
use super::Map;
use crate::events::GAP_MS;
use std::collections::BTreeMap;

struct Open {
    start: i64,
    end: i64,
    count: u64,
}

#[derive(Default)]
pub struct Sessions {
    open: Map<u64, Open>,
    ends: BTreeMap<i64, Vec<u64>>,
}

impl Sessions {
    #[inline(always)]
    pub fn add(&mut self, key: u64, at: i64, mut row: impl FnMut(u64, u64)) {
        let end = at + GAP_MS;
        let session = self.open.entry(key).or_insert_with(|| {
            self.ends.entry(end.div_euclid(1000)).or_default().push(key);
            Open { start: at, end, count: 0 }
        });
        if at > session.end {
            row(session.count, (session.end - session.start) as u64);
            *session = Open { start: at, end, count: 0 };
        }
        session.end = session.end.max(end);
        session.count += 1;
    }

    /// Ends every session that the watermark has passed.
    pub fn advance(&mut self, watermark: i64, mut row: impl FnMut(u64, u64)) {
        while let Some(second) = self.ends.first_entry().filter(|first| *first.key() < watermark.div_euclid(1000)) {
            let keys = second.remove();
            for key in keys {
                let Some(session) = self.open.get(&key) else { continue };
                if session.end - 1 <= watermark {
                    row(session.count, (session.end - session.start) as u64);
                    self.open.remove(&key);
                } else {
                    self.ends.entry(session.end.div_euclid(1000)).or_default().push(key);
                }
            }
        }
        if watermark == i64::MAX {
            self.open.drain().for_each(|(_, session)| row(session.count, (session.end - session.start) as u64));
        }
    }
}
