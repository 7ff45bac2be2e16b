//! What a start finds, and what it does about it: pure.
//!
//! The commit records decide. A manifest without a commit record is normal: the attempt died between the
//! two, and its output is not visible. The hard case is that *no* record is there although checkpoints
//! have been made: then the records were lost, output may be visible, and starting from nothing would
//! double it. That is refused, with the setting that allows it.
//!
//! Where the records are in the output's transaction, the store has a copy of each, written after it. A copy that
//! is newer than every record says that the records were lost, or are another cluster's; and a job that has left
//! its transactions behind cannot know what the last one held. Both are refused too.
use std::collections::BTreeSet;

use crate::{
    commit::CommitRecord,
    error::{Error, Result},
    evolve::{Changes, adapted},
    ids::{Attempt, Epoch, JobId, OperatorId},
    manifest::{self, Manifest},
};

/// What is in the store.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Committed epochs, as the store has them.
    pub commits: BTreeSet<Epoch>,
    /// The newest commit record, wherever the commit point keeps it.
    pub latest: Option<CommitRecord>,
    /// The newest one in the store: a copy, where the commit point is transactional.
    pub copy: Option<CommitRecord>,
    /// Whether the commit point is transactional.
    pub transactional: bool,
    /// Prepared manifests: epoch and owner.
    pub manifests: BTreeSet<(Epoch, Attempt)>,
    /// Where there is no commit record at all: a checkpoint that one of the manifests goes on from.
    pub parent: Option<Epoch>,
}

/// What the user wants.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// This checkpoint instead of the latest.
    pub from: Option<Epoch>,
    /// Begin with nothing although manifests are there.
    pub allow_fresh: bool,
}

/// Where to begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// With nothing.
    Fresh {
        /// The first epoch to be made.
        next: Epoch,
    },
    /// With the committed checkpoint `epoch`.
    Resume {
        /// The checkpoint.
        epoch: Epoch,
        /// The first epoch to be made: greater than any ever seen, so that none is used twice.
        next: Epoch,
    },
}

impl Observed {
    /// The record of the newest checkpoint. A job may have got its transactional sink after that.
    pub fn newest(&self) -> Option<&CommitRecord> {
        let copy = self.copy.as_ref().filter(|copy| copy.transactional_ids.is_empty());
        self.latest.iter().chain(copy).max_by_key(|record| record.epoch)
    }

    /// Whether a checkpoint may have been committed that nothing here knows of.
    fn doubt(&self) -> Option<Error> {
        let copy = self.copy.as_ref().filter(|copy| !copy.transactional_ids.is_empty())?;
        if !self.transactional {
            let left =
                format!("checkpoint {} was committed in a transaction of a sink that the job has no more", copy.epoch);
            return Some(Error::config(left).hint(format!(
                "give the job its transactional sink back; or set checkpoint.from = {} to go on from there, where you know that it was the last",
                copy.epoch
            )));
        }
        let newest = self.latest.as_ref().map(|r| r.epoch);
        (newest < Some(copy.epoch)).then(|| {
            let found = newest.map_or_else(|| "there is none".to_owned(), |e| format!("the newest is that of checkpoint {e}"));
            Error::corrupt(format!(
                "checkpoint {} has been committed, but its commit record is gone: {found}. Output may be visible already",
                copy.epoch
            ))
            .hint(format!(
                "connect to the cluster that has the job's output, or restore its commit records; or set checkpoint.from = {} to go on from there, or checkpoint.allow-fresh-start = true to begin with nothing",
                copy.epoch
            ))
        })
    }
}

/// Decides where to begin.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind): the wanted checkpoint does not exist, or the job has lost its
/// transactional sink. [`Kind::Corrupt`](crate::error::Kind): the commit records are gone.
pub fn plan(observed: &Observed, wanted: &Wanted) -> Result<Plan> {
    let newest = observed.newest().map(|r| r.epoch);
    let seen = observed.manifests.iter().map(|(e, _)| *e).chain(observed.commits.iter().copied()).chain(newest).max();
    let next = seen.map_or(Epoch(1), Epoch::next);
    if let Some(from) = wanted.from {
        let there = observed.commits.contains(&from) || newest == Some(from);
        return if there {
            Ok(Plan::Resume { epoch: from, next })
        } else {
            let known: Vec<_> = observed.commits.iter().map(ToString::to_string).collect();
            let known =
                if known.is_empty() { "there is none".into() } else { format!("there are {}", known.join(", ")) };
            Err(Error::config(format!("there is no committed checkpoint {from}")).hint(known))
        };
    }
    if let Some(doubt) = observed.doubt() {
        return if wanted.allow_fresh && newest.is_none() { Ok(Plan::Fresh { next }) } else { Err(doubt) };
    }
    if let Some(epoch) = newest {
        return Ok(Plan::Resume { epoch, next });
    }
    // Any number of manifests can have been prepared without one being committed. But one that goes on from an
    // earlier checkpoint was prepared after the commit of that.
    if let Some(parent) = observed.parent
        && !wanted.allow_fresh
    {
        return Err(Error::corrupt(format!(
            "checkpoint {parent} has been committed, but there is no commit record: the records have been lost, and output may be visible already"
        ))
        .hint("restore the folder commits, or set checkpoint.allow-fresh-start = true to begin with nothing"));
    }
    Ok(Plan::Fresh { next })
}

/// What the job is that wants to start from a manifest.
#[derive(Clone, Debug)]
pub struct Program<'a> {
    /// Its name.
    pub job: &'a JobId,
    /// Its key groups.
    pub key_groups: u16,
    /// Its sources.
    pub sources: &'a BTreeSet<OperatorId>,
    /// Its operators with keyed state.
    pub keyed: &'a BTreeSet<OperatorId>,
    /// Its sinks.
    pub sinks: &'a BTreeSet<OperatorId>,
    /// What it says of operators that it had.
    pub changes: &'a Changes,
}

/// The checkpoint as the program goes on from it: under the names of today.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind) or [`Kind::Corrupt`](crate::error::Kind), saying what differs.
pub fn adopt(manifest: &Manifest, program: &Program<'_>) -> Result<Manifest> {
    if &manifest.job != program.job {
        return Err(Error::corrupt(format!(
            "checkpoint {} belongs to job {}, not to {}",
            manifest.epoch, manifest.job, program.job
        ))
        .hint("point checkpoint.store at this job's own checkpoints"));
    }
    if manifest.hash != manifest::HASH {
        return Err(Error::corrupt(format!(
            "keys were assigned to key groups by {}, this tidegate knows {}",
            manifest.hash,
            manifest::HASH
        )));
    }
    if manifest.key_groups != program.key_groups {
        return Err(Error::config(format!(
            "the job was begun with key-groups = {}, and now has {}",
            manifest.key_groups, program.key_groups
        ))
        .hint(format!("set key-groups = {}: it cannot be changed", manifest.key_groups)));
    }
    adapted(manifest, program)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::sample;
    use proptest::prelude::*;

    fn observed(commits: &[u64], manifests: &[(u64, u64)]) -> Observed {
        let record = |e: &u64| CommitRecord {
            epoch: Epoch(*e),
            manifest: String::new(),
            lineage: String::new(),
            attempt: Attempt(1),
            transactional_ids: vec![],
        };
        Observed {
            commits: commits.iter().copied().map(Epoch).collect(),
            latest: commits.iter().max().map(record),
            copy: commits.iter().max().map(record),
            transactional: false,
            manifests: manifests.iter().map(|(e, a)| (Epoch(*e), Attempt(*a))).collect(),
            parent: None,
        }
    }

    /// In a transaction, or in the store.
    fn record(epoch: u64, in_transaction: bool) -> CommitRecord {
        let transactional_ids = if in_transaction { vec!["job-0".into()] } else { Vec::new() };
        let (manifest, lineage) = (String::new(), String::new());
        CommitRecord { epoch: Epoch(epoch), manifest, lineage, attempt: Attempt(1), transactional_ids }
    }
    fn transactional(latest: Option<CommitRecord>, copy: Option<CommitRecord>) -> Observed {
        Observed {
            transactional: true,
            commits: copy.iter().map(|c| c.epoch).collect(),
            latest,
            copy,
            ..Observed::default()
        }
    }

    #[test]
    fn an_empty_store_is_a_fresh_start() {
        assert_eq!(plan(&observed(&[], &[]), &Wanted::default()).unwrap(), Plan::Fresh { next: Epoch(1) });
    }

    #[test]
    fn a_prepared_manifest_without_a_commit_is_not_resumed_and_its_epoch_is_not_used_again() {
        let next = Epoch(8);
        assert_eq!(
            plan(&observed(&[6], &[(6, 1), (7, 1)]), &Wanted::default()).unwrap(),
            Plan::Resume { epoch: Epoch(6), next }
        );
        assert_eq!(plan(&observed(&[], &[(1, 1)]), &Wanted::default()).unwrap(), Plan::Fresh { next: Epoch(2) });
        assert_eq!(
            plan(&observed(&[], &[(1, 1), (2, 2)]), &Wanted::default()).unwrap(),
            Plan::Fresh { next: Epoch(3) }
        );
    }

    #[test]
    fn lost_commit_records_refuse_a_fresh_start_and_name_the_setting() {
        let prepared = observed(&[], &[(1, 1), (2, 1), (3, 1)]);
        let none = plan(&prepared, &Wanted::default()).unwrap();
        assert_eq!(none, Plan::Fresh { next: Epoch(4) }, "each may have been abandoned");
        let lost = Observed { parent: Some(Epoch(2)), ..prepared };
        let e = plan(&lost, &Wanted::default()).unwrap_err().to_string();
        assert!(e.contains("checkpoint.allow-fresh-start"), "{e}");
        let fresh = plan(&lost, &Wanted { allow_fresh: true, from: None }).unwrap();
        assert_eq!(fresh, Plan::Fresh { next: Epoch(4) });
    }

    #[test]
    fn a_transaction_whose_copy_is_still_missing_is_what_is_gone_on_from() {
        for copy in [Some(record(4, true)), Some(record(5, true)), None] {
            let plan = plan(&transactional(Some(record(5, true)), copy), &Wanted::default()).unwrap();
            assert_eq!(plan, Plan::Resume { epoch: Epoch(5), next: Epoch(6) });
        }
    }

    #[test]
    fn a_job_that_gets_a_transactional_sink_goes_on_from_its_last_checkpoint() {
        let plan = plan(&transactional(None, Some(record(5, false))), &Wanted::default()).unwrap();
        assert_eq!(plan, Plan::Resume { epoch: Epoch(5), next: Epoch(6) });
    }

    #[test]
    fn commit_records_that_lag_behind_their_copies_are_refused_until_the_user_decides() {
        for latest in [None, Some(record(4, true))] {
            let observed = transactional(latest.clone(), Some(record(5, true)));
            let e = plan(&observed, &Wanted::default()).unwrap_err();
            assert_eq!(e.kind(), crate::error::Kind::Corrupt);
            assert!(e.to_string().contains("checkpoint.from = 5"), "{e}");
            let from = Wanted { from: Some(Epoch(5)), allow_fresh: false };
            assert_eq!(plan(&observed, &from).unwrap(), Plan::Resume { epoch: Epoch(5), next: Epoch(6) });
            let fresh = plan(&observed, &Wanted { from: None, allow_fresh: true });
            assert_eq!(fresh.is_ok(), latest.is_none(), "what is there is never passed over");
        }
    }

    #[test]
    fn a_job_that_has_lost_its_transactional_sink_is_refused() {
        let lost = Observed { transactional: false, ..transactional(Some(record(5, true)), Some(record(5, true))) };
        let e = plan(&lost, &Wanted::default()).unwrap_err().to_string();
        assert!(e.contains("transactional sink"), "{e}");
    }

    #[test]
    fn a_wanted_checkpoint_must_have_been_committed() {
        let o = observed(&[4, 5], &[(4, 1), (5, 1), (6, 1)]);
        let from = |e| Wanted { from: Some(Epoch(e)), allow_fresh: false };
        assert_eq!(plan(&o, &from(4)).unwrap(), Plan::Resume { epoch: Epoch(4), next: Epoch(7) });
        let e = plan(&o, &from(6)).unwrap_err().to_string();
        assert!(e.contains("no committed checkpoint 6") && e.contains("4, 5"), "{e}");
    }

    #[test]
    fn another_jobs_checkpoint_a_changed_key_group_count_and_a_lost_operator_are_refused() {
        let names = |n: &[&str]| n.iter().map(|n| OperatorId::new(*n).unwrap()).collect::<BTreeSet<_>>();
        let (job, other) = (JobId::new("clicks").unwrap(), JobId::new("other").unwrap());
        let (sources, keyed, sinks, none) = (names(&["in"]), names(&["per-hour"]), names(&["out"]), names(&[]));
        let changes = Changes::default();
        let p =
            Program { job: &job, key_groups: 128, sources: &sources, keyed: &keyed, sinks: &sinks, changes: &changes };
        let m = sample(3);
        assert_eq!(adopt(&m, &p).unwrap(), m);
        for (wrong, word) in [
            (Program { job: &other, ..p.clone() }, "belongs to job clicks"),
            (Program { key_groups: 64, ..p.clone() }, "key-groups = 128"),
            (Program { sources: &none, ..p.clone() }, "source \"in\""),
            (Program { keyed: &none, ..p.clone() }, "keyed operator \"per-hour\""),
            (Program { sinks: &none, ..p.clone() }, "sink \"out\""),
        ] {
            let e = adopt(&m, &wrong).unwrap_err().to_string();
            assert!(e.contains(word), "{e}");
        }
    }

    proptest! {
        #[test]
        fn the_next_epoch_is_newer_than_all_and_the_latest_commit_is_resumed(
            commits in proptest::collection::btree_set(1u64..50, 0..6),
            extra in proptest::collection::vec((1u64..60, 1u64..5), 0..6),
        ) {
            let commits: Vec<_> = commits.into_iter().collect();
            let mut manifests = extra;
            manifests.extend(commits.iter().map(|c| (*c, 1)));
            let o = observed(&commits, &manifests);
            match plan(&o, &Wanted::default()) {
                Ok(Plan::Fresh { next }) => {
                    prop_assert!(commits.is_empty());
                    prop_assert!(manifests.iter().all(|(e, _)| *e < next.0));
                }
                Ok(Plan::Resume { epoch, next }) => {
                    prop_assert_eq!(Some(&epoch.0), commits.last());
                    prop_assert!(manifests.iter().all(|(e, _)| *e < next.0));
                }
                Err(_) => prop_assert!(commits.is_empty()),
            }
        }
    }
}
