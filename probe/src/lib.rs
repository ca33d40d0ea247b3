//! vmprobe: monitoring appliance for the traffic between virtual machines.
//!
//! The modules stand in the order of a packet's path; each uses only what stands above it.
//! ARCHITECTURE.md is the map with the invariants.

pub mod counters;
pub mod time;
pub mod index;
pub mod hash;
pub mod cores;
pub mod inventory;
pub mod config;
pub mod sources;
#[cfg(feature = "dpdk")]
#[expect(unsafe_code, reason = "the only safe wrapper over the C library; counted by a test")]
pub mod dpdk;
pub mod memory;
pub mod capture;
pub mod decode;
pub mod spread;
pub mod copies;
pub mod path;
pub mod measure;
pub mod app;
pub mod flow;
pub mod window;
pub mod worker;
pub mod aggregate;
pub mod detect;
pub mod record;
pub mod export;
pub mod store;
pub mod correlate;
pub mod serve;
pub mod generate;
pub mod runtime;
