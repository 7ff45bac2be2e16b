//! The name of every object in a checkpoint store, in one place.
//!
//! ```text
//! <job>/attempts/<attempt>                         claim: the highest owns the job
//! <job>/manifests/<epoch>-<attempt>.manifest       what checkpoint <epoch> of <attempt> consists of
//! <job>/commits/<epoch>.commit                     that it counts
//! <job>/state/<operator>/<attempt>-<epoch>-<subtask>.<kind>
//! ```
//! Numbers have leading zeros, so that a listing is in order.
use crate::ids::{Attempt, Epoch, JobId, OperatorId, Subtask};

/// The claim of an attempt.
pub fn attempt(job: &JobId, attempt: Attempt) -> String {
    format!("{job}/attempts/{:012}", attempt.0)
}
/// The manifest that `attempt` prepares for `epoch`.
pub fn manifest(job: &JobId, epoch: Epoch, attempt: Attempt) -> String {
    format!("{job}/manifests/{:012}-{:06}.manifest", epoch.0, attempt.0)
}
/// The commit record of `epoch`: one, whoever writes it.
pub fn commit(job: &JobId, epoch: Epoch) -> String {
    format!("{job}/commits/{:012}.commit", epoch.0)
}
/// A state object; `kind` is the backend's.
pub fn state(
    job: &JobId,
    operator: &OperatorId,
    attempt: Attempt,
    epoch: Epoch,
    subtask: Subtask,
    kind: &str,
) -> String {
    format!("{job}/state/{operator}/{:06}-{:012}-{:04}.{kind}", attempt.0, epoch.0, subtask.0)
}

/// The folders that are listed.
pub fn folder(job: &JobId, what: &str) -> String {
    format!("{job}/{what}")
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The attempt of a claim's path.
pub fn parse_attempt(path: &str) -> Option<Attempt> {
    name(path).parse().ok().map(Attempt)
}
/// Epoch and attempt of a manifest's path.
pub fn parse_manifest(path: &str) -> Option<(Epoch, Attempt)> {
    let (epoch, attempt) = name(path).strip_suffix(".manifest")?.split_once('-')?;
    Some((Epoch(epoch.parse().ok()?), Attempt(attempt.parse().ok()?)))
}
/// The epoch of a commit record's path.
pub fn parse_commit(path: &str) -> Option<Epoch> {
    name(path).strip_suffix(".commit")?.parse().ok().map(Epoch)
}
/// Attempt and epoch of a state object's path.
pub fn parse_state(path: &str) -> Option<(Attempt, Epoch)> {
    let mut parts = name(path).split(['-', '.']);
    let attempt = parts.next()?.parse().ok()?;
    let epoch = parts.next()?.parse().ok()?;
    parts.next()?.parse::<u32>().ok()?;
    Some((Attempt(attempt), Epoch(epoch)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        let job = JobId::new("j").unwrap();
        let op = OperatorId::new("per-hour.x-1").unwrap();
        assert_eq!(parse_attempt(&attempt(&job, Attempt(7))), Some(Attempt(7)));
        assert_eq!(parse_manifest(&manifest(&job, Epoch(12), Attempt(3))), Some((Epoch(12), Attempt(3))));
        assert_eq!(parse_commit(&commit(&job, Epoch(12))), Some(Epoch(12)));
        let state = state(&job, &op, Attempt(3), Epoch(12), Subtask(1), "blocks");
        assert_eq!(parse_state(&state), Some((Attempt(3), Epoch(12))));
    }

    #[test]
    fn names_sort_as_their_numbers_do() {
        let job = JobId::new("j").unwrap();
        assert!(commit(&job, Epoch(9)) < commit(&job, Epoch(10)));
        assert!(manifest(&job, Epoch(99), Attempt(1)) < manifest(&job, Epoch(100), Attempt(1)));
    }

    #[test]
    fn foreign_files_are_no_objects_of_ours() {
        for path in ["j/commits/x.commit", "j/commits/12.tmp", "j/manifests/12.manifest", "j/state/op/readme.txt"] {
            assert!(parse_commit(path).is_none() && parse_manifest(path).is_none() && parse_state(path).is_none());
        }
    }
}
