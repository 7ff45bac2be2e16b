//! What an error of the tree means. The hard case is one that is closed: some earlier error closed it, or somebody else
//! writes to its path, which cannot be: a new attempt opens another tree, so it may pass.
use object_store::Error as StoreError;
use slatedb::ErrorKind;
use std::{error::Error as _, sync::Arc};

use tidegate_checkpoint::error::Error;

const RESTORE: &str = "restore it from a copy, or start from another checkpoint with checkpoint.from";
const ACCESS: &str = "check state.object-store.url, and the credentials and permissions of the store";

/// As one of ours; `what` was to be done to the tree at `path`.
pub(super) fn failed(what: &str, path: &str, error: slatedb::Error) -> Error {
    let message = format!("cannot {what} the state in {path}");
    let mut cause = error.source();
    while let Some(e) = cause {
        let store = e.downcast_ref::<StoreError>().or_else(|| e.downcast_ref::<Arc<StoreError>>().map(|e| &**e));
        if matches!(store, Some(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })) {
            return Error::config(message).caused_by(error).hint(ACCESS);
        }
        cause = e.source();
    }
    match error.kind() {
        ErrorKind::Data => Error::corrupt(message).caused_by(error).hint(RESTORE),
        ErrorKind::Invalid | ErrorKind::Internal | ErrorKind::Transaction => Error::internal(message).caused_by(error),
        _ => Error::unavailable(message).caused_by(error).hint("the store is named in state.object-store.url"),
    }
}

/// The same, when it was to be restored: then what is not there is damage.
pub(super) fn not_restored(path: &str, error: slatedb::Error) -> Error {
    match error.kind() {
        ErrorKind::Invalid => Error::corrupt(format!("the state in {path} is missing")).caused_by(error).hint(RESTORE),
        _ => failed("restore", path, error),
    }
}
