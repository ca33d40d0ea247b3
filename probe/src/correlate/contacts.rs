//! Contacts: the lane that runs the detectors over what all probes have seen.
//!
//! In: records of `windows`. Out: contacts to the member that has the detectors, records of `alerts`.
//! Cost: a record read, most of it the JSON; what detectors do not look at ends here.
//! Invariants: it keeps nothing from turn to turn, so an offset can be committed as soon as what came of it
//! is confirmed; a clock that is ahead counts as now, and a window that began later than its record was
//! sent, by more than the hold, is left out; both are counted.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Plan;
use crate::record::Table;

use super::believed_ms;
use super::contact::{self, Contact, Contacts, Seen, Spaces, Unseen};
use super::counts::Counts;
use super::fleet::Fleet;
use super::lane::{Job, Part};
use super::message::Message;

/// Contacts of one message at most: some 60 kB.
const ROWS_MAX: usize = 500;

/// What it is for.
pub(super) static JOB: Job = Job {
    topic: Table::Windows.name(),
    between: "contacts",
    groups: ["-windows", "-detect"],
    counts: &["messages", "contacts", "taken", "alerts_opened", "windows", "records"],
    causes: &[
        "malformed",
        "other_domain",
        "other_length",
        "unknown_space",
        "late",
        "clock_ahead",
        "contacts_full",
        "probes_full",
        "alerts_full",
    ],
    part: |plan, first_offset| Box::new(Sifter::new(plan, first_offset)),
    reduce: |plan, start| Box::new(Fleet::new(plan, start)),
};

/// Records of one window and probe since the last turn.
struct Batch {
    sent_ms: i64,
    rows: Vec<Contact>,
}

/// One partition of the windows.
struct Sifter {
    plan: Arc<Plan>,
    hold_ms: i64,
    spaces: Spaces,
    batches: BTreeMap<(u64, String), Batch>,
    /// Of what is in them.
    first_offset: Option<i64>,
    next_offset: i64,
    /// Latest time of a message.
    clock_ms: i64,
    malformed: u64,
    other_domain: u64,
    other_length: u64,
    unknown_space: u64,
    contacts: u64,
    clock_ahead: u64,
}

impl Sifter {
    fn new(plan: &Arc<Plan>, first_offset: i64) -> Self {
        Self {
            plan: Arc::clone(plan),
            hold_ms: plan.correlate.hold_ms.into(),
            spaces: Spaces::default(),
            batches: BTreeMap::new(),
            first_offset: None,
            next_offset: first_offset,
            clock_ms: i64::MIN,
            malformed: 0,
            other_domain: 0,
            other_length: 0,
            unknown_space: 0,
            contacts: 0,
            clock_ahead: 0,
        }
    }

    fn take(&mut self, offset: i64, sent_ms: i64, seen: Seen) {
        if self.is_ahead(sent_ms, seen.window) {
            self.clock_ahead += 1;
            return;
        }
        self.first_offset.get_or_insert(offset);
        let batch = self
            .batches
            .entry((seen.window, seen.probe))
            .or_insert(Batch { sent_ms, rows: Vec::new() });
        batch.sent_ms = batch.sent_ms.min(sent_ms);
        self.contacts += u64::from(seen.contact.is_some());
        batch.rows.extend(seen.contact);
    }

    /// Whether packets had a time that was further ahead of that of their record than a window waits for
    /// others: with that window all between would be given out, before their records have come.
    fn is_ahead(&self, sent_ms: i64, window: u64) -> bool {
        let start_ms = window.saturating_mul(u64::from(self.plan.window.length_ms));
        i64::try_from(start_ms).unwrap_or(i64::MAX) > sent_ms.saturating_add(self.hold_ms)
    }
}

impl Part for Sifter {
    fn read(&mut self, offset: i64, (said_ms, now_ms): (i64, i64), value: &[u8]) {
        self.next_offset = offset + 1;
        let sent_ms = believed_ms(said_ms, now_ms, self.hold_ms);
        self.clock_ahead += u64::from(sent_ms < said_ms);
        self.clock_ms = self.clock_ms.max(sent_ms);
        match contact::read(&self.plan, &mut self.spaces, value) {
            Ok(seen) => self.take(offset, sent_ms, seen),
            Err(Unseen::Malformed) => self.malformed += 1,
            Err(Unseen::OtherDomain) => self.other_domain += 1,
            Err(Unseen::OtherLength) => self.other_length += 1,
            Err(Unseen::UnknownSpace) => self.unknown_space += 1,
        }
    }

    fn due(&mut self, _: Option<i64>, out: &mut dyn FnMut(i64, Message)) {
        let Some(first_offset) = self.first_offset.take() else { return };
        for ((window, probe), Batch { sent_ms, mut rows }) in std::mem::take(&mut self.batches) {
            // One at least, which says that the window was there.
            loop {
                let rest = rows.split_off(rows.len().min(ROWS_MAX));
                let probe = probe.clone();
                out(first_offset, Message::Contacts(Contacts { sent_ms, window, probe, rows }));
                if rest.is_empty() {
                    break;
                }
                rows = rest;
            }
        }
    }

    fn clock_ms(&self, ended_ms: Option<i64>) -> i64 {
        self.clock_ms.max(ended_ms.unwrap_or(i64::MIN))
    }

    fn next_offset(&self) -> i64 {
        self.next_offset
    }

    fn first_needed(&self) -> i64 {
        self.first_offset.unwrap_or(self.next_offset)
    }

    fn count(&self, counts: &mut Counts) {
        counts.add("malformed", self.malformed);
        counts.add("other_domain", self.other_domain);
        counts.add("other_length", self.other_length);
        counts.add("unknown_space", self.unknown_space);
        counts.add("contacts", self.contacts);
        counts.add("clock_ahead", self.clock_ahead);
    }
}

#[cfg(test)]
mod tests {
    use super::super::contact::tests::{plan, record};
    use super::*;
    use crate::record::{Origin, Record as _, WindowRecord};

    fn json(window: u64, port: u16) -> Vec<u8> {
        let second = 1_000_000_000;
        let record = WindowRecord {
            window_start_ns: window * second,
            window_end_ns: (window + 1) * second,
            destination_port: port,
            ..record()
        };
        serde_json::to_vec(&record.json(&Origin::new("p", "default"))).expect("JSON")
    }

    fn due(sifter: &mut Sifter) -> Vec<(i64, u64, usize)> {
        let mut all = Vec::new();
        sifter.due(None, &mut |offset, message| {
            let Message::Contacts(contacts) = message else { panic!("{message:?}") };
            all.push((offset, contacts.window, contacts.rows.len()));
        });
        all
    }

    #[test]
    fn what_is_read_is_handed_on_once_and_offsets_wait_for_it() {
        let mut sifter = Sifter::new(&Arc::new(plan()), 5);
        assert_eq!(sifter.first_needed(), 5);
        for port in 0..1_200 {
            sifter.read(10 + i64::from(port), (9_000, 9_000), &json(7, port));
        }
        sifter.read(1_210, (9_001, 9_001), &json(8, 1));
        sifter.read(1_211, (9_001, 9_001), b"{}");
        assert_eq!(sifter.first_needed(), 10);
        assert_eq!(due(&mut sifter), [(10, 7, 500), (10, 7, 500), (10, 7, 200), (10, 8, 1)]);
        assert_eq!((sifter.first_needed(), due(&mut sifter)), (1_212, Vec::new()));
        assert_eq!((sifter.contacts, sifter.malformed, sifter.clock_ms(None)), (1_201, 1, 9_001));
    }

    #[test]
    fn clocks_that_are_ahead_are_counted_and_move_nothing() {
        let mut sifter = Sifter::new(&Arc::new(plan()), 0);
        // An hour ahead: the message counts as sent a tenth of the hold from now.
        sifter.read(0, (3_609_000, 9_000), &json(7, 1));
        assert_eq!((sifter.clock_ms(None), sifter.clock_ahead), (10_500, 1));
        assert_eq!(due(&mut sifter), [(0, 7, 1)]);
        // Packets an hour ahead of their record.
        sifter.read(1, (9_000, 9_000), &json(3_607, 1));
        assert_eq!((due(&mut sifter), sifter.clock_ahead), (Vec::new(), 2));
    }
}
