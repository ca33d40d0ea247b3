//! Configuration: what may be written (`schema`), and what will run (`plan`).
//!
//! In: TOML text. Out: [`Plan`], or every problem at once with file, line and key.
//! Invariants: a `Plan` is complete and consistent; no later stage checks configuration again.

pub mod doctor;
mod agree;
mod build;
pub mod check;
mod derived;
pub mod device;
pub(crate) mod document;
mod load;
mod plan;
pub mod reference;
pub mod schema;
pub(crate) mod secret;

pub use derived::{MIB, Memory, Sizes};
pub use document::{Given, Key, Kind, PROBLEMS_MAX, Problem, Problems, Table};
pub use load::{CONFIG_BYTES_MAX, Loaded, Mode, load, parse, replay_without_file};
pub use plan::*;
