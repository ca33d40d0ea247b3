//! Any text is a configuration or an inventory, or a list of problems; never a panic.

use std::path::Path;

use vmprobe::config::{self, Mode};
use vmprobe::inventory::{ClassRules, Inventory, file};

/// Reads the text as both.
pub(crate) fn exercise(text: &str) {
    for mode in [Mode::Run, Mode::Replay, Mode::Check] {
        match config::parse(text, "f", Path::new(""), mode) {
            Ok(loaded) => drop(config::check::report(&loaded.plan, &config::Sizes::default())),
            Err(problems) => assert!(!problems.list.is_empty()),
        }
    }
    match file::parse(text, "f", &["default".to_owned()], &[]) {
        Ok(data) => drop(Inventory::new(&data, ClassRules::default())),
        Err(problems) => assert!(!problems.list.is_empty()),
    }
}
