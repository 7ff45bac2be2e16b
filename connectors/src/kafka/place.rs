//! The names of places in Kafka: a split's id, the position that a checkpoint keeps of it, a pattern of topics.
//!
//! Both are in checkpoints, so they are formats. The hard case is a topic that has been deleted and created again
//! under its old name: every position in it looks right and means something else. Therefore a position has the
//! topic's id, which Kafka gives to each topic once.
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, fmt};
use tidegate_core::{Error, Result};

/// Offsets by topic and partition; see [`offsets`].
pub type Offsets = BTreeMap<(String, i32), i64>;

/// A list of topic, partition and offset, as [`Start::Offsets`](super::Start) and
/// [`KafkaSource::until`](super::KafkaSource::until) take it.
///
/// ```
/// use tidegate_connectors::kafka::{Start, offsets};
/// let start = Start::Offsets(offsets([("orders", 0, 17), ("orders", 1, 4)]));
/// # let _ = start;
/// ```
pub fn offsets<'a>(list: impl IntoIterator<Item = (&'a str, i32, i64)>) -> Offsets {
    list.into_iter().map(|(topic, partition, offset)| ((topic.to_owned(), partition), offset)).collect()
}

/// A partition of a topic. As text, and as a split's id: `orders/3`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub topic: String,
    pub partition: i32,
}

impl Place {
    pub(super) fn parse(id: &str) -> Result<Self> {
        let parsed = id.rsplit_once('/').and_then(|(topic, partition)| {
            let partition: i32 = partition.parse().ok().filter(|p| *p >= 0)?;
            let place = Self { topic: topic.to_owned(), partition };
            // One text for one partition, so that no split is there twice: neither "t/+3" nor "t/03".
            (place.to_string() == id && !topic.is_empty()).then_some(place)
        });
        parsed.ok_or_else(|| {
            Error::corrupt(format!("{id:?} is no partition of a Kafka topic"))
                .hint("the checkpoint is of another source of this name: rename one of them")
        })
    }

    pub(super) fn of(&self, offsets: &Offsets) -> Option<i64> {
        offsets.get(&(self.topic.clone(), self.partition)).copied()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.partition)
    }
}

/// Where a reader stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// Everything before it has been read.
    pub offset: i64,
    /// Where it ends, if it does: chosen when the job began, and kept over restarts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<i64>,
    /// Kafka's id of the topic; brokers before 2.8 have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<String>,
}

impl Position {
    pub(super) fn parse(value: Value) -> Result<Self> {
        serde_json::from_value(value.clone())
            .map_err(|e| Error::corrupt(format!("{value} is no position in a Kafka partition")).caused_by(e))
    }

    /// Never fails: numbers and a text. `Null` would be refused by `parse`.
    pub(super) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Whether a topic can have a name, as Kafka has it.
pub(super) fn is_name(name: &str) -> bool {
    let is_legal = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    (1..=249).contains(&name.len()) && !matches!(name, "." | "..") && name.bytes().all(is_legal)
}

/// Whether a name is as a pattern says, in which each `*` stands for any text. Kafka's own topics (`__…`) only where
/// the pattern says so.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if name.starts_with("__") && !pattern.starts_with("__") {
        return false;
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.split_once(part) {
            Some((_, behind)) => rest = behind,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_id_of_a_split_is_the_only_text_of_its_partition() {
        for id in ["orders/0", "a/b/17", "../2147483647"] {
            assert_eq!(Place::parse(id).unwrap().to_string(), id);
        }
        for id in ["orders", "orders/", "orders/-1", "orders/+1", "orders/01", "/1", "orders/2147483648", "a.csv"] {
            assert_eq!(Place::parse(id).unwrap_err().kind(), tidegate_core::Kind::Corrupt, "{id}");
        }
    }

    #[test]
    fn the_format_of_a_position_is_pinned() {
        let whole = Position { offset: 7, end: Some(9), topic_id: Some("uGa3y2CyR0GDuLW8oXhmDg".into()) };
        let value = json!({ "offset": 7, "end": 9, "topic_id": "uGa3y2CyR0GDuLW8oXhmDg" });
        assert_eq!((whole.to_value(), Position::parse(value).unwrap()), (whole.to_value(), whole));
        let least = Position { offset: 7, end: None, topic_id: None };
        assert_eq!(
            (least.to_value(), Position::parse(json!({ "offset": 7 })).unwrap()),
            (json!({ "offset": 7 }), least)
        );
        for bad in [json!(null), json!({}), json!({ "offset": "7" }), json!({ "offset": 0.5 })] {
            assert!(Position::parse(bad).is_err());
        }
    }

    #[test]
    fn a_topic_can_have_a_name_that_kafka_allows() {
        for name in ["a", "...", "__x", "A-1.b_c", &"x".repeat(249)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", ".", "..", "a b", "a/b", "a*", "\u{fc}", "a\0b", &"x".repeat(250)] {
            assert!(!is_name(name), "{name}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name) in
            [("orders", "orders"), ("o*", "o"), ("*", "x"), ("*-v*.eu", "a-v2.eu"), ("a*a", "aa"), ("__*", "__x")]
        {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("orders", "orders2"), ("o*", "x"), ("a*a", "a"), ("*-v*.eu", "a-v2.us"), ("*", "__x"), ("a*b*c", "acb")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
