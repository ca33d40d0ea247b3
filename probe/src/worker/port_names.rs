//! Names of ports that appear while a capture is read.
//!
//! In: names, from the one worker that reads. Out: the list, for the aggregator.
//! Cost: a new list a new port, which happens a few times in a run.

use std::sync::Arc;

use arc_swap::ArcSwap;

/// The list, shared.
#[derive(Clone, Default)]
pub struct PortNames(Arc<ArcSwap<Vec<String>>>);

impl PortNames {
    /// Begins with the ports of the configuration.
    pub fn new(names: Vec<String>) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(names)))
    }

    /// Adds a name at the end; only one thread does.
    pub fn add(&self, name: &str) {
        let mut names = Vec::clone(&self.0.load());
        names.push(name.to_owned());
        self.0.store(Arc::new(names));
    }

    /// The names so far.
    pub fn load(&self) -> Arc<Vec<String>> {
        self.0.load_full()
    }
}
