//! The workloads through tidegate's public API.
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tidegate::{
    Aggregate, Context, ForEach, Generator, Hopping, Job, ProcessFunction, Session, Settings, Stream, Timer, Tumbling,
    Watermarks, Windowed,
};

use crate::{
    Args,
    events::{
        Answer, Bid, GAP_MS, HOP_MS, INTERVAL_MS, Item, LAG_MS, SILENCE_MS, WATERMARK_EVERY, WINDOW_MS, Workload, bid,
        bidder, item, to_eur,
    },
    marked::Marked,
    measure::{Outcome, finish},
};

/// One subtask's rows; they are added up when the job is over. A clone begins with nothing.
#[derive(Default)]
struct Rows {
    here: Answer,
    all: Arc<Mutex<Answer>>,
}
impl Clone for Rows {
    fn clone(&self) -> Self {
        Self { here: Answer::default(), all: self.all.clone() }
    }
}
impl Drop for Rows {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).add(self.here);
    }
}
impl Rows {
    #[inline(always)]
    fn row(&mut self, a: u64, b: u64) {
        self.here.row(a, b);
    }
}

#[derive(Clone)]
struct CountAndMax;

impl Aggregate<Bid> for CountAndMax {
    type State = (u64, u64);
    type Output = (u64, u64);
    fn init(&self) -> (u64, u64) {
        (0, 0)
    }
    #[inline]
    fn add(&self, state: &mut (u64, u64), bid: Bid) {
        state.0 += 1;
        state.1 = state.1.max(bid.price);
    }
    fn merge(&self, state: &mut (u64, u64), other: &(u64, u64)) {
        state.0 += other.0;
        state.1 = state.1.max(other.1);
    }
    fn finish(&self, state: &(u64, u64)) -> (u64, u64) {
        *state
    }
}

/// Tells of a bidder who has been silent for a minute how often it has bid until then.
#[derive(Clone)]
struct Silence;

#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Heard {
    bids: u64,
    silent_at: i64,
}

impl ProcessFunction<u64, Bid> for Silence {
    type State = Heard;
    type Output = (u64, i64);
    #[inline]
    fn process(&mut self, bid: Bid, heard: &mut Heard, ctx: &mut Context<'_, u64, (u64, i64)>) {
        ctx.delete_timer(heard.silent_at);
        *heard = Heard { bids: heard.bids + 1, silent_at: bid.at_ms + SILENCE_MS };
        ctx.set_timer(heard.silent_at);
    }
    fn on_timer(&mut self, _: Timer, heard: &mut Heard, ctx: &mut Context<'_, u64, (u64, i64)>) {
        ctx.emit((heard.bids, ctx.timestamp()));
    }
}

/// Those of a job that keeps one checkpoint, and more of them as TOML.
pub fn settings(parallelism: u32, store: &Path, interval: &str, toml: &[String]) -> Result<Settings, String> {
    let settings = json!({
        "parallelism": parallelism,
        "checkpoint": { "store": store, "interval": interval, "retained": 1 },
    });
    let settings = serde_json::from_value::<Settings>(settings).map_err(|e| e.to_string())?;
    toml.iter().try_fold(settings, Settings::with_toml).map_err(|e| e.to_string())
}

fn ms(ms: i64) -> Duration {
    Duration::from_millis(ms.unsigned_abs())
}

/// A person, or an auction.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Side {
    key: u64,
    value: u64,
}

/// One stream of both as two.
fn sides(items: impl Stream<Item = Item>) -> (impl Stream<Item = Side>, impl Stream<Item = Side>) {
    let items = items.boxed();
    let side = |item: Item| Side { key: item.key, value: item.value };
    (
        items.clone().filter_map(move |item| (!item.is_auction).then(|| side(item))),
        items.filter_map(move |item| item.is_auction.then(|| side(item))),
    )
}

#[allow(clippy::too_many_lines, reason = "a list of jobs")]
pub fn run(workload: Workload, events: u64, args: &Args) -> Result<Outcome, String> {
    let directory = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (parallelism, keys) = (args.parallelism, args.keys.unwrap_or(workload.keys()));
    let settings = settings(parallelism, directory.path(), &args.interval, &args.settings)?;
    let rows = Rows::default();
    let all = rows.all.clone();
    let job = Job::new("bench", settings);
    let parts = u64::from(parallelism);
    let first_of_steady = events / parts / 5 * parts;
    let fifth = first_of_steady / parts;
    let source = Marked { source: Generator::new(events, bid).splits(parts), fifth };
    let items = Marked { source: Generator::new(events, item).splits(parts), fifth };
    let lag = Duration::from_millis(LAG_MS.unsigned_abs());
    match workload {
        Workload::W1 => {
            let mut rows = rows.clone();
            job.source("bids", source)
                .map(|b| (b.auction, to_eur(b.price)))
                .filter(|(auction, _)| auction % 123 == 0)
                .sink("count", ForEach::new(move |(_, eur): (u64, u64), _| rows.row(eur, 0)));
        }
        Workload::W2 => {
            let mut rows = rows.clone();
            job.source("bids", source)
                .event_time(
                    |b| b.at_ms,
                    Watermarks::bounded(lag)
                        .every(WATERMARK_EVERY as u32)
                        .align(Duration::from_millis(WINDOW_MS.unsigned_abs())),
                )
                .key_by(|b| b.auction)
                .window("best", Tumbling::of(Duration::from_millis(WINDOW_MS.unsigned_abs())))
                .aggregate(CountAndMax)
                .sink("rows", ForEach::new(move |w: Windowed<u64, (u64, u64)>, _| rows.row(w.value.0, w.value.1)));
        }
        Workload::W3 => {
            let mut rows = rows.clone();
            job.source("bids", source)
                .key_by(move |b| bidder(b, keys))
                .fold("sums", (0u64, 0u64), |sum, b: Bid| {
                    sum.0 += 1;
                    sum.1 += b.price;
                })
                .sink("rows", ForEach::new(move |(_, sum): (u64, (u64, u64)), _| rows.row(sum.0, 0)));
        }
        Workload::Hop => {
            let mut rows = rows.clone();
            job.source("bids", source)
                .event_time(|b| b.at_ms, Watermarks::bounded(lag).every(WATERMARK_EVERY as u32).align(ms(WINDOW_MS)))
                .key_by(|b| b.auction)
                .window("best", Hopping::of(ms(WINDOW_MS), ms(HOP_MS)))
                .aggregate(CountAndMax)
                .sink("rows", ForEach::new(move |w: Windowed<u64, (u64, u64)>, _| rows.row(w.value.0, w.value.1)));
        }
        Workload::Session => {
            let mut rows = rows.clone();
            job.source("bids", source)
                .event_time(|b| b.at_ms, Watermarks::bounded(lag).every(WATERMARK_EVERY as u32).align(ms(WINDOW_MS)))
                .key_by(move |b| bidder(b, keys))
                .window("visits", Session::gap(ms(GAP_MS)))
                .count()
                .sink(
                    "rows",
                    ForEach::new(move |w: Windowed<u64, u64>, _| {
                        rows.row(w.value, (w.window.end - w.window.start) as u64);
                    }),
                );
        }
        Workload::W4 => {
            let mut rows = rows.clone();
            let watermarks = Watermarks::bounded(lag).every(WATERMARK_EVERY as u32).align(ms(WINDOW_MS));
            let (persons, auctions) = sides(job.source("items", items).event_time(|i| i.at_ms, watermarks));
            persons
                .key_by(|p| p.key)
                .join(auctions.key_by(|a| a.key))
                .window("pairs", Tumbling::of(ms(WINDOW_MS)))
                .inner(|_, _, _: &Side, auction: &Side| auction.value)
                .sink("rows", ForEach::new(move |value: u64, _| rows.row(value, 0)));
        }
        Workload::Interval => {
            let mut rows = rows.clone();
            let watermarks = Watermarks::bounded(lag).every(WATERMARK_EVERY as u32).align(ms(WINDOW_MS));
            let (persons, auctions) = sides(job.source("items", items).event_time(|i| i.at_ms, watermarks));
            persons
                .key_by(|p| p.key)
                .join(auctions.key_by(|a| a.key))
                .interval("pairs", 0, INTERVAL_MS)
                .inner(|_, _: &Side, auction: &Side| auction.value)
                .sink("rows", ForEach::new(move |value: u64, _| rows.row(value, 0)));
        }
        Workload::Timers => {
            let mut rows = rows.clone();
            job.source("bids", source)
                .event_time(|b| b.at_ms, Watermarks::bounded(lag).every(WATERMARK_EVERY as u32))
                .key_by(move |b| bidder(b, keys))
                .process("silence", Silence)
                .sink("rows", ForEach::new(move |(bids, at): (u64, i64), _| rows.row(bids, at as u64)));
        }
    }
    drop(rows);
    let metrics = finish(job)?;
    let pause = metrics.operators.iter().map(|o| o.snapshot_pause).max().unwrap_or_default();
    let answer = *all.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(Outcome::now(answer, metrics.checkpoints.completed, pause.as_secs_f64() * 1000.0))
}
