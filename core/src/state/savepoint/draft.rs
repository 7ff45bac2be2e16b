//! A savepoint that is being made, and what has been written of it: so that all of it goes again when it fails.
//!
//! Nothing but what this draft has written is deleted: its files have names of their own, whatever else comes to the
//! place meanwhile. A write that failed may have been done, so its file is deleted too. The hard case is the last step:
//! where nobody knows whether the file `savepoint` has been created, the savepoint may be there, and stays whole.
use std::{collections::BTreeMap, sync::Arc};

use tidegate_checkpoint::{
    envelope,
    error::{Error, Result},
    ids::OperatorId,
    manifest::Manifest,
    store::{CheckpointStore, Created},
};

use super::{File, NAME, Savepoint, VERSION};

/// See the module.
pub struct Draft {
    place: Arc<CheckpointStore>,
    operators: BTreeMap<OperatorId, Vec<File>>,
    /// What has been written, or may have been.
    names: Vec<String>,
}

impl Draft {
    /// Nothing yet, at a place that was free.
    pub fn at(place: Arc<CheckpointStore>) -> Self {
        Self { place, operators: BTreeMap::new(), names: Vec::new() }
    }

    /// Writes one file.
    pub(crate) async fn put(&mut self, name: &str, bytes: Vec<u8>) -> Result<()> {
        self.names.push(name.to_owned());
        self.place.put(name, bytes).await
    }

    /// Notes the files of an operator, which are complete.
    pub(super) fn operator(&mut self, operator: OperatorId, files: Vec<File>) {
        self.operators.insert(operator, files);
    }

    /// Says that the savepoint is there, if all its files could be filled; else deletes them.
    ///
    /// # Errors
    /// What it could not be filled for. [`Kind::Config`](tidegate_checkpoint::error::Kind): somebody else has made one
    /// there meanwhile.
    pub async fn end(mut self, filled: Result<Manifest>) -> Result<()> {
        let operators = std::mem::take(&mut self.operators);
        let encode = |checkpoint| envelope::encode(NAME, VERSION, &Savepoint { checkpoint, operators });
        let encoded = match filled.and_then(encode) {
            Ok(encoded) => encoded,
            Err(error) => return Err(self.discarded(error).await),
        };
        match self.place.create(NAME, encoded).await {
            Ok(Created::Ours) => Ok(()),
            Ok(Created::Theirs(_)) => {
                let error = Error::config("another savepoint has been made at this URL meanwhile")
                    .hint("give each savepoint a place of its own");
                Err(self.discarded(error).await)
            }
            Err(error) => Err(error.hint(
                "the savepoint may be there all the same: tidegate::state::reader tells; if it is not, delete what is at \
                 its URL",
            )),
        }
    }

    /// Deletes what was written, as far as the store lets it; the error stays what it was.
    async fn discarded(&self, error: Error) -> Error {
        for name in &self.names {
            // One that does not delete this does not delete the next, and takes its time for each.
            if let Err(why) = self.place.delete(name).await {
                tracing::warn!(file = name, %why, "a savepoint has failed, and its files could not all be deleted");
                break;
            }
        }
        error
    }
}
