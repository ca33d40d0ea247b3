//! One file for each command: its arguments and what it prints.

pub(crate) mod bench;
pub(crate) mod configuration;
pub(crate) mod correlate;
pub(crate) mod generate;
pub(crate) mod live_flows;
pub(crate) mod output;
pub(crate) mod query;
pub(crate) mod replay;
pub(crate) mod run;
pub(crate) mod schema;
pub(crate) mod tidy;
