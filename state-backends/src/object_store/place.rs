//! The stores that are in use, each opened once in a process, with one cache of blocks for all trees in it.
use futures::future::{Either, select};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, path::Path};
use slatedb::db_cache::{
    DbCache,
    moka::{MokaCache, MokaCacheOptions},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tidegate_checkpoint::{
    error::{Error, Result},
    store::open_url,
};
use tidegate_core::{env::sleep, properties::SecretUrl, settings::ObjectStoreSettings};

/// What can replace an object on condition that it is still the same: directories and HDFS cannot.
const UPDATING: [&str; 8] = ["s3:", "s3a:", "gs:", "az:", "azure:", "abfs", "adl:", "memory:"];

/// A store that does not answer for so long fails the attempt; whether there is another, `[restart]` says.
const ANSWERS_WITHIN: Duration = Duration::from_secs(8);

#[derive(Debug, Default)]
pub(super) struct Places {
    url: String,
    /// Instead of a URL's.
    own: Option<(Arc<dyn ObjectStore>, Path, bool)>,
    opened: Mutex<BTreeMap<String, Arc<Place>>>,
}

/// One store.
pub(super) struct Place {
    pub objects: Arc<dyn ObjectStore>,
    pub prefix: Path,
    /// Whether an object can be replaced on condition that it is still the same.
    pub has_updates: bool,
    pub directory: String,
    pub disk: usize,
    /// Its URL as it may be shown.
    shown: String,
    cache: Arc<dyn DbCache>,
    trees: AtomicU64,
    /// Dead trees, and what has been found to be needed of each: nothing more can be deleted while that is the same.
    pub tidied: Mutex<BTreeMap<String, BTreeSet<String>>>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({})", self.objects)
    }
}

impl Place {
    /// Whether the store answers at all. The tree would ask it for ever, and say nothing.
    pub async fn answers(&self) -> Result<()> {
        let away = |why: &str| {
            let place = if self.shown.is_empty() { self.objects.to_string() } else { self.shown.clone() };
            Error::unavailable(format!("the store at {place} (state.object-store.url) {why}"))
                .hint("is it running, and can it be reached from here? S3 also goes by AWS_ENDPOINT and AWS_REGION")
        };
        // Nothing of this name is ever there.
        let name = self.prefix.clone().join("answers");
        let asked = pin!(self.objects.head(&name));
        match select(asked, pin!(sleep(ANSWERS_WITHIN))).await {
            Either::Left((Ok(_) | Err(StoreError::NotFound { .. }), _)) => Ok(()),
            // What is forbidden is told by what is done there.
            Either::Left((Err(StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. }), _)) => Ok(()),
            Either::Left((Err(e), _)) => Err(away("cannot be asked").caused_by(e)),
            Either::Right(_) => Err(away(&format!("does not answer within {} s", ANSWERS_WITHIN.as_secs()))),
        }
    }

    /// The cache, and under which number a new tree is in it.
    pub fn cache(&self) -> (Arc<dyn DbCache>, u64) {
        (self.cache.clone(), self.trees.fetch_add(1, Relaxed))
    }
}

impl Places {
    pub fn at(url: &str) -> Self {
        Self { url: url.to_owned(), ..Self::default() }
    }

    pub fn over(objects: Arc<dyn ObjectStore>, prefix: Path, has_updates: bool) -> Self {
        Self { own: Some((objects, prefix, has_updates)), ..Self::default() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Place>>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn opened(&self) -> Vec<Arc<Place>> {
        self.lock().values().cloned().collect()
    }

    pub fn open(&self, settings: &ObjectStoreSettings) -> Result<Arc<Place>> {
        let url = if self.own.is_some() || settings.url.is_empty() { &self.url } else { settings.url.reveal() };
        if url.is_empty() && self.own.is_none() {
            return Err(Error::config("state.backend = \"object-store\" needs state.object-store.url").hint(
                "name a directory or URL: file:///var/lib/state, s3://bucket/state, hdfs://namenode:9000/state",
            ));
        }
        let mut opened = self.lock();
        if let Some(place) = opened.get(url) {
            return Ok(place.clone());
        }
        let (objects, prefix, has_updates) = if let Some(own) = &self.own {
            own.clone()
        } else {
            let (objects, prefix) = open_url(url).map_err(|e| e.at("state.object-store.url"))?;
            (objects, prefix, UPDATING.iter().any(|scheme| url.starts_with(scheme)))
        };
        let options = MokaCacheOptions { max_capacity: settings.memory.as_u64(), ..MokaCacheOptions::default() };
        let place = Arc::new(Place {
            objects,
            prefix,
            has_updates,
            shown: SecretUrl::from(url).to_string(),
            directory: settings.directory.clone(),
            disk: usize::try_from(settings.disk.as_u64()).unwrap_or(usize::MAX),
            cache: Arc::new(MokaCache::new_with_opts(options)),
            trees: AtomicU64::new(0),
            tidied: Mutex::default(),
        });
        opened.insert(url.to_owned(), place.clone());
        Ok(place)
    }
}
