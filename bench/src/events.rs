//! The events of the workloads: a pure function of their number, the same for every program that is compared.
use serde::{Deserialize, Serialize};
use tidegate::random;

pub const AUCTIONS: u64 = 10_000;
pub const BIDDERS: u64 = 5_000_000;
pub const PERSONS: u64 = 100_000;
pub const BEGIN_MS: i64 = 1_700_000_000_000;
pub const WINDOW_MS: i64 = 10_000;
pub const HOP_MS: i64 = 1_000;
pub const GAP_MS: i64 = 30_000;
pub const LAG_MS: i64 = 4_000;
/// After so long a bidder is silent. Of a million each bids every 100 s: more than half of the timers come to fire.
pub const SILENCE_MS: i64 = 60_000;
/// Records of a source between two watermarks.
pub const WATERMARK_EVERY: u64 = 10_000;
/// How much later than its person an auction of `interval` may be.
pub const INTERVAL_MS: i64 = 5_000;
const SEED: u64 = 42;

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Map, filter, count: no state.
    W1,
    /// Count and maximum for each auction in windows of 10 s: 10,000 keys.
    W2,
    /// Running count and sum for each bidder: 5 million keys.
    W3,
    /// Persons and auctions joined in windows of 10 s.
    W4,
    /// As w4, but each person with the auctions of the five seconds behind it.
    Interval,
    /// As w2, in windows of 10 s of which one begins every second.
    Hop,
    /// Sessions of each bidder, with a gap of 30 s.
    Session,
    /// Tells for each bidder when it has been silent: one timer a key, put off by each bid. A million keys.
    Timers,
}

impl Workload {
    /// Keys of those that take a number of them, if nobody says how many.
    pub fn keys(self) -> u64 {
        if self == Self::Timers { 1_000_000 } else { BIDDERS }
    }

    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "w1" => Self::W1,
            "w2" => Self::W2,
            "w3" => Self::W3,
            "w4" => Self::W4,
            "interval" => Self::Interval,
            "hop" => Self::Hop,
            "session" => Self::Session,
            "timers" => Self::Timers,
            _ => return None,
        })
    }
}

/// A bid.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bid {
    pub auction: u64,
    pub bidder: u64,
    pub price: u64,
    pub at_ms: i64,
}

#[inline(always)]
pub fn bid(i: u64) -> Bid {
    let (x, y) = (random(SEED, 2 * i), random(SEED, 2 * i + 1));
    Bid {
        auction: ((x >> 32) * AUCTIONS) >> 32,
        bidder: ((x & 0xffff_ffff) * BIDDERS) >> 32,
        price: 1 + (((y >> 32) * 10_000_000) >> 32),
        at_ms: BEGIN_MS + (i / 10) as i64,
    }
}

/// Who bids, where there are so many of them.
#[inline(always)]
pub fn bidder(bid: &Bid, keys: u64) -> u64 {
    if keys < BIDDERS { bid.bidder % keys } else { bid.bidder }
}

/// A person or an auction of workload 4.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Item {
    pub is_auction: bool,
    pub key: u64,
    pub value: u64,
    pub at_ms: i64,
}

#[inline(always)]
pub fn item(i: u64) -> Item {
    let (x, y) = (random(SEED, 2 * i), random(SEED, 2 * i + 1));
    Item {
        is_auction: !i.is_multiple_of(4),
        key: ((x >> 32) * PERSONS) >> 32,
        value: 1 + (((y >> 32) * 10_000_000) >> 32),
        at_ms: BEGIN_MS + (i / 10) as i64,
    }
}

#[inline(always)]
pub fn to_eur(price: u64) -> u64 {
    price * 908 / 1000
}

/// What a program must come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    pub rows: u64,
    pub a: u64,
    pub b: u64,
}

impl Answer {
    #[inline(always)]
    pub fn row(&mut self, a: u64, b: u64) {
        self.rows += 1;
        self.a = self.a.wrapping_add(a);
        self.b = self.b.wrapping_add(b);
    }
    pub fn add(&mut self, other: Self) {
        self.rows += other.rows;
        self.a = self.a.wrapping_add(other.a);
        self.b = self.b.wrapping_add(other.b);
    }
}
