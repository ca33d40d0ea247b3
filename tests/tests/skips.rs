//! A test that did not run says so where `scripts/test` finds it.

use std::process::Command;

use vmprobe_tests::folder::Folder;
use vmprobe_tests::skips::{missing, skipped};

/// The variable of the file, set for a child alone.
const FILE: &str = "VMPROBE_SKIPS";

#[test]
fn each_skip_is_a_line_in_the_file() {
    let folder = Folder::new("skips");
    let file = folder.path("skips");
    for _ in 0..2 {
        let mut child = Command::new(std::env::current_exe().expect("this program"));
        child.args(["--exact", "child_that_skips", "--ignored"]).env(FILE, &file);
        assert!(child.status().expect("this program again").success());
    }
    let noted = std::fs::read_to_string(file).expect("it was written");
    let once = "one: a reason of two lines\ntwo: not installed: ip, ovs-vsctl (apt install some)\n";
    assert_eq!(noted, once.repeat(2));
}

#[test]
#[ignore = "a child of another test"]
fn child_that_skips() {
    skipped("one", "a reason\nof two lines");
    missing("two", &["ip", "ovs-vsctl"], "some");
}
