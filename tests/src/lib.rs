//! Helpers of vmprobe's tests on real packets and real parts.
#![expect(clippy::missing_panics_doc, reason = "in a test's helper a panic is the failing test")]

pub mod broker;
pub mod captures;
pub mod clickhouse;
pub mod cloud_double;
pub mod end_to_end;
pub mod folder;
pub mod forms;
pub mod kafka;
pub mod libvirtd;
pub mod link;
pub mod neutron;
pub mod odd_traffic;
pub mod oracles;
pub mod overlap;
pub mod paths;
pub mod ports;
pub mod promtool;
pub mod random;
pub mod records;
pub mod replaying;
pub mod rsyslog;
pub mod sinks;
pub mod skips;
