//! Configuration: what may be written (`schema`), and what will run (`plan`).
//!
//! In: TOML text. Out: [`Plan`], or every problem at once with file, line and key.
//! Invariants: a `Plan` is complete and consistent; no later stage checks configuration again.

pub mod doctor;
mod plan;

pub use plan::*;
