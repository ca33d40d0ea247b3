//! Detectors over what all probes have seen.
//!
//! In: contacts of the members, in the order of their topic. Out: records of `alerts`.
//! Cost: a look-up a contact; then as the detectors have it in a probe. [`CONTACT_BYTES`] at most for each
//! contact of windows that are not over, also while detectors look at them; room for as many as
//! `correlate.contacts_mib_max` has.
//! Invariants: a window is over when every partition was read up to the hold after the first of its records
//! was sent, so it makes no difference how long a member took, or whether another one did its work again: a
//! record that comes twice changes nothing. What two probes have seen of one conversation is one: of each
//! count the larger. Detectors see one window after the other, the empty one behind each too, as in a probe.
//! Who takes over begins early enough to know what goes on (at most `correlate.history_s`), and gives
//! nothing out before it has read what the one before has said it gave out, and none of that. What finds no
//! room, contacts or probes beyond [`PROBES_MAX`], is counted; those that are there go on.
//! Source: docs/correlate.md; each detector names its own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::aggregate::{Conversation, ConversationKey, Observers, WindowView};
use crate::config::Plan;
use crate::decode::Address;
use crate::detect::{Alert, Detectors};
use crate::index::WindowNumber;
use crate::inventory::{AddressSpace, Segment};
use crate::record::{RecordMaker, Rows};
use crate::time::{Timestamp, ms};

use super::believed_ms;
use super::contact::{Contact, ContactCounts, Contacts, Spaces};
use super::counts::Counts;
use super::lane::{Reduce, Start};
use super::message::Message;

/// What one contact takes at most: 256 in a tree whose nodes are half full, which allocators hardly give back
/// before it is gone; 280 as a conversation that detectors look at; 280 for the sums of a service that nobody
/// else asks for, in the detector of floods, in a table that has just grown.
const CONTACT_BYTES: usize = 816;
/// Probes whose records are told apart.
const PROBES_MAX: usize = 1 << 12;
/// Probes that an alert names; the rest together are "others".
const NAMED_MAX: usize = 63;
/// Windows that may wait to be given out, and their alerts; beyond it, no other window is over.
const DUE_WINDOWS_MAX: usize = 1 << 12;
const DUE_ALERTS_MAX: usize = 1 << 16;
/// Windows that are read again beside those in which what goes on began: baselines forget in so many.
const MARGIN_WINDOWS: u64 = 64;

/// Who contacts whom for what, as one probe has seen it in one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Mark {
    space: AddressSpace,
    source: Address,
    destination: Address,
    protocol: u8,
    ip_version: u8,
    port: u16,
    probe: u16,
    variant: u64,
}

impl Mark {
    /// The same without whose it is.
    const fn service(&self) -> (AddressSpace, Address, Address, u8, u8, u16) {
        let Self { space, source, destination, protocol, ip_version, port, .. } = *self;
        (space, source, destination, protocol, ip_version, port)
    }
}

#[derive(Clone, Copy)]
struct Sums {
    segment: Segment,
    counts: ContactCounts,
}

/// A window that is not over.
struct Window {
    /// When the first of its records was sent; of an empty one, when it would have been.
    first_ms: i64,
    is_empty: bool,
    contacts: BTreeMap<Mark, Sums>,
}

/// A window that detectors have seen.
struct Due {
    window: u64,
    end: Timestamp,
    alerts: Vec<Alert>,
}

/// What was left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct FleetCounts {
    taken: u64,
    late: u64,
    malformed: u64,
    clock_ahead: u64,
    contacts_full: u64,
    probes_full: u64,
}

/// All of one group.
pub(super) struct Fleet {
    plan: Arc<Plan>,
    hold_ms: i64,
    partitions: usize,
    length_ns: u64,
    detectors: Detectors,
    maker: RecordMaker,
    spaces: Spaces,
    probes: Vec<Arc<str>>,
    windows: BTreeMap<u64, Window>,
    contacts: usize,
    contacts_max: usize,
    due: VecDeque<Due>,
    due_alerts: usize,
    /// Detectors have seen all windows up to this one.
    over: Option<u64>,
    /// Up to when what was sent is here, by partition.
    clocks: BTreeMap<i32, i64>,
    /// Where the first message of each window is that may have to be read again.
    offsets: BTreeMap<u64, i64>,
    first_offset: i64,
    /// Another one was before: what is of a window before that of the first message is not whole.
    is_second: bool,
    least: Option<u64>,
    /// All that other members have said is read; nothing is given out before.
    is_caught_up: bool,
    /// Records of windows up to this one are out.
    emitted: Option<u64>,
    counts: FleetCounts,
}

impl Fleet {
    pub(super) fn new(plan: &Arc<Plan>, start: Start) -> Self {
        Self {
            hold_ms: plan.correlate.hold_ms.into(),
            partitions: start.partitions,
            length_ns: ms(plan.window.length_ms.into()),
            detectors: Detectors::new(&plan.detect),
            plan: Arc::clone(plan),
            maker: start.maker,
            spaces: Spaces::default(),
            probes: Vec::new(),
            windows: BTreeMap::new(),
            contacts: 0,
            contacts_max: contacts_max(plan.correlate.contacts_mib_max),
            due: VecDeque::new(),
            due_alerts: 0,
            over: None,
            clocks: BTreeMap::new(),
            offsets: BTreeMap::new(),
            first_offset: start.first.offset,
            is_second: start.first.is_committed,
            least: None,
            is_caught_up: false,
            emitted: None,
            counts: FleetCounts::default(),
        }
    }

    fn take(&mut self, offset: i64, contacts: &Contacts) {
        let number = contacts.window;
        let least = *self.least.get_or_insert(if self.is_second { number } else { 0 });
        if number < least {
            return;
        }
        if self.over.is_some_and(|over| number <= over) {
            self.counts.late += contacts.rows.len() as u64;
            return;
        }
        self.offsets.entry(number).or_insert(offset);
        let window = self.windows.entry(number).or_insert_with(|| Window::at(contacts.sent_ms));
        if window.is_empty {
            *window = Window::at(contacts.sent_ms);
        }
        window.first_ms = window.first_ms.min(contacts.sent_ms);
        let Some(probe) = self.probe(&contacts.probe) else {
            self.counts.probes_full += contacts.rows.len() as u64;
            return;
        };
        for contact in &contacts.rows {
            self.add(number, probe, contact);
        }
    }

    /// The number of a probe, if there is one for it.
    fn probe(&mut self, name: &str) -> Option<u16> {
        let known = self.probes.iter().position(|known| **known == *name);
        if known.is_none() {
            if self.probes.len() >= PROBES_MAX {
                return None;
            }
            self.probes.push(name.into());
        }
        u16::try_from(known.unwrap_or(self.probes.len() - 1)).ok()
    }

    fn add(&mut self, number: u64, probe: u16, contact: &Contact) {
        let Some((mark, sums)) = self.read_contact(probe, contact) else {
            self.counts.malformed += 1;
            return;
        };
        let Some(window) = self.windows.get_mut(&number) else { return };
        if let Some(known) = window.contacts.get_mut(&mark) {
            // It came twice.
            known.counts = known.counts.or_more(sums.counts);
        } else if self.contacts < self.contacts_max {
            window.contacts.insert(mark, sums);
            self.contacts += 1;
        } else {
            self.counts.contacts_full += 1;
            return;
        }
        self.counts.taken += 1;
    }

    fn read_contact(&mut self, probe: u16, contact: &Contact) -> Option<(Mark, Sums)> {
        let (source, ip_version) = Address::of_ip(contact.source);
        let (destination, _) = Address::of_ip(contact.destination);
        let mark = Mark {
            space: self.spaces.named(&self.plan, &contact.space)?,
            source,
            destination,
            protocol: contact.protocol,
            ip_version,
            port: contact.port,
            probe,
            variant: contact.variant,
        };
        let segment = Segment::parse(&contact.segment, &self.plan.domains)?;
        Some((mark, Sums { segment, counts: contact.counts }))
    }

    /// Up to when what was sent is here, of all partitions.
    fn read_ms(&self) -> Option<i64> {
        let all = self.clocks.len() >= self.partitions;
        self.clocks.values().min().copied().filter(|_| all)
    }

    /// Shows detectors the windows that are over.
    fn settle(&mut self) {
        let Some(read_ms) = self.read_ms() else { return };
        while let Some(number) = self.next_over(read_ms) {
            if self.due.len() >= DUE_WINDOWS_MAX || self.due_alerts >= DUE_ALERTS_MAX {
                return;
            }
            let Some(window) = self.windows.remove(&number) else { return };
            self.contacts -= window.contacts.len();
            self.over = Some(number);
            if !window.is_empty {
                // What is not answered in the window behind is a failure, whatever is in it.
                let first_ms = window.first_ms.saturating_add(self.plan.window.length_ms.into());
                let empty = || Window { is_empty: true, ..Window::at(first_ms) };
                self.windows.entry(number + 1).or_insert_with(empty);
            }
            let conversations = joined(window.contacts);
            let view = WindowView::of(WindowNumber(number), self.length_ns, conversations);
            let alerts = self.detectors.observe(&view, || {});
            self.due_alerts += alerts.len();
            self.due.push_back(Due { window: number, end: view.end, alerts });
            // The one before may have got further than this one has read.
            self.forget_emitted();
        }
    }

    /// The first window, if it is over: one that waits for nobody, or an empty one before such.
    fn next_over(&self, read_ms: i64) -> Option<u64> {
        let is_over = |window: &Window| window.first_ms.saturating_add(self.hold_ms) <= read_ms;
        let (&number, first) = self.windows.first_key_value()?;
        let next = self.windows.values().find(|window| !window.is_empty);
        let over = is_over(first) || first.is_empty && next.is_some_and(is_over);
        over.then_some(number)
    }

    fn forget_emitted(&mut self) {
        while self.due.front().is_some_and(|due| Some(due.window) <= self.emitted) {
            let due = self.due.pop_front();
            self.due_alerts -= due.map_or(0, |due| due.alerts.len());
        }
    }

    fn rows(&mut self, alerts: &[Alert]) -> Rows {
        self.maker.renew();
        let mut rows = self.maker.alerts(alerts);
        for (record, alert) in rows.alerts.iter_mut().zip(alerts) {
            record.seen_by_probes = Some(self.names(alert.finding.observers).into());
        }
        rows
    }

    /// A JSON list of the ids of probes.
    fn names(&self, observers: Observers) -> String {
        let named = self.probes.iter().take(NAMED_MAX).enumerate();
        let mut names: Vec<&str> = named
            .filter(|(place, _)| observers.0 >> place & 1 == 1)
            .map(|(_, name)| &**name)
            .collect();
        names.sort_unstable();
        names.extend((observers.0 >> NAMED_MAX & 1 == 1).then_some("others"));
        serde_json::json!(names).to_string()
    }

    /// The first window that who takes over must see to know what goes on now.
    fn first_window(&self, over: u64) -> u64 {
        let in_windows = |seconds: u32| ms(u64::from(seconds) * 1_000).div_ceil(self.length_ns);
        let margin = in_windows(self.plan.detect.port_scan.forget_s) + MARGIN_WINDOWS;
        let history = in_windows(self.plan.correlate.history_s).max(margin);
        let next = over + 1;
        let since = self.detectors.needed_since();
        let since = since.map_or(next, |since| WindowNumber::of(since, self.length_ns).0.min(next));
        since.saturating_sub(margin).max(next.saturating_sub(history))
    }
}

impl Window {
    fn at(first_ms: i64) -> Self {
        Self { first_ms, is_empty: false, contacts: BTreeMap::new() }
    }
}

/// So many contacts find room.
fn contacts_max(mib_max: u32) -> usize {
    usize::try_from((u64::from(mib_max) << 20) / CONTACT_BYTES as u64).unwrap_or(usize::MAX)
}

/// Contacts of all probes as conversations, in order: what is one conversation is one, with the sums of the
/// probe that has seen most of it, count by count. One at a time, so that memory of those before is given back.
fn joined(contacts: BTreeMap<Mark, Sums>) -> impl Iterator<Item = (ConversationKey, Conversation)> {
    let mut contacts = contacts.into_iter().peekable();
    std::iter::from_fn(move || {
        let (first, sums) = contacts.next()?;
        let mut one = Joined::first(first, sums);
        let is_same = |(mark, _): &(Mark, Sums)| mark.service() == first.service();
        while let Some((mark, sums)) = contacts.next_if(is_same) {
            one.add(mark.probe, sums);
        }
        Some(one.finish())
    })
}

/// One conversation, as the probes up to one have seen it.
struct Joined {
    mark: Mark,
    segment: Segment,
    /// Of each count the largest of the probes before.
    counts: ContactCounts,
    observers: Observers,
    /// Of the last probe, added up.
    probe: u16,
    sum: ContactCounts,
}

impl Joined {
    fn first(mark: Mark, Sums { segment, counts }: Sums) -> Self {
        let (probe, counts_before) = (mark.probe, ContactCounts::default());
        let observers = observer(probe);
        Self { mark, segment, counts: counts_before, observers, probe, sum: counts }
    }

    /// In the order of marks.
    fn add(&mut self, probe: u16, Sums { segment, counts }: Sums) {
        self.segment = self.segment.min(segment);
        if probe == self.probe {
            self.sum = self.sum.plus(counts);
            return;
        }
        self.counts = self.counts.or_more(self.sum);
        self.observers.add(observer(probe));
        (self.probe, self.sum) = (probe, counts);
    }

    fn finish(self) -> (ConversationKey, Conversation) {
        let counts = self.counts.or_more(self.sum);
        let key = ConversationKey {
            space: self.mark.space,
            source: self.mark.source,
            destination: self.mark.destination,
            protocol: self.mark.protocol,
            ip_version: self.mark.ip_version,
            destination_port: self.mark.port,
            segment: self.segment,
            ..ConversationKey::default()
        };
        let conversation = Conversation {
            contacts: counts.contacts,
            answered: counts.answered,
            refused: counts.refused,
            syns: counts.syns,
            established: counts.established,
            observers: self.observers,
            ..Conversation::default()
        };
        (key, conversation)
    }
}

/// A probe as one of those that are named, or of the others.
fn observer(probe: u16) -> Observers {
    Observers(1 << usize::from(probe).min(NAMED_MAX))
}

impl Reduce for Fleet {
    fn read(&mut self, offset: i64, value: &[u8], now_ms: i64) {
        match serde_json::from_slice(value) {
            Ok(Message::Contacts(contacts)) => self.take(offset, &contacts),
            Ok(Message::Clock { partition, sent_ms }) => {
                let believed_ms = believed_ms(sent_ms, now_ms, self.hold_ms);
                self.counts.clock_ahead += u64::from(believed_ms < sent_ms);
                let clock = self.clocks.entry(partition).or_insert(believed_ms);
                *clock = believed_ms.max(*clock);
                self.settle();
            }
            Ok(Message::Emitted { window }) => {
                self.emitted = self.emitted.max(Some(window));
                self.forget_emitted();
            }
            Ok(Message::Joined(_)) | Err(_) => self.counts.malformed += 1,
        }
    }

    fn caught_up(&mut self) {
        self.is_caught_up = true;
    }

    fn next_rows(&mut self) -> Option<(u64, Timestamp, Rows)> {
        if !self.is_caught_up {
            return None;
        }
        self.forget_emitted();
        let due = self.due.pop_front()?;
        self.due_alerts -= due.alerts.len();
        let rows = self.rows(&due.alerts);
        self.settle();
        Some((due.window, due.end, rows))
    }

    fn is_out(&mut self, window: u64) {
        self.emitted = self.emitted.max(Some(window));
    }

    fn first_needed(&mut self) -> i64 {
        // What goes on is known as of the last window that is over: all of them must be out.
        let Some(over) = self.over.filter(|over| Some(*over) <= self.emitted) else {
            return self.first_offset;
        };
        let wanted = self.first_window(over);
        // One whose first message stands before those of all later ones: who begins there can tell which
        // windows are not whole, by their numbers.
        let mut least = i64::MAX;
        let mut found = None;
        for (&window, &offset) in self.offsets.iter().rev() {
            if offset < least && window <= wanted {
                found = Some((window, offset));
                break;
            }
            least = least.min(offset);
        }
        if let Some((window, offset)) = found {
            self.offsets = self.offsets.split_off(&window);
            self.first_offset = offset;
        }
        self.first_offset
    }

    fn count(&self, counts: &mut Counts) {
        counts.add("taken", self.counts.taken);
        counts.add("late", self.counts.late);
        counts.add("malformed", self.counts.malformed);
        counts.add("clock_ahead", self.counts.clock_ahead);
        counts.add("contacts_full", self.counts.contacts_full);
        counts.add("probes_full", self.counts.probes_full);
        counts.add("alerts_full", self.detectors.crowded_out());
    }

    fn into_maker(self: Box<Self>) -> RecordMaker {
        self.maker
    }
}

#[cfg(test)]
mod tests {
    use super::super::contact::tests::plan;
    use super::super::reading::Begin;
    use super::*;
    use crate::inventory::InventoryCell;
    use crate::record::{AlertRecord, InventoryRows, Names};
    use crate::worker::PortNames;

    const WINDOWS: u64 = 700;
    const START_S: u64 = 1_700_000_000;
    const HOLD_MS: u32 = 1_000;

    fn short_plan() -> Arc<Plan> {
        let mut plan = plan();
        plan.correlate.hold_ms = HOLD_MS;
        plan.detect.port_scan.forget_s = 30;
        Arc::new(plan)
    }

    fn fleet(plan: &Arc<Plan>, first: Begin) -> Fleet {
        let names = Names::new(plan, PortNames::new(&[]));
        let inventory = InventoryCell::default();
        let maker = RecordMaker::new(names, Arc::clone(&inventory), InventoryRows::default());
        Fleet::new(plan, Start { inventory, maker, partitions: 2, first })
    }

    fn begin(offset: i64) -> Begin {
        Begin { offset, is_committed: offset > 0 }
    }

    fn refused(source: u8, port: u16) -> Contact {
        Contact {
            space: "default/none".to_owned(),
            segment: "default/none".to_owned(),
            source: [10, 0, 0, source].into(),
            destination: [10, 0, 0, 200].into(),
            protocol: 6,
            port,
            variant: 0,
            counts: ContactCounts { contacts: 1, refused: 1, syns: 1, ..ContactCounts::default() },
        }
    }

    fn sent_ms(window: u64) -> i64 {
        i64::try_from((START_S + window) * 1_000).expect("small")
    }

    fn message(probe: &str, window: u64, rows: Vec<Contact>) -> Message {
        let (sent_ms, window) = (sent_ms(window), START_S + window);
        Message::Contacts(Contacts { sent_ms, window, probe: probe.to_owned(), rows })
    }

    fn clock(partition: i32, sent_ms: i64) -> Message {
        Message::Clock { partition, sent_ms }
    }

    /// What each probe has seen of a window: of a scan from 100 to 160 its part, five ports in ten windows;
    /// of a flood in 300 its part; of what clients do all the same.
    fn seen(probe: u64, window: u64) -> Vec<Contact> {
        let client = Contact {
            counts: ContactCounts {
                contacts: 1,
                answered: 1,
                syns: 1,
                established: 1,
                ..ContactCounts::default()
            },
            ..refused(7, 443)
        };
        let mut rows = vec![client];
        if (100..160).contains(&window) && window % 3 == probe {
            rows.push(refused(9, u16::try_from(window).expect("small")));
        }
        if window == 300 {
            let place = u8::try_from(probe).expect("small") * 50;
            rows.extend((place..place + 45).map(|source| Contact {
                counts: ContactCounts { contacts: 1, syns: 1, ..ContactCounts::default() },
                ..refused(source, 80)
            }));
        }
        rows
    }

    const PROBES: [&str; 3] = ["a", "b", "c"];

    /// What members send; `again`: another one does each window once more.
    fn log(probes: &[usize], again: bool) -> Vec<Vec<u8>> {
        let mut log = Vec::new();
        for window in 0..WINDOWS {
            let of = |probe: &usize| {
                message(PROBES[*probe], window, seen(u64::try_from(*probe).expect("small"), window))
            };
            log.extend(probes.iter().map(of));
            if again {
                log.extend(probes.iter().map(of));
            }
            log.extend((0..2).map(|partition| clock(partition, sent_ms(window))));
        }
        log.extend((0..2).map(|partition| clock(partition, i64::MAX)));
        log.iter().map(|message| serde_json::to_vec(message).expect("JSON")).collect()
    }

    fn given(fleet: &mut Fleet) -> Vec<(u64, Vec<AlertRecord>)> {
        let mut all = Vec::new();
        while let Some((window, _, rows)) = fleet.next_rows() {
            fleet.is_out(window);
            all.push((window - START_S, rows.alerts));
        }
        all
    }

    fn whole(plan: &Arc<Plan>, log: &[Vec<u8>]) -> (Vec<(u64, Vec<AlertRecord>)>, Fleet) {
        let (mut fleet, mut all) = (fleet(plan, begin(0)), Vec::new());
        fleet.caught_up();
        for (offset, message) in (0..).zip(log) {
            fleet.read(offset, message, i64::MAX);
            all.extend(given(&mut fleet));
        }
        (all, fleet)
    }

    fn alerts(all: &[(u64, Vec<AlertRecord>)]) -> Vec<(u64, &str, &str, u64, &str)> {
        all.iter()
            .flat_map(|(window, alerts)| alerts.iter().map(|it| (*window, it)))
            .filter(|(_, it)| it.state != "updated")
            .map(|(window, it)| {
                let probes = it.seen_by_probes.as_deref().unwrap_or("none");
                (window, &*it.detector, it.state, it.event_count, probes)
            })
            .collect()
    }

    #[test]
    fn parts_that_are_nothing_alone_are_one_alert_together() {
        let plan = short_plan();
        let (all, fleet) = whole(&plan, &log(&[0, 1, 2], false));
        // Each window, and the empty one behind the last.
        assert_eq!(all.len() as u64, WINDOWS + 1);
        let every = r#"["a","b","c"]"#;
        let found = alerts(&all);
        assert_eq!(found.len(), 4, "{found:?}");
        assert_eq!((found[0].1, found[0].2, found[0].4), ("port_scan", "open", every));
        assert!((100..110).contains(&found[0].0), "{found:?}");
        assert_eq!((found[1].1, found[1].2, found[1].3), ("port_scan", "closed", 60));
        assert_eq!(found[2], (300, "syn_flood", "open", 135, every));
        assert_eq!((found[3].1, found[3].2), ("syn_flood", "closed"));
        assert_eq!((fleet.counts.late, fleet.counts.contacts_full), (0, 0));
        for alone in 0..3 {
            let (all, _) = whole(&plan, &log(&[alone], false));
            let found = alerts(&all);
            // A scan of which a third is seen is a scan still; a flood of a third is none.
            assert!(found.iter().all(|it| it.1 == "port_scan"), "{found:?}");
        }
    }

    #[test]
    fn what_comes_twice_counts_once() {
        let plan = short_plan();
        let (once, _) = whole(&plan, &log(&[0, 1, 2], false));
        let (twice, fleet) = whole(&plan, &log(&[0, 1, 2], true));
        assert_eq!(once, twice);
        assert_eq!(fleet.counts.late, 0);
    }

    #[test]
    fn what_two_probes_have_seen_of_one_conversation_is_one() {
        let flood = |sources: std::ops::Range<u8>| -> Vec<Contact> {
            let counts = ContactCounts { contacts: 1, syns: 1, ..ContactCounts::default() };
            sources.map(|source| Contact { counts, ..refused(source, 80) }).collect()
        };
        let plan = short_plan();
        for (parts, opened) in [
            // The same 60 attempts, seen by both.
            ([flood(0..60), flood(0..60)], 0),
            ([flood(0..60), flood(60..120)], 1),
        ] {
            let [one, other] = parts;
            let log = [
                message("a", 1, one),
                message("b", 1, other),
                clock(0, i64::MAX),
                clock(1, i64::MAX),
            ];
            let log: Vec<_> = log.iter().map(|it| serde_json::to_vec(it).expect("JSON")).collect();
            let (all, _) = whole(&plan, &log);
            let floods = alerts(&all).iter().filter(|it| it.1 == "syn_flood").count();
            assert_eq!(floods, opened);
        }
        // Two conversations of one probe are two; of each count the larger of both probes.
        let with = |variant, syns, established| {
            let counts = ContactCounts { syns, established, ..ContactCounts::default() };
            (variant, counts)
        };
        let mut all = BTreeMap::new();
        let mut fleet = fleet(&plan, begin(0));
        for (probe, (variant, counts)) in
            [(0, with(1, 3, 0)), (0, with(2, 4, 0)), (1, with(1, 5, 2)), (70, with(1, 0, 0))]
        {
            let contact = Contact { variant, counts, ..refused(1, 80) };
            let (mark, sums) = fleet.read_contact(probe, &contact).expect("known names");
            all.insert(mark, sums);
        }
        let [(_, sums)] = joined(all).collect::<Vec<_>>()[..] else { panic!("one conversation") };
        assert_eq!((sums.syns, sums.established), (7, 2));
        assert_eq!(sums.observers, Observers(1 | 1 << 1 | 1 << NAMED_MAX));
    }

    #[test]
    fn who_takes_over_goes_on_where_the_other_was() {
        let plan = short_plan();
        let log = log(&[0, 1, 2], false);
        let (whole, _) = whole(&plan, &log);
        for cut in [0, 5, 505, 520, 700, 1_503, 1_600, 3_400, log.len() - 1] {
            let (mut one, mut all) = (fleet(&plan, begin(0)), Vec::new());
            one.caught_up();
            for (offset, message) in (0..).zip(&log[..cut]) {
                one.read(offset, message, i64::MAX);
                all.extend(given(&mut one));
            }
            let mut log = log.clone();
            let said = Message::Emitted { window: START_S + all.last().map_or(0, |it| it.0) };
            log.insert(cut, serde_json::to_vec(&said).expect("JSON"));
            let first = one.first_needed();
            // An alert of 100 s and what detectors remember, five messages a window.
            assert!(cut < 3_000 || first > 2_000, "it is not all read again: {cut}: {first}");
            let mut two = fleet(&plan, begin(first));
            let skipped = usize::try_from(first).expect("it is not negative");
            for (offset, message) in log.iter().enumerate().skip(skipped) {
                two.read(i64::try_from(offset).expect("small"), message, i64::MAX);
                if offset == cut {
                    two.caught_up();
                }
                all.extend(given(&mut two));
            }
            let differs = all.iter().zip(&whole).find(|(one, other)| one != other);
            assert!(all == whole, "cut at {cut}: {differs:#?} {} {}", all.len(), whole.len());
        }
    }

    #[test]
    fn who_takes_over_reads_back_to_what_goes_on_and_no_further_than_told() {
        let scan = |history_s| {
            let mut plan = (*short_plan()).clone();
            plan.correlate.history_s = history_s;
            let mut fleet = fleet(&Arc::new(plan), begin(0));
            fleet.caught_up();
            let mut offset = 0;
            for window in 0..3_000 {
                let port = u16::try_from(window).expect("small");
                let scan = message("a", window, vec![refused(9, port)]);
                for message in [scan, clock(0, sent_ms(window)), clock(1, sent_ms(window))] {
                    fleet.read(offset, &serde_json::to_vec(&message).expect("JSON"), i64::MAX);
                    offset += 1;
                }
                given(&mut fleet);
                fleet.first_needed();
            }
            (fleet.first_needed() / 3, fleet.offsets.len())
        };
        // It began at once, and is still there.
        assert_eq!(scan(86_400).0, 0);
        let (first, kept) = scan(1_000);
        assert!((1_990..=2_000).contains(&first) && kept <= 1_010, "{first} {kept}");
    }

    /// Windows behind which the sinks are, with what says that the one before gave them out, before whoever
    /// takes over is there: it waits for clocks, or has no room.
    #[test]
    fn what_was_given_out_before_it_is_settled_is_not_given_out_again() {
        const MANY: u64 = DUE_WINDOWS_MAX as u64 + 300;
        let plan = short_plan();
        for (said_behind, first) in [(30, 31), (MANY - 10, MANY - 9)] {
            let mut fleet = fleet(&plan, begin(0));
            let mut offset = 0;
            let mut read = |fleet: &mut Fleet, message: Message| {
                fleet.read(offset, &serde_json::to_vec(&message).expect("JSON"), i64::MAX);
                offset += 1;
            };
            for window in 0..MANY {
                read(&mut fleet, message("a", window, seen(0, window)));
            }
            // All of them are over: as many as there is room for are settled.
            let is_early = said_behind < 100;
            for partition in (0..2).filter(|_| !is_early) {
                read(&mut fleet, clock(partition, i64::MAX));
            }
            read(&mut fleet, Message::Emitted { window: START_S + said_behind });
            for partition in 0..2 {
                read(&mut fleet, clock(partition, i64::MAX));
            }
            fleet.caught_up();
            let all = given(&mut fleet);
            let windows: Vec<_> = all.iter().map(|(window, _)| *window).collect();
            assert_eq!(windows, (first..=MANY).collect::<Vec<_>>());
            assert_eq!((fleet.due_alerts, fleet.contacts), (0, 0));
        }
    }

    /// Resident memory in bytes, and the most of it since that was asked for to be forgotten.
    fn resident_bytes() -> (usize, usize) {
        let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
        let of = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
            let kib = line.split_whitespace().next().and_then(|kib| kib.parse::<usize>().ok());
            kib.expect("a number") << 10
        };
        (of("VmRSS:"), of("VmHWM:"))
    }

    #[test]
    fn a_window_with_all_contacts_that_find_room_takes_no_more_than_configured() {
        const MIB_MAX: u32 = 160;
        const ROWS: u32 = 1_000;
        let mut plan = (*short_plan()).clone();
        plan.correlate.contacts_mib_max = MIB_MAX;
        let mut fleet = fleet(&Arc::new(plan), begin(0));
        fleet.caught_up();
        let places = u32::try_from(fleet.contacts_max).expect("few");
        // In order, so that nodes of the tree are as empty as can be; each another service.
        let contacts = |from: u32| {
            let contact = |number: u32| Contact {
                destination: std::net::Ipv4Addr::from(0x0a00_0000 + number).into(),
                counts: ContactCounts { syns: 1, ..ContactCounts::default() },
                ..refused(1, 80)
            };
            let rows = (from..from + ROWS).map(contact).collect();
            let (sent_ms, window) = (sent_ms(5), START_S + 5);
            Contacts { sent_ms, window, probe: "a".to_owned(), rows }
        };
        let (begun, _) = resident_bytes();
        std::fs::write("/proc/self/clear_refs", "5").expect("Linux");
        for from in (0..places + 5 * ROWS).step_by(ROWS as usize) {
            fleet.take(0, &contacts(from));
        }
        assert_eq!(fleet.contacts, fleet.contacts_max);
        assert!(fleet.counts.contacts_full >= u64::from(4 * ROWS), "{:?}", fleet.counts);
        fleet.clocks = BTreeMap::from([(0, i64::MAX), (1, i64::MAX)]);
        fleet.settle();
        assert_eq!((fleet.contacts, given(&mut fleet).len()), (0, 2));
        let (_, most) = resident_bytes();
        let (taken, budget) =
            (most.saturating_sub(begun), usize::try_from(MIB_MAX).expect("small") << 20);
        assert!((budget / 4..=budget).contains(&taken), "{taken} of {budget}");
    }

    #[test]
    fn windows_that_are_not_whole_are_left_out_by_who_takes_over() {
        let plan = short_plan();
        let mut fleet = fleet(&plan, begin(100));
        for (offset, window) in (100..).zip([50, 49, 51]) {
            fleet.take(
                offset,
                &match message("a", window, vec![refused(9, 1)]) {
                    Message::Contacts(contacts) => contacts,
                    other => panic!("{other:?}"),
                },
            );
        }
        let there: Vec<_> = fleet.windows.keys().map(|window| window - START_S).collect();
        assert_eq!((there, fleet.counts.late), (vec![50, 51], 0));
    }

    #[test]
    fn a_partition_that_nobody_reads_holds_the_windows_up() {
        let plan = short_plan();
        let mut fleet = fleet(&plan, begin(0));
        fleet.caught_up();
        for (offset, message) in (0..).zip(&log(&[0], false)) {
            if !String::from_utf8_lossy(message).contains("\"clock\":{\"partition\":1") {
                fleet.read(offset, message, i64::MAX);
            }
            assert!(fleet.next_rows().is_none());
        }
        let clock = serde_json::to_vec(&clock(1, i64::MAX)).expect("JSON");
        fleet.read(100_000, &clock, i64::MAX);
        assert_eq!(given(&mut fleet).len() as u64, WINDOWS + 1);
    }

    #[test]
    fn what_finds_no_room_or_comes_late_is_counted() {
        let plan = short_plan();
        let mut fleet = fleet(&plan, begin(0));
        fleet.caught_up();
        fleet.contacts_max = 10;
        let mut offset = 0;
        let mut read = |fleet: &mut Fleet, message: Message, now_ms| {
            fleet.read(offset, &serde_json::to_vec(&message).expect("JSON"), now_ms);
            offset += 1;
        };
        read(&mut fleet, message("a", 5, (0..15).map(|port| refused(9, port)).collect()), 0);
        assert_eq!((fleet.counts.taken, fleet.counts.contacts_full), (10, 5));
        for partition in 0..2 {
            read(&mut fleet, clock(partition, sent_ms(8)), i64::MAX);
        }
        assert_eq!(given(&mut fleet).len(), 2);
        assert_eq!(fleet.contacts, 0);
        read(&mut fleet, message("a", 5, vec![refused(9, 99)]), 0);
        assert_eq!(fleet.counts.late, 1);
        // The clock of a member that is an hour ahead.
        read(&mut fleet, clock(0, sent_ms(3_608)), sent_ms(8));
        assert_eq!((fleet.counts.clock_ahead, fleet.clocks[&0]), (1, sent_ms(8) + 100));
        for probe in 0..PROBES_MAX {
            read(&mut fleet, message(&format!("p{probe}"), 20, vec![refused(9, 1)]), 0);
        }
        assert_eq!((fleet.probes.len(), fleet.counts.probes_full), (PROBES_MAX, 1));
        read(&mut fleet, Message::Emitted { window: 0 }, 0);
        fleet.read(0, b"{", 0);
        assert_eq!(fleet.counts.malformed, 1);
    }
}
