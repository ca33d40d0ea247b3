//! What `virsh domstats` says.
//!
//! In: its text. Out: state of each domain by name, and its counters.
//! Invariants: never panics; what is missing is not there, rather than 0.
//! Source: libvirt, virConnectGetAllDomainStats: `state.state` and `state.reason` are numbers of
//! virDomainState and its reasons, `cpu.time` is in ns, `balloon.…` in KiB.

use std::collections::BTreeMap;

/// Interfaces of one domain at most.
const NICS_MAX: usize = 64;

/// One domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Stats {
    /// virDomainState.
    pub(super) state: Option<u64>,
    /// Its reason.
    pub(super) reason: Option<u64>,
    /// CPU time used since it began, in ns.
    pub(super) cpu_ns: Option<u64>,
    /// Virtual CPUs in use.
    pub(super) vcpu_count: Option<u64>,
    /// Memory that it has.
    pub(super) memory_bytes: Option<u64>,
    /// Memory of the host that it takes.
    pub(super) resident_bytes: Option<u64>,
    /// Interfaces by their number.
    pub(super) nics: BTreeMap<usize, NicStats>,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NicStats {
    /// Device on the host.
    pub(super) device: String,
    /// Octets, packets, errors and drops, by their names (`rx.drop`).
    pub(super) counters: BTreeMap<String, u64>,
}

/// States of a domain.
const RUNNING: u64 = 1;
const BLOCKED: u64 = 2;
const PAUSED: u64 = 3;
/// Why it is paused: it is on its way to another host, or comes from one.
const PAUSED_MIGRATION: u64 = 2;
const PAUSED_STARTING_UP: u64 = 11;
/// Post-copy: it runs at the destination already, or the other way round failed.
const PAUSED_POSTCOPY: u64 = 12;
const PAUSED_POSTCOPY_FAILED: u64 = 13;

impl Stats {
    /// Whether this host is where it runs. While it moves, it is paused at one host or at both.
    pub(super) fn runs_here(&self) -> bool {
        const MOVING: [u64; 4] =
            [PAUSED_MIGRATION, PAUSED_STARTING_UP, PAUSED_POSTCOPY, PAUSED_POSTCOPY_FAILED];
        match self.state {
            Some(RUNNING | BLOCKED) => true,
            Some(PAUSED) => self.reason.is_none_or(|reason| !MOVING.contains(&reason)),
            _ => false,
        }
    }

    /// The state in a word, as virsh has it.
    pub(super) const fn word(&self) -> Option<&'static str> {
        Some(match self.state {
            Some(RUNNING) => "running",
            Some(BLOCKED) => "idle",
            Some(PAUSED) => "paused",
            Some(4) => "in shutdown",
            Some(5) => "shut off",
            Some(6) => "crashed",
            Some(7) => "pmsuspended",
            _ => return None,
        })
    }
}

/// Reads the blocks `Domain: 'NAME'` with their lines `  key=value`.
pub(super) fn stats(text: &str) -> BTreeMap<String, Stats> {
    let mut all: BTreeMap<String, Stats> = BTreeMap::new();
    let mut name = None;
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("Domain: '") {
            name = rest.strip_suffix('\'').map(str::to_owned);
            all.extend(name.clone().map(|name| (name, Stats::default())));
        } else if let (Some(stats), Some((key, value))) =
            (name.as_ref().and_then(|name| all.get_mut(name)), line.trim().split_once('='))
        {
            set(stats, key, value);
        }
    }
    all
}

fn set(stats: &mut Stats, key: &str, value: &str) {
    let number = value.parse::<u64>().ok();
    let kibibytes = number.and_then(|number| number.checked_mul(1_024));
    match key {
        "state.state" => stats.state = number,
        "state.reason" => stats.reason = number,
        "cpu.time" => stats.cpu_ns = number,
        "vcpu.current" => stats.vcpu_count = number,
        "balloon.current" => stats.memory_bytes = kibibytes,
        "balloon.rss" => stats.resident_bytes = kibibytes,
        _ => {
            let Some((place, key)) = key.strip_prefix("net.").and_then(|key| key.split_once('.'))
            else {
                return;
            };
            let Some(place) = place.parse().ok().filter(|place| *place < NICS_MAX) else { return };
            let nic = stats.nics.entry(place).or_default();
            match number {
                _ if key == "name" => value.clone_into(&mut nic.device),
                Some(number) if nic.counters.len() < NICS_MAX => {
                    nic.counters.insert(key.to_owned(), number);
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) const TEXT: &str = "Domain: 'instance-0000001a'
  state.state=1
  state.reason=5
  cpu.time=2130000000
  cpu.user=1100000000
  balloon.current=524288
  balloon.maximum=524288
  balloon.rss=300000
  vcpu.current=2
  net.count=1
  net.0.name=tapc1a7b1f2-6a
  net.0.rx.bytes=1000
  net.0.rx.pkts=10
  net.0.rx.errs=0
  net.0.rx.drop=3
  net.0.tx.bytes=2000
  net.0.tx.pkts=20
  net.0.tx.errs=0
  net.0.tx.drop=4

Domain: 'it''s off'
  state.state=5
  state.reason=0
";

    #[test]
    fn counters_are_read() {
        let all = stats(TEXT);
        let web = &all["instance-0000001a"];
        assert_eq!((web.cpu_ns, web.vcpu_count), (Some(2_130_000_000), Some(2)));
        assert_eq!(web.memory_bytes, Some(512 << 20));
        assert_eq!(web.resident_bytes, Some(300_000 << 10));
        assert_eq!(web.nics[&0].device, "tapc1a7b1f2-6a");
        assert_eq!(web.nics[&0].counters["rx.drop"], 3);
        assert_eq!((web.runs_here(), web.word()), (true, Some("running")));
        let off = &all["it''s off"];
        assert_eq!((off.runs_here(), off.word(), off.cpu_ns), (false, Some("shut off"), None));
    }

    #[test]
    fn a_domain_on_its_way_is_not_here() {
        let here = |state, reason| {
            let (state, reason) = (Some(state), Some(reason));
            Stats { state, reason, ..Stats::default() }.runs_here()
        };
        assert!(here(1, 3) && here(3, 1));
        assert!(!here(3, 2) && !here(3, 11) && !here(4, 0) && !here(0, 0));
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "(Domain: 'a'\n)?([a-z.0-9=' :\n-]{0,40}\n?){0,20}") {
            let _ = stats(&text);
        }
    }
}
