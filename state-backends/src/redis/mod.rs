//! The Redis backend: entries live in a Redis 7 or a Valkey, alone, with Sentinel, or as a cluster.
//!
//! The state itself is there, once, and changed in place; a snapshot is a mark in its history (`group.rs`). So a
//! checkpoint costs what has changed, a restart takes back what was not finished, and rescaling moves nothing.
//!
//! Three things must never happen, and this is why they do not:
//!
//! - *A dead attempt spoils its successor.* To open a key group is to write one's attempt into it as a fence; every
//!   change is a script that looks at it first. Late packets of the owner itself are known by the number of their step.
//! - *A change is made twice, or half.* A script is whole or not at all, and knows its number. What was not answered is
//!   asked again (`link.rs`), whatever has become of it.
//! - *A server that lost something goes unnoticed.* It is found out by the number of the next step, at the latest when
//!   the epoch is sealed, which is a step in every key group; and by a restart, which finds the checkpoint's mark or
//!   refuses to go on. Nothing is ever taken for a fresh start: that is another lineage, with other keys (`keys.rs`).
//!
//! What is durable is the server's business: see `server.rs`. Keys never expire.
mod backend;
mod collect;
mod connect;
mod group;
mod keys;
mod lineages;
mod link;
mod script;
mod server;
#[cfg(feature = "redis-tls")]
mod tls;
mod writer;

use futures::future::BoxFuture;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::mpsc;

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::Subtask,
};
use tidegate_core::{
    env::{spawn_owned, unique},
    state::backend::{Kept, OpenContext, StateBackend, StateBackendFactory},
};

use self::{
    backend::{Backend, Reader},
    group::Group,
    keys::Job,
    link::{Link, at_once},
};

const NAME: &str = "redis";

type Opened = Arc<Mutex<Option<(Arc<Link>, Job)>>>;

/// `state.backend = "redis"`.
#[derive(Clone, Default)]
pub struct Redis {
    /// Whose state was opened last, and over what: for collecting.
    opened: Opened,
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

impl StateBackendFactory for Redis {
    fn name(&self) -> &'static str {
        NAME
    }

    fn open(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        Box::pin(open(context, self.opened.clone()))
    }

    /// The state is there once: to look at what it was is to take back what has come since.
    fn open_to_read(&self, context: OpenContext) -> BoxFuture<'static, Result<Box<dyn StateBackend>>> {
        let error =
            Error::config(format!("state of operator {} is in Redis, and is changed there in place", context.operator));
        let error = error.hint("a savepoint of it is made when the job ends: stop_with_savepoint");
        Box::pin(futures::future::ready(Err(error)))
    }

    fn collect(&self, kept: Kept) -> BoxFuture<'static, Result<()>> {
        let opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Box::pin(async move {
            match opened {
                Some((link, job)) => collect::collect(&link, &job, &kept).await,
                None => Ok(()),
            }
        })
    }
}

async fn open(context: OpenContext, opened: Opened) -> Result<Box<dyn StateBackend>> {
    let link = Arc::new(Link::open(&context.settings.redis).await?);
    let (job, first) = (Job::of(&context), context.subtask == Subtask(0));
    server::check(&link, first).await?;
    if context.restored.is_none() && context.restore.is_empty() {
        lineages::look_for_others(&link, &job, &context, first).await?;
    }
    let (home, key_groups) = (home(&context)?, context.key_groups);
    lineages::register(&link, &job, &home, key_groups).await?;
    let token: Arc<str> = format!("{}-{:016x}", context.attempt, unique()).into();
    let mut opening: Vec<BoxFuture<'_, Result<(u16, Group)>>> = Vec::new();
    for key_group in key_groups.iter() {
        let handle = context.restore.iter().find(|handle| handle.key_groups.contains(key_group));
        let (link, token, names) = (link.clone(), token.clone(), job.group(&home, key_group));
        let (none, attempt) = (context.restore.is_empty(), context.attempt);
        let mark = match handle {
            None if none => None,
            None => return Err(Error::corrupt(format!("the checkpoint has nothing of key group {key_group}"))),
            Some(handle) => Some(keys::mark(handle)?),
        };
        opening.push(Box::pin(async move {
            Ok((key_group, Group::open(link, token, attempt, (key_group, names), mark).await?))
        }));
    }
    let groups: BTreeMap<_, _> = at_once(opening).await?.into_iter().collect();
    *opened.lock().unwrap_or_else(PoisonError::into_inner) = Some((link.clone(), job.clone()));
    let (orders, received) = mpsc::unbounded_channel();
    let failed = Arc::default();
    let writer = Arc::new(spawn_owned(writer::run(groups, received, Arc::clone(&failed))));
    let reader = Reader { link, job, home, key_groups };
    Ok(Box::new(Backend { reader, subtask: context.subtask, token, orders, failed, writer }))
}

fn home(context: &OpenContext) -> Result<String> {
    let mut homes: BTreeSet<_> = context.restore.iter().map(|handle| keys::home(handle, &context.operator)).collect();
    let Some(home) = homes.pop_first() else { return Ok(keys::new_home(&context.operator, context.attempt)) };
    if homes.is_empty() {
        return Ok(home.to_owned());
    }
    Err(Error::corrupt("the checkpoint has the state of one operator in two places in Redis"))
}
