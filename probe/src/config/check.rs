//! What `vmprobe check` says of a configuration that has no problem.
//!
//! In: [`Plan`] and the [`Sizes`] of the tables. Out: the same as text for people and as JSON.
//! Invariants: opens nothing, needs no root; whether the machine has the cores and the memory is
//! `doctor`'s to say.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::derived::{MIB, Sizes};
use super::plan::{LearnedPlan, Lessons, Plan, PortPlan, Spread, TapPlan};

/// The report in plain English, one fact a line.
pub fn report(plan: &Plan, sizes: &Sizes) -> String {
    let mut out = String::new();
    let mut say = |what: &str, text: String| {
        let _ = writeln!(out, "{what:<10} {text}");
    };
    say("probe", format!("{} in domain {}", plan.probe.id, plan.probe.domain));
    if plan.ports.is_empty() {
        say("ports", "none: good for `vmprobe replay`; `vmprobe run` needs a [[port]]".to_owned());
    }
    for port in &plan.ports {
        say("port", port_text(port));
    }
    say("workers", workers_text(plan));
    say("cores", cores_text(plan));
    if !plan.ports.is_empty() {
        say("EAL", eal_text(plan));
    }
    for tap in &plan.taps {
        say("tap", tap_text(tap, plan));
    }
    if plan.taps.is_empty() {
        say("taps", "none configured: each port or file is one tap".to_owned());
    }
    say("filters", plan.filters.len().to_string());
    say("spaces", format!("{} joined address spaces", plan.spaces.len()));
    say("copies", copies_text(plan));
    say(
        "windows",
        format!("{} ms, open {} ms longer", plan.window.length_ms, plan.window.grace_ms),
    );
    say("detectors", detectors_text(plan));
    say("inventory", path_text(plan.inventory.file.as_deref()));
    for cloud in &plan.inventory.openstack {
        let urls: Vec<_> = cloud.urls.iter().map(ToString::to_string).collect();
        say("source", format!("openstack:{} at {}", cloud.name, urls.join(", ")));
    }
    for host in &plan.inventory.libvirt {
        say("source", format!("libvirt:{} at {}", host.name, host.uri));
    }
    if plan.inventory.learned.enabled {
        say("source", learned_text(&plan.inventory.learned));
    }
    for database in &plan.inventory.ovsdb {
        say("ovsdb", format!("{} at {}", database.name, database.address));
    }
    say("records", path_text(plan.store.folder.as_deref()));
    for sink in &plan.sinks {
        let what = format!("{}: {} at {}", sink.name, sink.kind.name(), sink.kind.place());
        say("sink", format!("{what}, {}", sink.tables.join(", ")));
    }
    say("pages", if plan.serve.enabled { plan.serve.listen.to_string() } else { "off".to_owned() });
    for line in memory_lines(plan, sizes) {
        say("memory", line);
    }
    out
}

/// The same as one JSON object.
pub fn json(plan: &Plan, sizes: &Sizes) -> Value {
    let memory = plan.memory(sizes);
    let port = |port: &PortPlan| {
        json!({
            "name": port.name,
            "device": port.device,
            "queues": port.queues,
            "descriptors": port.descriptors,
            "mbufs": port.mbufs,
        })
    };
    json!({
        "valid": true,
        "probe": plan.probe.id,
        "domain": plan.probe.domain,
        "ports": plan.ports.iter().map(port).collect::<Vec<_>>(),
        "queues": plan.queues(),
        "workers": plan.workers(),
        "cores": plan.eal.cores,
        "huge_pages": plan.eal.huge_pages,
        "file_prefix": plan.eal.file_prefix,
        "extra_arguments": plan.eal.extra_arguments,
        "taps": plan.taps.iter().map(|tap| tap.name.as_str()).collect::<Vec<_>>(),
        "filters": plan.filters.len(),
        "spaces": plan.spaces.iter().map(|space| space.name.as_str()).collect::<Vec<_>>(),
        "remove_copies": plan.copies.remove,
        "window_ms": plan.window.length_ms,
        "inventory": plan.inventory.file,
        "records": plan.store.folder,
        "sinks": plan.sinks.iter().map(|sink| sink.name.as_str()).collect::<Vec<_>>(),
        "listen": plan.serve.enabled.then(|| plan.serve.listen.to_string()),
        "memory": {
            "mbuf_bytes_min": memory.mbuf_bytes_min,
            "mbuf_bytes_max": memory.mbuf_bytes_max,
            "eal_bytes": u64::from(plan.eal.memory_mib) * MIB,
            "flow_bytes": memory.flow_bytes,
            "row_bytes": memory.row_bytes,
            "copy_bytes": memory.copy_bytes,
            "fragment_bytes": memory.fragment_bytes,
            "spread_bytes": memory.spread_bytes,
            "own_bytes": memory.own_bytes(),
        },
    })
}

fn learned_text(plan: &LearnedPlan) -> String {
    let Lessons { arp, nd, dhcp } = plan.lessons;
    let all = [("ARP", arp), ("ND", nd), ("DHCP", dhcp)];
    let names: Vec<_> = all.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    format!("learned from {}, {} addresses at most", names.join(", "), plan.addresses_max)
}

fn port_text(port: &PortPlan) -> String {
    format!(
        "{}: {}, {} queues of {} descriptors, frames up to {} octets, {} packet buffers",
        port.name, port.device, port.queues, port.descriptors, port.frame_octets_max, port.mbufs
    )
}

fn workers_text(plan: &Plan) -> String {
    let spread = match plan.worker.spread {
        Spread::Never => "packets stay with the worker that received them",
        Spread::Auto if plan.workers() == 1 => "no spread between one worker",
        Spread::Auto => "packets go to the worker that owns their flow",
    };
    format!("{}, bursts of {}, {spread}", plan.workers(), plan.worker.burst_packets)
}

fn cores_text(plan: &Plan) -> String {
    if plan.eal.cores.is_empty() {
        return "those this process may use, but the last where there are more than one".to_owned();
    }
    plan.eal.cores.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")
}

fn eal_text(plan: &Plan) -> String {
    let eal = &plan.eal;
    let pages = if eal.huge_pages { "huge pages" } else { "ordinary pages" };
    let mut text = format!("{} MiB in {pages}, file prefix {}", eal.memory_mib, eal.file_prefix);
    if let Some(folder) = &eal.huge_folder {
        let _ = write!(text, ", huge pages in {}", folder.display());
    }
    if !eal.extra_arguments.is_empty() {
        let _ = write!(text, ", further arguments {}", eal.extra_arguments.join(" "));
    }
    text
}

fn tap_text(tap: &TapPlan, plan: &Plan) -> String {
    let matches = &tap.matches;
    let mut conditions = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        conditions.extend(value.map(|value| format!("{name} {value}")));
    };
    add("port", matches.port.clone());
    add("VLAN", matches.vlan.map(|id| id.to_string()));
    add("ERSPAN session", matches.erspan_session.map(|id| id.to_string()));
    add("GRE key", matches.gre_key.map(|key| key.to_string()));
    add("VXLAN VNI", matches.vxlan_vni.map(|vni| vni.to_string()));
    add("outer source", matches.outer_source.map(|source| source.to_string()));
    if conditions.is_empty() {
        conditions.push("all packets".to_owned());
    }
    let segment = tap.segment.map(|segment| format!(", segment {}", segment.text(&plan.domains)));
    let twice = if tap.duplicates { ", each packet may come twice" } else { "" };
    format!("{}: {}{}{twice}", tap.name, conditions.join(" and "), segment.unwrap_or_default())
}

fn copies_text(plan: &Plan) -> String {
    let what = if plan.copies.remove { "taken out of the traffic" } else { "marked and counted" };
    format!("{what}: same tap within {} ms", plan.copies.window_ms)
}

fn detectors_text(plan: &Plan) -> String {
    let detectors = [
        ("port scan", plan.detect.port_scan.enabled),
        ("SYN flood", plan.detect.syn_flood.enabled),
    ];
    let on: Vec<&str> = detectors.iter().filter(|(_, on)| *on).map(|(name, _)| *name).collect();
    if on.is_empty() { "none".to_owned() } else { on.join(", ") }
}

fn path_text(path: Option<&std::path::Path>) -> String {
    path.map_or_else(|| "none".to_owned(), |path| path.display().to_string())
}

fn memory_lines(plan: &Plan, sizes: &Sizes) -> Vec<String> {
    let memory = plan.memory(sizes);
    let workers = plan.workers();
    let mib = |bytes: u64| bytes.div_ceil(MIB);
    let mut lines = Vec::new();
    if !plan.ports.is_empty() {
        let (least, most) = (mib(memory.mbuf_bytes_min), mib(memory.mbuf_bytes_max));
        let need = if least == most { least.to_string() } else { format!("{least} to {most}") };
        lines.push(format!("{need} MiB of DPDK's {} MiB for packet buffers", plan.eal.memory_mib));
    }
    lines.push(format!(
        "{} MiB for flows ({workers} × {} × {} bytes)",
        mib(memory.flow_bytes),
        plan.flow.slots_per_worker,
        sizes.flow_bytes
    ));
    lines.push(format!(
        "{} MiB for rows of open windows and on their way ({workers} × {} × {} bytes)",
        mib(memory.row_bytes),
        plan.rows_kept(),
        sizes.row_bytes
    ));
    let rest = memory.copy_bytes + memory.fragment_bytes + memory.spread_bytes;
    lines.push(format!("{} MiB for copies, fragments, spread rings and payload", mib(rest)));
    lines.push(format!("{} MiB in all besides DPDK's", mib(memory.own_bytes())));
    lines
}
