//! What jobs of the same name have left in Redis.
//!
//! A job that starts from nothing has a new lineage, and so its own keys. What is there of another lineage may belong to
//! a job with another checkpoint store that runs now, or rests until tomorrow; only the owner of that store can tell. So
//! it is told, with the words that remove it, and left alone. But for one case: an earlier start over *this* store that
//! has died before its first checkpoint. Its claim is still there, its lineage is made of that, and nothing can come
//! back to it.
use tidegate_checkpoint::{
    error::Result,
    ids::{Attempt, KeyGroupRange},
    store::lineage,
};
use tidegate_core::state::backend::OpenContext;

use super::{
    collect::drop_group,
    keys::{self, Job},
    link::Link,
    script::{strange, strings},
};

/// Before the first key is written, so that nothing is there that nobody knows.
pub(super) async fn register(link: &Link, job: &Job, home: &str, key_groups: KeyGroupRange) -> Result<()> {
    link.ask(redis::cmd("SADD").arg(job.lineages()).arg(&job.lineage)).await?;
    link.ask(redis::cmd("SADD").arg(job.operators()).arg(keys::owned(home, key_groups))).await.map(drop)
}

/// At a start from nothing. `acts`: nobody else of the attempt does.
pub(super) async fn look_for_others(link: &Link, job: &Job, context: &OpenContext, acts: bool) -> Result<()> {
    if !acts {
        return Ok(());
    }
    let found = strings(link.ask(redis::cmd("SMEMBERS").arg(job.lineages())).await?)?;
    let others: Vec<Job> = found
        .into_iter()
        .filter(|found| *found != job.lineage)
        .map(|lineage| Job { name: job.name.clone(), lineage })
        .collect();
    if others.is_empty() {
        return Ok(());
    }
    let mut ours = Vec::new();
    for attempt in context.store.attempts().await?.into_iter().filter(|attempt| *attempt < context.attempt) {
        // One that a newer attempt has swept away was nobody's to begin with.
        if let Ok(owner) = context.store.claimant(attempt).await {
            ours.push(lineage(&owner));
        }
    }
    for other in others {
        if ours.contains(&other.lineage) {
            remove(link, &other, context.attempt).await?;
        } else {
            tracing::warn!(
                redis = link.place(),
                job = job.name,
                lineage = other.lineage,
                keys = other.pattern(),
                "Redis has state of a job of the same name that is not of this checkpoint store: left alone. If no other \
                 store goes on with it, remove its keys (redis-cli --scan --pattern, then UNLINK)"
            );
        }
    }
    Ok(())
}

async fn remove(link: &Link, job: &Job, attempt: Attempt) -> Result<()> {
    let known = strings(link.ask(redis::cmd("SMEMBERS").arg(job.operators())).await?)?;
    for entry in known {
        let (home, start, end) = keys::parse_owned(&entry).ok_or_else(strange)?;
        for key_group in start..end {
            if !drop_group(link, &job.group(home, key_group), attempt).await? {
                return Ok(());
            }
        }
    }
    link.ask(redis::cmd("UNLINK").arg(job.operators())).await?;
    link.ask(redis::cmd("SREM").arg(job.lineages()).arg(&job.lineage)).await.map(drop)
}
