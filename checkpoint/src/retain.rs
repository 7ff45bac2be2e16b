//! What may be deleted: pure.
//!
//! Kept are the newest committed checkpoints, and every state object that one of them refers to. The hard
//! case is what is in flight: objects of an epoch newer than the newest commit belong to a checkpoint that
//! this attempt is making, or to a newer attempt altogether; neither is garbage, though nothing refers to
//! them yet. A dead attempt's are.
use std::collections::BTreeSet;

use crate::{
    ids::{Attempt, Epoch},
    paths,
};

/// What is there.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Committed epochs.
    pub commits: BTreeSet<Epoch>,
    /// Manifests: epoch, owner, path.
    pub manifests: Vec<(Epoch, Attempt, String)>,
    /// Paths of state objects.
    pub objects: BTreeSet<String>,
    /// The claims.
    pub attempts: BTreeSet<Attempt>,
}

/// The epochs that are kept: the newest `retained` committed ones (at least one).
pub fn kept(commits: &BTreeSet<Epoch>, retained: usize) -> BTreeSet<Epoch> {
    commits.iter().rev().take(retained.max(1)).copied().collect()
}

/// What may be deleted, in an order that is safe to be interrupted: commit records before the manifests
/// they name, those before the objects they refer to.
///
/// `referenced` are the objects of all kept manifests; `attempt` is who collects.
pub fn garbage(
    inventory: &Inventory,
    retained: usize,
    referenced: &BTreeSet<String>,
    attempt: Attempt,
    commit_path: impl Fn(Epoch) -> String,
    attempt_path: impl Fn(Attempt) -> String,
) -> Vec<String> {
    let kept = kept(&inventory.commits, retained);
    let Some(newest) = kept.last().copied() else { return Vec::new() };
    let mut doomed: Vec<String> =
        inventory.commits.iter().filter(|e| !kept.contains(e)).map(|e| commit_path(*e)).collect();
    // A kept epoch keeps all its manifests, that of an attempt which lost the race for it too: they go when the
    // epoch does. A newer attempt's stay, whatever their epoch.
    doomed.extend(
        inventory
            .manifests
            .iter()
            .filter(|(epoch, owner, _)| *epoch <= newest && *owner <= attempt && !kept.contains(epoch))
            .map(|(_, _, path)| path.clone()),
    );
    doomed.extend(inventory.objects.iter().filter(|path| !referenced.contains(*path)).filter_map(|path| {
        let (owner, epoch) = paths::parse_state(path)?;
        (owner < attempt || (owner == attempt && epoch <= newest)).then(|| path.clone())
    }));
    doomed.extend(inventory.attempts.iter().filter(|a| **a < attempt).map(|a| attempt_path(*a)));
    doomed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{JobId, OperatorId, Subtask};
    use proptest::prelude::*;

    fn object(attempt: u64, epoch: u64) -> String {
        let (job, op) = (JobId::new("j").unwrap(), OperatorId::new("o").unwrap());
        paths::state(&job, &op, Attempt(attempt), Epoch(epoch), Subtask(0), "blocks")
    }
    fn collect(inventory: &Inventory, retained: usize, referenced: &BTreeSet<String>, attempt: u64) -> Vec<String> {
        garbage(inventory, retained, referenced, Attempt(attempt), |e| format!("c{e}"), |a| format!("a{a}"))
    }

    #[test]
    fn nothing_goes_before_the_first_commit() {
        let inventory = Inventory {
            objects: [object(1, 1)].into(),
            manifests: vec![(Epoch(1), Attempt(1), "m1".into())],
            ..Inventory::default()
        };
        assert!(collect(&inventory, 1, &BTreeSet::new(), 1).is_empty());
    }

    #[test]
    fn objects_in_flight_and_of_newer_attempts_stay_and_those_of_dead_ones_go() {
        let inventory = Inventory {
            commits: [Epoch(5)].into(),
            objects: [object(2, 5), object(2, 6), object(3, 4), object(1, 9)].into(),
            ..Inventory::default()
        };
        assert_eq!(collect(&inventory, 1, &BTreeSet::new(), 2), [object(1, 9), object(2, 5)]);
    }

    proptest! {
        #[test]
        fn what_a_kept_manifest_refers_to_never_goes_and_unreferenced_old_objects_always_do(
            commits in proptest::collection::btree_set(1u64..30, 1..8),
            objects in proptest::collection::btree_set((1u64..4, 1u64..35), 0..20),
            keep in any::<u64>(),
            retained in 1usize..4,
        ) {
            let commits: BTreeSet<_> = commits.into_iter().map(Epoch).collect();
            let paths: Vec<_> = objects.iter().map(|(a, e)| object(*a, *e)).collect();
            let referenced: BTreeSet<_> = paths.iter().enumerate().filter(|(i, _)| keep >> i & 1 == 1).map(|(_, p)| p.clone()).collect();
            let inventory = Inventory {
                commits: commits.clone(),
                manifests: commits.iter().map(|e| (*e, Attempt(2), format!("m{e}"))).collect(),
                objects: paths.iter().cloned().collect(),
                attempts: [Attempt(1), Attempt(2), Attempt(3)].into(),
            };
            let doomed = collect(&inventory, retained, &referenced, 2);
            let newest = commits.last().unwrap();
            prop_assert!(doomed.iter().all(|d| !referenced.contains(d)));
            for epoch in kept(&commits, retained) {
                let (commit, manifest) = (format!("c{epoch}"), format!("m{epoch}"));
                prop_assert!(!doomed.contains(&commit) && !doomed.contains(&manifest));
            }
            for (attempt, epoch) in objects {
                let path = object(attempt, epoch);
                let dead = attempt < 2 || (attempt == 2 && Epoch(epoch) <= *newest);
                prop_assert_eq!(doomed.contains(&path), dead && !referenced.contains(&path));
            }
            prop_assert!(doomed.contains(&"a1".to_owned()) && !doomed.contains(&"a2".to_owned()) && !doomed.contains(&"a3".to_owned()));
            prop_assert_eq!(commits.len() - kept(&commits, retained).len(), doomed.iter().filter(|d| d.starts_with('c')).count());
        }
    }
}
