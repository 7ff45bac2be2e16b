//! `[state]`: where keyed state lives. What the backends are for is in `docs/state-backends.md`.
use bytesize::ByteSize;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};

use super::duration;
use crate::{properties::SecretUrl, state::codec::Codec};

/// Where keyed state lives.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct StateSettings {
    /// The backend's name.
    pub backend: String,
    /// How values are stored.
    pub codec: Codec,
    /// Room for entries in memory, for each operator and subtask, over a backend that keeps state elsewhere: `"256MB"`.
    pub cache: ByteSize,
    /// `[state.rocksdb]`
    pub rocksdb: RocksDbSettings,
    /// `[state.redis]`
    pub redis: RedisSettings,
    /// `[state.object-store]`
    pub object_store: ObjectStoreSettings,
    /// Operators that the job has no more, and whose state in the checkpoint is to go. What a checkpoint has, and neither
    /// an operator nor this claims, is an error.
    pub drop_state: Vec<String>,
    /// `[state.operators.NAME]`: what is different for an operator.
    pub operators: BTreeMap<String, OperatorStateSettings>,
}

/// The backend `rocksdb`: on local disks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RocksDbSettings {
    /// Where it keeps its files, which need not outlast the process (where they do, a restart after a kill
    /// fetches less); empty: the system's folder for such.
    pub directory: String,
    /// For all operators of the process together: cached blocks, memtables, and files on their way to the checkpoint
    /// store. Where a process has several jobs, what the first says. With glibc's allocator the process grows to
    /// several times of it, unless `MALLOC_ARENA_MAX=1` is in its environment.
    pub memory: ByteSize,
}

/// The backend `redis` (feature `redis`): Redis 7 or Valkey, alone, with Sentinel, or in a cluster. The server must not
/// evict (`maxmemory-policy noeviction`), and should confirm only what is on its disk (`appendfsync always`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RedisSettings {
    /// `redis://`, or `rediss://` with TLS, then `user:password@host:port/db`; several of a cluster, or the sentinels',
    /// with commas between.
    pub url: SecretUrl,
    /// Whether `url` is of a cluster's nodes.
    pub cluster: bool,
    /// The name of the master, where `url` is the sentinels'.
    pub sentinel_master: String,
    /// With TLS: a file with the certificates in PEM of the CAs that are trusted, instead of those that the system trusts.
    pub ca_file: String,
    /// What is not answered for so long fails the attempt.
    #[serde(with = "duration")]
    pub give_up_after: Duration,
}

/// The backend `object-store`: a local directory, S3, GCS, Azure, or HDFS.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ObjectStoreSettings {
    /// `file:///var/lib/state`, `s3://bucket/state`, `hdfs://namenode:9000/state`.
    pub url: SecretUrl,
    /// For all operators of the process together: blocks that have been read.
    pub memory: ByteSize,
    /// A local directory for parts that have been read, which need not outlast the process; empty: there is none.
    pub directory: String,
    /// Room in that directory.
    pub disk: ByteSize,
}

/// What is different for the state of one operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct OperatorStateSettings {
    /// The backend's name; empty: that of the job.
    pub backend: String,
    /// What it was called before, under which the checkpoint may have its state. Of a source or sink too. It may stay when
    /// no checkpoint has the old name any more.
    pub renamed_from: Vec<String>,
}

impl StateSettings {
    /// The name of an operator's backend.
    pub fn backend_of(&self, operator: &str) -> &str {
        let own = self.operators.get(operator).map(|own| own.backend.as_str()).filter(|name| !name.is_empty());
        own.unwrap_or(&self.backend)
    }
}

impl Default for StateSettings {
    fn default() -> Self {
        Self {
            backend: "memory".into(),
            codec: Codec::Named,
            cache: ByteSize::mb(64),
            rocksdb: RocksDbSettings::default(),
            redis: RedisSettings::default(),
            object_store: ObjectStoreSettings::default(),
            drop_state: Vec::new(),
            operators: BTreeMap::new(),
        }
    }
}
impl Default for RocksDbSettings {
    fn default() -> Self {
        Self { directory: String::new(), memory: ByteSize::mb(512) }
    }
}
impl Default for RedisSettings {
    fn default() -> Self {
        Self {
            url: SecretUrl::default(),
            cluster: false,
            sentinel_master: String::new(),
            ca_file: String::new(),
            give_up_after: Duration::from_secs(60),
        }
    }
}
impl Default for ObjectStoreSettings {
    fn default() -> Self {
        Self { url: SecretUrl::default(), memory: ByteSize::mb(256), directory: String::new(), disk: ByteSize::gb(16) }
    }
}
