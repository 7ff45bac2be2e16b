//! Those of an attempt who have something to say of themselves: its sources, its sinks, and the commit point.
//!
//! They are asked whenever somebody looks at the metrics. The hard case is the end of an attempt. What they hold, such
//! as a transaction that is open, must not be held by a program that still has the job's handle; and who
//! looks at a job that has ended wants to see what was. So they are asked once more before they go.
use std::{collections::BTreeMap, sync::Arc};

use tidegate_checkpoint::{commit::CommitPoint, figure::Figure, ids::OperatorId};

use crate::runtime::terminal::{Opened, SourceNode};

/// Whom to ask.
pub(crate) struct Contributors {
    pub sources: Vec<SourceNode>,
    pub sinks: Arc<BTreeMap<OperatorId, Arc<dyn Opened>>>,
    pub commits: Arc<dyn CommitPoint>,
}

/// What they have said.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contributed {
    /// By source and sink.
    pub operators: BTreeMap<OperatorId, Vec<Figure>>,
    /// The commit point's.
    pub commits: Vec<Figure>,
}

impl Contributors {
    pub(crate) fn figures(&self) -> Contributed {
        let sources = self.sources.iter().map(|source| (source.name.clone(), source.figures()));
        let sinks = self.sinks.iter().map(|(name, sink)| (name.clone(), sink.figures()));
        Contributed { operators: sources.chain(sinks).collect(), commits: self.commits.figures() }
    }
}
