//! The work of k1 and k2: what an order is, what becomes of it, and the right answer. The engine's job and the
//! hand-written loop share it to the last call of serde, so that only what is around it differs.
use serde::{Deserialize, Serialize};
use std::hash::{BuildHasher, Hash};

use super::stand::PARTITIONS;

/// An order, about 100 bytes of JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub user: String,
    pub item: u64,
    pub price_cents: u64,
    /// Of the throughput runs: ms, made up. Of the latency runs: µs since 1970, when it was sent.
    pub ts: i64,
}

/// k1's row: the order in euros.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Payment {
    pub user: String,
    pub item: u64,
    pub euro_cents: u64,
    pub ts: i64,
}

/// k2's row: one an order, what its user has come to.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Account {
    pub user: String,
    pub count: u64,
    pub sum_cents: u64,
    pub ts: i64,
}

/// How many users there are.
pub const USERS: u64 = 100_000;

/// The order number `n` of a partition. A user is in one partition, so that the running counts of k2 do not depend on
/// who is read first.
fn order(partition: u64, partitions: u64, n: u64, ts: i64) -> Order {
    let h = mix(partition << 48 | n);
    let user = (h >> 8) % (USERS / partitions) * partitions + partition;
    Order { user: format!("customer-{user:09}"), item: 1_000_000 + (h >> 20) % 1_000_000, price_cents: h >> 44, ts }
}

/// The order number `n` of all, in the partition whose turn it is.
pub fn numbered(n: u64, ts: i64) -> (i32, Order) {
    let partitions = PARTITIONS as u64;
    ((n % partitions) as i32, order(n % partitions, partitions, n / partitions, ts))
}

/// Where nobody asks when an order was sent.
pub fn made_up(n: u64) -> i64 {
    1_700_000_000_000 + n as i64
}

fn mix(n: u64) -> u64 {
    let z = n.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// k1's first map.
#[inline]
pub fn in_euros(order: Order) -> Payment {
    Payment { user: order.user, item: order.item, euro_cents: order.price_cents * 908 / 1000, ts: order.ts }
}

/// k1's second.
#[inline]
pub fn kept(payment: Payment) -> Option<Payment> {
    (!payment.item.is_multiple_of(10)).then_some(payment)
}

/// Rows, in whatever order: how many, and the sum of their hashes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    pub count: u64,
    pub sum: u64,
}

impl Rows {
    pub fn add(&mut self, row: &[u8]) {
        let mut hasher = foldhash::fast::FixedState::with_seed(1).build_hasher();
        row.hash(&mut hasher);
        self.count += 1;
        self.sum = self.sum.wrapping_add(std::hash::Hasher::finish(&hasher));
    }
}
