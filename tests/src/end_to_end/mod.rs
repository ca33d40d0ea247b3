//! What the end-to-end tests stand on: the built program as a process, senders, namespaces, an
//! Open vSwitch. Each of them is taken down when it is dropped, also by a failing test.

mod folder;
mod http;
mod huge_pages;
mod ledger;
mod namespace;
mod program;
mod records;
mod switch;
mod testpmd;

pub use folder::{Folder, SmallDisk};
pub use http::{Answer, get};
pub use huge_pages::HugePages;
pub use ledger::{Ledger, port};
pub use namespace::{Counters, Namespace};
pub use program::{Ended, Probe, built, is_root, missing_tools, run_to_end, until, vmprobe};
pub use records::{Rows, query, rows};
pub use switch::{DataPath, Switch};
pub use testpmd::Testpmd;

/// Says on standard error that a test, or a part of one, did not run, and why.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED {what}: {why}");
}
