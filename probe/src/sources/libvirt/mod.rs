//! libvirt on a host: its domains, what happens to them, what they use.
//!
//! In: `[[inventory.libvirt]]`, answers of virsh. Out: changes of VMs, [`VmUsage`].
//! Cost: a process that waits for events; two for each reading, one more for each 64 domains.
//! Invariants: an event only says that all is to be read again, so none is misread or lost in between. What
//! a host no longer has is not said to have ended: it may be on another host.
//! Source: virsh(1) of libvirt; docs/sources/libvirt.md says why it and not the library.
//!
//! | file | |
//! |---|---|
//! | `process` | questions to virsh, bounded |
//! | `domain` | XML → domains |
//! | `stats` | domstats → states and counters |

mod domain;
mod process;
mod stats;

use std::collections::BTreeMap;
use std::hash::{BuildHasher as _, RandomState};

use domain::Domain;
use process::{Came, Events, Trouble, ask};
use stats::Stats;

use super::handle::{Backoff, InventorySource, SourceHandle};
use super::usage::{InterfaceUsage, UsageQueue, VmUsage};
use crate::config::LibvirtPlan;
use crate::inventory::{Batch, Change, Missing, Scope, Segment, SegmentKind, Statement, Uuid};
use crate::time::{Timestamp, monotonic_ns, ms, wall_clock};

/// Domains that one process is asked of.
const TOGETHER_MAX: usize = 64;
/// How often the end of the probe is looked for.
const WAIT_MS: u64 = 50;
/// Least time from one reading to the next that events bring about: some hosts have them without end.
const READ_AGAIN_MS: u64 = 500;
/// VLAN ids that a tag may have.
const VLAN_MAX: u16 = 4_094;

/// libvirt of one host as a source.
pub struct Libvirt {
    plan: LibvirtPlan,
    usage: UsageQueue,
}

impl Libvirt {
    /// Of a host; asks when it runs. `usage` gets samples of its VMs.
    pub const fn new(plan: LibvirtPlan, usage: UsageQueue) -> Self {
        Self { plan, usage }
    }
}

/// A source that runs.
struct Host<'a> {
    plan: &'a LibvirtPlan,
    usage: &'a UsageQueue,
    handle: &'a SourceHandle,
    name: String,
    /// As they were read last, by name.
    domains: BTreeMap<String, Domain>,
    /// The first event since all was read.
    event: Option<Timestamp>,
    /// When all may be read again, and when it is to be, and usage, by the monotonic clock.
    least_ns: u64,
    read_ns: u64,
    usage_ns: u64,
}

impl InventorySource for Libvirt {
    fn run(self: Box<Self>, handle: SourceHandle) {
        let mut backoff = Backoff::default();
        while !handle.is_stopping() {
            handle.connecting(wall_clock());
            let mut host = Host {
                plan: &self.plan,
                usage: &self.usage,
                handle: &handle,
                name: String::new(),
                domains: BTreeMap::new(),
                event: None,
                least_ns: 0,
                read_ns: 0,
                usage_ns: 0,
            };
            let trouble = match host.watch(&mut backoff) {
                Ok(()) | Err(Trouble::Stopping) => return,
                Err(trouble) => trouble,
            };
            handle.failed(format_args!("{}: {trouble}", self.plan.uri), wall_clock());
            let wait_ms = backoff.next_ms().min(self.plan.retry_max_ms.into());
            let half = wait_ms / 2;
            handle.wait_ms(half + RandomState::new().hash_one(half) % (half + 1));
        }
    }
}

impl Host<'_> {
    /// Reads all, then again with each event and after each interval. `Ok`: the probe ends.
    fn watch(&mut self, backoff: &mut Backoff) -> Result<(), Trouble> {
        // First the events: what happens while all is read is read again.
        let mut events = Events::listen(self.plan)?;
        self.name = match &self.plan.host {
            Some(host) => host.clone(),
            None => self.ask(&["hostname"])?.trim().to_owned(),
        };
        self.read(wall_clock())?;
        self.handle.live(wall_clock());
        backoff.reset();
        while !self.handle.is_stopping() {
            if let Came::Event(at) = events.wait(WAIT_MS)? {
                self.event.get_or_insert(at);
            }
            let now_ns = monotonic_ns();
            let is_due = if self.event.is_some() { self.least_ns } else { self.read_ns };
            if now_ns >= is_due.min(self.read_ns) {
                let at = self.event.take().unwrap_or_else(wall_clock);
                self.read(at)?;
            }
            if self.plan.usage_s > 0 && now_ns >= self.usage_ns {
                self.usage_ns = now_ns + ms(u64::from(self.plan.usage_s) * 1_000);
                self.take_usage()?;
            }
        }
        Ok(())
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, Trouble> {
        let said = ask(self.plan, arguments, self.handle)?;
        self.handle.heard(wall_clock());
        Ok(said)
    }

    /// Reads all domains, and says that this is how they have been since `at`.
    fn read(&mut self, at: Timestamp) -> Result<(), Trouble> {
        let now_ns = monotonic_ns();
        self.least_ns = now_ns + ms(READ_AGAIN_MS);
        self.read_ns = now_ns + ms(u64::from(self.plan.read_s) * 1_000);
        let listed = self.ask(&["list", "--all", "--uuid"])?;
        let vms_max = usize::try_from(self.plan.vms_max).unwrap_or(usize::MAX);
        let mut uuids: Vec<Uuid> =
            listed.lines().filter_map(|line| line.trim().parse().ok()).collect();
        let mut is_whole = uuids.len() <= vms_max;
        if !is_whole {
            self.handle.left_out("vms_max", (uuids.len() - vms_max) as u64);
            self.handle.note("the host has more domains than vms_max", at);
            uuids.truncate(vms_max);
        }
        let mut domains = Vec::new();
        for some in uuids.chunks(TOGETHER_MAX) {
            let (some, broken) = self.describe(some, at)?;
            domains.extend(some);
            is_whole &= broken == 0;
        }
        let states = stats::stats(&self.ask(&["domstats", "--raw", "--state"])?);
        let changes = domains.iter().flat_map(|domain| {
            let unknown = Stats::default();
            let stats = states.get(&domain.name).unwrap_or(&unknown);
            changes(domain, stats, &self.name, self.plan, at)
        });
        // Of those that were not read nothing is known, not that they are gone.
        let scope =
            if is_whole { Scope::All { at, missing: Missing::Unsaid } } else { Scope::Each { at } };
        let batch = Batch { changes: changes.collect(), scope };
        if self.handle.send(batch, wall_clock()).is_err() {
            // Everything is said anew soon.
            self.read_ns = monotonic_ns() + ms(1_000);
        }
        self.domains = domains.into_iter().map(|domain| (domain.name.clone(), domain)).collect();
        Ok(())
    }

    /// Of some domains, and how many of them cannot be read.
    fn describe(&self, uuids: &[Uuid], at: Timestamp) -> Result<(Vec<Domain>, u64), Trouble> {
        // A domain that has gone since it was listed makes its own command fail; the last one does not.
        let mut commands: Vec<String> =
            uuids.iter().map(|uuid| format!("dumpxml {uuid}")).collect();
        commands.push("hostname".to_owned());
        let said = self.ask(&[&commands.join("; ")])?;
        let end = said.trim_end().rfind('\n').map_or(0, |end| end + 1);
        let (domains, broken) = domain::domains(&said[..end]);
        if broken > 0 {
            self.handle.left_out("domain_malformed", broken);
            self.handle.note("the description of a domain was not whole", at);
        }
        Ok((domains, broken))
    }

    fn take_usage(&self) -> Result<(), Trouble> {
        let at = wall_clock();
        let wanted =
            ["--raw", "--cpu-total", "--balloon", "--vcpu", "--interface", "--list-active"];
        let said = self.ask(&[&["domstats"][..], &wanted].concat())?;
        for (name, stats) in stats::stats(&said) {
            if let Some(domain) = self.domains.get(&name) {
                self.usage.add(usage(domain, &stats, at));
            }
        }
        Ok(())
    }
}

/// What is said of one domain.
fn changes(
    domain: &Domain,
    stats: &Stats,
    host: &str,
    plan: &LibvirtPlan,
    at: Timestamp,
) -> Vec<Change> {
    let mut said = Statement::new(domain.uuid, at).exists(true).name(domain.known_as());
    if stats.runs_here() && !host.is_empty() {
        said = said.host(host);
    }
    if let Some((id, name)) = &domain.project {
        said = said.tenant(if plan.tenant_ids { id.as_str() } else { name.as_str() });
    }
    if let Some(state) = stats.word() {
        said = said.tag("libvirt_state", state);
    }
    if domain.nova_name.is_some() {
        said = said.tag("libvirt_name", domain.name.as_str());
    }
    for nic in &domain.nics {
        said = said.attached(nic.mac, true);
        if let Some(port) = nic.port.as_deref().or(nic.device.as_deref()) {
            said = said.port(nic.mac, port);
        }
        if let ([vlan @ 1..=VLAN_MAX], true) = (nic.vlans.as_slice(), plan.vlan_segments) {
            let segment = Segment::new(plan.domain, SegmentKind::Vlan, u32::from(*vlan));
            said = said.segment(nic.mac, segment);
        }
    }
    said.changes()
}

/// Interfaces are joined by the device on the host, which both texts name.
fn usage(domain: &Domain, stats: &Stats, at: Timestamp) -> VmUsage {
    let interface = |nic: &stats::NicStats| {
        let named = domain.nics.iter().find(|known| known.device.as_ref() == Some(&nic.device))?;
        let counter = |name: &str| nic.counters.get(name).copied();
        Some(InterfaceUsage {
            mac: named.mac,
            rx_octets: counter("rx.bytes"),
            rx_packets: counter("rx.pkts"),
            rx_drops: counter("rx.drop"),
            rx_errors: counter("rx.errs"),
            tx_octets: counter("tx.bytes"),
            tx_packets: counter("tx.pkts"),
            tx_drops: counter("tx.drop"),
            tx_errors: counter("tx.errs"),
        })
    };
    VmUsage {
        vm: domain.uuid,
        at,
        cpu_ns: stats.cpu_ns,
        vcpu_count: stats.vcpu_count,
        memory_bytes: stats.memory_bytes,
        resident_bytes: stats.resident_bytes,
        interfaces: stats.nics.values().filter_map(interface).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inventory::{Attribute, Value};

    fn web() -> (Domain, Stats) {
        let domain = domain::domains(domain::tests::WEB).0.remove(0);
        let stats = stats::stats(stats::tests::TEXT).remove(&domain.name).expect("its block");
        (domain, stats)
    }

    fn texts(changes: &[Change]) -> Vec<String> {
        let text = |change: &Change| match &change.value {
            Some(Value::Text(text)) => format!("{} {text}", change.attribute.name()),
            Some(Value::Segment(segment)) => format!("segment {segment}"),
            other => format!("{} {other:?}", change.attribute.name()),
        };
        changes.iter().map(text).collect()
    }

    #[test]
    fn a_running_domain_is_on_its_host() {
        let (domain, stats) = web();
        let plan = LibvirtPlan::new("a".to_owned(), "test:///default".to_owned());
        let said = texts(&changes(&domain, &stats, "host1", &plan, Timestamp(5)));
        let yes = "Some(Flag(true))";
        let whole = [
            &format!("exists {yes}"),
            "name web & db 1",
            "host host1",
            "tenant acme",
            "tag running",
            "tag instance-0000001a",
            &format!("attached {yes}"),
            "port c1a7b1f2",
            "segment vlan/42",
            // The other interface is a trunk.
            &format!("attached {yes}"),
        ];
        assert_eq!(said, whole);
    }

    #[test]
    fn a_domain_that_is_off_or_moves_has_no_host() {
        let (domain, stats) = web();
        let mut plan = LibvirtPlan::new("a".to_owned(), "test:///default".to_owned());
        (plan.tenant_ids, plan.vlan_segments) = (true, false);
        for (state, reason) in [(5, 0), (3, 2), (3, 11)] {
            let stats = Stats { state: Some(state), reason: Some(reason), ..stats.clone() };
            let said = changes(&domain, &stats, "host1", &plan, Timestamp(5));
            let of =
                |attribute: &Attribute| said.iter().any(|change| change.attribute == *attribute);
            assert!(of(&Attribute::Exists) && !of(&Attribute::Host), "{state}");
            assert!(texts(&said).contains(&"tenant p1".to_owned()));
            assert!(!texts(&said).contains(&"segment vlan/42".to_owned()));
        }
    }

    #[test]
    fn usage_is_joined_by_device() {
        let (domain, stats) = web();
        let usage = usage(&domain, &stats, Timestamp(5));
        assert_eq!((usage.vm, usage.cpu_ns), (domain.uuid, Some(2_130_000_000)));
        let [nic] = usage.interfaces.as_slice() else { panic!("{usage:?}") };
        assert_eq!(nic.mac, domain.nics[0].mac);
        assert_eq!((nic.rx_drops, nic.tx_drops, nic.tx_octets), (Some(3), Some(4), Some(2_000)));
    }
}
