//! Makes a deterministic cloud: captures, configuration, inventory, and the truth about them.
//!
//! In: scenario, seed, folder. Out: `tap-a.pcap`, `tap-b.pcap`, `inventory.toml`,
//! `vmprobe.toml`, `truth.json`.
//! Cost: memory for what is under way and for the set of flows; packets go to disk at once.
//! Invariants: the same scenario, seed and options give the same bytes (but for the folder's
//! name in `vmprobe.toml`); no clock is read; times are whole microseconds.

mod attack;
mod cloud;
mod datagram;
mod dns;
mod event;
mod files;
mod frame;
mod network;
mod pcap;
mod random;
mod scenario;
mod talk;
mod tcp;
mod tls;
mod truth;
mod world;

use std::io;
use std::path::{Path, PathBuf};

pub use scenario::Scenario;

use cloud::{Attacks, Story};
use network::Network;
use random::Random;
use truth::Truth;
use world::World;

/// Smallest and largest [`Options::scale`].
pub const SCALE_RANGE: (f64, f64) = (0.001, 100.0);
/// Shortest and longest [`Options::duration_s`].
pub const DURATION_S_RANGE: (u64, u64) = (2, 3_600);
/// Fewest and most [`Options::vms_per_tenant`]: all roles, and one network of 256 addresses.
pub const VMS_PER_TENANT_RANGE: (u8, u8) = (10, 240);

/// What may be changed about a scenario.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Multiplies the rate of the background traffic, not of attacks and migrations;
    /// within [`SCALE_RANGE`].
    pub scale: f64,
    /// Length in seconds, within [`DURATION_S_RANGE`]; `None`: the scenario's own. Attacks and
    /// migrations keep their place in it.
    pub duration_s: Option<u64>,
    /// VMs of each tenant of [`Scenario::Overlap`], within [`VMS_PER_TENANT_RANGE`]; `None`: 10.
    /// Other scenarios have their own.
    pub vms_per_tenant: Option<u8>,
}

impl Default for Options {
    fn default() -> Self {
        Self { scale: 1.0, duration_s: None, vms_per_tenant: None }
    }
}

/// What was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Frames in all captures.
    pub packets: u64,
    /// Octets of these frames.
    pub octets: u64,
    /// The files, captures first.
    pub files: Vec<PathBuf>,
}

/// Why nothing, or not everything, was made.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// No scenario has this name.
    #[error("no scenario is called `{name}`; there are: {}", names())]
    UnknownScenario {
        /// What was asked for.
        name: String,
    },
    /// The scale is out of range.
    #[error("scale: {scale} is not within {} to {}", SCALE_RANGE.0, SCALE_RANGE.1)]
    Scale {
        /// What was asked for.
        scale: f64,
    },
    /// The length is out of range.
    #[error("duration: {duration_s} s is not within {} to {}", DURATION_S_RANGE.0, DURATION_S_RANGE.1)]
    Duration {
        /// What was asked for.
        duration_s: u64,
    },
    /// The number of VMs is out of range, or the scenario has its own.
    #[error(
        "VMs of a tenant: {vms} is not within {} to {}, of the scenario overlap",
        VMS_PER_TENANT_RANGE.0,
        VMS_PER_TENANT_RANGE.1
    )]
    VmsPerTenant {
        /// What was asked for.
        vms: u8,
    },
    /// A DPDK device argument cannot name files in this folder.
    #[error("{}: a folder that DPDK reads captures from must be text without `,` and `\"`", folder.display())]
    Folder {
        /// The folder, absolute.
        folder: PathBuf,
    },
    /// A file could not be written.
    #[error("{}: {error}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// Makes a scenario in the folder `out`, which is made if it is not there; files of an earlier
/// run are replaced.
///
/// # Errors
/// If an option is out of range, the folder cannot stand in a DPDK device argument, or the
/// system refuses a file.
pub fn generate(
    scenario: Scenario,
    seed: u64,
    out: &Path,
    options: Options,
) -> Result<Summary, GenerateError> {
    let duration_us = check(scenario, options)? * 1_000_000;
    let folder = files::folder(out)?;
    let mut random = Random::new(seed);
    let mut story = story_of(scenario, &mut random, duration_us, options);
    files::write_inventory(&folder, &story)?;
    files::write_config(&folder, &story.cloud, scenario, seed)?;

    let truth = Truth::begin(scenario, seed, &story);
    let cloud = std::mem::take(&mut story.cloud);
    let network = Network::open(cloud, random, truth, &folder)
        .map_err(|(name, error)| GenerateError::Write { path: folder.join(name), error })?;
    let network = World::new(network, story)
        .run()
        .map_err(|error| GenerateError::Write { path: folder.clone(), error })?;
    let mut truth = network.finish().map_err(|(tap, error)| GenerateError::Write {
        path: folder.join(format!("{tap}.pcap")),
        error,
    })?;
    let (packets, octets) = truth.finish();
    files::write_truth(&folder, &truth)?;
    Ok(Summary { packets, octets, files: files::all(&folder) })
}

/// Gives the length in seconds.
fn check(scenario: Scenario, options: Options) -> Result<u64, GenerateError> {
    let duration_s = options.duration_s.unwrap_or(scenario.duration_s());
    if !(DURATION_S_RANGE.0..=DURATION_S_RANGE.1).contains(&duration_s) {
        return Err(GenerateError::Duration { duration_s });
    }
    if !(SCALE_RANGE.0..=SCALE_RANGE.1).contains(&options.scale) {
        return Err(GenerateError::Scale { scale: options.scale });
    }
    let (fewest, most) = VMS_PER_TENANT_RANGE;
    let allowed = |vms: &u8| scenario == Scenario::Overlap && (fewest..=most).contains(vms);
    if let Some(vms) = options.vms_per_tenant.filter(|vms| !allowed(vms)) {
        return Err(GenerateError::VmsPerTenant { vms });
    }
    Ok(duration_s)
}

fn story_of(scenario: Scenario, random: &mut Random, duration_us: u64, options: Options) -> Story {
    let (scale, vms) = (options.scale, options.vms_per_tenant.unwrap_or(VMS_PER_TENANT_RANGE.0));
    let attacks = |scan, flood| Attacks { scan, flood };
    match scenario {
        Scenario::Cloud => cloud::demo(random, duration_us, scale, attacks(true, true)),
        Scenario::Overlap => cloud::overlap(random, duration_us, scale, vms),
        Scenario::PortScan => cloud::demo(random, duration_us, scale, attacks(true, false)),
        Scenario::SynFlood => cloud::demo(random, duration_us, scale, attacks(false, true)),
        Scenario::Benign => cloud::demo(random, duration_us, scale, attacks(false, false)),
    }
}

fn names() -> String {
    Scenario::ALL.iter().map(|scenario| scenario.name()).collect::<Vec<_>>().join(", ")
}
