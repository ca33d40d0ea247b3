//! Names of ports: one for each file, or for each interface of a pcapng file.
//!
//! In: wanted names, in order of appearance. Out: [`PortIndex`] and the list of names.
//! Invariants: names differ; a name never changes once given; the place in the list is the index.

use std::collections::HashMap;
use std::path::Path;

use crate::index::PortIndex;

/// The ports of a source, growing while files are read.
#[derive(Debug, Default)]
pub(super) struct Ports {
    names: Vec<String>,
    /// How often a name was wanted; holds every name in use.
    wanted: HashMap<String, u32>,
    grown: bool,
}

impl Ports {
    pub(super) fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether ports were added since this was last asked.
    pub(super) fn take_grown(&mut self) -> bool {
        std::mem::take(&mut self.grown)
    }

    pub(super) const fn has_grown(&self) -> bool {
        self.grown
    }

    /// Adds a port. A name that is taken gets `#2`, `#3` …; `None` if all indices are used.
    pub(super) fn add(&mut self, wanted: &str) -> Option<PortIndex> {
        let index = PortIndex(u16::try_from(self.names.len()).ok()?);
        let name = self.unused(wanted);
        self.names.push(name);
        self.grown = true;
        Some(index)
    }

    fn unused(&mut self, wanted: &str) -> String {
        loop {
            let count = self.wanted.entry(wanted.to_owned()).or_insert(0);
            *count += 1;
            if *count == 1 {
                return wanted.to_owned();
            }
            let name = format!("{wanted}#{count}");
            if !self.wanted.contains_key(&name) {
                self.wanted.insert(name.clone(), 1);
                return name;
            }
        }
    }
}

/// The name of a file without folder, compression and format: `a/tap1.pcap.gz` is `tap1`.
pub(super) fn stem(path: &Path) -> String {
    let compressed = path.extension().is_some_and(|extension| {
        ["gz", "zst", "zstd"].iter().any(|known| extension.eq_ignore_ascii_case(known))
    });
    let file = if compressed { path.file_stem().map(Path::new) } else { Some(path) };
    file.and_then(Path::file_stem)
        .map_or_else(|| path.display().to_string(), |stem| stem.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_names_are_told_apart() {
        let mut ports = Ports::default();
        for wanted in ["a", "a", "a#2", "a", "b"] {
            ports.add(wanted);
        }
        assert_eq!(ports.names(), ["a", "a#2", "a#2#2", "a#3", "b"]);
        assert!(ports.take_grown());
        assert!(!ports.take_grown());
    }

    #[test]
    fn indices_end_with_sixteen_bits() {
        let mut ports = Ports::default();
        assert!((0..=u16::MAX).all(|number| ports.add("x") == Some(PortIndex(number))));
        assert_eq!(ports.add("x"), None);
        assert_eq!(ports.names().len(), 65_536);
    }

    #[test]
    fn stems() {
        for (path, name) in [
            ("a/tap1.pcap", "tap1"),
            ("tap1.pcapng.GZ", "tap1"),
            ("tap1.zst", "tap1"),
            ("tap.one.pcap", "tap.one"),
            ("tap1", "tap1"),
            ("..", ".."),
        ] {
            assert_eq!(stem(Path::new(path)), name);
        }
    }
}
