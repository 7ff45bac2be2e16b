//! What a window join keeps of a key in a window, and the windows that can be joined over.
//!
//! [`Tumbling`] windows have an operator of their own (`window`). Those that merge, slices of [`Hopping`] ones and
//! [`Session`]s, are windows like any others, whose aggregate is both sides' records: so a record is kept once, in however
//! many windows it is. It is copied for each of them when that fires.
use serde::{Deserialize, Serialize};
use std::marker::PhantomData;

use super::{
    super::{
        aggregate::Aggregate,
        connected::Either,
        keyed::{KeyedInput, KeyedStreamOp},
        window::{Common, Hopping, Session, Tumbling, Windowed, Windows},
    },
    Few, Rows,
    window::WindowJoinSpec,
};
use crate::{
    api::stream::Stream,
    plan::NodeId,
    state::{hash::Key, table::Value},
};

/// Both sides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sides<L, R> {
    pub(super) left: Few<L>,
    pub(super) right: Few<R>,
}

impl<L, R> Sides<L, R> {
    pub(super) fn none() -> Self {
        Self { left: Few::None, right: Few::None }
    }
}

/// The rows of these records, of one key in one window.
#[inline(always)]
pub(super) fn each_row<K, L, R, F: Rows<K, L, R>>(
    left: &[L],
    right: &[R],
    mut row: impl FnMut(Option<&L>, Option<&R>),
) {
    if right.is_empty() && F::LEFT {
        for left in left {
            row(Some(left), None);
        }
    }
    if left.is_empty() && F::RIGHT {
        for right in right {
            row(None, Some(right));
        }
    }
    for left in left {
        for right in right {
            row(Some(left), Some(right));
        }
    }
}

/// Both sides as an aggregate.
#[derive(Clone, Debug)]
struct Both<L, R>(PhantomData<fn() -> (L, R)>);

impl<L: Value + Clone, R: Value + Clone> Aggregate<Either<L, R>> for Both<L, R> {
    type State = Sides<L, R>;
    type Output = Sides<L, R>;
    fn init(&self) -> Sides<L, R> {
        Sides::none()
    }
    fn add(&self, sides: &mut Sides<L, R>, record: Either<L, R>) {
        match record {
            Either::Left(left) => sides.left.push(left),
            Either::Right(right) => sides.right.push(right),
        }
    }
    fn merge(&self, sides: &mut Sides<L, R>, other: &Sides<L, R>) {
        other.left.as_slice().iter().for_each(|left| sides.left.push(left.clone()));
        other.right.as_slice().iter().for_each(|right| sides.right.push(right.clone()));
    }
    fn finish(&self, sides: &Sides<L, R>) -> Sides<L, R> {
        sides.clone()
    }
}

/// A window join as far as it does not depend on its windows.
#[derive(Debug)]
pub struct Joining<I> {
    pub(crate) input: I,
    pub(crate) name: String,
    pub(crate) node: NodeId,
    pub(crate) lateness_ms: i64,
    pub(crate) late: Option<NodeId>,
}

/// Windows that can be joined over: [`Tumbling`], [`Hopping`] and [`Session`].
pub trait JoinWindows<L, R>: Windows<Either<L, R>> {
    /// The rows of a join over them.
    fn rows<I, K, F>(self, join: Joining<I>, rows: F) -> impl Stream<Item = F::Out>
    where
        I: KeyedInput<K, Record = Either<L, R>>,
        K: Key,
        F: Rows<K, L, R>;
}

impl<L: Value + Clone, R: Value + Clone> JoinWindows<L, R> for Tumbling {
    fn rows<I, K, F>(self, join: Joining<I>, rows: F) -> impl Stream<Item = F::Out>
    where
        I: KeyedInput<K, Record = Either<L, R>>,
        K: Key,
        F: Rows<K, L, R>,
    {
        let Joining { input, name, node, lateness_ms, late } = join;
        KeyedStreamOp::new(input, WindowJoinSpec { windows: self, lateness_ms, late, rows }, &name, node)
    }
}

macro_rules! merging {
    ($($windows:ty),*) => {$(
        impl<L: Value + Clone, R: Value + Clone> JoinWindows<L, R> for $windows {
            fn rows<I, K, F>(self, join: Joining<I>, rows: F) -> impl Stream<Item = F::Out>
            where
                I: KeyedInput<K, Record = Either<L, R>>,
                K: Key,
                F: Rows<K, L, R>,
            {
                let Joining { input, name, node, lateness_ms, late } = join;
                let spec = Windows::<Either<L, R>>::spec::<K, _>(
                    self,
                    Common { lateness_ms, late, aggregate: Both::<L, R>(PhantomData) },
                );
                KeyedStreamOp::new(input, spec, &name, node).flat_map(move |of: Windowed<K, Sides<L, R>>| {
                    let (mut made, Windowed { key, window, value, .. }) = (Vec::new(), of);
                    each_row::<K, L, R, F>(value.left.as_slice(), value.right.as_slice(), |left, right| {
                        made.extend(rows.row(&key, window, left, right));
                    });
                    made
                })
            }
        }
    )*};
}
merging!(Hopping, Session<Either<L, R>>);
