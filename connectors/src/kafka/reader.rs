//! Reads one partition, out of the queue that librdkafka fills for it.
//!
//! Offsets are not dense: those of aborted records and of the markers that end transactions are never seen. The
//! position is behind the last record, and moves on where the queue says that it has come to the partition's end; by
//! that a reader also knows that it has passed its own end although nothing stands there, and that it has read what was
//! there when a batch began. The hard case is an error:
//! librdkafka goes on by itself after most of them, so those are waited for, and it is only the shared clients'
//! thread that loses patience; but an error behind which it would leave something out fails the attempt. A
//! message that cannot be decoded *yet* is no error: the reader stands before it, and so does its position.
use futures::future::BoxFuture;
use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};
use serde_json::Value;
use std::{
    ffi::CString,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tidegate_core::{
    Result, Undecodable,
    connect::{Emit, Progress, SplitReader},
};

use super::{
    codec::{Decode, NotDecoded},
    consumer::{Shape, Shared},
    native::{self, Next, Queue},
    place::{Place, Position},
};

/// The reader of a [`KafkaSource`](super::KafkaSource).
pub struct KafkaReader<C> {
    place: Place,
    codec: C,
    position: Position,
    /// Where the partition began when it was opened: what progress is counted from.
    low: i64,
    shape: Arc<Shape>,
    /// What is read; gone when there is nothing more to read.
    fetched: Option<Fetched>,
    /// Where the fetcher said that a batch has its bound, as soon as it says anything.
    bound: Option<Bound>,
    /// Everything that the fetcher knows of has been read.
    at_end: bool,
    /// What has to be done before the next message can be decoded.
    held: Option<BoxFuture<'static, Result<()>>>,
    /// Kept to the end, so that the other splits need not make their own.
    _shared: Option<Arc<Shared>>,
}

#[derive(Clone, Copy)]
enum Bound {
    Unknown,
    At(i64),
}

/// The queue first: it is to be dropped before the clients that it belongs to.
struct Fetched {
    queue: Queue,
    shared: Arc<Shared>,
    place: Place,
    topic: CString,
}

impl Drop for Fetched {
    fn drop(&mut self) {
        self.shared.leave(&self.place);
    }
}

impl<C: Decode> KafkaReader<C> {
    /// Of a partition that has come to its end, or is gone.
    pub(super) fn at_end(
        place: Place,
        codec: C,
        position: Position,
        shape: Arc<Shape>,
        shared: Option<Arc<Shared>>,
    ) -> Self {
        let low = position.offset;
        Self {
            place,
            codec,
            position,
            low,
            shape,
            fetched: None,
            bound: None,
            at_end: true,
            held: None,
            _shared: shared,
        }
    }

    /// Blocks for a moment.
    pub(super) fn open(
        place: Place,
        codec: C,
        position: Position,
        low: i64,
        shape: Arc<Shape>,
        shared: Arc<Shared>,
    ) -> Result<Self> {
        let queue = shared.assign(&place, position.offset, position.topic_id.clone())?;
        // A name with a zero in it has no queue.
        let topic = CString::new(&*place.topic).unwrap_or_default();
        let fetched = Some(Fetched { queue, shared: shared.clone(), place: place.clone(), topic });
        let (bound, at_end) = (None, false);
        Ok(Self { place, codec, position, low, shape, fetched, bound, at_end, held: None, _shared: Some(shared) })
    }
}

impl<C: Decode> SplitReader for KafkaReader<C> {
    type Item = C::Item;

    fn fill<E: Emit<C::Item>>(&mut self, budget: usize, out: &mut E) -> Result<Progress> {
        self.find_bound();
        let bound = self.limit();
        let Self { place, codec, position, shape, fetched, at_end, held, .. } = self;
        let Some(Fetched { queue, shared, .. }) = fetched else { return Ok(Progress::End) };
        if let Some(fault) = shared.fault() {
            return Err(fault);
        }
        if held.is_some() {
            return Ok(Progress::Held);
        }
        let end = position.end.unwrap_or(i64::MAX);
        let (mut bytes, mut progress) = (0, Progress::More);
        for _ in 0..budget {
            if position.offset >= end {
                break;
            }
            if position.offset >= bound {
                progress = Progress::Wait;
                break;
            }
            match queue.next() {
                Some(Ok(Next::Message(message))) => {
                    *at_end = false;
                    // What is read must not come again, nor what is behind the end.
                    if message.offset < position.offset {
                        continue;
                    }
                    if message.offset >= end {
                        position.offset = end;
                        break;
                    }
                    if message.offset >= bound {
                        position.offset = bound;
                        queue.again();
                        progress = Progress::Wait;
                        break;
                    }
                    let length = message.key.map_or(0, <[u8]>::len) + message.value.map_or(0, <[u8]>::len);
                    let next = message.offset + 1;
                    match codec.decode(&message) {
                        Ok(record) => out.record(record),
                        Err(NotDecoded::Yet(first)) => {
                            // What has been passed over before it is behind the reader all the same.
                            position.offset = message.offset;
                            queue.again();
                            (*held, progress) = (Some(first), Progress::Held);
                            break;
                        }
                        Err(NotDecoded::Ever(reason)) => {
                            let raw = String::from_utf8_lossy(message.value.unwrap_or_default()).into_owned();
                            let place_in = format!("offset {}", message.offset);
                            out.undecodable(Undecodable { split: place.to_string(), place: place_in, reason, raw })?;
                        }
                    }
                    (position.offset, bytes) = (next, bytes + length);
                }
                Some(Ok(Next::End(offset))) => {
                    position.offset = position.offset.max(offset.min(end));
                    *at_end = true;
                }
                Some(Err(error)) => judge(shape, shared, place, position, &error)?,
                None => {
                    progress = Progress::Wait;
                    break;
                }
            }
        }
        if bytes > 0 {
            shared.progressed();
            out.bytes(bytes as u64);
        }
        if position.offset >= end {
            // Nothing behind the end is to be fetched.
            *fetched = None;
            return Ok(Progress::End);
        }
        Ok(progress)
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        if let Some(Fetched { queue, shared, .. }) = &mut self.fetched {
            // Whatever is waited for: its bell rings for a fault, too.
            let polled = queue.poll_ready(cx);
            if let Some(fault) = shared.fault() {
                return Poll::Ready(Err(fault));
            }
            match &mut self.held {
                Some(held) => {
                    let done = ready!(held.as_mut().poll(cx));
                    self.held = None;
                    done?;
                }
                None => ready!(polled),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn bound(&mut self) -> bool {
        self.bound = Some(Bound::Unknown);
        self.find_bound();
        true
    }

    /// Where the fetcher knows the partition's end and it cannot be read up to there, it is open transactions that
    /// are: what is before them is all there is.
    fn is_at_bound(&self) -> bool {
        self.at_end || self.position.offset >= self.limit()
    }

    fn position(&self) -> Value {
        self.position.to_value()
    }

    fn progress(&self) -> Option<u64> {
        self.position.end.is_some().then(|| self.position.offset.saturating_sub(self.low).max(0) as u64)
    }

    fn lag(&self) -> Option<u64> {
        let Some(Fetched { shared, place, topic, .. }) = &self.fetched else { return Some(0) };
        let known = native::known_end(&shared.consumer, topic, place.partition)?;
        Some(known.min(self.position.end.unwrap_or(i64::MAX)).saturating_sub(self.position.offset).max(0) as u64)
    }
}

impl<C> KafkaReader<C> {
    fn find_bound(&mut self) {
        if let (Some(Bound::Unknown), Some(Fetched { shared, topic, .. })) = (self.bound, &self.fetched)
            && let Some(known) = native::known_end(&shared.consumer, topic, self.place.partition)
        {
            self.bound = Some(Bound::At(known));
        }
    }

    fn limit(&self) -> i64 {
        match self.bound {
            Some(Bound::At(bound)) => bound,
            Some(Bound::Unknown) | None => i64::MAX,
        }
    }
}

/// Whether a reader can go on after an error of the fetcher.
///
/// # Errors
/// Where it cannot.
fn judge(shape: &Shape, shared: &Shared, place: &Place, position: &Position, error: &KafkaError) -> Result<()> {
    let code = error.rdkafka_error_code();
    match code {
        // The fetcher tries again, at the same place.
        Some(
            Code::BrokerTransportFailure
            | Code::AllBrokersDown
            | Code::Resolve
            | Code::OperationTimedOut
            | Code::RequestTimedOut
            | Code::NetworkException
            | Code::LeaderNotAvailable
            | Code::NotLeaderForPartition
            | Code::BrokerNotAvailable
            | Code::ReplicaNotAvailable
            | Code::KafkaStorageError
            | Code::FencedLeaderEpoch
            | Code::UnknownLeaderEpoch
            | Code::OffsetNotAvailable,
        ) => {
            tracing::debug!(%place, %error, "a fetch has failed; it is tried again");
            Ok(())
        }
        Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
            Err(shape.terms.gap_at_work(&format!("offset {} of {place} is not there any more", position.offset)))
        }
        // Or so says a broker that may have just started.
        Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => {
            shared.doubt();
            Ok(())
        }
        _ => Err(shape.kafka.failed(&format!("{place} cannot be read at offset {}", position.offset), error)),
    }
}
