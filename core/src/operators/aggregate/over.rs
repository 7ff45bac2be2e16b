//! Aggregates of a part of the record, and results made into others.
use super::Aggregate;

/// An aggregate of what a function takes of the record.
///
/// ```
/// # use tidegate_core::{Aggregate, operators::aggregate::{TopK, over}};
/// let longest = over(|word: &&str| word.len(), TopK::largest(2));
/// let mut state = longest.init();
/// for word in ["one", "two", "three", "four"] {
///     longest.add(&mut state, word);
/// }
/// assert_eq!(longest.finish(&state), [5, 4]);
/// ```
pub fn over<T, U, F, A>(field: F, aggregate: A) -> Over<F, A>
where
    F: Fn(&T) -> U + Clone + Send + Sync + 'static,
    A: Aggregate<U>,
{
    Over { field, aggregate }
}

/// See [`over`].
#[derive(Clone, Copy, Debug)]
pub struct Over<F, A> {
    pub(crate) field: F,
    pub(crate) aggregate: A,
}

impl<T, U, F, A> Aggregate<T> for Over<F, A>
where
    F: Fn(&T) -> U + Clone + Send + Sync + 'static,
    A: Aggregate<U>,
{
    type State = A::State;
    type Output = A::Output;
    #[inline]
    fn init(&self) -> A::State {
        self.aggregate.init()
    }
    #[inline]
    fn add(&self, state: &mut A::State, record: T) {
        self.aggregate.add(state, (self.field)(&record));
    }
    #[inline]
    fn add_ref(&self, state: &mut A::State, record: &T) {
        self.aggregate.add(state, (self.field)(record));
    }
    #[inline]
    fn merge(&self, state: &mut A::State, other: &A::State) {
        self.aggregate.merge(state, other);
    }
    #[inline]
    fn finish(&self, state: &A::State) -> A::Output {
        self.aggregate.finish(state)
    }
}

/// See [`Aggregate::map_output`].
#[derive(Clone, Copy, Debug)]
pub struct MapOutput<A, F> {
    aggregate: A,
    f: F,
}

impl<A, F> MapOutput<A, F> {
    pub(crate) fn new(aggregate: A, f: F) -> Self {
        Self { aggregate, f }
    }
}

impl<T, U, A, F> Aggregate<T> for MapOutput<A, F>
where
    U: Send + 'static,
    A: Aggregate<T>,
    F: Fn(A::Output) -> U + Clone + Send + Sync + 'static,
{
    type State = A::State;
    type Output = U;
    #[inline]
    fn init(&self) -> A::State {
        self.aggregate.init()
    }
    #[inline]
    fn add(&self, state: &mut A::State, record: T) {
        self.aggregate.add(state, record);
    }
    #[inline]
    fn add_ref(&self, state: &mut A::State, record: &T)
    where
        T: Clone,
    {
        self.aggregate.add_ref(state, record);
    }
    #[inline]
    fn merge(&self, state: &mut A::State, other: &A::State) {
        self.aggregate.merge(state, other);
    }
    #[inline]
    fn finish(&self, state: &A::State) -> U {
        (self.f)(self.aggregate.finish(state))
    }
}

/// `of`, for aggregates that are mostly of one field.
macro_rules! of {
    ($aggregate:ident, $default:expr, $doc:literal) => {
        impl $aggregate {
            #[doc = $doc]
            pub fn of<T, U, F>(field: F) -> $crate::operators::aggregate::Over<F, Self>
            where
                F: Fn(&T) -> U + Clone + Send + Sync + 'static,
                Self: Aggregate<U>,
            {
                $crate::operators::aggregate::over(field, $default)
            }
        }
    };
}
pub(super) use of;
