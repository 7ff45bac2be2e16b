//! Side outputs of a process function: streams beside its main one, each of a type of its own.
//!
//! A tag is made before the job is described, and given to the function; the stream behind it is taken from the
//! operator. So the function names no stream, and the stream no function: they meet in the tag's number.
use std::{
    any::Any,
    marker::PhantomData,
    sync::Arc,
    task::{Context, Poll},
};

use tidegate_checkpoint::error::Result;

use crate::{
    env::unique,
    operators::side::{SidePort, all_ready},
    plan::NodeId,
    record::{Control, Output},
    runtime::build::Build,
    time::Timestamp,
};

/// Names a side output, and the type of its records. Clones name the same one. As Flink's `OutputTag`.
///
/// ```
/// use tidegate_core::OutputTag;
/// let alerts: OutputTag<String> = OutputTag::new("alerts");
/// assert_eq!(alerts.clone().name(), "alerts");
/// ```
#[derive(Debug)]
pub struct OutputTag<T> {
    name: Arc<str>,
    number: u64,
    records: PhantomData<fn() -> T>,
}

impl<T> Clone for OutputTag<T> {
    fn clone(&self) -> Self {
        Self { name: self.name.clone(), ..*self }
    }
}

impl<T> OutputTag<T> {
    /// One unlike any other, whatever it is called.
    pub fn new(name: &str) -> Self {
        Self { name: name.into(), number: unique(), records: PhantomData }
    }
    /// What it is called in the plan.
    pub fn name(&self) -> &str {
        &self.name
    }
}

type Make = Arc<dyn Fn(&mut Build<'_>) -> Box<dyn Side> + Send + Sync>;

/// The side outputs of an operator that somebody has taken.
#[derive(Clone, Default)]
pub(crate) struct SideSpecs(Vec<(u64, Make)>);

impl SideSpecs {
    /// The records under a tag go to a node.
    pub(crate) fn take<T: Clone + Send + 'static>(&mut self, tag: &OutputTag<T>, node: NodeId) {
        self.0.push((tag.number, Arc::new(move |build| Box::new(build.port::<T>(node)))));
    }
    pub(super) fn build(&self, build: &mut Build<'_>) -> Sides {
        Sides(self.0.iter().map(|(number, make)| (*number, make(build))).collect())
    }
}

/// Their ports in one subtask.
pub(crate) struct Sides(Vec<(u64, Box<dyn Side>)>);

impl Sides {
    pub(super) fn record<T: Clone + Send + 'static>(&mut self, tag: &OutputTag<T>, record: T, at: Timestamp) {
        let taken = self.0.iter_mut().find(|(number, _)| *number == tag.number);
        if let Some(port) = taken.and_then(|(_, side)| side.as_any().downcast_mut::<SidePort<T>>()) {
            port.record(record, at);
        }
    }
    pub(super) fn control(&mut self, control: Control) {
        self.0.iter_mut().for_each(|(_, side)| side.control(control));
    }
    pub(super) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        all_ready(self.0.iter_mut().map(|(_, side)| side.poll_ready(cx)))
    }
    pub(super) fn sweep(&mut self) -> bool {
        self.0.iter_mut().fold(false, |more, (_, side)| side.sweep() | more)
    }
}

/// A port whose type is forgotten.
trait Side: Send {
    fn as_any(&mut self) -> &mut dyn Any;
    fn control(&mut self, control: Control);
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>>;
    fn sweep(&mut self) -> bool;
}

impl<T: Clone + Send + 'static> Side for SidePort<T> {
    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
    fn control(&mut self, control: Control) {
        Output::control(self, control);
    }
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Output::poll_ready(self, cx)
    }
    fn sweep(&mut self) -> bool {
        Output::sweep(self)
    }
}
