//! A source with short fills, waits, errors and panics; its data is the plan's.
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tidegate::{
    Result, Undecodable,
    extend::{
        connect::{Emit, Progress, Source, Split, SplitReader},
        env::sleep,
    },
};

use crate::{
    chaos::{Chaos, Client},
    plan::{Event, Item, Plan},
};

pub struct Seeded {
    pub plan: Arc<Plan>,
    pub source: usize,
    pub chaos: Chaos,
    pub client: Client,
}

impl Source for Seeded {
    type Item = Event;
    type Reader = Reader;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let splits = 0..self.plan.sources[self.source].len();
        self.chaos.call(self.client, "discovery", move || Ok(splits.map(|s| Split::new(s.to_string())).collect()))
    }

    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<Reader>> {
        self.chaos.call(self.client, "opening", move || {
            let next = position.map_or(0, |p| p.as_u64().unwrap() as usize);
            let (plan, chaos) = (self.plan.clone(), self.chaos.clone());
            Ok(Reader { plan, source: self.source, split: split.id.parse().unwrap(), next, chaos, wait: None })
        })
    }
}

pub struct Reader {
    plan: Arc<Plan>,
    source: usize,
    split: usize,
    next: usize,
    chaos: Chaos,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl SplitReader for Reader {
    type Item = Event;

    fn fill<E: Emit<Event>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        let items = &self.plan.sources[self.source][self.split];
        for _ in 0..self.chaos.between(0..=self.plan.fill_max).min(budget as u64) {
            let Some(item) = items.get(self.next) else { return Ok(Progress::End) };
            match item {
                Item::Event(event) => out.record(event.clone()),
                Item::Undecodable(raw) => out.undecodable(Undecodable {
                    split: self.split.to_string(),
                    place: self.next.to_string(),
                    reason: "it is not to be decoded".into(),
                    raw: raw.clone(),
                })?,
            }
            self.next += 1;
        }
        self.chaos.trip("reader")?;
        Ok(if self.chaos.below(100) < self.plan.waits { Progress::Wait } else { Progress::More })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(self.chaos.ms(0..=self.plan.wait_ms))));
        std::task::ready!(wait.as_mut().poll(cx));
        self.wait = None;
        Poll::Ready(self.chaos.trip("waiting reader"))
    }

    fn position(&self) -> Value {
        json!(self.next)
    }
}
