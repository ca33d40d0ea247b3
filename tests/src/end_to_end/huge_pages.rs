//! Huge pages for a while.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::folder::Folder;

const RESERVED: &str = "/proc/sys/vm/nr_hugepages";

/// Huge pages and a folder where they are mounted; given back when dropped. Needs root.
#[derive(Debug)]
pub struct HugePages {
    before: String,
    folder: Folder,
}

impl HugePages {
    /// Reserves `pages` of 2 MiB more; `None` where the machine does not have them.
    pub fn reserve(pages: u64) -> Option<Self> {
        let before = fs::read_to_string(RESERVED).ok()?;
        let wanted = before.trim().parse::<u64>().ok()? + pages;
        fs::write(RESERVED, wanted.to_string()).ok()?;
        let this = Self { before, folder: Folder::new("huge") };
        let got: u64 = fs::read_to_string(RESERVED).ok()?.trim().parse().ok()?;
        let mut mount = Command::new("mount");
        mount.args(["-t", "hugetlbfs", "-o", "pagesize=2M", "none"]).arg(this.folder.root());
        let mounted = got >= wanted && mount.status().is_ok_and(|status| status.success());
        mounted.then_some(this)
    }

    /// Where they are mounted.
    pub fn folder(&self) -> &Path {
        self.folder.root()
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.root()).status();
        let _ = fs::write(RESERVED, &self.before);
    }
}
