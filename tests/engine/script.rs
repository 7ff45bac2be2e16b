//! A source whose splits say what they are told, when they are let: events with timestamps of the test's
//! choice, a gate for each split, fills of a size of the test's choice.
use crate::kit::{Bomb, Gate};
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use tidegate::{
    Result, Undecodable,
    extend::{
        connect::{Emit, Progress, Source, Split, SplitReader},
        env::sleep,
    },
};

/// A record: who it is, its key, its event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Event {
    pub id: u64,
    pub key: u8,
    pub at: i64,
}

/// The id of an event that cannot be decoded.
pub const BAD: u64 = u64::MAX;

/// Events of one key at these times, with the times' places as ids.
pub fn at(times: impl IntoIterator<Item = i64>) -> Vec<Event> {
    times.into_iter().enumerate().map(|(id, at)| Event { id: id as u64, key: 0, at }).collect()
}

/// See the module.
#[derive(Clone, Default)]
pub struct Script {
    pub splits: Vec<Arc<[Event]>>,
    pub gates: Vec<Gate>,
    /// Events a fill.
    pub fill: usize,
    /// Whether a reader without anything says now and then that it is ready, as one that polls does.
    pub polls: bool,
    /// Whether a reader that is not let on has something that it cannot emit yet.
    pub holds: bool,
    /// Whether a split repeats its last event for ever.
    pub endless: bool,
    /// How many of the splits are there, for a source that looks for new ones.
    pub listed: Option<Arc<AtomicUsize>>,
    pub bomb: Bomb,
}

impl Script {
    /// Splits that are not let on yet, in fills of ten.
    pub fn new<const N: usize>(splits: [Vec<Event>; N]) -> Self {
        let gates = splits.iter().map(|_| Gate::default()).collect();
        Self { splits: splits.into_iter().map(Into::into).collect(), gates, fill: 10, ..Self::default() }
    }
    /// One split that is let on.
    pub fn open(events: Vec<Event>) -> Self {
        let script = Self::new([events]);
        script.gates[0].open();
        script
    }
}

impl Source for Script {
    type Item = Event;
    type Reader = ScriptReader;
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let count = self.listed.as_ref().map_or(self.splits.len(), |n| n.load(SeqCst));
        Box::pin(ready(Ok((0..count).map(|s| Split::new(s.to_string())).collect())))
    }
    fn discovery_interval(&self) -> Option<Duration> {
        self.listed.as_ref().map(|_| Duration::from_millis(10))
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<ScriptReader>> {
        let split: usize = split.id.parse().unwrap();
        let next = position.map_or(0, |p| p.as_u64().unwrap());
        Box::pin(ready(Ok(ScriptReader { script: self.clone(), split, next, wait: None })))
    }
}

pub struct ScriptReader {
    script: Script,
    split: usize,
    next: u64,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl ScriptReader {
    fn is_open(&self) -> bool {
        self.script.gates[self.split].lets(self.next)
    }
}

impl SplitReader for ScriptReader {
    type Item = Event;
    fn fill<E: Emit<Event>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        let events = self.script.splits[self.split].clone();
        for _ in 0..budget.min(self.script.fill) {
            if !self.is_open() {
                return Ok(if self.script.holds { Progress::Held } else { Progress::Wait });
            }
            let event = match events.get(self.next as usize) {
                Some(event) => *event,
                None if self.script.endless => events[events.len() - 1],
                None => return Ok(Progress::End),
            };
            self.script.bomb.trip("fill")?;
            self.next += 1;
            match event.id {
                BAD => out.undecodable(Undecodable {
                    split: self.split.to_string(),
                    place: format!("event {}", self.next),
                    reason: "it is bad".into(),
                    raw: String::new(),
                })?,
                _ => out.record(event),
            }
        }
        Ok(Progress::More)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        loop {
            let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(1))));
            std::task::ready!(wait.as_mut().poll(cx));
            self.wait = None;
            if self.script.polls || self.is_open() {
                return Poll::Ready(Ok(()));
            }
        }
    }
    fn position(&self) -> Value {
        json!(self.next)
    }
}
