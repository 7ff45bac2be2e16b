//! The operators, one a file: the stream that users chain, and the output that runs.
pub mod filter;
pub mod filter_map;
pub mod flat_map;
pub mod inspect;
pub mod map;
pub mod try_map;

pub mod sample;
pub mod shared;
pub mod side;
pub mod side_output;
pub mod split;
pub mod throttle;
pub mod union;

pub mod async_map;
mod line;
pub mod lookup_join;
pub mod requests;
mod retry;
pub mod stateful;

mod advance;
pub mod aggregate;
pub mod connected;
pub mod dedup;
mod event_time;
pub mod join;
pub mod keyed;
mod node;
pub mod process;
pub mod running;
pub mod top_n;
pub mod window;

/// The parts every stateless operator has in common: its upstream, its function, its node in the graph.
macro_rules! stateless {
    ($(#[$doc:meta])* $stream:ident, $label:literal) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $stream<S, F> {
            upstream: S,
            f: F,
            node: crate::plan::NodeId,
        }
        impl<S: crate::Stream, F> $stream<S, F> {
            pub(crate) fn new(upstream: S, f: F) -> Self {
                let node = upstream.graph().add(crate::plan::NodeKind::Stateless, $label, None, &[upstream.node()]);
                Self { upstream, f, node }
            }
        }
    };
}
/// `graph` and `node` of a stream that has an `upstream` and a `node`.
macro_rules! placed {
    () => {
        fn graph(&self) -> &crate::plan::Graph {
            self.upstream.graph()
        }
        fn node(&self) -> crate::plan::NodeId {
            self.node
        }
    };
}
/// What an output without counters or errors of its own passes on.
macro_rules! pass {
    (control) => {
        fn control(&mut self, control: crate::record::Control) {
            self.out.control(control);
        }
    };
    (ready) => {
        fn poll_ready(
            &mut self,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<tidegate_checkpoint::error::Result<()>> {
            self.out.poll_ready(cx)
        }
    };
    (sweep) => {
        fn sweep(&mut self) -> bool {
            self.out.sweep()
        }
    };
}
pub(crate) use {pass, placed, stateless};
