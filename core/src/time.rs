//! Event time: timestamps, and how a split makes its watermark.
//!
//! A watermark `w` promises that no record at or before `w` is still to come. It is made **per split**,
//! because only a split is read in order, and it advances by data alone: every N records of that split, or
//! at the end of a batch. With "every N records" the lateness of a record is a function of its split,
//! whatever the batch size, the timing or the crashes.
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Event time in milliseconds since 1970-01-01 UTC.
pub type Timestamp = i64;

/// The timestamp of a record without event time, and the watermark before the first one.
pub const MIN: Timestamp = i64::MIN;
/// The watermark at the end of the input: every window fires.
pub const MAX: Timestamp = i64::MAX;

pub(crate) fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// How a source's splits make watermarks.
///
/// As Flink's `WatermarkStrategy`: the watermark is *newest event time - bound - 1 ms*.
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::Watermarks;
/// let two_hours = Watermarks::bounded(Duration::from_secs(7200)).every(100);
/// # let _ = two_hours;
/// ```
#[derive(Clone, Debug)]
pub struct Watermarks {
    pub(crate) bound_ms: i64,
    pub(crate) custom: Option<Custom>,
    pub(crate) every: Option<u32>,
    pub(crate) idle_after: Option<Duration>,
    pub(crate) align_ms: Option<i64>,
    pub(crate) future: Option<(i64, FarFuture)>,
}

#[derive(Clone)]
pub(crate) struct Custom(pub(crate) std::sync::Arc<dyn Fn() -> Box<dyn WatermarkGenerator> + Send + Sync>);

impl std::fmt::Debug for Custom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Custom")
    }
}

/// A user's own watermark, one generator a split.
pub trait WatermarkGenerator: Send {
    /// Sees every record's timestamp.
    fn observe(&mut self, at: Timestamp);
    /// The watermark now; one that goes back is ignored.
    fn watermark(&self) -> Timestamp;
    /// What has to be in the checkpoint.
    fn save(&self) -> serde_json::Value;
    /// Puts a restored split's generator where `save` left it.
    fn restore(&mut self, saved: &serde_json::Value);
}

/// What becomes of a record whose timestamp lies further ahead of the machine's clock than allowed: one
/// bad clock must not close every window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FarFuture {
    /// It is counted and passed on, but does not advance the watermark.
    Count,
    /// It is counted and goes to the source's far-future side stream only.
    SideStream,
    /// The attempt fails.
    Fail,
}

impl Watermarks {
    /// Records may be up to `bound` behind the newest one of their split.
    pub fn bounded(bound: Duration) -> Self {
        Self { bound_ms: millis(bound), custom: None, every: None, idle_after: None, align_ms: None, future: None }
    }
    /// A split's timestamps never go back.
    pub fn monotonous() -> Self {
        Self::bounded(Duration::ZERO)
    }
    /// A generator of your own for each split.
    pub fn custom<G: WatermarkGenerator + 'static>(make: impl Fn() -> G + Send + Sync + 'static) -> Self {
        Self { custom: Some(Custom(std::sync::Arc::new(move || Box::new(make())))), ..Self::monotonous() }
    }
    /// Advances the watermark after every `records` of a split instead of at the end of a batch, so that
    /// which records are late depends on the data alone.
    pub fn every(mut self, records: u32) -> Self {
        self.every = Some(records.max(1));
        self
    }
    /// Leaves a split out of the minimum when it has brought nothing for this long.
    pub fn idle_after(mut self, timeout: Duration) -> Self {
        self.idle_after = Some(timeout);
        self
    }
    /// Pauses a split whose watermark is more than `lead` ahead of the slowest one of the source.
    pub fn align(mut self, lead: Duration) -> Self {
        self.align_ms = Some(millis(lead));
        self
    }
    /// Guards against timestamps more than `ahead` of the machine's clock.
    pub fn guard_future(mut self, ahead: Duration, policy: FarFuture) -> Self {
        self.future = Some((millis(ahead), policy));
        self
    }
}

/// A half-open stretch of event time `[start, end)`, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// First millisecond in it.
    pub start: Timestamp,
    /// First millisecond behind it.
    pub end: Timestamp,
}

impl Window {
    /// Whether a record of this time is in it.
    #[inline]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}
