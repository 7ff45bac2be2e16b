//! The same workloads as a good programmer would write them by hand: one loop, one hash table.
mod hops;
mod interval;
mod join;
mod sessions;
mod silence;
mod two;
mod windows;

use crate::{
    events::{Answer, LAG_MS, WATERMARK_EVERY, Workload, bid, bidder, item, to_eur},
    measure::{Outcome, fifth},
};
use hops::Hops;
use interval::Intervals;
use join::JoinWindows;
use sessions::Sessions;
use silence::Silences;
use windows::Windows;

pub type Map<K, V> = hashbrown::HashMap<K, V, foldhash::fast::FixedState>;

pub fn run(workload: Workload, events: u64, keys: u64, parallelism: u32) -> Result<Outcome, String> {
    let answer = match parallelism {
        1 => one(workload, events, keys),
        2 => two::two(workload, events)?,
        _ => return Err("the baseline is written for one and two threads".into()),
    };
    Ok(Outcome::now(answer, 0, 0.0))
}

/// The answer without measuring; only where it is cheap beside the run that it checks.
pub fn answer(workload: Workload, events: u64, keys: u64) -> Option<Answer> {
    (events <= 200_000_000).then(|| one_measured(workload, events, keys, || {}))
}

fn one(workload: Workload, events: u64, keys: u64) -> Answer {
    one_measured(workload, events, keys, fifth)
}

fn one_measured(workload: Workload, events: u64, keys: u64, at_fifth: impl Fn()) -> Answer {
    match workload {
        Workload::W1 => w1(events, at_fifth),
        Workload::W2 => w2(events, at_fifth),
        Workload::W3 => w3(events, keys, at_fifth),
        Workload::W4 => w4(events, at_fifth),
        Workload::Interval => interval(events, at_fifth),
        Workload::Hop => hop(events, at_fifth),
        Workload::Session => session(events, keys, at_fifth),
        Workload::Timers => timers(events, keys, at_fifth),
    }
}

fn w1(events: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    for part in [0..events / 5, events / 5..events] {
        if part.start > 0 {
            at_fifth();
        }
        for i in part {
            let bid = bid(i);
            let eur = to_eur(bid.price);
            if bid.auction.is_multiple_of(123) {
                answer.row(eur, 0);
            }
        }
    }
    answer
}

fn w2(events: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut windows = Windows::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let bid = bid(i);
        let best: &mut (u64, u64) = windows.table(bid.at_ms).entry(bid.auction).or_default();
        best.0 += 1;
        best.1 = best.1.max(bid.price);
        if i % WATERMARK_EVERY == WATERMARK_EVERY - 1 {
            windows.advance(bid.at_ms - LAG_MS, |v| answer.row(v.0, v.1));
        }
    }
    windows.advance(i64::MAX, |v| answer.row(v.0, v.1));
    answer
}

fn w3(events: u64, keys: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut sums = Map::<u64, (u64, u64)>::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let bid = bid(i);
        let sum = sums.entry(bidder(&bid, keys)).or_default();
        sum.0 += 1;
        sum.1 += bid.price;
        answer.row(sum.0, 0);
    }
    answer
}

fn w4(events: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut windows = JoinWindows::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let item = item(i);
        windows.insert(item);
        if i % WATERMARK_EVERY == WATERMARK_EVERY - 1 {
            windows.advance(item.at_ms - LAG_MS, |auction| answer.row(auction, 0));
        }
    }
    windows.advance(i64::MAX, |auction| answer.row(auction, 0));
    answer
}

fn hop(events: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut hops = Hops::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let bid = bid(i);
        hops.add(bid.auction, bid.at_ms, bid.price);
        if i % WATERMARK_EVERY == WATERMARK_EVERY - 1 {
            hops.advance(bid.at_ms - LAG_MS, |count, max| answer.row(count, max));
        }
    }
    hops.advance(i64::MAX, |count, max| answer.row(count, max));
    answer
}

fn session(events: u64, keys: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut sessions = Sessions::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let bid = bid(i);
        sessions.add(bidder(&bid, keys), bid.at_ms, |count, length| answer.row(count, length));
        if i % WATERMARK_EVERY == WATERMARK_EVERY - 1 {
            sessions.advance(bid.at_ms - LAG_MS, |count, length| answer.row(count, length));
        }
    }
    sessions.advance(i64::MAX, |count, length| answer.row(count, length));
    answer
}

fn interval(events: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut state = Intervals::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let item = item(i);
        state.insert(item, |auction| answer.row(auction, 0));
        if i % WATERMARK_EVERY == WATERMARK_EVERY - 1 {
            state.advance(item.at_ms - LAG_MS);
        }
    }
    answer
}

fn timers(events: u64, keys: u64, at_fifth: impl Fn()) -> Answer {
    let mut answer = Answer::default();
    let mut silences = Silences::default();
    for i in 0..events {
        if i == events / 5 {
            at_fifth();
        }
        let bid = bid(i);
        silences.insert(bidder(&bid, keys), bid.at_ms);
        if i % WATERMARK_EVERY == WATERMARK_EVERY - 1 {
            silences.advance(bid.at_ms - LAG_MS - 1, |bids, at| answer.row(bids, at as u64));
        }
    }
    silences.advance(i64::MAX, |bids, at| answer.row(bids, at as u64));
    answer
}
