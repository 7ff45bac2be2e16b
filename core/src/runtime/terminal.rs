//! The typed ends of the graph, seen without their types: what the driver needs of a sink, a shared
//! stream and a source.
use futures::future::BoxFuture;
use serde_json::Value;
use std::{any::Any, sync::Arc, time::Duration};

use tidegate_checkpoint::{
    commit::CommitPermit,
    error::{Error, Result},
    figure::Figure,
    ids::OperatorId,
};

use super::{build::Build, sink_output::SinkOutput};
use crate::{
    api::Stream,
    connect::{OpenSink, Sink, SinkContext, Source, Split, WriterContext},
    plan::NodeId,
};

/// An open sink, without its type.
pub trait Opened: Send + Sync {
    /// See [`OpenSink::commit`].
    fn commit<'a>(&'a self, permit: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>>;
    /// See [`OpenSink::figures`].
    fn figures(&self) -> Vec<Figure>;
    /// For the terminal that opened it.
    fn as_any(&self) -> &dyn Any;
}

struct OpenedSink<T, O>(O, std::marker::PhantomData<fn(T)>);

impl<T: 'static, O: OpenSink<T>> Opened for OpenedSink<T, O> {
    fn commit<'a>(&'a self, permit: &'a CommitPermit, committables: Vec<Value>) -> BoxFuture<'a, Result<()>> {
        self.0.commit(permit, committables)
    }
    fn figures(&self) -> Vec<Figure> {
        self.0.figures()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The end of a chain.
pub trait Terminal: Send + Sync {
    /// The sink's name; `None` for a shared stream.
    fn sink(&self) -> Option<&OperatorId>;
    /// Opens the sink through its recovery; `None` for a shared stream.
    ///
    /// # Errors
    /// See [`Sink::recover`].
    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<Option<Arc<dyn Opened>>>>;
    /// Builds its chain in one subtask.
    ///
    /// # Errors
    /// Fails the attempt.
    fn instantiate(&self, build: &mut Build<'_>, opened: Option<&dyn Opened>) -> Result<()>;
}

/// A stream and its sink.
pub(crate) struct SinkTerminal<S, K> {
    stream: S,
    node: NodeId,
    name: Option<OperatorId>,
    sink: K,
}

impl<S: Stream, K: Sink<S::Item>> SinkTerminal<S, K> {
    /// A bad name has been noted in the graph: such a job never runs.
    pub(crate) fn new(stream: S, node: NodeId, name: &str, sink: K) -> Self {
        Self { stream, node, name: OperatorId::new(name).ok(), sink }
    }
}

impl<S: Stream, K: Sink<S::Item>> Terminal for SinkTerminal<S, K> {
    fn sink(&self) -> Option<&OperatorId> {
        self.name.as_ref()
    }

    fn recover(&self, context: SinkContext, restored: Vec<Value>) -> BoxFuture<'_, Result<Option<Arc<dyn Opened>>>> {
        Box::pin(async move {
            let name = context.sink.clone();
            let open = self.sink.recover(context, restored).await.map_err(|e| e.at(format!("sink {name}")))?;
            Ok(Some(Arc::new(OpenedSink::<S::Item, _>(open, std::marker::PhantomData)) as Arc<dyn Opened>))
        })
    }

    fn instantiate(&self, build: &mut Build<'_>, opened: Option<&dyn Opened>) -> Result<()> {
        let (Some(name), Some(opened)) =
            (&self.name, opened.and_then(|o| o.as_any().downcast_ref::<OpenedSink<S::Item, K::Open>>()))
        else {
            return Err(Error::internal("a sink was built before it had recovered"));
        };
        let context = WriterContext { subtask: build.subtask(), parallelism: build.parallelism() };
        let writer = opened.0.writer(context).map_err(|e| e.at(format!("sink {name}")))?;
        let out = SinkOutput::new(writer, build.reporter(name.clone()), build.stats(self.node));
        self.stream.attach(build, out)
    }
}

/// The upstream of a shared stream.
pub(crate) struct ShareTerminal<S> {
    stream: S,
    node: NodeId,
}

impl<S: Stream> ShareTerminal<S> {
    pub(crate) fn new(stream: S, node: NodeId) -> Self {
        Self { stream, node }
    }
}

impl<S: Stream> Terminal for ShareTerminal<S>
where
    S::Item: Clone,
{
    fn sink(&self) -> Option<&OperatorId> {
        None
    }
    fn recover(&self, _: SinkContext, _: Vec<Value>) -> BoxFuture<'_, Result<Option<Arc<dyn Opened>>>> {
        Box::pin(futures::future::ready(Ok(None)))
    }
    fn instantiate(&self, build: &mut Build<'_>, _: Option<&dyn Opened>) -> Result<()> {
        let port = build.port(self.node);
        self.stream.attach(build, port)
    }
}

/// A source as the driver sees it: what splits there are.
#[derive(Clone)]
pub struct SourceNode {
    /// Its name.
    pub name: OperatorId,
    source: Arc<dyn Discover>,
}

trait Discover: Send + Sync {
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>>;
    fn interval(&self) -> Option<Duration>;
    fn can_end(&self) -> Result<()>;
    fn committed(&self, positions: Vec<(String, Value)>) -> BoxFuture<'_, Result<()>>;
    fn figures(&self) -> Vec<Figure>;
}

impl<S: Source> Discover for S {
    fn discover(&self) -> BoxFuture<'_, Result<Vec<Split>>> {
        Source::discover(self)
    }
    fn interval(&self) -> Option<Duration> {
        self.discovery_interval()
    }
    fn can_end(&self) -> Result<()> {
        Source::can_end(self)
    }
    fn committed(&self, positions: Vec<(String, Value)>) -> BoxFuture<'_, Result<()>> {
        Source::committed(self, positions)
    }
    fn figures(&self) -> Vec<Figure> {
        Source::figures(self)
    }
}

impl SourceNode {
    pub(crate) fn new<S: Source>(name: OperatorId, source: Arc<S>) -> Self {
        Self { name, source }
    }
    /// See [`Source::discover`].
    pub(crate) async fn discover(&self) -> Result<Vec<Split>> {
        self.source.discover().await.map_err(|e| e.at(format!("source {}", self.name)))
    }
    /// See [`Source::discovery_interval`].
    pub(crate) fn interval(&self) -> Option<Duration> {
        self.source.interval()
    }
    /// See [`Source::can_end`].
    pub(crate) fn can_end(&self) -> Result<()> {
        self.source.can_end().map_err(|e| e.at(format!("source {}", self.name)))
    }
    /// See [`Source::committed`].
    pub(crate) async fn committed(&self, positions: Vec<(String, Value)>) -> Result<()> {
        self.source.committed(positions).await.map_err(|e| e.at(format!("source {}", self.name)))
    }
    /// See [`Source::figures`].
    pub(crate) fn figures(&self) -> Vec<Figure> {
        self.source.figures()
    }
}
