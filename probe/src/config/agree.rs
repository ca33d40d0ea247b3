//! Values that must agree with one another.
//!
//! In: the sections (for their lines) and the plan made of them. Out: problems and warnings.
//! Invariants: a key that was not allowed by itself is not judged again here.

mod learned;
mod libvirt;
mod openstack;
mod ovsdb;
mod sink;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use super::derived::{MBUFS_CACHED, MIB, Sizes};
use super::device;
use super::document::{Report, Section, quoted};
use super::load::Mode;
use super::plan::{Plan, PortPlan, TapMatch, TapPlan};
use super::schema::{HOUR_MS, WORKERS_MAX};

/// Octets of a frame with 1,500 octets of IP and one tag; mirror tunnels make larger ones.
const FRAME_OCTETS_USUAL: u32 = 1_518;

/// EAL arguments that a key stands for.
const EAL_KEYS: [(&str, &str); 11] = [
    ("-l", "eal.cores"),
    ("-c", "eal.cores"),
    ("--lcores", "eal.cores"),
    ("-m", "eal.memory_mib"),
    ("--socket-mem", "eal.memory_mib"),
    ("--no-huge", "eal.huge_pages"),
    ("--huge-dir", "eal.huge_folder"),
    ("--file-prefix", "eal.file_prefix"),
    ("-a", "port.device"),
    ("--allow", "port.device"),
    ("--vdev", "port.device"),
];

/// EAL arguments that its memory without huge pages excludes.
const EAL_HUGE_ONLY: [&str; 2] = ["--in-memory", "--single-file-segments"];

/// Windows that may be open beside the newest one.
const GRACE_WINDOWS_MAX: u64 = 2;

/// Checks all of the file.
pub(super) fn check(root: &Section<'_>, plan: &Plan, mode: Mode, report: &mut Report) {
    for name in ["port", "tap", "space"] {
        unique(&root.tables(name), "name", |name| name, report);
    }
    unique(&root.tables("port"), "device", device::name, report);
    let clouds = root.table("inventory").tables("openstack");
    unique(&clouds, "name", |name| name, report);
    for cloud in &clouds {
        openstack::check(cloud, report);
    }
    learned::check(&root.table("inventory").table("learned"), report);
    let hosts = root.table("inventory").tables("libvirt");
    unique(&hosts, "name", |name| name, report);
    for host in &hosts {
        libvirt::check(host, report);
    }
    let databases = root.table("inventory").tables("ovsdb");
    unique(&databases, "name", |name| name, report);
    for database in &databases {
        ovsdb::check(database, report);
    }
    sink::check(&root.table("sink"), plan, report);
    sink::query(&root.table("query"), plan, report);
    sink::otlp(&root.table("otlp"), plan, report);
    sink::check_correlate(&root.table("correlate"), plan, report);
    if mode == Mode::Run && !root.has("port") && !report.is_broken() {
        let what = "is missing (allowed: at least one [[port]], which `vmprobe run` receives from)";
        report.problem(0, "port", what);
    }
    eal(&root.table("eal"), report);
    workers(root, plan, report);
    buffers(root, plan, report);
    taps(&root.tables("tap"), plan, mode, report);
    filters(&root.tables("filter"), report);
    domains(&root.table("segments"), report);
    spaces(&root.tables("space"), plan, report);
    inventory(&root.table("inventory"), plan, report);
    tunnel_ports(&root.table("decode"), report);
    window(&root.table("window"), plan, report);
    shed(&root.table("shed"), plan, report);
    port_scan(&root.table("detect").table("port_scan"), plan, report);
}

/// Where `value` was used before; notes it as used at `at` if it was not.
fn used_before<T: Eq + Hash>(seen: &mut HashMap<T, usize>, value: T, at: usize) -> Option<usize> {
    match seen.entry(value) {
        Entry::Occupied(used) => Some(*used.get()),
        Entry::Vacant(free) => {
            free.insert(at);
            None
        }
    }
}

/// No two tables may hold the same in the key `name`.
fn unique(sections: &[Section<'_>], name: &str, of: impl Fn(&str) -> &str, report: &mut Report) {
    let mut seen = HashMap::new();
    for section in sections {
        let Some(text) = section.get::<String>(name) else { continue };
        let (value, at) = (of(&text), section.at(name));
        if let Some(before) = used_before(&mut seen, value.to_owned(), at) {
            let line = report.line(before);
            let what = format!("{} is used in line {line} (allowed: each once)", quoted(value));
            report.problem(at, section.path(name), what);
        }
    }
}

/// No array may hold the same value twice.
fn unique_items<T: Eq + Hash + std::fmt::Display>(
    items: impl IntoIterator<Item = (usize, T)>,
    path: &str,
    report: &mut Report,
) {
    let mut seen = HashMap::new();
    for (at, value) in items {
        let shown = value.to_string();
        if used_before(&mut seen, value, at).is_some() {
            report.problem(at, path, format!("{shown} stands twice (allowed: each once)"));
        }
    }
}

fn eal(eal: &Section<'_>, report: &mut Report) {
    unique_items(eal.items::<u16>("cores"), &eal.path("cores"), report);
    let huge_pages = eal.get("huge_pages").unwrap_or(true);
    for (at, argument) in eal.items::<String>("extra_arguments") {
        let option = argument.split(['=', ' ']).next().unwrap_or_default();
        if let Some((_, key)) = EAL_KEYS.iter().find(|(known, _)| *known == option) {
            let what = format!("{} is what {key} says (allowed: other arguments)", quoted(option));
            report.problem(at, eal.path("extra_arguments"), what);
        }
        if !huge_pages && EAL_HUGE_ONLY.contains(&option) {
            let what = format!(
                "{} needs huge pages (allowed: other arguments, or eal.huge_pages = true)",
                quoted(option)
            );
            report.problem(at, eal.path("extra_arguments"), what);
        }
    }
    if !huge_pages && eal.has("huge_folder") {
        let what = "has no effect, because eal.huge_pages is false";
        report.warning(eal.at("huge_folder"), eal.path("huge_folder"), what);
    }
}

fn workers(root: &Section<'_>, plan: &Plan, report: &mut Report) {
    let (worker, eal) = (root.table("worker"), root.table("eal"));
    let queues = plan.queues();
    if u64::from(queues) > WORKERS_MAX {
        let at = root.at("port");
        let what = format!("{queues} queues in all ports are too many (allowed: {WORKERS_MAX})");
        report.problem(at, "port.queues", what);
    }
    let count = u32::from(plan.worker.count);
    if count != 0 && count < queues && !plan.ports.is_empty() {
        let what = format!(
            "{count} is fewer than the {queues} queues of all ports, and each needs a worker \
             (allowed: 0, or {queues} to {WORKERS_MAX})"
        );
        report.problem(worker.at("count"), worker.path("count"), what);
    }
    let (cores, needed) = (plan.eal.cores.len(), count.max(queues));
    if cores != 0 && u32::try_from(cores).is_ok_and(|cores| cores < needed) {
        let what = format!(
            "{cores} cores are fewer than the {needed} workers (allowed: none, or at least one for \
             each worker)"
        );
        report.problem(eal.at("cores"), eal.path("cores"), what);
    }
}

fn buffers(root: &Section<'_>, plan: &Plan, report: &mut Report) {
    let burst = u32::from(plan.worker.burst_packets);
    for (section, port) in root.tables("port").iter().zip(&plan.ports) {
        let each = u32::from(port.descriptors) + burst + MBUFS_CACHED;
        let needed = u32::from(port.queues) * each;
        if port.mbufs < needed {
            let what = format!(
                "{} are too few for {} queues with {} descriptors, a burst of {burst} and a cache \
                 of {MBUFS_CACHED} each (allowed: {needed} to 8388608)",
                port.mbufs, port.queues, port.descriptors
            );
            report.problem(section.at("mbufs"), section.path("mbufs"), what);
        }
        tunnel_room(section, port, plan, report);
    }
    dpdk_memory(&root.table("eal"), plan, report);
}

fn dpdk_memory(eal: &Section<'_>, plan: &Plan, report: &mut Report) {
    let memory = plan.memory(&Sizes::default());
    let given = u64::from(plan.eal.memory_mib);
    let (least, most) = (memory.mbuf_bytes_min.div_ceil(MIB), memory.mbuf_bytes_max.div_ceil(MIB));
    let (at, path) = (eal.at("memory_mib"), eal.path("memory_mib"));
    if least > given {
        let what = format!(
            "{given} MiB hold no {least} MiB of packet buffers of all ports (allowed: at least \
             {least}, or smaller port.mbufs)"
        );
        report.problem(at, path, what);
    } else if most > given {
        let what = format!(
            "{given} MiB hold no {most} MiB of packet buffers, which drivers need that put a whole \
             frame in one buffer"
        );
        report.warning(at, path, what);
    }
}

fn tunnel_room(section: &Section<'_>, port: &PortPlan, plan: &Plan, report: &mut Report) {
    let here = |tap: &&TapPlan| tap.matches.port.as_ref().is_none_or(|name| *name == port.name);
    let tunnelled = plan.taps.iter().filter(here).any(|tap| is_tunnel(&tap.matches));
    if tunnelled && port.frame_octets_max <= FRAME_OCTETS_USUAL {
        let what = format!(
            "{} octets leave no room for the headers of a mirror tunnel around a full frame, \
             which the port may then drop",
            port.frame_octets_max
        );
        report.warning(section.at("frame_octets_max"), section.path("frame_octets_max"), what);
    }
}

fn is_tunnel(matches: &TapMatch) -> bool {
    tunnels(matches) > 0 || matches.outer_source.is_some()
}

fn tunnels(matches: &TapMatch) -> usize {
    usize::from(matches.erspan_session.is_some())
        + usize::from(matches.gre_key.is_some())
        + usize::from(matches.vxlan_vni.is_some())
}

fn taps(sections: &[Section<'_>], plan: &Plan, mode: Mode, report: &mut Report) {
    let mut seen = HashMap::new();
    // Who joins what others saw names taps of several probes, of which each knows its own.
    let are_of_many = !plan.correlate.cluster.brokers.is_empty() && plan.ports.is_empty();
    for (section, tap) in sections.iter().zip(&plan.taps) {
        let matches = section.table("match");
        tap_port(&matches, tap, plan, mode, report);
        if tunnels(&tap.matches) > 1 {
            let what = "no frame comes in two mirror tunnels (allowed: one of erspan_session, \
                        gre_key and vxlan_vni)";
            report.problem(section.at("match"), section.path("match"), what);
        }
        let at = section.at("match");
        let before = used_before(&mut seen, tap.matches.clone(), at);
        if let Some(before) = before.filter(|_| !are_of_many) {
            let line = report.line(before);
            let what =
                format!("the tap of line {line} has the same (allowed: each combination once)");
            report.problem(at, section.path("match"), what);
        }
        let domain = tap.segment.map(crate::inventory::Segment::domain);
        if section.has("domain") && domain.is_some_and(|domain| domain != tap.domain) {
            let what = "lies in another domain than tap.domain says (allowed: the same domain)";
            report.problem(section.at("segment"), section.path("segment"), what);
        }
    }
}

/// In a replay, ports are files and interfaces, so a name that no `[[port]]` has may be right.
fn tap_port(matches: &Section<'_>, tap: &TapPlan, plan: &Plan, mode: Mode, report: &mut Report) {
    let Some(name) = &tap.matches.port else { return };
    if plan.ports.is_empty() || plan.ports.iter().any(|port| port.name == *name) {
        return;
    }
    let what = format!("no port is called {}", quoted(name));
    let (at, path) = (matches.at("port"), matches.path("port"));
    if mode == Mode::Replay {
        report.warning(at, path, format!("{what}; in a replay it may be a file or an interface"));
    } else {
        report.problem(at, path, format!("{what} (allowed: the name of a [[port]])"));
    }
}

fn filters(sections: &[Section<'_>], report: &mut Report) {
    const CONDITIONS: [&str; 5] = ["tap", "vlan", "network", "port", "protocol"];
    for section in sections {
        if !CONDITIONS.iter().any(|name| section.is_written(name)) {
            // None is written, so that is where the table begins.
            let at = section.at(CONDITIONS[0]);
            let what = format!(
                "has no condition and would take out every packet (allowed: at least one of {})",
                CONDITIONS.join(", ")
            );
            report.problem(at, "filter", what);
        }
    }
}

fn domains(segments: &Section<'_>, report: &mut Report) {
    unique_items(segments.items::<String>("domains"), &segments.path("domains"), report);
}

fn spaces(sections: &[Section<'_>], plan: &Plan, report: &mut Report) {
    let mut seen = HashMap::new();
    for section in sections {
        for (at, text) in section.items::<String>("segments") {
            let Some(segment) = crate::inventory::Segment::parse(&text, &plan.domains) else {
                continue;
            };
            if let Some(before) = used_before(&mut seen, segment, at) {
                let line = report.line(before);
                let text = quoted(&text);
                let what =
                    format!("{text} is joined in line {line} already (allowed: one space at most)");
                report.problem(at, section.path("segments"), what);
            }
        }
        if section.get::<Vec<String>>("segments").is_some_and(|segments| segments.is_empty()) {
            let what = "is empty (allowed: at least one segment)";
            report.problem(section.at("segments"), section.path("segments"), what);
        }
    }
}

fn inventory(section: &Section<'_>, plan: &Plan, report: &mut Report) {
    let precedence = section.items::<String>("precedence");
    unique_items(precedence, &section.path("precedence"), report);
    if plan.inventory.api && !plan.serve.enabled {
        let what = "has no effect, because serve.enabled is false";
        report.warning(section.at("api"), section.path("api"), what);
    }
}

fn tunnel_ports(decode: &Section<'_>, report: &mut Report) {
    let mut seen = HashMap::new();
    let names = [
        "vxlan_ports",
        "vxlan_gpe_ports",
        "geneve_ports",
        "gtp_ports",
        "mpls_ports",
        "gre_ports",
        "teredo_ports",
        "capwap_ports",
    ];
    for name in names {
        for (at, port) in decode.items::<u16>(name) {
            if used_before(&mut seen, port, at).is_some() {
                let what = format!("{port} stands twice (allowed: each port for one tunnel)");
                report.problem(at, decode.path(name), what);
            }
        }
    }
}

fn window(window: &Section<'_>, plan: &Plan, report: &mut Report) {
    let length_ms = u64::from(plan.window.length_ms);
    if length_ms != 0 && !HOUR_MS.is_multiple_of(length_ms) {
        let what = format!(
            "{length_ms} does not divide an hour (allowed: 100 to {HOUR_MS}, a divisor of \
             {HOUR_MS})"
        );
        report.problem(window.at("length_ms"), window.path("length_ms"), what);
    }
    let grace_ms = u64::from(plan.window.grace_ms);
    if grace_ms > GRACE_WINDOWS_MAX * length_ms {
        // So many windows can be open at a time, and one more can be closing.
        let most_ms = GRACE_WINDOWS_MAX * length_ms;
        let what = format!("{grace_ms} is more than two windows (allowed: 0 to {most_ms})");
        let name = if window.has("grace_ms") { "grace_ms" } else { "length_ms" };
        report.problem(window.at(name), window.path(name), what);
    }
}

fn shed(shed: &Section<'_>, plan: &Plan, report: &mut Report) {
    let (low, high) = (plan.shed.low_percent, plan.shed.high_percent);
    if low >= high {
        let name = if shed.has("low_percent") { "low_percent" } else { "high_percent" };
        let what = format!(
            "low_percent {low} is not below high_percent {high} (allowed: low_percent below \
             high_percent)"
        );
        report.problem(shed.at(name), shed.path(name), what);
    }
}

fn port_scan(scan: &Section<'_>, plan: &Plan, report: &mut Report) {
    let values = &plan.detect.port_scan;
    below(
        scan,
        ("theta_scanner", values.theta_scanner),
        ("theta_benign", values.theta_benign),
        report,
    );
    below(scan, ("alpha", values.alpha), ("beta", values.beta), report);
}

/// The first value must be below the second.
fn below(section: &Section<'_>, low: (&str, f64), high: (&str, f64), report: &mut Report) {
    if low.1 >= high.1 {
        let name = if section.has(low.0) { low.0 } else { high.0 };
        let what = format!(
            "{} {} is not below {} {} (allowed: {} below {})",
            low.0, low.1, high.0, high.1, low.0, high.0
        );
        report.problem(section.at(name), section.path(name), what);
    }
}
