//! What a seed's run is: the job, its input, its settings. Small inputs, many shapes.
use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};
use tidegate::{ByteSize, Codec, RestartStrategy, Settings};

use crate::chaos::Chaos;

/// A record of the input. Split and number say which one it is, wherever it turns up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Event {
    pub id: Id,
    pub key: u8,
    pub at: i64,
    pub value: i64,
}

/// Source, split, number in the split.
pub type Id = (u8, u8, u32);

#[derive(Clone, Debug)]
pub enum Item {
    Event(Event),
    Undecodable(String),
}

/// What is done with the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Written as they are.
    Raw,
    /// Summed up by key, record by record.
    Totals,
    /// Gathered by key and window.
    Windows,
}

#[derive(Debug)]
pub struct Plan {
    /// By source and split.
    pub sources: Vec<Vec<Vec<Item>>>,
    pub ends: Vec<End>,
    pub every: Option<u32>,
    pub bound_ms: u64,
    pub idle_ms: Option<u64>,
    pub align_ms: Option<u64>,
    /// Undecodable records go to a sink; else they are skipped.
    pub dead_letters: bool,
    pub window_ms: u64,
    pub lateness_ms: u64,
    pub fill_max: u64,
    /// Of a hundred fills so many are followed by a wait of up to so long.
    pub waits: u64,
    pub wait_ms: u64,
    /// The file sink, else one in memory.
    pub files: bool,
    /// Records in a part of a sink.
    pub part_max: u64,
    pub settings: Settings,
    pub lives: u64,
}

impl Plan {
    pub fn draw(chaos: &Chaos) -> Self {
        let undecodable = chaos.one_of(&[0, 0, 30]);
        let disorder_ms = chaos.one_of(&[0, 20, 100]);
        let ends = chaos.one_of::<&[End]>(&[
            &[End::Raw],
            &[End::Totals],
            &[End::Totals],
            &[End::Windows],
            &[End::Windows],
            &[End::Raw, End::Windows],
            &[End::Totals, End::Windows],
            &[End::Windows, End::Totals, End::Raw],
        ]);
        // One split of one source: only there do the data alone say what is late.
        let sources = match chaos.below(3) {
            0 => vec![1],
            1 => vec![chaos.between(1..=4)],
            _ => vec![chaos.between(1..=3), chaos.between(1..=2)],
        };
        let draw_split = |source: usize, split: u64| {
            let count = chaos.between(0..=120) as u32;
            (0..count).map(|n| item(chaos, (source as u8, split as u8, n), disorder_ms, undecodable)).collect()
        };
        let sources: Vec<Vec<Vec<Item>>> = sources
            .into_iter()
            .enumerate()
            .map(|(source, splits)| (0..splits).map(|split| draw_split(source, split)).collect())
            .collect();
        Self {
            sources,
            ends: ends.to_vec(),
            every: chaos.one_of(&[None, Some(1), Some(7), Some(7), Some(20)]),
            bound_ms: chaos.one_of(&[0, disorder_ms / 2, disorder_ms]),
            idle_ms: chaos.one_of(&[None, Some(5), Some(20)]),
            align_ms: chaos.one_of(&[None, None, Some(50)]),
            dead_letters: chaos.below(3) > 0,
            window_ms: chaos.one_of(&[10, 50, 300]),
            lateness_ms: chaos.one_of(&[0, 0, 20, 100]),
            fill_max: chaos.one_of(&[1, 5, 40]),
            waits: chaos.one_of(&[5, 50, 90]),
            wait_ms: chaos.one_of(&[1, 20, 100]),
            files: chaos.below(3) == 0,
            part_max: chaos.one_of(&[3, 20, 1_000]),
            settings: settings(chaos),
            lives: chaos.between(1..=4),
        }
    }

    /// The records that can be decoded.
    pub fn events(&self) -> impl Iterator<Item = &Event> {
        self.items().filter_map(|item| match item {
            Item::Event(event) => Some(event),
            Item::Undecodable(_) => None,
        })
    }

    pub fn items(&self) -> impl Iterator<Item = &Item> {
        self.sources.iter().flatten().flatten()
    }

    /// Whether the data alone decide which records are late.
    pub fn is_determined(&self) -> bool {
        self.sources.len() == 1 && self.sources[0].len() == 1 && self.every.is_some()
    }
}

impl fmt::Display for Plan {
    /// Without the input, which is long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ends, every, bound_ms, idle_ms, align_ms, window_ms, lateness_ms, files, part_max, .. } = self;
        let splits: Vec<Vec<usize>> = self.sources.iter().map(|s| s.iter().map(Vec::len).collect()).collect();
        writeln!(f, "{ends:?} of records {splits:?} by source and split; to files: {files}, {part_max} a part")?;
        writeln!(
            f,
            "a watermark every {every:?}, {bound_ms} ms behind; idle after {idle_ms:?}, aligned to {align_ms:?}"
        )?;
        writeln!(f, "windows of {window_ms} ms, {lateness_ms} ms late")?;
        write!(f, "{:?}", self.settings)
    }
}

fn item(chaos: &Chaos, id: Id, disorder_ms: u64, undecodable: u64) -> Item {
    if chaos.below(1_000) < undecodable {
        return Item::Undecodable(format!("{id:?}"));
    }
    let at = i64::from(id.2) * 10 - chaos.between(0..=disorder_ms) as i64;
    Item::Event(Event { id, key: chaos.below(12) as u8, at, value: chaos.below(1_000) as i64 })
}

fn settings(chaos: &Chaos) -> Settings {
    let mut settings = Settings { key_groups: chaos.one_of(&[4, 8, 16]), ..Settings::default() };
    settings.state.codec = chaos.one_of(&[Codec::Named, Codec::Compact]);
    settings.state.backend = chaos.one_of(&["memory", "entries"]).into();
    // Room for none, for a few, and for all.
    settings.state.cache = ByteSize(chaos.one_of(&[0, 1_000, 1_000_000]));
    let checkpoint = &mut settings.checkpoint;
    checkpoint.interval = Duration::from_millis(chaos.one_of(&[0, 10, 40, 40, 200]));
    checkpoint.min_pause = Duration::from_millis(chaos.one_of(&[0, 0, 30]));
    checkpoint.timeout = Duration::from_millis(chaos.one_of(&[15, 100, 1_000, 600_000]));
    checkpoint.retained = chaos.one_of(&[1, 1, 2, 3]);
    checkpoint.tolerated_failures = chaos.one_of(&[0, 0, 3]);
    let restart = &mut settings.restart;
    restart.strategy = chaos.one_of(&[
        RestartStrategy::None,
        RestartStrategy::FixedDelay,
        RestartStrategy::Exponential,
        RestartStrategy::Exponential,
        RestartStrategy::FailureRate,
    ]);
    restart.delay = Duration::from_millis(chaos.one_of(&[1, 50]));
    restart.max_delay = Duration::from_secs(1);
    restart.max_restarts = chaos.one_of(&[2, 10]) as u32;
    settings
}
