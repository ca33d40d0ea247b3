//! Port scan: threshold random walk over first contacts.
//!
//! Sees: for each source its first contacts with (destination, protocol, port) and whether they
//! were answered: TCP flows that begin with a SYN or with neither SYN, ACK nor RST, and UDP flows.
//! Formula: Λ = Π P(Y|H1)/P(Y|H0) over first contacts, with P(success|H0) = θ0 and
//! P(success|H1) = θ1; scanner at Λ ≥ β/α, benign (forgotten) at Λ ≤ (1−β)/(1−α).
//! Source: Jung, Paxson, Berger, Balakrishnan, "Fast Portscan Detection Using Sequential
//! Hypothesis Testing", IEEE S&P 2004.
//! Parameters: `[detect.port_scan]`; a contact counts as failed when refused, or not answered up
//! to the end of the window after it.
//! Cost: a map look-up a conversation with contacts; at most `sources_max` sources with
//! `contacts_max` remembered contacts each. Beyond, those not made for longest are forgotten, and
//! count as first contacts when they come again.
//! Fires: one VM that asks 200 ports of its neighbours, most of them closed.
//! Must not: a web client with many servers that answer; a single server that is down.

use std::collections::hash_map::Entry;

use crate::aggregate::{Conversation, ConversationKey, Observers, WindowView};
use crate::config::PortScanPlan;
use crate::decode::Address;
use crate::hash::{KeyedMap, KeyedSet};
use crate::inventory::{AddressSpace, Segment};
use crate::time::Timestamp;

use super::{Detector, Finding, Severity};

/// Name in alerts.
const NAME: &str = "port_scan";

/// A first contact: destination, protocol, port.
type Contact = (Address, u8, u16);

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    log_ratio: f64,
    contacts: u64,
    failures: u64,
}

/// Contacts that were made, in two generations. The older one is forgotten when the newer one is
/// full, so a source is judged however many contacts it has made; one that is made again stays.
#[derive(Default)]
struct Seen {
    newer: KeyedSet<Contact>,
    older: KeyedSet<Contact>,
}

impl Seen {
    /// Whether `contact` is a first one. Remembers at most `contacts_max`, and at least two.
    fn is_first(&mut self, contact: Contact, contacts_max: usize) -> bool {
        if self.newer.contains(&contact) {
            return false;
        }
        let first = !self.older.remove(&contact);
        if self.newer.len() >= (contacts_max / 2).max(1) {
            self.older = std::mem::take(&mut self.newer);
        }
        self.newer.insert(contact);
        first
    }

    fn len(&self) -> usize {
        self.newer.len() + self.older.len()
    }

    /// Whether all of them have one destination.
    fn is_vertical(&self) -> bool {
        let mut destinations =
            self.newer.iter().chain(&self.older).map(|(destination, ..)| destination);
        let first = destinations.next();
        first.is_some_and(|first| destinations.all(|destination| destination == first))
    }
}

struct State {
    ip_version: u8,
    segment: Segment,
    walk: Source,
    seen: Seen,
    /// Contacts of the window before that had no answer yet.
    waiting: KeyedSet<Contact>,
    /// Start of the window in which the walk began.
    first_seen: Timestamp,
    last_seen: Timestamp,
    /// The walk has reached the upper bound; contacts since then are the alert's events.
    is_scanner: bool,
    new_contacts: u64,
    /// Of what was seen since the walk began.
    observers: Observers,
}

/// The detector.
pub struct PortScan {
    sources: KeyedMap<(AddressSpace, Address), State>,
    log_success: f64,
    log_failure: f64,
    upper: f64,
    lower: f64,
    sources_max: usize,
    contacts_max: usize,
    forget_ns: u64,
}

impl PortScan {
    /// From the plan, whose probabilities lie strictly between 0 and 1.
    pub fn new(plan: &PortScanPlan) -> Self {
        Self {
            sources: KeyedMap::default(),
            log_success: (plan.theta_scanner / plan.theta_benign).ln(),
            log_failure: ((1.0 - plan.theta_scanner) / (1.0 - plan.theta_benign)).ln(),
            upper: (plan.beta / plan.alpha).ln(),
            lower: ((1.0 - plan.beta) / (1.0 - plan.alpha)).ln(),
            sources_max: plan.sources_max as usize,
            contacts_max: plan.contacts_max as usize,
            forget_ns: u64::from(plan.forget_s) * 1_000_000_000,
        }
    }

    fn note(&mut self, view: &WindowView, key: &ConversationKey, conversation: &Conversation) {
        let contact = (key.destination, key.protocol, key.destination_port);
        let answered = conversation.answered > 0;
        let decided = answered || conversation.refused > 0;
        let asks = conversation.contacts > 0 && !is_group(key);
        if !asks && !decided {
            return;
        }
        let steps = (self.log_success, self.log_failure);
        let full = self.sources.len() >= self.sources_max;
        let state = match self.sources.entry((key.space, key.source)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(_) if full || !asks => return,
            Entry::Vacant(room) => room.insert(State::new(key, view.start)),
        };
        if decided && state.waiting.remove(&contact) {
            state.step(answered, steps);
            state.observers.add(conversation.observers);
        }
        if !asks {
            return;
        }
        let contacts_max = self.contacts_max;
        state.last_seen = view.end;
        // What waits is bounded too; what it leaves out is judged when it is made again.
        let judged = decided || state.waiting.len() < contacts_max;
        if !judged || !state.seen.is_first(contact, contacts_max) {
            return;
        }
        if state.walk.contacts == 0 && state.waiting.is_empty() {
            // A new walk; what was found benign before is no part of it.
            state.first_seen = view.start;
            state.observers = Observers::default();
        }
        state.observers.add(conversation.observers);
        if decided {
            state.step(answered, steps);
        } else {
            state.waiting.insert(contact);
        }
    }

    /// Makes room for new sources where there is none left: those with the fewest contacts go,
    /// as the sources of a spoofed flood have one each. Once a window, because it looks at all.
    fn make_room(&mut self) {
        if self.sources.len() >= self.sources_max {
            self.sources.retain(|_, state| state.is_scanner || state.seen.len() > 2);
        }
    }

    fn finding(&self, subject: (AddressSpace, Address), state: &State, now: Timestamp) -> Finding {
        let contacts = state.walk.contacts.max(1);
        let failed = share(state.walk.failures, contacts);
        let is_vertical = state.seen.is_vertical();
        Finding {
            detector: NAME,
            severity: if contacts >= 100 { Severity::High } else { Severity::Medium },
            confidence: failed,
            mitre_technique: Some("T1046"),
            space: subject.0,
            segment: state.segment,
            source: Some(subject.1),
            // Where only one destination is asked, it is named; the subject stays the source, so
            // that a scan that widens remains one alert.
            destination: None,
            destination_port: None,
            ip_version: state.ip_version,
            first_seen: state.first_seen,
            last_seen: now,
            statistic: state.walk.log_ratio,
            threshold: self.upper,
            baseline: 0.0,
            events: state.new_contacts.max(1),
            features: vec![
                ("first_contacts", count(contacts)),
                ("failed_contacts", count(state.walk.failures)),
                ("failed_share", failed),
                ("single_destination", if is_vertical { 1.0 } else { 0.0 }),
            ],
            silent_if: format!(
                "more than {:.0} of its {contacts} first contacts had been answered",
                count(contacts) * 0.5
            ),
            observers: state.observers,
        }
    }
}

impl State {
    fn new(key: &ConversationKey, at: Timestamp) -> Self {
        Self {
            ip_version: key.ip_version,
            segment: key.segment,
            walk: Source::default(),
            seen: Seen::default(),
            waiting: KeyedSet::default(),
            first_seen: at,
            last_seen: at,
            is_scanner: false,
            new_contacts: 0,
            observers: Observers::default(),
        }
    }

    /// Whether its walk is half way up at least, or some answer is waited for.
    fn is_under_way(&self, upper: f64) -> bool {
        self.walk.log_ratio >= upper / 2.0 || !self.waiting.is_empty()
    }

    fn step(&mut self, success: bool, (log_success, log_failure): (f64, f64)) {
        self.walk.contacts += 1;
        self.walk.failures += u64::from(!success);
        self.walk.log_ratio += if success { log_success } else { log_failure };
        self.new_contacts += 1;
    }
}

impl Detector for PortScan {
    fn name(&self) -> &'static str {
        NAME
    }

    fn observe(&mut self, view: &WindowView, findings: &mut Vec<Finding>) {
        self.make_room();
        let overdue: Vec<_> = self
            .sources
            .iter()
            .filter(|(_, state)| !state.waiting.is_empty())
            .map(|(subject, state)| (*subject, state.waiting.clone()))
            .collect();
        for (key, conversation) in &view.conversations {
            self.note(view, &key, &conversation);
        }
        let steps = (self.log_success, self.log_failure);
        for (subject, contacts) in overdue {
            let Some(state) = self.sources.get_mut(&subject) else { continue };
            for contact in contacts {
                if state.waiting.remove(&contact) {
                    state.step(false, steps);
                }
            }
        }
        self.judge(view.end, findings);
    }

    fn needed_since(&self) -> Option<Timestamp> {
        let walks = self.sources.values();
        walks.filter(|state| state.is_under_way(self.upper)).map(|state| state.first_seen).min()
    }
}

impl PortScan {
    /// Ends walks that have reached a bound, forgets who is silent.
    fn judge(&mut self, now: Timestamp, findings: &mut Vec<Finding>) {
        let mut benign = Vec::new();
        let mut scanners = Vec::new();
        for (subject, state) in &mut self.sources {
            state.is_scanner |= state.walk.log_ratio >= self.upper;
            if state.is_scanner && state.new_contacts > 0 {
                scanners.push(*subject);
            } else if !state.is_scanner
                && state.waiting.is_empty()
                && state.walk.log_ratio <= self.lower
            {
                // While answers are waited for, successes must weigh against the failures to
                // come: both are of one window, whatever their order.
                state.walk = Source::default();
                state.new_contacts = 0;
            }
            if now.since_ns(state.last_seen) > self.forget_ns {
                benign.push(*subject);
            }
        }
        scanners.sort_unstable();
        for subject in scanners {
            if let Some(state) = self.sources.get(&subject) {
                findings.push(self.finding(subject, state, now));
            }
            if let Some(state) = self.sources.get_mut(&subject) {
                state.new_contacts = 0;
            }
        }
        for subject in benign {
            self.sources.remove(&subject);
        }
    }
}

/// Multicast and broadcast destinations answer nobody by nature.
fn is_group(key: &ConversationKey) -> bool {
    match key.destination.to_ip(key.ip_version) {
        std::net::IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast() || ip.octets()[3] == 255,
        std::net::IpAddr::V6(ip) => ip.is_multicast(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of contacts are far below 2^52")]
fn count(number: u64) -> f64 {
    number as f64
}

fn share(part: u64, whole: u64) -> f64 {
    count(part) / count(whole.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::detect::tests::view;

    fn contact(
        host: u8,
        port: u16,
        answered: u64,
        refused: u64,
    ) -> (ConversationKey, Conversation) {
        let key = ConversationKey {
            source: Address::v4([10, 0, 0, 9]),
            destination: Address::v4([10, 0, 0, host]),
            protocol: 6,
            ip_version: 4,
            destination_port: port,
            ..ConversationKey::default()
        };
        (key, Conversation { contacts: 1, answered, refused, ..Conversation::default() })
    }

    fn run(windows: Vec<Vec<(ConversationKey, Conversation)>>) -> Vec<Finding> {
        let mut detector = PortScan::new(&PortScanPlan::default());
        let mut findings = Vec::new();
        for (number, conversations) in (10..).zip(windows) {
            detector.observe(&view(number, conversations), &mut findings);
        }
        findings
    }

    #[test]
    fn fires_on_refused_and_on_silent_ports() {
        let refused = (1..=20).map(|port| contact(1, port, 0, 1)).collect();
        let findings = run(vec![refused]);
        assert_eq!((findings.len(), findings[0].events), (1, 20));
        let silent = (1..=20).map(|host| contact(host, 22, 0, 0)).collect();
        assert_eq!(run(vec![silent, Vec::new()]).len(), 1, "decided one window later");
    }

    #[test]
    fn is_silent_on_clients_and_on_one_server_that_is_down() {
        let client = (1..=60).map(|host| contact(host, 443, u64::from(host % 5 != 0), 0)).collect();
        assert!(run(vec![client, Vec::new()]).is_empty());
        let down = (0..30).map(|_| vec![contact(1, 443, 0, 1)]).collect();
        assert!(run(down).is_empty());
    }

    #[test]
    fn an_answer_in_the_next_window_is_an_answer() {
        let asked = (1..=30).map(|host| contact(host, 443, 0, 0)).collect();
        let answered = (1..=30)
            .map(|host| {
                let (key, conversation) = contact(host, 443, 1, 0);
                (key, Conversation { contacts: 0, ..conversation })
            })
            .collect();
        assert!(run(vec![asked, answered, Vec::new()]).is_empty());
    }

    #[test]
    fn a_scan_begins_after_the_traffic_that_was_benign() {
        let client = (1..=60).map(|host| contact(host, 443, 1, 0)).collect();
        let scan = (1..=60).map(|port| contact(1, port, 0, 1)).collect();
        let findings = run(vec![client, Vec::new(), Vec::new(), scan]);
        let second = 1_000_000_000;
        let seen: Vec<_> =
            findings.iter().map(|found| (found.first_seen, found.last_seen)).collect();
        // In the window 13.
        assert_eq!(seen, [(Timestamp(13 * second), Timestamp(14 * second))]);
    }

    #[test]
    fn sources_are_bounded() {
        let plan = PortScanPlan { sources_max: 4, ..PortScanPlan::default() };
        let mut detector = PortScan::new(&plan);
        let conversations = (0..100).map(|source| {
            let (key, conversation) = contact(1, 80, 0, 1);
            (ConversationKey { source: Address::v4([10, 0, 1, source]), ..key }, conversation)
        });
        detector.observe(&view(1, conversations.collect()), &mut Vec::new());
        assert_eq!(detector.sources.len(), 4);
    }

    #[test]
    fn who_made_many_contacts_is_judged_all_the_same() {
        let plan = PortScanPlan { contacts_max: 64, ..PortScanPlan::default() };
        let mut detector = PortScan::new(&plan);
        let mut findings = Vec::new();
        let client = (1..=1_000).map(|port| contact(1, port, 1, 0)).collect();
        detector.observe(&view(1, client), &mut findings);
        assert!(findings.is_empty());
        let scan = (1..=1_000).map(|port| contact(2, port, 0, 1)).collect();
        detector.observe(&view(2, scan), &mut findings);
        assert_eq!((findings.len(), findings[0].events), (1, 1_000));
        let silent = (1..=1_000).map(|port| contact(3, port, 0, 0)).collect();
        detector.observe(&view(3, silent), &mut findings);
        let bounded = |state: &State| state.seen.len() <= 64 && state.waiting.len() <= 64;
        assert!(detector.sources.values().all(bounded));
    }

    #[test]
    fn contacts_that_are_made_again_and_again_stay_known() {
        let mut seen = Seen::default();
        let known = (Address::v4([10, 0, 0, 1]), 6, 443);
        assert!(seen.is_first(known, 64));
        for port in 0..1_000 {
            assert!(seen.is_first((Address::v4([10, 0, 0, 2]), 6, port), 64));
            assert!(!seen.is_first(known, 64), "{port}");
            assert!(seen.len() <= 64);
        }
    }
}
