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
use super::status::Rooms;

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
    /// As far as that is known.
    partitions: Option<usize>,
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
            partitions: None,
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
        let all = self.clocks.len() >= self.partitions?;
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

    fn set_partitions(&mut self, partitions: usize) {
        self.partitions = Some(partitions);
        self.settle();
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
        counts.add("alerts_opened", self.detectors.opened_alerts());
    }

    fn rooms(&self, rooms: &mut Rooms) {
        rooms.add("contacts", self.contacts, self.contacts_max);
        rooms.add("probes", self.probes.len(), PROBES_MAX);
        rooms.add("due_windows", self.due.len(), DUE_WINDOWS_MAX);
        rooms.add("due_alerts", self.due_alerts, DUE_ALERTS_MAX);
    }

    fn open_alerts(&self) -> u64 {
        self.detectors.open_alerts()
    }

    fn into_maker(self: Box<Self>) -> RecordMaker {
        self.maker
    }
}

#[cfg(test)]
mod tests;
