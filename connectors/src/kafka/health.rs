//! What is thought of a cluster that readers read from, by what one sees of it now and then. Pure.
//!
//! The hard case is what looks like an end and is none. A broker that restarts is away for a while, and a cluster that
//! has just started may say that it knows no such topic: both are waited for. That a topic has been replaced by
//! another of its name is certain, and told at once: what is read of it means something else.
use rdkafka::error::KafkaError;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tidegate_core::{Error, env::Instant};

use super::{client::Kafka, consumer::Shape, native::Described};

/// A cluster that has just started may not yet know of a topic.
const MISSING_FOR: Duration = Duration::from_secs(30);

/// What the cluster looks like to the readers.
#[derive(Debug)]
pub(super) enum Look {
    Well,
    /// It may be right again by itself.
    Down(Error),
    Missing(String),
    Replaced(String),
    Wrong(Error),
}

impl Look {
    pub(super) fn of(kafka: &Kafka, what: &str, error: &KafkaError) -> Self {
        let failed = kafka.failed(&format!("{what} cannot be asked about"), error);
        if failed.kind().is_retriable() { Self::Down(failed) } else { Self::Wrong(failed) }
    }

    pub(super) fn at(topic: &str, read: &[(i32, Option<String>)], found: &Described) -> Self {
        let mut worst = Self::Well;
        for (partition, topic_id) in read {
            let led = found.partitions.iter().find(|(p, _)| p == partition).map(|(_, led)| *led);
            worst = worst.or(match (topic_id, &found.id, led) {
                (Some(read), Some(there), _) if read != there => Self::Replaced(topic.to_owned()),
                (_, _, None) => Self::Missing(format!("{topic}/{partition}")),
                (_, _, Some(false)) => Self::Down(Error::unavailable(format!("{topic}/{partition} has no leader"))),
                (_, _, Some(true)) => Self::Well,
            });
        }
        worst
    }

    /// The worse of two.
    pub(super) fn or(self, other: Self) -> Self {
        let rank = |look: &Self| match look {
            Self::Well => 0,
            Self::Down(_) => 1,
            Self::Missing(_) => 2,
            Self::Wrong(_) => 3,
            Self::Replaced(_) => 4,
        };
        if rank(&self) >= rank(&other) { self } else { other }
    }
}

/// Since when something has been wrong.
#[derive(Debug)]
pub(super) struct Health {
    /// When the cluster last answered, or records came.
    well: Instant,
    /// What is missing, and since when.
    missing: BTreeMap<String, Instant>,
}

impl Health {
    pub(super) fn new(at: Instant) -> Self {
        Self { well: at, missing: BTreeMap::new() }
    }

    /// What the readers are to fail with after a look, if anything.
    pub(super) fn after(&mut self, look: Look, progressed: bool, at: Instant, shape: &Shape) -> Option<Error> {
        let missing: BTreeSet<_> = if let Look::Missing(what) = &look { [what.clone()].into() } else { [].into() };
        self.missing.retain(|what, _| missing.contains(what));
        if progressed || !matches!(look, Look::Down(_)) {
            self.well = at;
        }
        match look {
            Look::Well => None,
            Look::Down(error) => (at.duration_since(self.well) >= shape.give_up_after).then_some(error),
            Look::Missing(what) => {
                let since = *self.missing.entry(what.clone()).or_insert(at);
                let gone = || shape.terms.gap_at_work(&format!("{what} is gone"));
                (at.duration_since(since) >= MISSING_FOR).then(gone)
            }
            Look::Replaced(topic) => Some(shape.terms.gap_at_work(&format!("topic {topic} has been created again"))),
            Look::Wrong(error) => Some(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::start::Terms;
    use tidegate_core::{Kind, env::now};

    fn shape() -> Shape {
        Shape {
            kafka: Kafka::at("a:1"),
            group: None,
            committed_only: true,
            give_up_after: Duration::from_secs(60),
            terms: Terms::default(),
        }
    }

    fn down() -> Look {
        Look::Down(Error::unavailable("down"))
    }

    #[test]
    fn an_outage_is_waited_through_unless_it_lasts() {
        let (begin, shape) = (now(), shape());
        let mut health = Health::new(begin);
        let mut after = |look, progressed, s| health.after(look, progressed, begin + Duration::from_secs(s), &shape);
        assert!(after(down(), false, 50).is_none());
        assert!(after(down(), true, 59).is_none(), "records came");
        assert!(after(down(), false, 118).is_none());
        assert!(after(Look::Well, false, 120).is_none());
        assert!(after(down(), false, 179).is_none());
        assert_eq!(after(down(), false, 180).unwrap().kind(), Kind::Unavailable);
    }

    #[test]
    fn what_is_missing_has_to_be_missing_for_a_while_and_another_topic_is_told_at_once() {
        let (begin, shape) = (now(), shape());
        let mut health = Health::new(begin);
        let mut after = |look, s| health.after(look, false, begin + Duration::from_secs(s), &shape);
        assert!(after(Look::Missing("t".into()), 0).is_none() && after(Look::Missing("t".into()), 29).is_none());
        assert!(after(Look::Well, 30).is_none() && after(Look::Missing("t".into()), 40).is_none());
        assert_eq!(after(Look::Missing("t".into()), 70).unwrap().kind(), Kind::Corrupt);
        assert_eq!(after(Look::Replaced("t".into()), 71).unwrap().kind(), Kind::Corrupt);
    }

    #[test]
    fn a_look_finds_the_worst() {
        let id = |id: &str| Some(id.to_owned());
        let found = Described { id: id("a"), partitions: vec![(0, true), (1, false)] };
        assert!(matches!(Look::at("t", &[(0, id("a"))], &found), Look::Well));
        assert!(matches!(Look::at("t", &[(0, id("a")), (1, id("a"))], &found), Look::Down(_)));
        assert!(matches!(Look::at("t", &[(1, id("a")), (2, None)], &found), Look::Missing(what) if what == "t/2"));
        assert!(matches!(Look::at("t", &[(0, id("b")), (2, None)], &found), Look::Replaced(_)));
    }
}
