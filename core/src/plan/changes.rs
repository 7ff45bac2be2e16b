//! What the program and its job file say of operators that earlier versions had.
use tidegate_checkpoint::{
    error::{Error, Result},
    evolve::Changes,
    ids::OperatorId,
};

use super::{Graph, NodeKind};
use crate::settings::StateSettings;

/// All that is said, by either; what is wrong with it before there is a checkpoint is an error.
///
/// # Errors
/// [`Kind::Config`](tidegate_checkpoint::error::Kind): a name that cannot be one, or what contradicts itself.
pub(crate) fn changes(graph: &Graph, state: &StateSettings) -> Result<Changes> {
    let mut changes = Changes::default();
    let name = |name: &str, place: &str| OperatorId::new(name).map_err(|e: Error| e.at(place));
    let (renamed, dropped) = graph.said();
    for (operator, old) in &renamed {
        changes.rename(name(old, "renamed_from")?, name(operator, "renamed_from")?)?;
    }
    for operator in &dropped {
        changes.drop_state(name(operator, "drop_state")?);
    }
    for (operator, own) in &state.operators {
        let place = format!("state.operators.{operator}.renamed-from");
        for old in &own.renamed_from {
            changes.rename(name(old, &place)?, name(operator, &place)?).map_err(|e| e.at(&place))?;
        }
    }
    for operator in &state.drop_state {
        changes.drop_state(name(operator, "state.drop-state")?);
    }
    let now = [NodeKind::Source, NodeKind::Keyed, NodeKind::Stateful, NodeKind::Sink].map(|kind| graph.names(kind));
    changes.check(&now.into_iter().flatten().collect())?;
    Ok(changes)
}
