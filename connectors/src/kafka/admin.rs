//! What a person asks about a job in Kafka, and does to it on purpose.
//!
//! Nothing here is needed while jobs run. The hard case is doing it to a job that lives: `abort_open` and
//! `forget` fence it, and it ends or begins again; that is said where it matters, and cannot be prevented.
use rdkafka::{
    consumer::{BaseConsumer, Consumer as _},
    producer::{BaseProducer, BaseRecord, Producer as _},
};
use std::time::Duration;
use tidegate_checkpoint::{commit::CommitRecord, ids::JobId};
use tidegate_core::{Error, Result};

use super::{
    client::{CALL, CONTACT, Kafka, Role, blocking},
    commit::{commits_topic, ids, records},
    events::Events,
    producer::PartitionCounts,
    transactions::fence,
};

/// A partition some of whose records readers cannot see, because a transaction is open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldBack {
    /// The partition.
    pub partition: i32,
    /// Readers with `read_committed` come to here.
    pub last_stable: i64,
    /// The end.
    pub high_watermark: i64,
}

/// How far a group has read a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lag {
    /// The partition.
    pub partition: i32,
    /// Where the group goes on; `None`: it has committed nothing.
    pub position: Option<i64>,
    /// The end, as one sees it who reads what is committed.
    pub end: i64,
}

/// The administration of a cluster's jobs: made by [`Kafka::admin`].
#[derive(Clone, Debug)]
pub struct Admin(Kafka);

impl Kafka {
    /// Questions about jobs, and deeds on purpose.
    pub fn admin(&self) -> Admin {
        Admin(self.clone())
    }
}

impl Admin {
    /// A job's commit records, oldest first: those that compaction has left. The last one is what a start goes on from.
    ///
    /// # Errors
    /// When there are none because there is no such topic, or the cluster cannot be asked.
    pub async fn commit_records(&self, job: &str) -> Result<Vec<CommitRecord>> {
        let (kafka, topic) = (self.0.clone(), commits_topic(&JobId::new(job)?));
        let found = blocking(move || {
            let reader: BaseConsumer<Events> =
                kafka.client(&Role::Consumer { group: "tidegate", committed_only: true })?;
            let failed = |e| kafka.failed(&format!("topic {topic:?} cannot be read"), &e);
            let (low, _) = reader.fetch_watermarks(&topic, 0, CONTACT).map_err(failed)?;
            records(&reader, &topic, low).map(|found| (topic.clone(), found)).map_err(failed)
        });
        let (topic, found) = found.await?;
        // What is behind a job that was forgotten on purpose is another one.
        let begun = found.iter().rposition(Option::is_none).map_or(0, |at| at + 1);
        found[begun..].iter().flatten().map(|bytes| CommitRecord::decode(&topic, bytes)).collect()
    }

    /// The partitions of a topic in which an open transaction holds readers back.
    ///
    /// # Errors
    /// When there is no such topic, or the cluster cannot be asked.
    pub async fn held_back(&self, topic: &str) -> Result<Vec<HeldBack>> {
        let both = self.ends(topic).await?;
        let held = both.into_iter().filter(|(_, stable, high)| stable < high);
        Ok(held
            .map(|(partition, last_stable, high_watermark)| HeldBack { partition, last_stable, high_watermark })
            .collect())
    }

    /// Ends a job's transactions that are still open: for one that has died and is not to be started again. It fences
    /// the job: one that lives fails its attempt, and goes on from its last checkpoint.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or does not allow it.
    pub async fn abort_open(&self, job: &str) -> Result<()> {
        let named = self.commit_records(job).await?.pop().map(|record| record.transactional_ids);
        for id in named.unwrap_or_else(|| ids(job).to_vec()) {
            fence(&self.0, &id, CALL, &PartitionCounts::default()).await?;
        }
        Ok(())
    }

    /// Makes Kafka forget a job's checkpoints, so that the next start begins with nothing: its positions are reset, on
    /// purpose. Its checkpoint store must be emptied too, or `checkpoint.allow-fresh-start` be set. Its output stays.
    ///
    /// # Errors
    /// When the cluster cannot be asked, or does not allow it.
    pub async fn forget(&self, job: &str) -> Result<()> {
        let topic = commits_topic(&JobId::new(job)?);
        let [id, other] = ids(job);
        fence(&self.0, &other, CALL, &PartitionCounts::default()).await?;
        let producer = fence(&self.0, &id, CALL, &PartitionCounts::default()).await?;
        let (key, what) = (job.to_owned(), "the job cannot be forgotten");
        producer.clone().learn(&topic).await?;
        producer
            .clone()
            .call(what, move |client, _| {
                client.begin_transaction()?;
                let tombstone = BaseRecord::<_, [u8]>::to(&topic).partition(0).key(key.as_bytes());
                client.send(tombstone).map_err(|(error, _)| error)
            })
            .await?;
        producer.call(what, BaseProducer::commit_transaction).await
    }

    /// How far a group is behind, by partition of a topic.
    ///
    /// # Errors
    /// When there is no such topic, or the cluster cannot be asked.
    pub async fn lag(&self, topic: &str, group: &str) -> Result<Vec<Lag>> {
        let ends = self.ends(topic).await?;
        let (kafka, topic, group) = (self.0.clone(), topic.to_owned(), group.to_owned());
        blocking(move || {
            let failed = |e| kafka.failed(&format!("the positions of group {group:?} cannot be read"), &e);
            let reader: BaseConsumer<Events> = kafka.client(&Role::Consumer { group: &group, committed_only: true })?;
            let mut asked = rdkafka::TopicPartitionList::new();
            for (partition, ..) in &ends {
                asked.add_partition(&topic, *partition);
            }
            let committed = reader.committed_offsets(asked, CALL).map_err(failed)?;
            let position = |partition| match committed.find_partition(&topic, partition)?.offset() {
                rdkafka::Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            let lag = |&(partition, end, _): &(i32, i64, i64)| Lag { partition, position: position(partition), end };
            Ok(ends.iter().map(lag).collect())
        })
        .await
    }

    /// Partition, last stable offset and high watermark.
    async fn ends(&self, topic: &str) -> Result<Vec<(i32, i64, i64)>> {
        let (kafka, topic) = (self.0.clone(), topic.to_owned());
        blocking(move || {
            let failed = |e| kafka.failed(&format!("topic {topic:?} cannot be asked about"), &e);
            let all: BaseConsumer<Events> = kafka.client(&Role::Admin)?;
            let committed: BaseConsumer<Events> =
                kafka.client(&Role::Consumer { group: "tidegate", committed_only: true })?;
            let metadata = kafka.contact(&all, |limit| all.fetch_metadata(Some(&topic), limit))?;
            let partitions: Vec<i32> = metadata
                .topics()
                .iter()
                .flat_map(rdkafka::metadata::MetadataTopic::partitions)
                .map(rdkafka::metadata::MetadataPartition::id)
                .collect();
            if partitions.is_empty() {
                return Err(Error::config(format!("Kafka has no topic {topic:?}")).hint("mend its name"));
            }
            let limit = Duration::from_secs(30);
            let mut ends = Vec::new();
            for partition in partitions {
                let (_, stable) = committed.fetch_watermarks(&topic, partition, limit).map_err(failed)?;
                let (_, high) = all.fetch_watermarks(&topic, partition, limit).map_err(failed)?;
                ends.push((partition, stable, high));
            }
            Ok(ends)
        })
        .await
    }
}
