//! The files beside the captures: configuration, inventory, truth.
//!
//! In: the cloud. Out: text that the probe's loaders read.
//! Invariants: names and addresses come from this program, so no value needs escaping but the
//! folder, whose odd characters are refused.

use std::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

use super::GenerateError;
use super::cloud::{Cloud, HOSTS, Interface, Move, Story, Vm};
use super::scenario::Scenario;
use super::truth::Truth;

const CONFIG: &str = "vmprobe.toml";
const INVENTORY: &str = "inventory.toml";
const TRUTH: &str = "truth.json";

/// Makes the folder and gives its absolute path.
pub(super) fn folder(out: &Path) -> Result<PathBuf, GenerateError> {
    let failed = |error| GenerateError::Write { path: out.to_owned(), error };
    let folder = std::path::absolute(out).map_err(failed)?;
    let speaks = |text: &str| !text.contains([',', '"', '\\']) && !text.contains(char::is_control);
    if !folder.to_str().is_some_and(speaks) {
        return Err(GenerateError::Folder { folder });
    }
    fs::create_dir_all(&folder).map_err(failed)?;
    Ok(folder)
}

/// Every file of a scenario, captures first.
pub(super) fn all(folder: &Path) -> Vec<PathBuf> {
    let captures = HOSTS.iter().map(|host| folder.join(format!("{}.pcap", host.tap)));
    captures.chain([CONFIG, INVENTORY, TRUTH].map(|name| folder.join(name))).collect()
}

/// Writes what really happens.
pub(super) fn write_truth(folder: &Path, truth: &Truth) -> Result<(), GenerateError> {
    let path = folder.join(TRUTH);
    let text = serde_json::to_string_pretty(truth)
        .map_err(|error| GenerateError::Write { path: path.clone(), error: error.into() })?;
    write(path, &(text + "\n"))
}

/// Writes tenants and VMs.
pub(super) fn write_inventory(folder: &Path, story: &Story) -> Result<(), GenerateError> {
    write(folder.join(INVENTORY), &inventory(story).unwrap_or_default())
}

/// Writes the configuration for `replay` and `run`.
pub(super) fn write_config(
    folder: &Path,
    cloud: &Cloud,
    scenario: Scenario,
    seed: u64,
) -> Result<(), GenerateError> {
    let text = config(folder, cloud, scenario, seed).unwrap_or_default();
    write(folder.join(CONFIG), &text)
}

fn write(path: PathBuf, text: &str) -> Result<(), GenerateError> {
    fs::write(&path, text).map_err(|error| GenerateError::Write { path, error })
}

fn inventory(story: &Story) -> Result<String, fmt::Error> {
    let mut text = "# Tenants and virtual machines of a generated cloud. Times are nanoseconds \
                    since the epoch.\n"
        .to_owned();
    for tenant in &story.cloud.tenants {
        write!(text, "\n[[tenant]]\nname = \"{tenant}\"\n")?;
    }
    for (place, vm) in story.cloud.vms.iter().enumerate() {
        let Vm { uuid, name, .. } = vm;
        let (tenant, host) = (&story.cloud.tenants[vm.tenant], HOSTS[vm.host].name);
        write!(text, "\n[[vm]]\nuuid = \"{uuid}\"\nname = \"{name}\"\n")?;
        write!(text, "tenant = \"{tenant}\"\n{}", stands_at(host))?;
        for interface in &vm.interfaces {
            write_interface(&mut text, interface)?;
        }
        write_placements(&mut text, vm, story.moves.iter().filter(|step| step.vm == place))?;
    }
    Ok(text)
}

/// Where a VM is when, if it ever moves.
fn write_placements<'a>(
    text: &mut String,
    vm: &Vm,
    moves: impl Iterator<Item = &'a Move>,
) -> fmt::Result {
    let (mut host, mut since) = (vm.host, String::new());
    for step in moves {
        let at_ns = step.resume_ns();
        let place = stands_at(HOSTS[host].name);
        write!(text, "\n[[vm.placement]]\n{place}{since}valid_to = {at_ns}\n")?;
        host = 1 - host;
        since = format!("valid_from = {at_ns}\n");
    }
    if since.is_empty() {
        return Ok(());
    }
    write!(text, "\n[[vm.placement]]\n{}{since}", stands_at(HOSTS[host].name))
}

/// A host with its one switch.
fn stands_at(host: &str) -> String {
    format!("host = \"{host}\"\nswitch = \"{host}/br0\"\n")
}

fn write_interface(text: &mut String, interface: &Interface) -> fmt::Result {
    let mac: Vec<String> = interface.mac.iter().map(|octet| format!("{octet:02x}")).collect();
    let addresses: Vec<String> =
        interface.addresses.iter().map(|address| format!("\"{address}\"")).collect();
    writeln!(text, "\n[[vm.interface]]\nmac = \"{}\"", mac.join(":"))?;
    writeln!(text, "addresses = [{}]", addresses.join(", "))?;
    writeln!(text, "segment = \"{}\"", interface.segment.text(&[]))
}

fn config(
    folder: &Path,
    cloud: &Cloud,
    scenario: Scenario,
    seed: u64,
) -> Result<String, fmt::Error> {
    let mut text = format!(
        "# Written by `vmprobe generate --scenario {scenario} --seed {seed}`.\n\
         # The same packets from files, or received over DPDK:\n\
         #   vmprobe replay -c vmprobe.toml tap-a.pcap tap-b.pcap\n\
         #   vmprobe run -c vmprobe.toml\n\n\
         [probe]\nid = \"demo\"\n\n\
         [eal]\n\
         # Packets are received without huge pages too.\n\
         huge_pages = false\n\
         memory_mib = 256\n\
         file_prefix = \"vmprobe-demo\"\n"
    );
    for (number, host) in HOSTS.iter().enumerate() {
        let (tap, folder) = (host.tap, folder.display());
        // The port is named after the capture, as `replay` names it, so the tap matches in both.
        write!(text, "\n[[port]]\nname = \"{tap}\"\n")?;
        writeln!(text, "device = \"net_pcap{number},rx_pcap={folder}/{tap}.pcap\"")?;
        writeln!(text, "queues = 1")?;
    }
    for host in &HOSTS {
        let (tap, name) = (host.tap, host.name);
        write!(
            text,
            "\n# Copies what enters the virtual switch of {name}, from VMs and from the fabric.\n"
        )?;
        write!(text, "[[tap]]\nname = \"{tap}\"\nmatch = {{ port = \"{tap}\" }}\n")?;
        write!(text, "{}direction = \"ingress\"\nduplicates = false\n", stands_at(name))?;
    }
    for space in &cloud.spaces {
        let segments: Vec<String> =
            space.segments.iter().map(|segment| format!("\"{}\"", segment.text(&[]))).collect();
        write!(
            text,
            "\n# A router stands between these segments.\n[[space]]\nname = \"{}\"\n",
            space.name
        )?;
        writeln!(text, "segments = [{}]", segments.join(", "))?;
    }
    // Room enough that nothing is forgotten in any scenario: the truth is met exactly.
    write!(
        text,
        "\n[copies]\nslots = 1048576\n\n[path]\nslots = 262144\n\n\
         [flow]\nslots_per_worker = 131072\n\n[window]\nrows_max = 65536\n\n\
         [inventory]\nfile = \"{INVENTORY}\"\n\n[store]\nfolder = \"records\"\n\n\
         [serve]\nlisten = \"127.0.0.1:8080\"\n"
    )?;
    Ok(text)
}
