//! What is measured of a flow, as pure functions: no table, no clock, no allocation per packet.
//!
//! In: TCP segments of one flow in the order of their receive times; delays. Out: samples, events
//! and losses, handed to a [`tcp::Sink`]; mergeable histograms.
//! Cost: each file states its own.
//! Invariants: the same segments give the same measures, whatever the burst or the worker.
//! Source: docs/measures.md defines each measure with a drawing.

pub mod histogram;
pub mod span;
pub mod tcp;
