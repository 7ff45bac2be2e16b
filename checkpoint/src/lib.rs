//! The checkpoint protocol of tidegate, and nothing else: no records, no threads, no clock.
//!
//! Decide purely, act at the edge: [`coordinator`], [`recover`] and [`retain`] are functions from what was
//! observed to what is to be done; [`store`] and [`commit`] do it. In reading order: what objects are
//! called ([`paths`]), how they are written ([`envelope`], [`manifest`]), where ([`store`]), when
//! ([`coordinator`]), what makes them count ([`commit`]), what a start finds ([`recover`]), what another version of the
//! program makes of it ([`evolve`]), and what may be deleted ([`retain`]). What parts of a job say of themselves to those who watch are [`figure`]s.
pub mod commit;
pub mod coordinator;
pub mod envelope;
pub mod error;
pub mod evolve;
pub mod figure;
#[cfg(feature = "hdfs")]
mod hdfs;
pub mod ids;
pub mod kill;
pub mod manifest;
pub mod paths;
pub mod recover;
pub mod retain;
pub mod store;
pub mod unfinished;
