//! The backend of one operator in one subtask: reads that go straight to Redis, and orders to its writer.
use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};

use tidegate_checkpoint::{
    error::{Error, Result},
    ids::{Epoch, KeyGroupRange, Subtask},
    manifest::StateHandle,
};
use tidegate_core::{
    env::AbortOnDrop,
    state::backend::{Residency, StateBackend, WriteBatch},
};

use super::{
    NAME,
    group::lost,
    keys::Job,
    link::{Link, at_once},
    script::strange,
    writer::{Order, lex, split},
};

/// Fields that are read at once.
const READ: usize = 1000;

pub(super) struct Backend {
    pub reader: Reader,
    pub subtask: Subtask,
    pub token: Arc<str>,
    pub orders: mpsc::UnboundedSender<Order>,
    /// Why there is no writer any more.
    pub failed: Arc<OnceLock<Error>>,
    /// It goes on as long as a snapshot waits for it.
    pub writer: Arc<AbortOnDrop<()>>,
}

/// Nobody reads what is on its way to the writer, so reads need not wait for it.
#[derive(Clone)]
pub(super) struct Reader {
    pub link: Arc<Link>,
    pub job: Job,
    /// What the operator's state is called in Redis.
    pub home: String,
    pub key_groups: KeyGroupRange,
}

impl Backend {
    fn order(&self, order: Order) -> Result<()> {
        self.orders.send(order).map_err(|_| failure(&self.failed))
    }

    fn check(&self) -> Result<()> {
        self.failed.get().map_or(Ok(()), |failed| Err(failed.clone()))
    }
}

fn failure(failed: &OnceLock<Error>) -> Error {
    failed.get().cloned().unwrap_or_else(|| Error::internal("the writer of the Redis backend has panicked"))
}

impl StateBackend for Backend {
    fn residency(&self) -> Residency {
        Residency::Cached
    }

    fn get_many(&mut self, keys: Vec<Bytes>) -> BoxFuture<'static, Result<Vec<Option<Bytes>>>> {
        let (checked, reader) = (self.check(), self.reader.clone());
        Box::pin(async move {
            checked?;
            reader.get_many(&keys).await
        })
    }

    fn scan(
        &mut self,
        start: Bytes,
        end: Option<Bytes>,
        limit: usize,
    ) -> BoxFuture<'static, Result<Vec<(Bytes, Bytes)>>> {
        let (checked, reader) = (self.check(), self.reader.clone());
        Box::pin(async move {
            checked?;
            reader.scan(&start, end.as_deref(), limit).await
        })
    }

    fn write(&mut self, batch: WriteBatch) -> Result<()> {
        self.check()?;
        self.order(Order::Write(batch))
    }

    fn flushed(&mut self) -> BoxFuture<'static, Result<()>> {
        let (done, is_done) = oneshot::channel();
        let (ordered, failed) = (self.order(Order::Flush(done)), self.failed.clone());
        Box::pin(async move {
            ordered?;
            is_done.await.map_err(|_| failure(&failed))
        })
    }

    fn seal(&mut self, epoch: Epoch) -> BoxFuture<'static, Result<StateHandle>> {
        let mark = format!("{epoch}-{}", self.token);
        let (done, is_done) = oneshot::channel();
        let (ordered, failed) = (self.order(Order::Seal(mark.clone(), done)), self.failed.clone());
        let (subtask, key_groups, writer) = (self.subtask, self.reader.key_groups, self.writer.clone());
        let home = self.reader.home.clone();
        Box::pin(async move {
            ordered?;
            is_done.await.map_err(|_| failure(&failed))?;
            drop(writer);
            let data = json!({ "mark": mark, "home": home });
            Ok(StateHandle { subtask, key_groups, backend: NAME.into(), data, objects: Vec::new() })
        })
    }
}

impl Reader {
    async fn get_many(&self, keys: &[Bytes]) -> Result<Vec<Option<Bytes>>> {
        let mut reads: Vec<BoxFuture<'_, Result<Vec<Option<Bytes>>>>> = Vec::new();
        for group in keys.chunk_by(|a, b| a.get(..2) == b.get(..2)) {
            for keys in group.chunks(READ) {
                let (key_group, _) = split(&keys[0])?;
                let fields = keys.iter().map(|key| split(key).map(|(_, field)| field)).collect::<Result<Vec<_>>>()?;
                reads.push(Box::pin(async move { self.values(key_group, &fields).await }));
            }
        }
        Ok(at_once(reads).await?.into_iter().flatten().collect())
    }

    async fn values(&self, key_group: u16, fields: &[&[u8]]) -> Result<Vec<Option<Bytes>>> {
        let mut command = redis::cmd("HMGET");
        command.arg(self.job.group(&self.home, key_group).base()).arg(fields);
        let values = self.link.ask(&command).await?;
        redis::from_redis_value(values).map_err(|e| strange().caused_by(e))
    }

    /// Key group after key group, until the page is full.
    async fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: usize) -> Result<Vec<(Bytes, Bytes)>> {
        let (mut page, (first, mut from)) = (Vec::new(), split(start)?);
        let last = end.map(split).transpose()?;
        for key_group in first.max(self.key_groups.start)..self.key_groups.end {
            if last.is_some_and(|(last, to)| key_group > last || (key_group == last && to.is_empty())) {
                break;
            }
            from = if key_group == first { from } else { &[] };
            let to = last.and_then(|(last, to)| (key_group == last).then_some(to));
            self.scan_group(key_group, (from, to), limit, &mut page).await?;
            if page.len() >= limit {
                break;
            }
        }
        Ok(page)
    }

    async fn scan_group(
        &self,
        key_group: u16,
        (from, to): (&[u8], Option<&[u8]>),
        limit: usize,
        page: &mut Vec<(Bytes, Bytes)>,
    ) -> Result<()> {
        let (from, to) = lex(from, to);
        let mut command = redis::cmd("ZRANGEBYLEX");
        let order = self.job.group(&self.home, key_group).order();
        command.arg(order).arg(from).arg(to).arg("LIMIT").arg(0).arg(limit - page.len());
        let fields: Vec<Vec<u8>> =
            redis::from_redis_value(self.link.ask(&command).await?).map_err(|e| strange().caused_by(e))?;
        for fields in fields.chunks(READ) {
            let some: Vec<&[u8]> = fields.iter().map(Vec::as_slice).collect();
            for (field, value) in some.iter().zip(self.values(key_group, &some).await?) {
                let key = [&key_group.to_be_bytes()[..], field].concat();
                // The two are changed together: only a server that has been emptied in between has none.
                let value = value.ok_or_else(|| lost(self.link.place(), key_group))?;
                page.push((key.into(), value));
            }
        }
        Ok(())
    }
}
