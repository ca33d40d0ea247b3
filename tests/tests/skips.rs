//! A test that did not run says so where `scripts/test` finds it.

use std::path::{Path, PathBuf};
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

/// `scripts/test` takes a skip for want of what it installs for a failure, and knows it by these words.
#[test]
fn what_a_script_installs_is_not_installed_in_its_words() {
    fn files(folder: &Path, all: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                files(&path, all);
            } else if path.extension().is_some_and(|it| it == "rs")
                && !path.ends_with("tests/skips.rs")
            {
                all.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in ["src", "tests", "../query/tests", "../probe/tests"] {
        files(&root.join(folder), &mut all);
    }
    let mut found = 0;
    for file in &all {
        let text = std::fs::read_to_string(file).expect("a file");
        let names = |line: &&str| line.contains("(scripts/fetch-") || line.contains("(apt install");
        for line in text.lines().filter(names) {
            assert!(line.contains("\"not installed: "), "{}: {line}", file.display());
            found += 1;
        }
    }
    assert!(found >= 7, "{found}");
}

#[test]
#[ignore = "a child of another test"]
fn child_that_skips() {
    skipped("one", "a reason\nof two lines");
    missing("two", &["ip", "ovs-vsctl"], "some");
}
