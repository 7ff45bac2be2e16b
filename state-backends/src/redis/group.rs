//! One key group in Redis, as its owner sees it: the steps that change it, one after the other.
//!
//! Its history is a row of logs, numbered from 1. A log has what fields had before it, so that whoever applies the logs
//! behind a position, the newest first, is back at it; a snapshot is no more than a mark at the end of a log. Only the
//! last log may be unfinished.
//!
//! To come back to a mark has two parts. What the last log had not finished is taken back, and that log deleted as it
//! empties. Then, if the mark is not at the end now, finished logs are taken back by a *new* log: they stay, and so do
//! the marks at their ends, since the newer checkpoint that they belong to may be asked for tomorrow. Either can be
//! interrupted anywhere: the next attempt finds an unfinished log, and takes it back.
//!
//! To begin from nothing is to delete everything, with a log, as any other range.
use bytes::Bytes;
use std::{collections::BTreeMap, sync::Arc};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Attempt,
};

use super::{
    keys::Names,
    link::Link,
    script::{OPEN, POP, RANGE, REVERT, SEAL, Script, WRITE, number},
};

/// Fields that a script changes: some milliseconds, in which nobody else is served.
pub(super) const FIELDS: usize = 1000;

/// See the module.
pub(super) struct Group {
    link: Arc<Link>,
    owner: Arc<str>,
    key_group: u16,
    names: Names,
    /// The last step.
    seq: u64,
    /// The log that is written.
    log: u64,
}

impl Group {
    /// Takes it from whoever has it, and brings it to a mark; `None`: to nothing.
    pub async fn open(
        link: Arc<Link>,
        owner: Arc<str>,
        attempt: Attempt,
        (key_group, names): (u16, Names),
        mark: Option<&str>,
    ) -> Result<Self> {
        let keys = [names.meta(), names.positions()];
        let words = link.run(&OPEN, &keys, |c| c.arg(attempt.0).arg(&*owner).arg(mark.unwrap_or_default())).await?;
        let mut group = Self { link, owner, key_group, names, seq: 0, log: 0 };
        match words.first().map(String::as_str) {
            Some("ok") => {}
            Some("gone") => return Err(group.emptied()),
            Some("fenced") => return Err(group.taken(&words)),
            _ => return Err(super::script::strange()),
        }
        group.seq = number(&words, 1)?;
        let mut top = number(&words, 2)?;
        if words.get(3).is_some_and(|open| open == "1") {
            group.log = top;
            while group.step(&POP, &[], |c| c.arg(FIELDS)).await?.get(1).is_none_or(|left| left != "0") {}
            top -= 1;
        }
        group.log = top + 1;
        match (mark, words.get(4).and_then(|at| at.parse::<u64>().ok())) {
            (None, _) => group.clear(b"-", b"+").await?,
            (Some(mark), Some(at)) if at <= top => group.back_to(mark, at, top).await?,
            (Some(_), _) => return Err(group.behind()),
        }
        Ok(group)
    }

    async fn back_to(&mut self, mark: &str, at: u64, top: u64) -> Result<()> {
        for log in (at + 1..=top).rev() {
            let mut cursor = String::from("0");
            loop {
                let log = [self.names.log(log)];
                let words = self.step(&REVERT, &log, |c| c.arg(&cursor).arg(FIELDS)).await?;
                cursor = words.into_iter().nth(1).ok_or_else(super::script::strange)?;
                if cursor == "0" {
                    break;
                }
            }
        }
        if at < top { self.seal(mark).await } else { Ok(()) }
    }

    /// Gives fields other values, or none; no more than [`FIELDS`] of them.
    pub async fn write(&mut self, changes: &BTreeMap<Bytes, Option<Bytes>>) -> Result<()> {
        let puts = || changes.iter().filter_map(|(field, value)| Some((field, value.as_ref()?)));
        let gone = || changes.iter().filter(|(_, value)| value.is_none()).map(|(field, _)| field);
        self.step(&WRITE, &[], |c| {
            c.arg(puts().count());
            for (field, value) in puts() {
                c.arg(&field[..]).arg(&value[..]);
            }
            for field in gone() {
                c.arg(&field[..]);
            }
            c
        })
        .await
        .map(drop)
    }

    /// Deletes a range, in pieces; its ends as ZRANGEBYLEX has them.
    pub async fn clear(&mut self, start: &[u8], end: &[u8]) -> Result<()> {
        loop {
            let words = self.step(&RANGE, &[], |c| c.arg(start).arg(end).arg(FIELDS)).await?;
            if number(&words, 1)? < FIELDS as u64 {
                return Ok(());
            }
        }
    }

    /// Ends the log, and marks its end. Also where nothing has been written: that all is still there is found out here.
    pub async fn seal(&mut self, mark: &str) -> Result<()> {
        let positions = [self.names.positions()];
        self.step(&SEAL, &positions, |c| c.arg(mark)).await?;
        self.log += 1;
        Ok(())
    }

    async fn step(
        &mut self,
        script: &Script,
        more: &[String],
        fill: impl Fn(&mut redis::Cmd) -> &mut redis::Cmd,
    ) -> Result<Vec<String>> {
        let mut keys = vec![self.names.meta(), self.names.base(), self.names.order(), self.names.log(self.log)];
        keys.extend_from_slice(more);
        let seq = self.seq + 1;
        let words = self
            .link
            .run(script, &keys, |c| {
                c.arg(&*self.owner).arg(seq).arg(self.log);
                fill(c)
            })
            .await?;
        match words.first().map(String::as_str) {
            Some("ok") => {}
            Some("gone" | "lost") => return Err(lost(self.link.place(), self.key_group)),
            Some("fenced") => return Err(self.taken(&words)),
            _ => return Err(super::script::strange()),
        }
        self.seq = seq;
        Ok(words)
    }

    /// Whether the job has been taken over is found out above, by its claims. If none is newer, it is a copy of the
    /// checkpoint store that goes on with the same state, and no new start would help.
    fn taken(&self, words: &[String]) -> Error {
        let theirs = words.get(1).and_then(|owner| owner.split('-').next()).unwrap_or("?");
        Error::config(format!(
            "its state in Redis at {} has been taken over by attempt {theirs}",
            self.link.place()
        ))
        .hint(
            "if that is no start of this very job, it goes on from a copy of the checkpoint store: two copies cannot share \
             one Redis",
        )
    }

    fn emptied(&self) -> Error {
        self.unusable("has nothing", "it has been emptied, or is another one")
    }

    fn behind(&self) -> Error {
        self.unusable("has no longer, or not yet, the state of this checkpoint", "it has lost what it had confirmed")
    }

    fn unusable(&self, what: &str, why: &str) -> Error {
        Error::corrupt(format!("Redis at {} {what} for key group {}: {why}", self.link.place(), self.key_group)).hint(
            "bring the server's data back; or go on from an older retained checkpoint with checkpoint.from, whose state \
             may still be there; or begin from nothing, with an empty checkpoint.store",
        )
    }
}

/// The next attempt finds out whether the last checkpoint is still there.
pub(super) fn lost(place: &str, key_group: u16) -> Error {
    Error::unavailable(format!(
        "Redis at {place} has lost what it had confirmed for key group {key_group}: emptied, restarted or failed over"
    ))
    .hint("set appendonly yes and appendfsync always there; a failover may lose what its replica had not got")
}

#[cfg(test)]
mod tests {
    use super::{super::keys::Job, *};
    use tidegate_core::settings::RedisSettings;
    use tidegate_testbed::{
        redis::{Options, Redis},
        without,
    };

    /// A packet that has lain in the network while its step was made again, and others after it.
    #[tokio::test]
    async fn a_step_that_comes_late_changes_nothing() {
        if without::left_out("redis") {
            return;
        }
        let server = Redis::start(&Options::default()).unwrap();
        let settings = RedisSettings { url: server.url().as_str().into(), ..RedisSettings::default() };
        let link = Arc::new(Link::open(&settings).await.unwrap());
        let names = Job { name: "job".into(), lineage: "lineage".into() }.group("operator", 0);
        let mut group = Group::open(link, "1-owner".into(), Attempt(1), (0, names.clone()), None).await.unwrap();
        let changes =
            |value: &'static str| [(Bytes::from_static(b"key"), Some(Bytes::from_static(value.as_bytes())))].into();
        let value = || server.ask(&["HGET", &names.base(), "key"]).unwrap().text().unwrap();
        group.write(&changes("one")).await.unwrap();
        // Made again before the next one it is the same.
        group.seq -= 1;
        group.write(&changes("one")).await.unwrap();
        group.write(&changes("two")).await.unwrap();
        group.seal("mark").await.unwrap();
        group.write(&changes("three")).await.unwrap();
        let now = (group.seq, group.log);
        for back in 2..=now.0 {
            for log in 1..=now.1 {
                (group.seq, group.log) = (now.0 - back, log);
                assert!(group.write(&changes("late")).await.is_err());
                assert!(group.clear(b"-", b"+").await.is_err());
                assert!(group.seal("late").await.is_err());
                assert!(group.step(&POP, &[], |c| c.arg(FIELDS)).await.is_err());
                assert_eq!(value(), "three");
            }
        }
        (group.seq, group.log) = now;
        while group.step(&POP, &[], |c| c.arg(FIELDS)).await.unwrap()[1] != "0" {}
        assert_eq!(value(), "two");
    }
}
