//! Everything that goes wrong, from one seed; and what is written down about it.
//!
//! All draws come from one sequence, in the order in which the run asks. The run is one thread over a paused
//! clock, so the order is the same each time, and the seed is the whole run. `calm` ends the faults: draws then
//! say "nothing goes wrong", and whoever is stalled goes on.
use futures::future::BoxFuture;
use std::{
    collections::BTreeMap,
    fmt::Arguments,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tidegate::{
    Error, Result,
    extend::env::{Instant, now, random, sleep},
};
use tokio::sync::Notify;

/// Which process does something; each start of the job is another one.
pub type Client = u32;

/// How often what goes wrong, per mille of the calls, and how long it takes. Drawn once a run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub slow: u64,
    pub slow_ms: u64,
    pub stall: u64,
    pub stall_ms: u64,
    pub refuse: u64,
    pub lose: u64,
    /// Of the user's function, per 100,000 records.
    pub user: u64,
    /// Of the readers and of the sinks' writers.
    pub connector: u64,
    /// Of the calls that matter when the job changes hands: the process freezes there, and is replaced.
    pub replaced: u64,
}

/// Where a process that is replaced can do the most harm when it goes on.
const CRITICAL: [&str; 7] = ["claim", "commit", "listing", "manifest", "publishing", "reading", "sweep"];

/// What becomes of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Done,
    Refused,
    ReplyLost,
}

/// See the module. Clones are the same.
#[derive(Clone, Debug)]
pub struct Chaos(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    state: u64,
    calm: bool,
    weather: Weather,
    frozen: BTreeMap<Client, Instant>,
    replacement: Arc<Notify>,
    in_flight: BTreeMap<&'static str, u32>,
    tally: BTreeMap<String, u64>,
    /// Who has created the commit record of an epoch.
    committed: BTreeMap<u64, Client>,
    /// The highest claim of the job, and whose it is.
    owner: (u64, Client),
    /// The first thing that must never happen and has.
    violation: Option<String>,
    hash: u64,
    printed: bool,
    /// When this life began, and how long all before it were.
    began: Option<Instant>,
    before: Duration,
}

impl Chaos {
    pub fn new(seed: u64, printed: bool) -> Self {
        let mut chaos = Inner {
            state: seed,
            calm: false,
            weather: Weather::default(),
            frozen: BTreeMap::new(),
            replacement: Arc::default(),
            in_flight: BTreeMap::new(),
            tally: BTreeMap::new(),
            committed: BTreeMap::new(),
            owner: (0, 0),
            violation: None,
            hash: 0xcbf2_9ce4_8422_2325,
            printed,
            began: None,
            before: Duration::ZERO,
        };
        let mut some = |rates: &[u64]| rates[random(&mut chaos.state) as usize % rates.len()];
        chaos.weather = Weather {
            slow: some(&[0, 100, 500]),
            slow_ms: some(&[2, 20, 200]),
            stall: some(&[0, 0, 5, 30]),
            stall_ms: some(&[300, 3_000, 20_000]),
            refuse: some(&[0, 5, 40]),
            lose: some(&[0, 5, 40]),
            user: some(&[0, 0, 20, 300]),
            connector: some(&[0, 0, 2, 20]),
            replaced: some(&[0, 0, 5, 30]),
        };
        Self(Arc::new(Mutex::new(chaos)))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub fn draw(&self) -> u64 {
        random(&mut self.inner().state)
    }
    pub fn below(&self, n: u64) -> u64 {
        self.draw() % n
    }
    pub fn between(&self, range: std::ops::RangeInclusive<u64>) -> u64 {
        range.start() + self.below(range.end() - range.start() + 1)
    }
    pub fn one_of<T: Copy>(&self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }
    pub fn ms(&self, range: std::ops::RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.between(range))
    }
    /// Whether something of this rate goes wrong now.
    fn strikes(&self, rate: impl Fn(&Weather) -> u64, of: u64) -> bool {
        let mut inner = self.inner();
        let drawn = random(&mut inner.state) % of;
        !inner.calm && drawn < rate(&inner.weather)
    }

    /// Nothing goes wrong any more.
    pub fn calm(&self) {
        let mut inner = self.inner();
        inner.calm = true;
        inner.frozen.clear();
    }

    /// Another life begins, in a runtime of its own.
    pub fn begin_life(&self) -> i64 {
        let mut inner = self.inner();
        (inner.began, inner.frozen) = (Some(now()), BTreeMap::new());
        inner.before.as_millis() as i64
    }
    /// It ends here: everything in flight is cut off.
    pub fn end_life(&self, how: &str) {
        self.note(format_args!("{how}"));
        let mut inner = self.inner();
        let cut: Vec<_> = std::mem::take(&mut inner.in_flight).into_iter().filter(|(_, n)| *n > 0).collect();
        for (kind, _) in cut {
            *inner.tally.entry(format!("{how} in {kind}")).or_default() += 1;
        }
        if let Some(began) = inner.began.take() {
            inner.before += now().duration_since(began);
        }
    }

    /// Nothing that this process asks of the outside is done until then.
    pub fn freeze(&self, client: Client, duration: Duration) {
        self.note(format_args!("client {client} is frozen for {duration:?}"));
        self.inner().frozen.insert(client, now() + duration);
    }

    /// Freezes a process where it hurts, and has another one started.
    fn replace(&self, client: Client, kind: &'static str) {
        if CRITICAL.contains(&kind) && self.strikes(|w| w.replaced, 1_000) {
            self.freeze(client, self.ms(1..=1_000));
            self.count(format!("replaced in {kind}"));
            self.inner().replacement.notify_one();
        }
    }

    /// Waits until a process is to be replaced.
    pub async fn replacement(&self) {
        let replacement = self.inner().replacement.clone();
        replacement.notified().await;
    }

    async fn thaw(&self, client: Client) {
        loop {
            let until = self.inner().frozen.get(&client).copied();
            match until.filter(|until| *until > now()) {
                Some(until) => sleep(until - now()).await,
                None => return,
            }
        }
    }

    /// Waits as the weather is, and says what becomes of a call.
    pub async fn before(&self, client: Client, kind: &'static str) -> Verdict {
        let _flight = self.depart(kind);
        self.replace(client, kind);
        self.thaw(client).await;
        self.dawdle().await;
        if self.strikes(|w| w.refuse, 1_000) {
            self.count(format!("{kind} refused"));
            Verdict::Refused
        } else if self.strikes(|w| w.lose, 1_000) {
            self.count(format!("{kind} lost its reply"));
            Verdict::ReplyLost
        } else {
            Verdict::Done
        }
    }

    /// The reply takes its time too.
    pub async fn after(&self, client: Client, kind: &'static str) {
        let _flight = self.depart(kind);
        self.dawdle().await;
        self.thaw(client).await;
    }

    async fn dawdle(&self) {
        let weather = self.inner().weather;
        if self.strikes(|w| w.stall, 1_000) {
            self.count("stalls".into());
            sleep(self.ms(weather.stall_ms / 2..=weather.stall_ms)).await;
        } else if self.strikes(|w| w.slow, 1_000) {
            sleep(self.ms(1..=weather.slow_ms)).await;
        }
    }

    /// A call of a connector: done, or an error before or after it is.
    pub fn call<'a, R: Send + 'a>(
        &'a self,
        client: Client,
        kind: &'static str,
        act: impl FnOnce() -> Result<R> + Send + 'a,
    ) -> BoxFuture<'a, Result<R>> {
        Box::pin(async move {
            let verdict = self.before(client, kind).await;
            let failed = || Error::unavailable(format!("injected: {kind} fails"));
            let done = if verdict == Verdict::Refused { Err(failed()) } else { act() };
            self.note(format_args!("client {client}: {kind}: {verdict:?}"));
            self.after(client, kind).await;
            if verdict == Verdict::ReplyLost { done.and(Err(failed())) } else { done }
        })
    }

    /// For how long a sink takes nothing more.
    pub fn pause(&self) -> Option<Duration> {
        self.strikes(|w| w.slow / 5, 1_000).then(|| self.ms(1..=50))
    }

    /// A moment in which the user's function, or a connector's synchronous part, may fail or panic.
    pub fn trip(&self, place: &'static str) -> Result<()> {
        let strikes = match place {
            "user" => self.strikes(|w| w.user, 100_000),
            _ => self.strikes(|w| w.connector, 1_000),
        };
        if !strikes {
            return Ok(());
        }
        let panics = self.below(3) == 0;
        self.note(format_args!("{place} {}", if panics { "panics" } else { "fails" }));
        self.count(format!("{place} {}", if panics { "panicked" } else { "failed" }));
        assert!(!panics, "injected: {place} panics");
        Err(Error::unavailable(format!("injected: {place} fails")))
    }

    fn depart(&self, kind: &'static str) -> Flight {
        *self.inner().in_flight.entry(kind).or_default() += 1;
        Flight(self.clone(), kind)
    }

    /// A process has claimed the job; perhaps with a number that it chose long ago, and that others have passed.
    pub fn claimed(&self, attempt: u64, client: Client) {
        let mut inner = self.inner();
        inner.owner = inner.owner.max((attempt, client));
    }
    pub fn owner(&self) -> Client {
        self.inner().owner.1
    }

    /// A commit record has been created.
    pub fn committed(&self, epoch: u64, client: Client) {
        self.inner().committed.insert(epoch, client);
    }
    pub fn committer(&self, epoch: u64) -> Option<Client> {
        self.inner().committed.get(&epoch).copied()
    }
    pub fn newest_committed(&self) -> u64 {
        self.inner().committed.last_key_value().map_or(0, |(epoch, _)| *epoch)
    }

    /// What must hold, said where a panic would be taken for one of the user's function.
    pub fn must(&self, holds: bool, else_say: impl FnOnce() -> String) {
        if !holds {
            self.inner().violation.get_or_insert_with(else_say);
        }
    }
    pub fn violation(&self) -> Option<String> {
        self.inner().violation.clone()
    }

    /// Something that a run may have, and some have to.
    pub fn count(&self, what: String) {
        *self.inner().tally.entry(what).or_default() += 1;
    }

    /// Writes into the trace.
    pub fn note(&self, line: Arguments<'_>) {
        let mut inner = self.inner();
        let at = inner.before + inner.began.map_or(Duration::ZERO, |b| now().duration_since(b));
        let line = format!("{:>9.3} {line}", at.as_secs_f64());
        for byte in line.bytes() {
            inner.hash = (inner.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if inner.printed {
            println!("{line}");
        }
    }

    pub fn hash(&self) -> u64 {
        self.inner().hash
    }
    pub fn tally(&self) -> BTreeMap<String, u64> {
        self.inner().tally.clone()
    }
}

/// A call that is in flight as long as this lives, unless the life ends before.
struct Flight(Chaos, &'static str);

impl Drop for Flight {
    fn drop(&mut self) {
        if let Some(n) = self.0.inner().in_flight.get_mut(self.1) {
            *n = n.saturating_sub(1);
        }
    }
}
