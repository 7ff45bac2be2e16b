//! What a source asks the cluster. All of it blocks.
//!
//! Two clients are asked, since they see different things: one that reads only what is committed takes the last stable
//! offset for the end of a partition; what is in open transactions is there all the same, and a position in it has not
//! vanished. Topics are described and not looked up as metadata, which could create them, and has no ids.
use rdkafka::{
    TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, RDKafkaErrorCode as Code},
    topic_partition_list::Offset,
};
use std::{collections::BTreeSet, time::Duration};
use tidegate_core::{Error, Result, connect::Split, env::now};

use super::{
    client::{CALL, CONTACT, NAME},
    consumer::{Shape, Shared},
    events::Events,
    native,
    place::{Offsets, Place, is_name, matches},
    start::{Ask, Facts, Until},
};

/// Long enough for an answer.
const GROUP_STEP: Duration = Duration::from_secs(2);

/// What a source reads.
#[derive(Clone, Debug)]
pub(super) enum Topics {
    Named(BTreeSet<String>),
    Matching(String),
}

impl Topics {
    /// # Errors
    /// Where there will never be such a topic: of most names that cannot be, librdkafka says no more than that an
    /// argument is wrong.
    fn check(&self) -> Result<()> {
        let wrong = match self {
            Self::Named(names) => names.iter().find(|name| !is_name(name)),
            Self::Matching(pattern) => Some(pattern).filter(|pattern| !is_name(&pattern.replace('*', "x"))),
        };
        wrong.map_or(Ok(()), |name| Err(Error::config(format!("no topic can have the name {name:?}")).hint(NAME)))
    }
}

/// What a partition is; `None`: it is not there.
pub(super) fn facts(shape: &Shape, shared: &Shared, place: &Place) -> Result<Option<Facts>> {
    let failed = |e: KafkaError| shape.kafka.failed(&format!("{place} cannot be asked about"), &e);
    let mut described =
        native::describe(shared.admin.client(), std::slice::from_ref(&place.topic), CALL).map_err(failed)?;
    let topic = match described.pop() {
        Some(Ok(topic)) => topic,
        None | Some(Err(Code::UnknownTopicOrPartition | Code::UnknownTopic)) => return Ok(None),
        Some(Err(code)) => return Err(failed(KafkaError::MetadataFetch(code))),
    };
    if !topic.partitions.iter().any(|(partition, _)| *partition == place.partition) {
        return Ok(None);
    }
    let (low, high) = shared.admin.fetch_watermarks(&place.topic, place.partition, CALL).map_err(failed)?;
    Ok(Some(Facts { low, high, topic_id: topic.id }))
}

/// What the cluster knows of a partition.
pub(super) fn ask(shape: &Shape, shared: &Shared, place: &Place, what: Ask) -> Result<Option<i64>> {
    let failed = |e: KafkaError| shape.kafka.failed(&format!("{place} cannot be asked about"), &e);
    let one = |offset| {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&place.topic, place.partition, offset).map(|()| list)
    };
    let found = match what {
        // As this client sees it: the last stable offset, where it reads what is committed.
        Ask::End => {
            let (_, end) = shared.consumer.fetch_watermarks(&place.topic, place.partition, CALL).map_err(failed)?;
            return Ok(Some(end));
        }
        Ask::Time(ms) => one(Offset::Offset(ms)).and_then(|list| shared.consumer.offsets_for_times(list, CALL)),
        Ask::Group if shape.group.is_none() => {
            return Err(Error::config("the source begins where its group has committed, and has no group")
                .hint("say group(name) on the source"));
        }
        Ask::Group => one(Offset::Invalid).and_then(|list| committed(shared, &list)),
    };
    if let (Err(_), Some(fault)) = (&found, shared.fault()) {
        return Err(fault);
    }
    let found = found.map_err(failed)?;
    let element = found.find_partition(&place.topic, place.partition);
    let element = element.ok_or_else(|| Error::internal(format!("no answer about {place}")))?;
    element.error().map_err(failed)?;
    Ok(match element.offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    })
}

/// What the group has committed. A group that is forbidden has no coordinator: in steps, so that it is not waited for.
fn committed(shared: &Shared, list: &TopicPartitionList) -> Result<TopicPartitionList, KafkaError> {
    let deadline = now() + CALL;
    loop {
        let found = shared.consumer.committed_offsets(list.clone(), GROUP_STEP);
        if found.is_ok() || shared.fault().is_some() || now() > deadline {
            return found;
        }
    }
}

/// The partitions that there are.
pub(super) fn list(topics: &Topics, shape: &Shape, admin: &BaseConsumer<Events>) -> Result<Vec<Split>> {
    let until = match &shape.terms.until {
        Until::Offsets(offsets) => Some(offsets),
        Until::Never | Until::Now => None,
    };
    let mut splits = Vec::new();
    for (topic, partitions) in partitions(topics, shape, admin)? {
        for partition in partitions {
            let place = Place { topic: topic.clone(), partition };
            let end = until.map(|offsets| place.of(offsets));
            if end == Some(None) {
                continue;
            }
            let mut split = Split::new(place.to_string());
            if shape.terms.until != Until::Never {
                let marks = admin.fetch_watermarks(&topic, partition, CONTACT);
                let (low, high) =
                    marks.map_err(|e| shape.kafka.failed(&format!("{place} cannot be asked about"), &e))?;
                split.length = Some(end.flatten().unwrap_or(high).saturating_sub(low).max(0) as u64);
            }
            splits.push(split);
        }
    }
    for (topic, partition) in until.into_iter().flat_map(Offsets::keys) {
        let id = Place { topic: topic.clone(), partition: *partition }.to_string();
        if !splits.iter().any(|split| split.id == id) {
            return Err(Error::config(format!(
                "the source is to read {id} up to an offset, and has no such partition"
            ))
            .hint("mend the offsets that were given to until()"));
        }
    }
    Ok(splits)
}

fn partitions(topics: &Topics, shape: &Shape, admin: &BaseConsumer<Events>) -> Result<Vec<(String, Vec<i32>)>> {
    topics.check()?;
    let names = match topics {
        Topics::Named(names) => names.iter().cloned().collect(),
        Topics::Matching(pattern) => {
            let all = shape.kafka.contact(admin, |limit| admin.fetch_metadata(None, limit))?;
            let mut names: Vec<_> = all.topics().iter().map(|t| t.name().to_owned()).collect();
            names.retain(|name| matches(pattern, name));
            names.sort();
            if names.is_empty() && shape.terms.until != Until::Never {
                return Err(Error::config(format!("Kafka has no topic that is like {pattern:?}")).hint(
                    "mend the pattern, in which only * has a meaning; a source that does not end waits for topics",
                ));
            }
            names
        }
    };
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let described = shape.kafka.contact(admin, |limit| native::describe(admin.client(), &names, limit))?;
    let mut found = Vec::new();
    for (name, topic) in names.into_iter().zip(described) {
        match topic {
            Ok(topic) => found.push((name, topic.partitions.into_iter().map(|(partition, _)| partition).collect())),
            Err(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::InvalidTopic) => {
                // One that was listed has been deleted since.
                if matches!(topics, Topics::Named(_)) {
                    return Err(Error::config(format!("Kafka has no topic {name:?} at {:?}", shape.kafka.servers()))
                        .hint("create it, or mend its name; source_matching(name) waits for it"));
                }
            }
            Err(code) => {
                let error = KafkaError::MetadataFetch(code);
                return Err(shape.kafka.failed(&format!("topic {name} cannot be asked about"), &error));
            }
        }
    }
    Ok(found)
}
