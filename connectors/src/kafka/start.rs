//! Where a partition is begun, and where it ends: decided here, never by librdkafka's `auto.offset.reset`.
//!
//! A reader is told one offset to begin with, and that is checked against what the partition has. The hard case
//! is a position that is not there any more: retention has deleted it, or the topic is another one of the same name.
//! Going on with whatever there is would lose records without a word, so it is an error, unless [`Gap::Earliest`] says
//! otherwise. What cannot be known is whether an offset that is there holds what it held: brokers before 2.8 have no
//! topic ids, and a partition that lost its tail in an unclean election has grown again from there.
use tidegate_core::{Error, Kind, Result};

use super::place::{Offsets, Place, Position};

/// Where a job begins to read the partitions that are there then. Those that come later are read from their
/// beginning, and one that a checkpoint knows from where it says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// At the first record that there is.
    #[default]
    Earliest,
    /// At the end: only what comes from now on.
    Latest,
    /// At the first record with this timestamp or a later one, in milliseconds since 1970-01-01 UTC; where there is
    /// none, at the end.
    Timestamp(i64),
    /// Where the group that the source names has committed; where it has not, at the first record.
    Group,
    /// Where the group that the source names has committed; where it has not, at the end.
    GroupOrLatest,
    /// Where the group that the source names has committed; where it has not, the job fails.
    GroupOrFail,
    /// At these offsets, see [`offsets`](super::offsets); partitions that are not named, at their first record.
    Offsets(Offsets),
}

/// What becomes of a position that is not there any more: deleted by the topic's retention, or in a topic that has
/// been deleted, or deleted and created again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gap {
    /// The job fails, and says so: records may be lost.
    #[default]
    Fail,
    /// What is there is read from its first record on; a topic that is gone has nothing.
    Earliest,
}

/// Where a source ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Until {
    #[default]
    Never,
    /// At what was there when the job began.
    Now,
    /// At these offsets; other partitions are not read.
    Offsets(Offsets),
}

/// What there is to know of a partition that only the cluster knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    /// Where readers of this source come to an end: before open transactions, unless it reads those too.
    End,
    /// The first offset at a time; none: everything is older.
    Time(i64),
    /// What the group has committed, if it has.
    Group,
}

/// What a partition is, now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub low: i64,
    /// The high watermark: also what is in open transactions is before it.
    pub high: i64,
    pub topic_id: Option<String>,
}

/// How a split is opened.
#[derive(Clone, Debug)]
pub(super) enum Opening {
    /// As the job begins.
    Job,
    /// It was not there when the job began.
    New,
    Saved(Position),
    /// The job had ended at this position, and is run again.
    Again(Position),
}

/// What is decided here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    pub start: Start,
    pub until: Until,
    pub gap: Gap,
}

impl Terms {
    /// Where to read on, and until where; `ask` asks the cluster.
    pub(super) fn position(
        &self,
        place: &Place,
        facts: &Facts,
        opening: Opening,
        ask: &mut dyn FnMut(Ask) -> Result<Option<i64>>,
    ) -> Result<Position> {
        let is_saved = matches!(opening, Opening::Saved(_));
        let (offset, end) = match opening {
            Opening::Job => (self.begin(place, facts, ask)?, None),
            Opening::New => (facts.low, None),
            Opening::Saved(saved) | Opening::Again(saved) if saved.is_of_another(facts) => {
                self.gap(&format!("topic {} is not the one that was read: it has been created again", place.topic))?;
                (facts.low, None)
            }
            Opening::Saved(saved) => (saved.offset, saved.end),
            Opening::Again(saved) => (saved.offset, None),
        };
        let end = match &self.until {
            Until::Never => None,
            Until::Offsets(offsets) => Some(place.of(offsets).unwrap_or(0)),
            // That of a partition that has come since is where it was first seen: between two runs it may have got records,
            // and a run that passed them over would have ended without them.
            Until::Now => match end {
                Some(end) => Some(end),
                None => Some(ask(Ask::End)?.unwrap_or(facts.high)),
            },
        };
        let position = Position { offset, end, topic_id: facts.topic_id.clone() };
        // What has been read to its end may vanish.
        if (is_saved && position.has_ended()) || (facts.low..=facts.high).contains(&offset) {
            return Ok(position);
        }
        self.gap(&format!(
            "offset {offset} of {place} is not there: it has those from {} to {}",
            facts.low, facts.high
        ))?;
        Ok(Position { offset: facts.low, ..position })
    }

    fn begin(&self, place: &Place, facts: &Facts, ask: &mut dyn FnMut(Ask) -> Result<Option<i64>>) -> Result<i64> {
        let latest = |ask: &mut dyn FnMut(Ask) -> Result<Option<i64>>| Ok(ask(Ask::End)?.unwrap_or(facts.high));
        let found = match &self.start {
            Start::Earliest => None,
            Start::Latest => Some(latest(ask)?),
            Start::Timestamp(ms) => Some(match ask(Ask::Time(*ms))? {
                Some(offset) => offset,
                None => latest(ask)?,
            }),
            Start::Offsets(offsets) => place.of(offsets),
            Start::Group | Start::GroupOrLatest | Start::GroupOrFail => match (ask(Ask::Group)?, &self.start) {
                (None, Start::GroupOrLatest) => Some(latest(ask)?),
                (None, Start::GroupOrFail) => {
                    return Err(Error::config(format!("the group has committed nothing of {place}"))
                        .hint("check the group's name, or begin at Start::Group or another place"));
                }
                (committed, _) => committed,
            },
        };
        Ok(found.unwrap_or(facts.low))
    }

    /// Whether it is fine that something has vanished.
    ///
    /// # Errors
    /// Where it is not.
    pub(super) fn gap(&self, what: &str) -> Result<()> {
        match self.gap {
            Gap::Fail => Err(lost(what)),
            Gap::Earliest => {
                tracing::warn!(what, "a Kafka source goes on with what there is, as on_gap says");
                Ok(())
            }
        }
    }

    /// As `gap`, for a reader that is at work: it cannot go elsewhere, but the next attempt can.
    pub(super) fn gap_at_work(&self, what: &str) -> Error {
        match self.gap {
            Gap::Fail => lost(what),
            Gap::Earliest => Error::unavailable(format!("{what}; the next attempt goes on with what there is")),
        }
    }
}

fn lost(what: &str) -> Error {
    Error::new(Kind::Corrupt, what)
        .hint("records may be lost; to go on with what there is, say on_gap(Gap::Earliest) on the source")
}

impl Position {
    fn is_of_another(&self, facts: &Facts) -> bool {
        matches!((&self.topic_id, &facts.topic_id), (Some(read), Some(there)) if read != there)
    }

    pub(super) fn has_ended(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::offsets;

    fn facts() -> Facts {
        Facts { low: 10, high: 100, topic_id: Some("a".into()) }
    }
    /// The last stable offset is 90, the group has committed 50, and 60 is at time 6; nothing is later.
    fn cluster(ask: Ask) -> Option<i64> {
        match ask {
            Ask::End => Some(90),
            Ask::Time(ms) => (ms <= 6).then_some(60),
            Ask::Group => Some(50),
        }
    }
    fn at(terms: &Terms, opening: Opening) -> Result<(i64, Option<i64>)> {
        let place = Place { topic: "t".into(), partition: 0 };
        terms.position(&place, &facts(), opening, &mut |what| Ok(cluster(what))).map(|p| (p.offset, p.end))
    }
    fn saved(offset: i64, end: Option<i64>) -> Position {
        Position { offset, end, topic_id: Some("a".into()) }
    }
    fn terms(start: Start, until: Until) -> Terms {
        Terms { start, until, gap: Gap::Fail }
    }

    #[test]
    fn a_job_begins_where_it_is_told() {
        for (start, offset) in [
            (Start::Earliest, 10),
            (Start::Latest, 90),
            (Start::Timestamp(6), 60),
            (Start::Timestamp(7), 90),
            (Start::GroupOrFail, 50),
            (Start::Offsets(offsets([("t", 0, 30)])), 30),
            (Start::Offsets(offsets([("t", 1, 30)])), 10),
        ] {
            assert_eq!(at(&terms(start.clone(), Until::Never), Opening::Job).unwrap(), (offset, None), "{start:?}");
            assert_eq!(at(&terms(start, Until::Never), Opening::New).unwrap(), (10, None));
        }
    }

    #[test]
    fn where_the_group_has_committed_nothing_the_choice_decides() {
        let place = Place { topic: "t".into(), partition: 0 };
        let begin = |start| {
            let mut ask = |ask| if ask == Ask::Group { Ok(None) } else { Ok(cluster(ask)) };
            terms(start, Until::Never).position(&place, &facts(), Opening::Job, &mut ask).map(|p| p.offset)
        };
        assert_eq!((begin(Start::Group).unwrap(), begin(Start::GroupOrLatest).unwrap()), (10, 90));
        assert_eq!(begin(Start::GroupOrFail).unwrap_err().kind(), Kind::Config);
    }

    #[test]
    fn an_end_is_chosen_when_the_job_begins_and_kept_until_it_is_run_again() {
        let now = terms(Start::Earliest, Until::Now);
        assert_eq!(at(&now, Opening::Job).unwrap(), (10, Some(90)));
        assert_eq!(at(&now, Opening::Saved(saved(20, Some(40)))).unwrap(), (20, Some(40)));
        assert_eq!(at(&now, Opening::Saved(saved(20, None))).unwrap(), (20, Some(90)));
        assert_eq!(at(&now, Opening::Again(saved(40, Some(40)))).unwrap(), (40, Some(90)));
        assert_eq!(
            at(&now, Opening::New).unwrap(),
            (10, Some(90)),
            "as far as there is something when it is first seen"
        );
        assert_eq!(at(&terms(Start::Earliest, Until::Never), Opening::Saved(saved(20, Some(40)))).unwrap(), (20, None));
        let given = terms(Start::Earliest, Until::Offsets(offsets([("t", 0, 70)])));
        assert_eq!(at(&given, Opening::Job).unwrap(), (10, Some(70)));
    }

    #[test]
    fn what_has_vanished_is_an_error_unless_it_was_read_to_its_end() {
        let mut terms = terms(Start::Earliest, Until::Never);
        for offset in [9, 101] {
            let error = at(&terms, Opening::Saved(saved(offset, None))).unwrap_err();
            assert!(error.kind() == Kind::Corrupt && error.to_string().contains("on_gap"), "{error}");
        }
        assert!(
            at(&terms, Opening::Saved(saved(10, None))).is_ok() && at(&terms, Opening::Saved(saved(100, None))).is_ok()
        );
        let other = Position { topic_id: Some("b".into()), ..saved(50, None) };
        let error = at(&terms, Opening::Saved(other.clone())).unwrap_err();
        assert!(error.to_string().contains("created again"), "{error}");
        terms.gap = Gap::Earliest;
        assert_eq!(at(&terms, Opening::Saved(saved(9, None))).unwrap(), (10, None));
        assert_eq!(at(&terms, Opening::Saved(other)).unwrap(), (10, None));
        terms = Terms { until: Until::Now, ..Terms::default() };
        assert_eq!(at(&terms, Opening::Saved(saved(5, Some(5)))).unwrap(), (5, Some(5)));
        assert!(at(&terms, Opening::Again(saved(5, Some(5)))).is_err());
    }

    #[test]
    fn a_position_without_an_id_is_believed() {
        let old = Position { topic_id: None, ..saved(50, None) };
        assert_eq!(at(&Terms::default(), Opening::Saved(old)).unwrap(), (50, None));
    }
}
