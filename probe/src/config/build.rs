//! From the checked document to the [`Plan`].
//!
//! In: sections with allowed values. Out: the plan; names that refer to others (taps, domains,
//! segments) become numbers here, and a name that leads nowhere is a problem.
//! Invariants: what is not given keeps the value of `Plan::default()`; relative paths begin at
//! the file's folder.

mod learned;
mod libvirt;
mod openstack;
mod ovsdb;
mod sink;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::document::{Kind, Report, Section, quoted};
use super::plan::{
    AppPlan, CopiesPlan, DecodePlan, DetectPlan, EalPlan, FilterPlan, FlowPlan, InventoryPlan,
    PathPlan, Plan, PortPlan, ProbePlan, ServePlan, ShedPlan, SpacePlan, Spread, StorePlan,
    TapMatch, TapPlan, WindowPlan, WorkerPlan,
};
use crate::index::TapIndex;
use crate::inventory::{AddressSpace, Segment, SourceKind};

/// Builds all but what depends on the mode.
pub(super) fn plan(root: &Section<'_>, base: &Path, report: &mut Report) -> Plan {
    let domains = domains(&root.table("segments"), report);
    let taps = taps(&root.tables("tap"), &domains, report);
    let filters = filters(&root.tables("filter"), &taps, report);
    let spaces = spaces(&root.tables("space"), &domains, report);
    let inventory = inventory(&root.table("inventory"), base, &domains, report);
    let sinks = sink::sinks(&root.table("sink"), base);
    Plan {
        probe: probe(&root.table("probe")),
        eal: eal(&root.table("eal"), base),
        ports: root.tables("port").iter().map(port).collect(),
        worker: worker(&root.table("worker")),
        taps,
        filters,
        domains,
        spaces,
        decode: decode(&root.table("decode")),
        copies: copies(&root.table("copies")),
        path: paths(&root.table("path")),
        flow: flow(&root.table("flow")),
        app: app(&root.table("app")),
        window: window(&root.table("window")),
        shed: shed(&root.table("shed")),
        detect: detect(&root.table("detect")),
        inventory,
        store: store(&root.table("store"), base),
        query: sink::query(&root.table("query"), &sinks, base),
        sinks,
        correlate: sink::correlate(&root.table("correlate"), base),
        serve: serve(&root.table("serve")),
        otlp: sink::otlp(&root.table("otlp"), base),
    }
}

fn probe(section: &Section<'_>) -> ProbePlan {
    let mut plan = ProbePlan::default();
    section.read("id", &mut plan.id);
    section.read("domain", &mut plan.domain);
    plan
}

fn eal(section: &Section<'_>, base: &Path) -> EalPlan {
    let mut plan = EalPlan::default();
    section.read("cores", &mut plan.cores);
    section.read("memory_mib", &mut plan.memory_mib);
    section.read("huge_pages", &mut plan.huge_pages);
    plan.huge_folder = path(section, "huge_folder", base);
    section.read("file_prefix", &mut plan.file_prefix);
    section.read("extra_arguments", &mut plan.extra_arguments);
    plan
}

fn port(section: &Section<'_>) -> PortPlan {
    let mut plan = PortPlan::default();
    section.read("name", &mut plan.name);
    section.read("device", &mut plan.device);
    section.read("queues", &mut plan.queues);
    section.read("descriptors", &mut plan.descriptors);
    section.read("frame_octets_max", &mut plan.frame_octets_max);
    section.read("promiscuous", &mut plan.promiscuous);
    section.read("vlan_strip", &mut plan.vlan_strip);
    section.read("hardware_timestamp", &mut plan.hardware_timestamp);
    section.read("mbufs", &mut plan.mbufs);
    plan
}

fn worker(section: &Section<'_>) -> WorkerPlan {
    let mut plan = WorkerPlan::default();
    section.read("count", &mut plan.count);
    section.read("burst_packets", &mut plan.burst_packets);
    if let Some(word) = section.get::<String>("spread") {
        plan.spread = if word == "never" { Spread::Never } else { Spread::Auto };
    }
    section.read("spread_ring_packets", &mut plan.spread_ring_packets);
    section.read("spread_hold_us", &mut plan.spread_hold_us);
    plan
}

fn taps(sections: &[Section<'_>], domains: &[String], report: &mut Report) -> Vec<TapPlan> {
    sections.iter().map(|section| tap(section, domains, report)).collect()
}

fn tap(section: &Section<'_>, domains: &[String], report: &mut Report) -> TapPlan {
    let mut plan = TapPlan { matches: tap_match(&section.table("match")), ..TapPlan::default() };
    section.read("name", &mut plan.name);
    section.read_some("host", &mut plan.host);
    section.read_some("switch", &mut plan.switch);
    // A packet between two ports that are mirrored in both directions is copied at each.
    plan.duplicates = section.get::<String>("direction").is_some_and(|word| word == "both");
    section.read("duplicates", &mut plan.duplicates);
    if let Some(name) = section.get::<String>("domain") {
        plan.domain = domain(section, &name, domains, report);
    }
    if let Some(text) = section.get::<String>("segment") {
        plan.segment = segment(section, "segment", section.at("segment"), &text, domains, report);
    }
    plan
}

fn tap_match(section: &Section<'_>) -> TapMatch {
    let mut plan = TapMatch::default();
    section.read_some("port", &mut plan.port);
    section.read_some("vlan", &mut plan.vlan);
    section.read_some("erspan_session", &mut plan.erspan_session);
    section.read_some("gre_key", &mut plan.gre_key);
    section.read_some("vxlan_vni", &mut plan.vxlan_vni);
    section.read_some("outer_source", &mut plan.outer_source);
    plan
}

fn filters(sections: &[Section<'_>], taps: &[TapPlan], report: &mut Report) -> Vec<FilterPlan> {
    let places: HashMap<&str, u16> =
        (0..).zip(taps).map(|(place, tap)| (tap.name.as_str(), place)).collect();
    sections.iter().map(|section| filter(section, &places, report)).collect()
}

fn filter(section: &Section<'_>, taps: &HashMap<&str, u16>, report: &mut Report) -> FilterPlan {
    let mut plan = FilterPlan::default();
    if let Some(name) = section.get::<String>("tap") {
        plan.tap = taps.get(name.as_str()).copied().map(TapIndex);
        if plan.tap.is_none() {
            let what =
                format!("no tap is called {} (allowed: the name of a [[tap]])", quoted(&name));
            report.problem(section.at("tap"), section.path("tap"), what);
        }
    }
    section.read_some("vlan", &mut plan.vlan);
    section.read_some::<IpNet>("network", &mut plan.network);
    section.read_some("port", &mut plan.port);
    section.read_some("protocol", &mut plan.protocol);
    plan
}

fn domains(section: &Section<'_>, report: &mut Report) -> Vec<String> {
    let mut domains = Plan::default().domains;
    section.read("domains", &mut domains);
    if domains.first().is_none_or(|first| first != "default") {
        let what = "the first domain is not \"default\" (allowed: \"default\", then further names)";
        report.problem(section.at("domains"), section.path("domains"), what);
    }
    domains
}

fn spaces(sections: &[Section<'_>], domains: &[String], report: &mut Report) -> Vec<SpacePlan> {
    (0..).zip(sections).map(|(place, section)| space(place, section, domains, report)).collect()
}

fn space(place: u32, section: &Section<'_>, domains: &[String], report: &mut Report) -> SpacePlan {
    let texts = section.items::<String>("segments");
    let segments = texts
        .iter()
        .filter_map(|(at, text)| segment(section, "segments", *at, text, domains, report));
    SpacePlan {
        segments: segments.collect(),
        name: section.get("name").unwrap_or_default(),
        space: AddressSpace::named(place),
    }
}

fn decode(section: &Section<'_>) -> DecodePlan {
    let mut plan = DecodePlan::default();
    section.read("depth_max", &mut plan.depth_max);
    section.read("vxlan_ports", &mut plan.vxlan_ports);
    section.read("vxlan_gpe_ports", &mut plan.vxlan_gpe_ports);
    section.read("geneve_ports", &mut plan.geneve_ports);
    section.read("gtp_ports", &mut plan.gtp_ports);
    section.read("mpls_ports", &mut plan.mpls_ports);
    section.read("gre_ports", &mut plan.gre_ports);
    section.read("teredo_ports", &mut plan.teredo_ports);
    section.read("capwap_ports", &mut plan.capwap_ports);
    section.read("nvgre", &mut plan.nvgre);
    section.read("mpls_segments", &mut plan.mpls_segments);
    section.read("gtp_segments", &mut plan.gtp_segments);
    section.read("fragment_slots", &mut plan.fragment_slots);
    section.read("fragment_timeout_ms", &mut plan.fragment_timeout_ms);
    plan
}

fn copies(section: &Section<'_>) -> CopiesPlan {
    let mut plan = CopiesPlan::default();
    section.read("remove", &mut plan.remove);
    section.read("window_ms", &mut plan.window_ms);
    section.read("path_window_ms", &mut plan.path_window_ms);
    section.read("slots", &mut plan.slots);
    section.read("digest_payload_octets", &mut plan.digest_payload_octets);
    plan
}

fn paths(section: &Section<'_>) -> PathPlan {
    let mut plan = PathPlan::default();
    section.read("enabled", &mut plan.enabled);
    section.read("sample_one_in", &mut plan.sample_one_in);
    section.read_some("secret", &mut plan.secret);
    section.read("verdict_ms", &mut plan.verdict_ms);
    section.read("slots", &mut plan.slots);
    section.read("samples", &mut plan.samples);
    plan
}

fn app(section: &Section<'_>) -> AppPlan {
    let mut plan = AppPlan::default();
    section.read("transactions", &mut plan.transactions);
    section.read("url_queries", &mut plan.url_queries);
    plan
}

fn flow(section: &Section<'_>) -> FlowPlan {
    let mut plan = FlowPlan::default();
    section.read("slots_per_worker", &mut plan.slots_per_worker);
    section.read("idle_tcp_ms", &mut plan.idle_tcp_ms);
    section.read("idle_other_ms", &mut plan.idle_other_ms);
    section.read("closed_ms", &mut plan.closed_ms);
    section.read("active_ms", &mut plan.active_ms);
    plan
}

fn window(section: &Section<'_>) -> WindowPlan {
    let mut plan = WindowPlan::default();
    section.read("length_ms", &mut plan.length_ms);
    section.read("grace_ms", &mut plan.grace_ms);
    section.read("rows_max", &mut plan.rows_max);
    plan
}

fn shed(section: &Section<'_>) -> ShedPlan {
    let mut plan = ShedPlan::default();
    section.read("enabled", &mut plan.enabled);
    section.read("high_percent", &mut plan.high_percent);
    section.read("low_percent", &mut plan.low_percent);
    plan
}

fn detect(section: &Section<'_>) -> DetectPlan {
    let mut plan = DetectPlan::default();
    let scan = section.table("port_scan");
    scan.read("enabled", &mut plan.port_scan.enabled);
    scan.read("theta_benign", &mut plan.port_scan.theta_benign);
    scan.read("theta_scanner", &mut plan.port_scan.theta_scanner);
    scan.read("alpha", &mut plan.port_scan.alpha);
    scan.read("beta", &mut plan.port_scan.beta);
    scan.read("sources_max", &mut plan.port_scan.sources_max);
    scan.read("contacts_max", &mut plan.port_scan.contacts_max);
    scan.read("forget_s", &mut plan.port_scan.forget_s);
    let flood = section.table("syn_flood");
    flood.read("enabled", &mut plan.syn_flood.enabled);
    flood.read("attempts_min", &mut plan.syn_flood.attempts_min);
    flood.read("alpha", &mut plan.syn_flood.alpha);
    flood.read("baseline_weight", &mut plan.syn_flood.baseline_weight);
    flood.read("services_max", &mut plan.syn_flood.services_max);
    plan
}

fn inventory(
    section: &Section<'_>,
    base: &Path,
    domains: &[String],
    report: &mut Report,
) -> InventoryPlan {
    let mut plan = InventoryPlan { file: path(section, "file", base), ..InventoryPlan::default() };
    section.read("api", &mut plan.api);
    plan.journal = path(section, "journal", base);
    section.read("journal_mib_max", &mut plan.journal_mib_max);
    plan.precedence = precedence(section);
    section.read("clock_skew_max_ms", &mut plan.clock_skew_max_ms);
    section.read("vms_max", &mut plan.vms_max);
    section.read("facts_per_vm_max", &mut plan.facts_per_vm_max);
    section.read("home_networks", &mut plan.home_networks);
    section.read("shared_tenants", &mut plan.shared_tenants);
    section.read("shared_networks", &mut plan.shared_networks);
    plan.learned = learned::learned(&section.table("learned"));
    let hosts = section.tables("libvirt");
    plan.libvirt =
        hosts.iter().filter_map(|found| libvirt::libvirt(found, domains, report)).collect();
    let clouds = section.tables("openstack");
    plan.openstack = clouds
        .iter()
        .filter_map(|found| openstack::openstack(found, base, domains, report))
        .collect();
    let databases = section.tables("ovsdb");
    plan.ovsdb =
        databases.iter().filter_map(|found| ovsdb::ovsdb(found, base, domains, report)).collect();
    plan
}

/// Kinds as written, then those that are not, in the order of the default.
fn precedence(section: &Section<'_>) -> Vec<SourceKind> {
    let written = section.items::<String>("precedence");
    let named = |name: &String| SourceKind::ALL.into_iter().find(|kind| kind.name() == name);
    let mut kinds: Vec<SourceKind> = written.iter().filter_map(|(_, name)| named(name)).collect();
    for kind in SourceKind::ALL {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn store(section: &Section<'_>, base: &Path) -> StorePlan {
    let mut plan = StorePlan { folder: path(section, "folder", base), ..StorePlan::default() };
    section.read("queue_rows_max", &mut plan.queue_rows_max);
    section.read("file_seconds", &mut plan.file_seconds);
    section.read("free_mib_min", &mut plan.free_mib_min);
    section.read("compact", &mut plan.compact);
    plan.keep_days = section.get("keep_days");
    plan.size_mib_max = section.get("size_mib_max");
    plan
}

fn serve(section: &Section<'_>) -> ServePlan {
    let mut plan = ServePlan::default();
    section.read("enabled", &mut plan.enabled);
    section.read("listen", &mut plan.listen);
    plan
}

fn path(section: &Section<'_>, name: &str, base: &Path) -> Option<PathBuf> {
    section.get::<PathBuf>(name).map(|path| base.join(path))
}

fn domain(section: &Section<'_>, name: &str, domains: &[String], report: &mut Report) -> u8 {
    let place = domains.iter().position(|domain| domain == name);
    place.and_then(|place| u8::try_from(place).ok()).unwrap_or_else(|| {
        let allowed = domains.join(", ");
        let what = format!("{} is no domain (allowed: {allowed})", quoted(name));
        report.problem(section.at("domain"), section.path("domain"), what);
        0
    })
}

fn segment(
    section: &Section<'_>,
    name: &str,
    at: usize,
    text: &str,
    domains: &[String],
    report: &mut Report,
) -> Option<Segment> {
    let segment = Segment::parse(text, domains);
    if segment.is_none() {
        let allowed = Kind::Segment.allowed();
        let what = format!("{} names no segment (allowed: {allowed})", quoted(text));
        report.problem(at, section.path(name), what);
    }
    segment
}
