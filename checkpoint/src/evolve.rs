//! A checkpoint of one version of a program, as the next version goes on from it: pure.
//!
//! Names are the identity of state. What the checkpoint has and no operator claims would be lost in silence, so it is an
//! error, unless the program says what has become of it: an operator has another name now, or its state is to go. Both
//! are said for good. They stay in the program when a checkpoint has been made under the new names, and later when that
//! is the oldest there is; so what is not in the checkpoint any more is no mistake. (A misspelt old name is found out
//! all the same: then the right one is claimed by nobody.)
//!
//! The hard case is two states for one operator: the old name and the new one both in the checkpoint. No order of the two
//! is the right one, so that is refused.
use std::collections::{BTreeMap, BTreeSet};

use crate::{
    error::{Error, Result},
    ids::OperatorId,
    manifest::Manifest,
    recover::Program,
};

/// What a program says of operators that earlier versions of it had.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// What each old name is called now.
    renamed: BTreeMap<OperatorId, OperatorId>,
    dropped: BTreeSet<OperatorId>,
}

/// Where something of an operator is in a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Source,
    Keyed,
    Sink,
}

impl Part {
    const ALL: [Self; 3] = [Self::Source, Self::Keyed, Self::Sink];

    fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Keyed => "keyed operator",
            Self::Sink => "sink",
        }
    }

    /// Those of the program.
    fn now<'a>(self, program: &Program<'a>) -> &'a BTreeSet<OperatorId> {
        match self {
            Self::Source => program.sources,
            Self::Keyed => program.keyed,
            Self::Sink => program.sinks,
        }
    }

    /// Those that a checkpoint has something of.
    fn then(self, manifest: &Manifest) -> BTreeSet<&OperatorId> {
        match self {
            Self::Source => manifest.sources.keys().collect(),
            Self::Keyed => manifest.states.iter().filter(|(_, handles)| !handles.is_empty()).map(|(n, _)| n).collect(),
            Self::Sink => manifest.sinks.iter().filter(|(_, staged)| !staged.is_empty()).map(|(n, _)| n).collect(),
        }
    }

    fn of(operator: &OperatorId, manifest: &Manifest) -> Option<Self> {
        Self::ALL.into_iter().find(|part| part.then(manifest).contains(operator))
    }
}

impl Changes {
    /// `operator` was called `old` before.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind): another one has been said to come of `old`.
    pub fn rename(&mut self, old: OperatorId, operator: OperatorId) -> Result<()> {
        match self.renamed.get(&old) {
            Some(other) if *other != operator => Err(Error::config(format!(
                "the operators {:?} and {:?} are both said to be renamed from {:?}",
                other.as_str(),
                operator.as_str(),
                old.as_str()
            ))
            .hint("state goes to one operator: take one of the two away")),
            _ => {
                self.renamed.insert(old, operator);
                Ok(())
            }
        }
    }

    /// What a checkpoint has of `operator` is to go.
    pub fn drop_state(&mut self, operator: OperatorId) {
        self.dropped.insert(operator);
    }

    /// What can be known to be wrong before there is a checkpoint. `now`: all that the program has.
    ///
    /// # Errors
    /// [`Kind::Config`](crate::error::Kind): says what contradicts what.
    pub fn check(&self, now: &BTreeSet<OperatorId>) -> Result<()> {
        for (old, new) in &self.renamed {
            let said = format!("the operator {:?} is said to be renamed from {:?}", new.as_str(), old.as_str());
            if now.contains(old) {
                return Err(Error::config(format!("{said}, which the job has too")).hint(
                    "an old name cannot be used again as long as the job says that it is another's: take either away",
                ));
            }
            if !now.contains(new) {
                return Err(Error::config(format!(
                    "{said}, and the job has no source, sink or keyed operator of the new name"
                ))
                .hint(format!("the job has {}", list(now))));
            }
            if self.dropped.contains(old) {
                return Err(Error::config(format!("{said}, whose state is said to be dropped"))
                    .hint("it cannot be kept and dropped: take either away"));
            }
        }
        match self.dropped.intersection(now).next() {
            None => Ok(()),
            Some(kept) => Err(Error::config(format!(
                "the state of {:?} is said to be dropped, and the job has such an operator",
                kept.as_str()
            ))
            .hint("it would be dropped at every start; give the operator another name to begin with nothing")),
        }
    }

    /// Those of the dropped operators that a checkpoint has something of.
    pub fn dropped_of<'a>(&'a self, manifest: &Manifest) -> impl Iterator<Item = &'a OperatorId> {
        self.dropped.iter().filter(|operator| Part::of(operator, manifest).is_some())
    }

    /// The checkpoint under the names of today, and without what is to go.
    fn applied(&self, manifest: &Manifest, program: &Program<'_>) -> Result<Manifest> {
        let mut adapted = manifest.clone();
        for (old, new) in &self.renamed {
            let Some(part) = Part::of(old, manifest) else { continue };
            let told = |what: String| {
                Error::config(format!(
                    "checkpoint {}: the operator {:?} is said to be renamed from {:?}, {what}",
                    manifest.epoch,
                    new.as_str(),
                    old.as_str()
                ))
            };
            if !part.now(program).contains(new) {
                return Err(told(format!("which was a {}", part.name())).hint("what it has kept fits nothing else"));
            }
            // What is there of the new name has come from the checkpoint itself, or of another old name.
            if part.then(&adapted).contains(new) {
                let other = self
                    .renamed
                    .iter()
                    .find(|(other, to)| *to == new && *other != old && Part::of(other, manifest).is_some());
                let other = other.map_or(new, |(other, _)| other);
                return Err(told(format!("but the checkpoint has state of {:?} too", other.as_str())).hint(format!(
                    "an operator goes on from one state: take the rename away, and say what else is to become of {0:?}, as \
                     job.drop_state({0:?})",
                    old.as_str()
                )));
            }
            move_key(&mut adapted.sources, old, new);
            move_key(&mut adapted.states, old, new);
            move_key(&mut adapted.sinks, old, new);
            move_key(&mut adapted.counters, old, new);
        }
        for gone in &self.dropped {
            adapted.sources.remove(gone);
            adapted.states.remove(gone);
            adapted.sinks.remove(gone);
            adapted.counters.remove(gone);
        }
        Ok(adapted)
    }
}

fn move_key<V>(map: &mut BTreeMap<OperatorId, V>, old: &OperatorId, new: &OperatorId) {
    if let Some(value) = map.remove(old) {
        map.insert(new.clone(), value);
    }
}

fn list<'a>(names: impl IntoIterator<Item = &'a OperatorId>) -> String {
    let names: Vec<_> = names.into_iter().map(|name| format!("{:?}", name.as_str())).collect();
    if names.is_empty() { "none".into() } else { names.join(", ") }
}

/// The checkpoint as the program goes on from it.
///
/// # Errors
/// [`Kind::Config`](crate::error::Kind): it has something that no operator claims, or two states for one.
pub(crate) fn adapted(manifest: &Manifest, program: &Program<'_>) -> Result<Manifest> {
    let adapted = program.changes.applied(manifest, program)?;
    let mut unclaimed = Vec::new();
    for part in Part::ALL {
        unclaimed.extend(part.then(&adapted).difference(&part.now(program).iter().collect()).map(|name| (part, *name)));
    }
    let Some((part, name)) = unclaimed.first() else { return Ok(adapted) };
    let all: Vec<_> = unclaimed.iter().map(|(part, name)| format!("{} {:?}", part.name(), name.as_str())).collect();
    let error = Error::config(format!(
        "checkpoint {} has state that no operator of the job claims: {}",
        manifest.epoch,
        all.join(", ")
    ));
    let then = part.then(&adapted);
    let new: Vec<_> = part.now(program).iter().filter(|now| !then.contains(now)).collect();
    // The likeliest: one has gone, and one has come.
    let example = new.first().map_or("its new name", |new| new.as_str());
    let has = match new.len() {
        0 => format!("of its kind the job has {}", list(part.now(program))),
        _ => format!("new in the job: {}", list(new)),
    };
    Err(error.hint(format!(
        "names are the identity of state. If it has another name now ({has}), say job.renamed_from({example:?}, {old:?}), or \
         renamed-from = [{old:?}] below [state.operators.{example:?}]; if its state is to go, say job.drop_state({old:?}), \
         or drop-state = [{old:?}] below [state]",
        old = name.as_str()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error::Kind, ids::JobId, manifest::tests::sample, recover::adopt};
    use serde_json::json;

    fn id(name: &str) -> OperatorId {
        OperatorId::new(name).unwrap()
    }
    fn ids<const N: usize>(names: [&str; N]) -> BTreeSet<OperatorId> {
        names.map(id).into()
    }

    fn changes(renamed: &[(&str, &str)], dropped: &[&str]) -> Changes {
        let mut changes = Changes::default();
        for (old, new) in renamed {
            changes.rename(id(old), id(new)).unwrap();
        }
        for name in dropped {
            changes.drop_state(id(name));
        }
        changes
    }

    /// The sample has the source `in`, the keyed operator `per-hour` and the sink `out`.
    fn adopted(manifest: &Manifest, operators: [&str; 3], changes: &Changes) -> Result<Manifest> {
        let job = JobId::new("clicks").unwrap();
        let [sources, keyed, sinks] = operators.map(|name| if name.is_empty() { BTreeSet::new() } else { ids([name]) });
        let program = Program { job: &job, key_groups: 128, sources: &sources, keyed: &keyed, sinks: &sinks, changes };
        adopt(manifest, &program)
    }

    #[test]
    fn what_is_renamed_is_found_under_its_new_name_and_again_when_the_old_one_is_gone() {
        let before = sample(3);
        let said = changes(&[("in", "clicks"), ("per-hour", "hourly"), ("out", "counts"), ("older", "hourly")], &[]);
        let names = ["clicks", "hourly", "counts"];
        let after = adopted(&before, names, &said).unwrap();
        assert_eq!(after.sources[&id("clicks")], before.sources[&id("in")]);
        assert_eq!(after.states[&id("hourly")], before.states[&id("per-hour")]);
        assert_eq!(after.sinks[&id("counts")], before.sinks[&id("out")]);
        assert_eq!(after.counters[&id("clicks")], before.counters[&id("in")]);
        let lengths = |m: &Manifest| (m.sources.len(), m.states.len(), m.sinks.len(), m.counters.len());
        assert_eq!(lengths(&after), lengths(&before));
        assert_eq!(adopted(&after, names, &said).unwrap(), after, "it stays in the program");
    }

    #[test]
    fn what_is_dropped_is_gone_and_the_rest_is_as_it_was() {
        let said = changes(&[], &["per-hour", "never-there"]);
        let after = adopted(&sample(3), ["in", "", "out"], &said).unwrap();
        assert!(after.states.is_empty());
        assert_eq!(Manifest { states: sample(3).states, ..after }, sample(3));
        assert_eq!(said.dropped_of(&sample(3)).collect::<Vec<_>>(), [&id("per-hour")]);
    }

    #[test]
    fn all_that_nobody_claims_is_named_with_what_to_say() {
        let none = Changes::default();
        let e = adopted(&sample(3), ["in", "hourly", ""], &none).unwrap_err();
        let text = e.to_string();
        assert_eq!(e.kind(), Kind::Config);
        for word in [
            "keyed operator \"per-hour\"",
            "sink \"out\"",
            "job.renamed_from(\"hourly\", \"per-hour\")",
            "[state.operators.\"hourly\"]",
            "job.drop_state(\"per-hour\")",
            "drop-state = [\"per-hour\"]",
        ] {
            assert!(text.contains(word), "{word}: {text}");
        }
        // A misspelt old name is no rename of what is there.
        let typo = changes(&[("per-houre", "hourly")], &[]);
        assert!(adopted(&sample(3), ["in", "hourly", "out"], &typo).is_err());
        // What has kept nothing is not missed.
        let mut empty = sample(3);
        empty.sinks.insert(id("out"), vec![]);
        empty.states.insert(id("per-hour"), vec![]);
        adopted(&empty, ["in", "", ""], &none).unwrap();
    }

    #[test]
    fn two_states_for_one_operator_are_refused() {
        let mut both = sample(3);
        both.sinks.insert(id("counts"), vec![json!({"part": "q"})]);
        let e = adopted(&both, ["in", "per-hour", "counts"], &changes(&[("out", "counts")], &[])).unwrap_err();
        assert!(e.kind() == Kind::Config && e.to_string().contains("\"counts\" too"), "{e}");
        let said = changes(&[("out", "results"), ("counts", "results")], &[]);
        let e = adopted(&both, ["in", "per-hour", "results"], &said).unwrap_err().to_string();
        assert!(e.contains("\"out\"") && e.contains("\"counts\"") && e.contains("\"results\""), "{e}");
        // Said how it is meant, it works.
        let said = changes(&[("out", "results")], &["counts"]);
        adopted(&both, ["in", "per-hour", "results"], &said).unwrap();
    }

    #[test]
    fn state_does_not_go_to_another_kind_of_operator() {
        let e = adopted(&sample(3), ["in", "", "out"], &changes(&[("per-hour", "out")], &[])).unwrap_err();
        assert!(e.to_string().contains("which was a keyed operator"), "{e}");
    }

    #[test]
    fn what_contradicts_itself_is_told_before_there_is_a_checkpoint() {
        let now = ids(["in", "hourly", "out"]);
        let twice = changes(&[("per-hour", "hourly")], &[]).rename(id("per-hour"), id("out")).unwrap_err();
        assert!(twice.to_string().contains("\"hourly\" and \"out\" are both"), "{twice}");
        changes(&[("per-hour", "hourly"), ("older", "hourly")], &["gone"]).check(&now).unwrap();
        for (said, word) in [
            (changes(&[("out", "hourly")], &[]), "\"out\", which the job has too"),
            (changes(&[("hourly", "hourly")], &[]), "which the job has too"),
            (changes(&[("per-hour", "hurly")], &[]), "\"hurly\""),
            (changes(&[("per-hour", "hourly")], &["per-hour"]), "whose state is said to be dropped"),
            (changes(&[], &["out"]), "\"out\" is said to be dropped"),
        ] {
            let e = said.check(&now).unwrap_err();
            assert!(e.kind() == Kind::Config && e.hint_text().is_some() && e.to_string().contains(word), "{e}");
        }
    }
}
