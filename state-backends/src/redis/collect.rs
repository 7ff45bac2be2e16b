//! What no kept checkpoint needs: logs behind the oldest of them, marks, and homes of operators that are no longer there.
//!
//! The hard case is a collector that has been overtaken and does not know it: the newer attempt may be about to take
//! back what this one wants to drop. So each key group is asked for its fence in the same script.
use futures::future::BoxFuture;
use std::collections::{BTreeMap, BTreeSet};

use tidegate_checkpoint::{error::Result, ids::Attempt};
use tidegate_core::state::backend::Kept;

use super::{
    NAME,
    keys::{self, Job, Names},
    link::{Link, at_once},
    script::{DROP, TRIM, strange, strings},
};

/// Marks that kept checkpoints have of the key groups of homes.
type Marks = BTreeMap<(String, u16), BTreeSet<String>>;

pub(super) async fn collect(link: &Link, job: &Job, kept: &Kept) -> Result<()> {
    let mut marks = Marks::new();
    for (operator, handles) in kept.states.iter().flat_map(|(_, operators)| operators) {
        for handle in handles.iter().filter(|handle| handle.backend == NAME) {
            let (home, mark) = (keys::home(handle, operator), keys::mark(handle)?);
            for key_group in handle.key_groups.iter() {
                marks.entry((home.to_owned(), key_group)).or_default().insert(mark.to_owned());
            }
        }
    }
    let mut trimming: Vec<BoxFuture<'_, Result<()>>> = Vec::new();
    for ((home, key_group), marks) in &marks {
        trimming.push(Box::pin(trim(link, job.group(home, *key_group), marks, kept.attempt)));
    }
    at_once(trimming).await?;
    let kept_homes: BTreeSet<&str> = marks.keys().map(|(home, _)| home.as_str()).collect();
    let known = link.ask(redis::cmd("SMEMBERS").arg(job.operators())).await?;
    for entry in strings(known)? {
        let (home, start, end) = keys::parse_owned(&entry).ok_or_else(strange)?;
        if kept_homes.contains(home) {
            continue;
        }
        let mut dropped = true;
        for key_group in start..end {
            dropped &= drop_group(link, &job.group(home, key_group), kept.attempt).await?;
        }
        if dropped {
            link.ask(redis::cmd("SREM").arg(job.operators()).arg(&entry)).await?;
        }
    }
    Ok(())
}

/// Only what is behind the newest kept position: what is newer may be about to be kept.
async fn trim(link: &Link, names: Names, kept: &BTreeSet<String>, attempt: Attempt) -> Result<()> {
    let positions = link.ask(redis::cmd("HGETALL").arg(names.positions())).await?;
    let positions: BTreeMap<String, u64> = redis::from_redis_value(positions).map_err(|e| strange().caused_by(e))?;
    let kept = || positions.iter().filter(|(mark, _)| kept.contains(*mark)).map(|(_, at)| *at);
    // None of them is there any more: then it is the next restart that has to be told.
    let (Some(oldest), Some(newest)) = (kept().min(), kept().max()) else { return Ok(()) };
    let floor = floor(link, &names).await?;
    let logs = (floor + 1..=oldest).map(|log| names.log(log));
    let keys: Vec<String> = [names.meta(), names.positions()].into_iter().chain(logs).collect();
    let obsolete: Vec<&String> = positions
        .iter()
        .filter(|(_, at)| **at < newest && !kept().any(|kept| kept == **at))
        .map(|(mark, _)| mark)
        .collect();
    if keys.len() == 2 && obsolete.is_empty() {
        return Ok(());
    }
    link.run(&TRIM, &keys, |c| c.arg(attempt.0).arg(oldest).arg(&obsolete)).await.map(drop)
}

async fn floor(link: &Link, names: &Names) -> Result<u64> {
    let floor = link.ask(redis::cmd("HGET").arg(names.meta()).arg("floor")).await?;
    redis::from_redis_value::<Option<u64>>(floor).map(Option::unwrap_or_default).map_err(|e| strange().caused_by(e))
}

/// Drops a key group, unless this or a newer attempt has opened it.
pub(super) async fn drop_group(link: &Link, names: &Names, attempt: Attempt) -> Result<bool> {
    let meta = link.ask(redis::cmd("HMGET").arg(names.meta()).arg("floor").arg("top")).await?;
    let (floor, top): (Option<u64>, Option<u64>) = redis::from_redis_value(meta).map_err(|e| strange().caused_by(e))?;
    let logs = (floor.unwrap_or(0) + 1..=top.unwrap_or(0)).map(|log| names.log(log));
    let rest = [names.base(), names.order(), names.positions()];
    let keys: Vec<String> = [names.meta()].into_iter().chain(rest).chain(logs).collect();
    Ok(link.run(&DROP, &keys, |c| c.arg(attempt.0)).await?.first().is_some_and(|word| word == "ok"))
}
