//! What is done in Redis at once: scripts, each of them bounded, and fine to be done again.
use redis::Value;
use std::sync::LazyLock;

use tidegate_checkpoint::error::{Error, Result};

/// Its text, and the hash that a server knows it by.
pub(super) struct Script {
    pub code: &'static str,
    pub hash: String,
}

macro_rules! scripts {
    ($($name:ident $file:literal $(+ $common:literal)?;)*) => {$(
        pub(super) static $name: LazyLock<Script> = LazyLock::new(|| {
            let code = concat!($(include_str!(concat!("lua/", $common)),)? include_str!(concat!("lua/", $file)));
            Script { code, hash: redis::Script::new(code).get_hash().to_owned() }
        });
    )*};
}

scripts! {
    OPEN "open.lua";
    WRITE "write.lua" + "common.lua";
    RANGE "range.lua" + "common.lua";
    SEAL "seal.lua" + "common.lua";
    POP "pop.lua" + "common.lua";
    REVERT "revert.lua" + "common.lua";
    TRIM "trim.lua";
    DROP "drop.lua";
}

/// A number in an answer.
pub(super) fn number(words: &[String], at: usize) -> Result<u64> {
    words.get(at).and_then(|word| word.parse().ok()).ok_or_else(strange)
}

pub(super) fn strings(value: Value) -> Result<Vec<String>> {
    redis::from_redis_value(value).map_err(|e| strange().caused_by(e))
}

pub(super) fn strange() -> Error {
    Error::internal("Redis has answered what no script of ours answers")
}
