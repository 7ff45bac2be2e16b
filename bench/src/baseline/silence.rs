//! Who has been silent: a table, and a wheel of seconds in which each key is once. A deadline that is put off leaves its
//! key where it is in the wheel; when the wheel comes to it, it is moved on.
use super::Map;
use crate::events::SILENCE_MS;

#[derive(Clone, Copy)]
struct Heard {
    bids: u64,
    silent_at: i64,
    waits: bool,
}

/// More than lie between a watermark and the last deadline.
const SECONDS: i64 = 128;

pub struct Silences {
    heard: Map<u64, Heard>,
    wheel: Vec<Vec<u64>>,
    /// The first that has not gone by.
    next: Option<i64>,
}

impl Default for Silences {
    fn default() -> Self {
        Self { heard: Map::default(), wheel: vec![Vec::new(); SECONDS as usize], next: None }
    }
}

fn second(at: i64) -> i64 {
    at >> 10
}

impl Silences {
    #[inline(always)]
    pub fn insert(&mut self, key: u64, at: i64) {
        let silent_at = at + SILENCE_MS;
        let heard = self.heard.entry(key).or_insert(Heard { bids: 0, silent_at, waits: false });
        heard.bids += 1;
        heard.silent_at = silent_at;
        if !std::mem::replace(&mut heard.waits, true) {
            self.next.get_or_insert(second(silent_at));
            self.wait(key, silent_at);
        }
    }

    #[inline(always)]
    fn wait(&mut self, key: u64, at: i64) {
        self.wheel[(second(at) % SECONDS) as usize].push(key);
    }

    /// Tells of all who are silent at this time.
    pub fn advance(&mut self, watermark: i64, mut row: impl FnMut(u64, i64)) {
        let Some(next) = self.next else { return };
        let end = second(watermark).min(next + SECONDS - 1);
        for due in next..=end {
            for key in std::mem::take(&mut self.wheel[(due % SECONDS) as usize]) {
                let Some(heard) = self.heard.get_mut(&key) else { continue };
                let at = heard.silent_at;
                if at <= watermark {
                    heard.waits = false;
                    row(heard.bids, at);
                } else {
                    self.wait(key, at);
                }
            }
        }
        self.next = Some(end.max(next));
    }
}
