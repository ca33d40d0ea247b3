//! Findings to alerts: one alert for what goes on, not one for each window.
//!
//! In: findings of a window. Out: alerts that are opened, updated or closed.
//! Cost: one map look-up a finding; at most [`ALERTS_MAX`] alerts are kept open.
//! Invariants: the id derives from detector, endpoints and first time; repeats update one alert
//! each time their number has doubled; an alert closes after [`SILENCE_NS`] without a finding.

use std::collections::BTreeMap;

use crate::aggregate::Observers;
use crate::decode::Address;
use crate::index::content_id;
use crate::inventory::{AddressSpace, Segment};
use crate::time::Timestamp;

/// Alerts that are open at the same time at most; beyond it the longest silent one is closed, and
/// where none has been silent for longer than the finding is old, the finding opens none.
const ALERTS_MAX: usize = 4_096;

/// Silence after which an alert is closed.
const SILENCE_NS: u64 = 60_000_000_000;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Worth looking at.
    Medium,
    /// Worth acting on.
    High,
}

impl Severity {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// What a detector found in one window.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Name of the detector.
    pub detector: &'static str,
    /// How bad.
    pub severity: Severity,
    /// 0–1.
    pub confidence: f64,
    /// MITRE ATT&CK technique.
    pub mitre_technique: Option<&'static str>,
    /// Address space of both endpoints.
    pub space: AddressSpace,
    /// Segment in which it was seen.
    pub segment: Segment,
    /// Who does it, where that is one.
    pub source: Option<Address>,
    /// Whom it hits, where that is one.
    pub destination: Option<Address>,
    /// Which port it hits, where that is one.
    pub destination_port: Option<u16>,
    /// 4 or 6.
    pub ip_version: u8,
    /// Start of the window with the first event in it: views tell no finer time, so the event
    /// itself is up to a window later.
    pub first_seen: Timestamp,
    /// End of the window with the last event in it.
    pub last_seen: Timestamp,
    /// What was compared.
    pub statistic: f64,
    /// With what.
    pub threshold: f64,
    /// What is usual.
    pub baseline: f64,
    /// Events (contacts, attempts) in this window.
    pub events: u64,
    /// The figures behind it, by name.
    pub features: Vec<(&'static str, f64)>,
    /// What would have kept it silent.
    pub silent_if: String,
    /// Which probes saw it, where several are looked at together.
    pub observers: Observers,
}

/// Where an alert stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertState {
    /// New.
    Open,
    /// Goes on.
    Updated,
    /// Over.
    Closed,
}

impl AlertState {
    /// The word in records.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Updated => "updated",
            Self::Closed => "closed",
        }
    }
}

/// An alert as it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Alert {
    /// Id, 16 hexadecimal digits.
    pub id: String,
    /// Where it stands.
    pub state: AlertState,
    /// The strongest finding in it; times and events are those of the whole alert.
    pub finding: Finding,
}

/// What findings must share to be one alert.
type Subject = (&'static str, AddressSpace, Option<Address>, Option<Address>, Option<u16>);

struct Entry {
    alert: Alert,
    next_update_events: u64,
}

/// Alerts that are open.
#[derive(Default)]
pub struct AlertBook {
    open: BTreeMap<Subject, Entry>,
    opened: u64,
    crowded_out: u64,
    /// The book is full, and no alert was silent since then when it was looked at last.
    all_heard_since: Option<Timestamp>,
}

impl AlertBook {
    /// Notes the findings of a window that ended at `now`.
    pub fn note(&mut self, now: Timestamp, findings: &[Finding]) -> Vec<Alert> {
        let mut changed = Vec::new();
        self.all_heard_since = None;
        for finding in findings {
            self.note_one(finding, &mut changed);
        }
        self.close_silent(now, &mut changed);
        changed
    }

    /// Closes all that is open.
    pub fn close_all(&mut self) -> Vec<Alert> {
        std::mem::take(&mut self.open).into_values().map(closed).collect()
    }

    /// First time of all that is open.
    pub fn first_seen(&self) -> Option<Timestamp> {
        self.open.values().map(|entry| entry.alert.finding.first_seen).min()
    }

    /// Alerts opened so far.
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// Alerts that are open.
    pub fn open(&self) -> u64 {
        u64::try_from(self.open.len()).unwrap_or(u64::MAX)
    }

    /// Findings that opened no alert because the book was full of others that go on.
    pub fn crowded_out(&self) -> u64 {
        self.crowded_out
    }

    fn note_one(&mut self, finding: &Finding, changed: &mut Vec<Alert>) {
        let subject = (
            finding.detector,
            finding.space,
            finding.source,
            finding.destination,
            finding.destination_port,
        );
        if let Some(entry) = self.open.get_mut(&subject) {
            if grow(entry, finding) {
                changed.push(entry.alert.clone());
            }
            return;
        }
        if self.open.len() >= ALERTS_MAX && !self.close_longest_silent(finding, changed) {
            self.crowded_out += 1;
            return;
        }
        let alert = Alert { id: id_of(finding), state: AlertState::Open, finding: finding.clone() };
        changed.push(alert.clone());
        self.opened += 1;
        let next_update_events = finding.events.saturating_mul(2).max(2);
        self.open.insert(subject, Entry { alert, next_update_events });
    }

    fn close_silent(&mut self, now: Timestamp, changed: &mut Vec<Alert>) {
        let silent: Vec<Subject> = self
            .open
            .iter()
            .filter(|(_, entry)| now.since_ns(entry.alert.finding.last_seen) > SILENCE_NS)
            .map(|(subject, _)| *subject)
            .collect();
        changed.extend(silent.iter().filter_map(|subject| self.open.remove(subject)).map(closed));
    }

    /// Makes room for a finding; `false` where all that is open was heard as lately as it.
    fn close_longest_silent(&mut self, finding: &Finding, changed: &mut Vec<Alert>) -> bool {
        if self.all_heard_since.is_some_and(|since| finding.last_seen <= since) {
            return false;
        }
        let entries =
            self.open.iter().map(|(subject, entry)| (entry.alert.finding.last_seen, subject));
        let Some((last_seen, &subject)) = entries.min_by_key(|(last_seen, _)| *last_seen) else {
            return false;
        };
        if finding.last_seen <= last_seen {
            // Nothing leaves by itself before the window ends, and what is heard again is heard
            // later.
            self.all_heard_since = Some(last_seen);
            return false;
        }
        changed.extend(self.open.remove(&subject).map(closed));
        true
    }
}

/// Adds a finding to its alert; `true` if that is worth a record.
fn grow(entry: &mut Entry, finding: &Finding) -> bool {
    let so_far = &mut entry.alert.finding;
    let (first_seen, events) = (so_far.first_seen, so_far.events + finding.events);
    let mut observers = so_far.observers;
    observers.add(finding.observers);
    let worse = finding.severity > so_far.severity;
    if finding.statistic >= so_far.statistic || worse {
        *so_far = finding.clone();
    }
    so_far.first_seen = first_seen.min(finding.first_seen);
    so_far.last_seen = so_far.last_seen.max(finding.last_seen);
    so_far.events = events;
    so_far.observers = observers;
    if events < entry.next_update_events && !worse {
        return false;
    }
    entry.next_update_events = events.saturating_mul(2);
    entry.alert.state = AlertState::Updated;
    true
}

fn closed(entry: Entry) -> Alert {
    Alert { state: AlertState::Closed, ..entry.alert }
}

/// From what the alert is about: the same in every run on the same packets.
fn id_of(finding: &Finding) -> String {
    let space = finding.space.bits().to_be_bytes();
    let time = finding.first_seen.0.to_be_bytes();
    let port = finding.destination_port.unwrap_or(0).to_be_bytes();
    let source = finding.source.map_or([0; 16], |address| address.0);
    let destination = finding.destination.map_or([0; 16], |address| address.0);
    let name = finding.detector.as_bytes().iter();
    let octets = name.chain(&space).chain(&source).chain(&destination).chain(&port).chain(&time);
    format!("{:016x}", content_id(octets))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn finding(at_s: u64, events: u64) -> Finding {
        Finding {
            detector: "port_scan",
            severity: Severity::Medium,
            confidence: 0.9,
            mitre_technique: None,
            space: AddressSpace::default(),
            segment: Segment::NONE,
            source: Some(Address::v4([10, 0, 0, 1])),
            destination: None,
            destination_port: None,
            ip_version: 4,
            first_seen: Timestamp(at_s * SECOND),
            last_seen: Timestamp(at_s * SECOND),
            statistic: 1.0,
            threshold: 0.5,
            baseline: 0.0,
            events,
            features: Vec::new(),
            silent_if: String::new(),
            observers: Observers::default(),
        }
    }

    #[test]
    fn repeats_update_one_alert_on_a_log_scale() {
        let mut book = AlertBook::default();
        let mut states = Vec::new();
        for second in 0..100 {
            let changed = book.note(Timestamp(second * SECOND), &[finding(second, 1)]);
            states.extend(changed.into_iter().map(|alert| (alert.state, alert.finding.events)));
        }
        let updates = [2, 4, 8, 16, 32, 64].map(|events| (AlertState::Updated, events));
        assert_eq!(states[0], (AlertState::Open, 1));
        assert_eq!(states[1..], updates);
        assert_eq!(book.opened(), 1);
    }

    #[test]
    fn silence_closes() {
        let mut book = AlertBook::default();
        let id = book.note(Timestamp(0), &[finding(0, 1)])[0].id.clone();
        assert!(book.note(Timestamp(60 * SECOND), &[]).is_empty());
        let changed = book.note(Timestamp(61 * SECOND), &[]);
        assert_eq!((changed[0].state, &changed[0].id), (AlertState::Closed, &id));
        assert_ne!(book.note(Timestamp(99 * SECOND), &[finding(99, 1)])[0].id, id);
    }

    #[test]
    fn a_full_book_of_alerts_that_go_on_takes_no_more() {
        let mut book = AlertBook::default();
        let many = |at_s| -> Vec<_> {
            let of = |number: u32| {
                let source = Some(Address::v4(number.to_be_bytes()));
                Finding { source, ..finding(at_s, 1) }
            };
            (0..20_000).map(of).collect()
        };
        assert_eq!(book.note(Timestamp(SECOND), &many(1)).len(), ALERTS_MAX);
        assert_eq!((book.open.len(), book.crowded_out()), (ALERTS_MAX, 20_000 - 4_096));
        // The same again: what is open is updated, nothing is opened and closed in turns.
        let changed = book.note(Timestamp(2 * SECOND), &many(2));
        assert!(changed.iter().all(|alert| alert.state == AlertState::Updated));
        assert_eq!((book.opened(), book.open.len()), (4_096, ALERTS_MAX));
    }

    #[test]
    fn open_alerts_are_bounded() {
        let mut book = AlertBook::default();
        let many: Vec<_> = (0..5_000_u32)
            .map(|number| {
                let source = Some(Address::v4(number.to_be_bytes()));
                Finding { source, ..finding(u64::from(number) / 1_000, 1) }
            })
            .collect();
        let changed = book.note(Timestamp(0), &many);
        let closed = changed.iter().filter(|alert| alert.state == AlertState::Closed).count();
        assert_eq!((book.open.len(), closed), (ALERTS_MAX, 5_000 - ALERTS_MAX));
    }
}
