//! A source that makes its records: a pure function of their number, so that a restored reader makes the
//! very same ones.
use futures::future::{BoxFuture, ready};
use serde_json::{Value, json};
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tidegate_core::{
    Error, Result,
    connect::{Emit, Progress, Source, Split, SplitReader},
    env::{Instant, now, sleep},
};

/// Generated records. Split `p` of `n` makes the records `p`, `p + n`, `p + 2n`, ...
///
/// ```
/// use tidegate_connectors::Generator;
/// let squares = Generator::new(1_000, |i| i * i).splits(4).rate(100.0);
/// # let _ = squares;
/// ```
pub struct Generator<F> {
    count: u64,
    make: F,
    splits: u64,
    rate: Option<f64>,
}

impl<T: Send + 'static, F: Fn(u64) -> T + Clone + Send + Sync + 'static> Generator<F> {
    /// `count` records, `make(0)` to `make(count - 1)`; `u64::MAX` is for ever.
    pub fn new(count: u64, make: F) -> Self {
        Self { count, make, splits: 1, rate: None }
    }

    /// Spreads the records over so many splits.
    pub fn splits(mut self, splits: u64) -> Self {
        self.splits = splits.max(1);
        self
    }

    /// Limits the rate of all splits together, in records a second.
    pub fn rate(mut self, records_per_second: f64) -> Self {
        self.rate = (records_per_second > 0.0).then_some(records_per_second);
        self
    }
}

/// Random numbers for records: output `k` of the splitmix64 stream with this seed. Any record's numbers can
/// be made without those before it.
#[inline]
pub fn random(seed: u64, k: u64) -> u64 {
    let mut z = seed.wrapping_add(k.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl<T: Send + 'static, F: Fn(u64) -> T + Clone + Send + Sync + 'static> Source for Generator<F> {
    type Item = T;
    type Reader = GeneratorReader<F>;

    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        let length = |p| (self.count != u64::MAX).then(|| share(self.count, p, self.splits));
        let splits = (0..self.splits).map(|p| Split { id: format!("{p}/{}", self.splits), length: length(p) });
        Box::pin(ready(Ok(splits.collect())))
    }

    fn can_end(&self) -> Result<()> {
        if self.count == u64::MAX {
            return Err(Error::config("the generator makes records for ever").hint("give it a number of records"));
        }
        Ok(())
    }

    fn open(&self, split: Split, position: Option<Value>) -> BoxFuture<'_, Result<GeneratorReader<F>>> {
        let opened = || {
            let unknown = || {
                Error::config(format!("the generator has no split {:?}", split.id))
                    .hint("the number of splits of a generator is part of its positions: keep it")
            };
            let (part, of) = split.id.split_once('/').ok_or_else(unknown)?;
            let (part, of): (u64, u64) = (part.parse().map_err(|_| unknown())?, of.parse().map_err(|_| unknown())?);
            if of != self.splits || part >= of {
                return Err(unknown());
            }
            let made = match &position {
                None => 0,
                Some(p) => {
                    p["made"].as_u64().ok_or_else(|| Error::corrupt(format!("{p} is no position of a generator")))?
                }
            };
            let pace = self.rate.map(|r| Pace::new(r / of as f64));
            Ok(GeneratorReader { make: self.make.clone(), part, of, made, end: share(self.count, part, of), pace })
        };
        Box::pin(ready(opened()))
    }
}

fn share(count: u64, part: u64, of: u64) -> u64 {
    count / of + u64::from(part < count % of)
}

/// Makes the records of one split.
pub struct GeneratorReader<F> {
    make: F,
    part: u64,
    of: u64,
    made: u64,
    end: u64,
    pace: Option<Pace>,
}

impl<T: Send + 'static, F: Fn(u64) -> T + Clone + Send + Sync + 'static> SplitReader for GeneratorReader<F> {
    type Item = T;

    fn fill<E: Emit<T>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        let mut budget = budget as u64;
        if let Some(pace) = &mut self.pace {
            budget = pace.grant(budget);
        }
        let end = self.made.saturating_add(budget).min(self.end);
        let (mut index, step) = (self.part + self.of * self.made, self.of);
        out.extend((self.made..end).map(|_| {
            let record = (self.make)(index);
            index += step;
            record
        }));
        self.made = end;
        Ok(match &self.pace {
            _ if self.made == self.end => Progress::End,
            Some(pace) if pace.is_spent() => Progress::Wait,
            _ => Progress::More,
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        self.pace.as_mut().map_or(Poll::Ready(()), |p| p.poll(cx)).map(Ok)
    }

    /// With a rate, what there is now is what the clock has granted since the last batch.
    fn bound(&mut self) -> bool {
        if let Some(pace) = &mut self.pace {
            pace.catch_up();
        }
        false
    }

    fn position(&self) -> Value {
        json!({ "made": self.made })
    }

    fn progress(&self) -> Option<u64> {
        Some(self.made)
    }
}

/// Records granted by the clock; at most a tenth of a second's worth at once, unless it is to catch up.
pub(crate) struct Pace {
    rate: f64,
    last: Instant,
    due: f64,
    wait: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Pace {
    pub(crate) fn new(rate: f64) -> Self {
        Self { rate, last: now(), due: 1.0, wait: None }
    }

    pub(crate) fn grant(&mut self, wanted: u64) -> u64 {
        let (before, most) = (self.due, (self.rate / 10.0).max(1.0));
        self.catch_up();
        self.due = self.due.min(before.max(most));
        let granted = (self.due as u64).min(wanted);
        self.due -= granted as f64;
        granted
    }

    /// Grants all since the last grant.
    pub(crate) fn catch_up(&mut self) {
        let at = now();
        self.due += at.duration_since(self.last).as_secs_f64() * self.rate;
        self.last = at;
    }

    /// Whether no more is granted for the moment.
    pub(crate) fn is_spent(&self) -> bool {
        self.due < 1.0
    }

    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let missing = ((1.0 - self.due) / self.rate).clamp(0.001, 3600.0);
        let wait = self.wait.get_or_insert_with(|| Box::pin(sleep(Duration::from_secs_f64(missing))));
        let ready = wait.as_mut().poll(cx);
        if ready.is_ready() {
            self.wait = None;
        }
        ready
    }
}

/// Shared by tests of sources: reads a split to its end, in fills of `budget`.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use std::sync::Arc;
    use tidegate_core::Undecodable;

    #[derive(Debug)]
    pub(crate) struct Taken<T> {
        pub records: Vec<T>,
        pub bad: Vec<Undecodable>,
    }
    impl<T> Emit<T> for Taken<T> {
        fn record(&mut self, record: T) {
            self.records.push(record);
        }
        fn bytes(&mut self, _: u64) {}
        fn undecodable(&mut self, bad: Undecodable) -> Result<()> {
            self.bad.push(bad);
            Ok(())
        }
    }

    /// Reads at most `fills` fills; returns what was read and where the reader stands.
    pub(crate) async fn read<S: Source>(
        source: &Arc<S>,
        split: &Split,
        position: Option<Value>,
        budget: usize,
        fills: usize,
    ) -> Result<(Taken<S::Item>, Value)> {
        let mut reader = source.open(split.clone(), position).await?;
        let mut taken = Taken { records: Vec::new(), bad: Vec::new() };
        for _ in 0..fills {
            match reader.fill(budget, &mut taken)? {
                Progress::More => {}
                Progress::Wait | Progress::Held => std::future::poll_fn(|cx| reader.poll_ready(cx)).await?,
                Progress::End => break,
            }
        }
        Ok((taken, reader.position()))
    }
}

#[cfg(test)]
mod tests {
    use super::{testing::read, *};
    use std::sync::Arc;

    #[tokio::test]
    async fn splits_together_make_every_record_once() {
        let source = Arc::new(Generator::new(10, |i| i).splits(3));
        let mut all = Vec::new();
        for split in source.discover().await.unwrap() {
            all.extend(read(&source, &split, None, 2, usize::MAX).await.unwrap().0.records);
        }
        all.sort_unstable();
        assert_eq!(all, (0..10).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_reader_opened_at_a_position_goes_on_with_the_next_record() {
        let source = Arc::new(Generator::new(10, |i| i * 7).splits(2));
        let split = &source.discover().await.unwrap()[1];
        let (first, position) = read(&source, split, None, 1, 3).await.unwrap();
        let (rest, _) = read(&source, split, Some(position), 1, usize::MAX).await.unwrap();
        assert_eq!([first.records, rest.records].concat(), [7, 21, 35, 49, 63]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_rate_is_kept() {
        let source = Arc::new(Generator::new(100, |i| i).rate(50.0));
        let began = now();
        let split = &source.discover().await.unwrap()[0];
        assert_eq!(read(&source, split, None, 1000, usize::MAX).await.unwrap().0.records.len(), 100);
        let took = now().duration_since(began).as_secs_f64();
        assert!((1.9..2.1).contains(&took), "{took}");
    }

    #[tokio::test]
    async fn another_number_of_splits_than_in_the_checkpoint_is_an_error() {
        let source = Generator::new(10, |i| i).splits(2);
        let e = source.open(Split::new("0/3"), Some(json!({"made": 1}))).await.err().unwrap();
        assert!(e.to_string().contains("number of splits"), "{e}");
    }
}
