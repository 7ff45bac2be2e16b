//! A source whose splits grow as the test likes, and never end: what is there is what has been put there. Its readers
//! know what that is, as those of a message queue do.
use crate::kit::Bomb;
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};
use tidegate::{
    Result,
    extend::{
        connect::{Emit, Progress, Source, Split, SplitReader},
        env::sleep,
    },
};

/// See the module. Clones are the same shelf.
#[derive(Clone, Default)]
pub struct Shelf {
    splits: Arc<Mutex<Vec<Vec<u64>>>>,
    /// Whether new splits are looked for.
    pub discovers: bool,
    pub bomb: Bomb,
}

impl Shelf {
    pub fn with(splits: impl IntoIterator<Item = Vec<u64>>) -> Self {
        Self { splits: Arc::new(Mutex::new(splits.into_iter().collect())), ..Self::default() }
    }

    /// One that looks for new splits.
    pub fn discovering(self) -> Self {
        Self { discovers: true, ..self }
    }

    pub fn put(&self, split: usize, numbers: impl IntoIterator<Item = u64>) {
        let mut splits = self.splits.lock().unwrap();
        let missing = (split + 1).saturating_sub(splits.len());
        splits.extend(std::iter::repeat_n(Vec::new(), missing));
        splits[split].extend(numbers);
    }
}

impl Source for Shelf {
    type Item = u64;
    type Reader = ShelfReader;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let count = self.splits.lock().unwrap().len();
        Box::pin(ready(Ok((0..count).map(|s| Split::new(s.to_string())).collect())))
    }
    fn discovery_interval(&self) -> Option<Duration> {
        self.discovers.then_some(Duration::from_secs(1))
    }
    fn can_end(&self) -> Result<()> {
        Ok(())
    }
    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<ShelfReader>> {
        let next = position.map_or(0, |p| p.as_u64().unwrap() as usize);
        let split = split.id.parse().unwrap();
        let reader = ShelfReader { shelf: self.clone(), split, next, bound: usize::MAX, wait: None };
        Box::pin(ready(self.bomb.trip("open").map(|()| reader)))
    }
}

pub struct ShelfReader {
    shelf: Shelf,
    split: usize,
    next: usize,
    bound: usize,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl ShelfReader {
    fn len(&self) -> usize {
        self.shelf.splits.lock().unwrap()[self.split].len()
    }
}

impl SplitReader for ShelfReader {
    type Item = u64;
    fn fill<E: Emit<u64>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        for _ in 0..budget.min(10) {
            self.shelf.bomb.trip("fill")?;
            if self.next >= self.len().min(self.bound) {
                return Ok(Progress::Wait);
            }
            // Without the lock: what is behind may put something there.
            let number = self.shelf.splits.lock().unwrap()[self.split][self.next];
            out.record(number);
            self.next += 1;
        }
        Ok(Progress::More)
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(Duration::from_millis(1))));
        wait.as_mut().poll(cx).map(|()| {
            self.wait = None;
            Ok(())
        })
    }
    fn bound(&mut self) -> bool {
        self.bound = self.len();
        true
    }
    fn is_at_bound(&self) -> bool {
        self.next >= self.bound
    }
    fn position(&self) -> Value {
        json!(self.next)
    }
}
