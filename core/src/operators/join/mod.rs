//! Joins: records of two streams that have a key in common, and times that fit.
//!
//! All of them are operators over [`Connected`](super::connected::Connected): both streams are partitioned by the key into
//! one task, which keeps what has come of the one for what is to come of the other.
//!
//! | | which pairs | what is kept, and until when |
//! |---|---|---|
//! | [`window`] | of one window, tumbling, hopping or session | both sides of open windows |
//! | [`interval`] | `l.at + lower <= r.at <= l.at + upper` | each record until the watermark has passed what it may match |
//! | [`as_of`] | each left record with the newest version of its time | left records until their time, versions until the next |
//!
//! **What may depend on timing.** Nothing of it, for records that are in time. The watermark of a join is the lesser one
//! of its two inputs', and a record is late where it is not later than that. So a record that was late in its own stream
//! may still be in time at the join, if the other stream's watermark is behind: then it is joined with everything that it
//! would have been joined with, and else it is counted, goes to the late stream, and is joined with nothing. A record
//! that is in time in its own stream is in time at the join, always.
pub mod as_of;
mod few;
pub mod interval;
mod rows;
mod sides;
pub mod window;

pub use few::Few;
pub use rows::{Full, Inner, Left, Right, Rows};
pub use sides::{JoinWindows, Joining, Sides};
