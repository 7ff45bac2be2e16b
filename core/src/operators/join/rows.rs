//! What comes of a match, and of a record that has none: the user's function, and the four kinds of join.
use crate::time::Window;

/// Makes the rows of a join. Which sides' unmatched records make one is a constant of the kind, so that an inner join
/// keeps no account of what has been matched.
pub trait Rows<K, L, R>: Clone + Send + Sync + 'static {
    /// A row.
    type Out: Send + 'static;
    /// Left records without a match make one.
    const LEFT: bool;
    /// Right records without a match make one.
    const RIGHT: bool;
    /// The row of a pair, or of a record that has no other; `None` where the kind has no such row.
    fn row(&self, key: &K, window: Window, left: Option<&L>, right: Option<&R>) -> Option<Self::Out>;
}

macro_rules! kind {
    ($(#[$doc:meta])* $kind:ident $left:literal $right:literal ($l:ident: $lt:ty = $le:expr, $r:ident: $rt:ty = $re:expr)) => {
        $(#[$doc])*
        #[derive(Clone, Debug)]
        pub struct $kind<F>(pub(crate) F);
        impl<K, L, R, U, F> Rows<K, L, R> for $kind<F>
        where
            F: Fn(&K, Window, $lt, $rt) -> U + Clone + Send + Sync + 'static,
            U: Send + 'static,
        {
            type Out = U;
            const LEFT: bool = $left;
            const RIGHT: bool = $right;
            #[inline(always)]
            fn row(&self, key: &K, window: Window, $l: Option<&L>, $r: Option<&R>) -> Option<U> {
                Some((self.0)(key, window, $le, $re))
            }
        }
    };
}
kind! {
    /// Pairs only.
    Inner false false (l: &L = l?, r: &R = r?)
}
kind! {
    /// Pairs, and left records that have no match.
    Left true false (l: &L = l?, r: Option<&R> = r)
}
kind! {
    /// Pairs, and right records that have no match.
    Right false true (l: Option<&L> = l, r: &R = r?)
}
kind! {
    /// Pairs, and records of both sides that have no match.
    Full true true (l: Option<&L> = l, r: Option<&R> = r)
}
