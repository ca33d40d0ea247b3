//! What the end-to-end tests stand on: the built program as a process, senders, namespaces, an
//! Open vSwitch, a link with known truth. Each of them is taken down when it is dropped, also by a failing test.

mod endless;
mod http;
mod huge_pages;
mod ledger;
mod namespace;
mod ovsdb;
mod program;
mod query;
mod rig;
mod switch;
mod testpmd;

pub use endless::{Station, datagram, endless};
pub use http::{Answer, answer_within, get, send, send_json};
pub use huge_pages::HugePages;
pub use ledger::{Ledger, port};
pub use namespace::{Counters, Namespace};
pub use ovsdb::{OvsdbServer, Storage, authority, certificate};
pub use program::{Ended, Probe, built, is_root, missing_tools, run_to_end, until, vmprobe};
pub use query::{NOT_BUILT, query};
pub use rig::{MIRROR_VLANS, Rig, Run, start_link};
pub use switch::{DataPath, Switch};
pub use testpmd::Testpmd;

pub use super::folder::{Folder, SmallDisk};
pub use super::ports::free_port;
pub use super::skips::{missing, skipped, too_long};
