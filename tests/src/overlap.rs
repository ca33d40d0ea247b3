//! Clouds of a hundred tenants that all use one network, and what is booked on each VM.
//!
//! In: seed and size. Out: captures with their truth; octets by VM as records have them.
//! Invariants: a seed is drawn anew by each run and said on standard error; [`SEED`] repeats a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;
use vmprobe::config::{self, Mode, Plan};
use vmprobe::generate::{Options, Scenario, generate};
use vmprobe::time::wall_clock;

use crate::end_to_end::query;
use crate::folder::Folder;
use crate::random::Random;

/// Names the seed of a run that is to be repeated.
pub const SEED: &str = "VMPROBE_SEED";

/// Sums of octets by VM.
pub type Octets = BTreeMap<String, u64>;

/// A generated cloud.
pub struct Overlap {
    /// Captures, configuration, inventory, truth.
    pub folder: Folder,
    /// What really happened.
    pub truth: Json,
}

/// The seed of this run.
pub fn seed(test: &str) -> u64 {
    let asked = std::env::var(SEED).ok().map(|text| text.parse().expect("a seed is a number"));
    let seed = asked.unwrap_or_else(|| Random::new(wall_clock().as_ns()).draw());
    eprintln!("{test}: {SEED}={seed} repeats this run");
    seed
}

impl Overlap {
    /// Makes one; 100 tenants.
    pub fn new(name: &str, seed: u64, options: Options) -> Self {
        let folder = Folder::new(name);
        generate(Scenario::Overlap, seed, folder.root(), options).expect("generated");
        let truth = std::fs::read_to_string(folder.path("truth.json")).expect("the truth");
        Self { folder, truth: serde_json::from_str(&truth).expect("JSON") }
    }

    /// Captures of both taps.
    pub fn captures(&self) -> [PathBuf; 2] {
        ["tap-a.pcap", "tap-b.pcap"].map(|name| self.folder.path(name))
    }

    /// The generator's plan, for a replay.
    pub fn plan(&self) -> Plan {
        let loaded = config::load(&self.folder.path("vmprobe.toml"), Mode::Replay);
        let mut plan = loaded.expect("the generator's configuration").plan;
        plan.serve.enabled = false;
        plan.store.free_mib_min = 0;
        plan
    }

    /// IP octets that each VM sent, of packets that were mirrored.
    pub fn sent(&self) -> Octets {
        let sent = self.truth["octets_sent_by_vm"].as_object().expect("an object").iter();
        sent.map(|(uuid, octets)| (uuid.clone(), octets.as_u64().expect("a number"))).collect()
    }
}

/// IP octets that records book on each VM as its own, by `windows` or a view of it; `None` where the
/// query program is not built.
pub fn booked(records: &Path, windows: &str) -> Option<Octets> {
    let sql = format!(
        "SELECT uuid, sum(octets)::UBIGINT AS octets FROM (
             SELECT unnest([source_virtual_station_uuid, destination_virtual_station_uuid]) AS uuid,
                 unnest([octet_delta_count, reverse_octet_delta_count]) AS octets
             FROM {windows})
         WHERE uuid IS NOT NULL AND octets > 0 GROUP BY uuid"
    );
    let rows = query(records, &sql)?;
    let rows = rows.as_array().expect("rows").iter();
    let of = |row: &Json| {
        (row["uuid"].as_str().expect("a text").to_owned(), row["octets"].as_u64().expect("a sum"))
    };
    Some(rows.map(of).collect())
}

/// Panics unless each VM has exactly its own; else says the first ones that do not.
pub fn assert_own(sent: &Octets, booked: &Octets) {
    let all = sent.keys().chain(booked.keys());
    let mut wrong: Vec<_> = all
        .filter(|uuid| sent.get(*uuid) != booked.get(*uuid))
        .map(|uuid| (uuid, sent.get(uuid), booked.get(uuid)))
        .collect();
    wrong.dedup();
    wrong.truncate(5);
    assert!(wrong.is_empty(), "VM, octets sent, octets booked: {wrong:?}");
}
